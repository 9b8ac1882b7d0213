// Takes the two pictures of the README, from real nodes: `STORAGE_BIN=… node screenshots.mjs`.

import { fileURLToPath } from 'node:url';
import { openPage, startBrowser } from './browser.mjs';
import { corpus } from './corpus.mjs';
import { startCluster } from './nodes.mjs';

const DOCS = fileURLToPath(new URL('../../docs/', import.meta.url));
const RECORDS = corpus(100_000);
const cluster = await startCluster();
const browser = await startBrowser();

/** The time of a record so far into the corpus, as the page's address has it. */
const at = (share) => encodeURIComponent(new Date(RECORDS[Math.floor(share * RECORDS.length)].timestamp).toISOString());

async function picture(name, query, prepare) {
  const page = await openPage(browser, `${cluster.url}/?${query}`, { width: 1400, height: 800 });
  await page.locator('#stats', { hasText: 'of' }).waitFor();
  await page.locator('.histogram-plot canvas').waitFor();
  await prepare(page);
  await page.mouse.move(0, 0);
  // The pointer's leaving and the focus are animated.
  await page.waitForTimeout(400);
  await page.screenshot({ path: `${DOCS}${name}.png` });
  await page.close();
}

try {
  await cluster.append(RECORDS);
  // The incident of the corpus and what was before it.
  await picture('viewer-overview', `from=${at(0)}&to=${at(0.669)}`, async () => {});
  await picture('viewer-record', `icontains=timed+out&label.region!=ap-south-1&from=${at(0)}`, async (page) => {
    await page.locator('.list .row').nth(3).click();
    await page.locator('.field-message').waitFor();
  });
} finally {
  await browser.close();
  await cluster.close();
}
