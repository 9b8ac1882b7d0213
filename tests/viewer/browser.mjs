// A headless Chromium with a profile of its own, and pages that tell what went wrong in them.

import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

export async function startBrowser() {
  const profile = await mkdtemp(path.join(tmpdir(), 'edgelog-viewer-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: FLAGS,
    viewport: { width: 1400, height: 860 },
    colorScheme: 'dark',
    permissions: ['clipboard-read', 'clipboard-write'],
  });
  return {
    context,
    close: async () => {
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}

/**
 * A page whose console errors, uncaught errors, policy violations and dialogs are collected in `page.trouble`.
 * Answers with an error's status are what some tests are about and are left out.
 */
export async function openPage(browser, url, { width = 1400, height = 860, colorScheme = 'dark' } = {}) {
  const page = await browser.context.newPage();
  page.trouble = [];
  page.on('console', (message) => {
    if (message.type() === 'error' && !/Failed to load resource|net::ERR/.test(message.text())) page.trouble.push(message.text());
  });
  page.on('pageerror', (error) => page.trouble.push(String(error)));
  page.on('dialog', (dialog) => { page.trouble.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  await page.setViewportSize({ width, height });
  await page.emulateMedia({ colorScheme });
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => globalThis.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
  });
  await page.goto(url);
  return page;
}

/** Everything that went wrong in the page by now. */
export async function troubleOf(page) {
  return [...page.trouble, ...await page.evaluate(() => globalThis.violations)];
}

/**
 * Watches, from now on, for a text that may be in the page for a moment only. Await what it returns before doing what
 * brings the text, and call that to wait until the text was there.
 */
export async function watchFor(page, selector, text) {
  const seen = await page.evaluateHandle(([where, what]) => {
    const found = { once: false };
    const look = () => { found.once ||= [...document.querySelectorAll(where)].some((element) => element.textContent.includes(what)); };
    new MutationObserver(look).observe(document.body, { attributes: true, characterData: true, childList: true, subtree: true });
    return found;
  }, [selector, text]);
  return () => page.waitForFunction((found) => found.once, seen);
}

/** Turns the wheel over the list, and waits until the list stands still: the browser scrolls smoothly, over many frames. */
export async function wheel(page, by) {
  await page.locator('.list').hover();
  const scroll = await page.locator('.list').evaluateHandle((list) => {
    const state = { ended: false };
    list.addEventListener('scrollend', () => { state.ended = true; }, { once: true });
    return state;
  });
  await page.mouse.wheel(0, by);
  await page.waitForFunction((state) => state.ended, scroll);
}

/** Waits until the list has drawn and measured what is in sight: nothing of it differs from one frame to the next. */
export function listAtRest(page) {
  return page.locator('.list').evaluate(async (list) => {
    const drawn = () => [list.scrollTop, list.scrollHeight, ...[...list.querySelectorAll('.block')].map((block) => block.dataset.key)].join();
    const nextFrame = () => new Promise((resolve) => { requestAnimationFrame(resolve); });
    let before;
    // The first frame tells the list that it was scrolled, the second measures what it drew.
    for (let same = 0; same < 3; ) {
      await nextFrame();
      const now = drawn();
      same = now === before ? same + 1 : 0;
      before = now;
    }
  });
}

/** What axe-core finds, one line each. */
export async function axe(page) {
  // The page's policy forbids what playwright would inject: evaluate goes past it.
  const source = await (await import('node:fs/promises')).readFile(AXE, 'utf8');
  await page.evaluate(source);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  return violations.flatMap(({ id, impact, help, nodes }) => nodes.slice(0, 5).map((node) => `${id} (${impact}): ${help}: ${node.target} ${node.failureSummary?.split('\n')[1] ?? ''}`));
}
