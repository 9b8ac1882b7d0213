// What a real node cannot be made to do at will: a hundred thousand rows, every kind of error, gaps in the tail.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { after, afterEach, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { axe, listAtRest, openPage, startBrowser, troubleOf, watchFor, wheel } from './browser.mjs';
import { SPAN_MS_OF_TESTS, corpus } from './corpus.mjs';
import { MockNode } from './mock.mjs';

const OUTPUT = fileURLToPath(new URL('../output/viewer/', import.meta.url));
const RECORDS = corpus(100_500, { spanMs: SPAN_MS_OF_TESTS });
let browser;
let node;
let page;

before(async () => {
  await mkdir(OUTPUT, { recursive: true });
  browser = await startBrowser();
  node = await new MockNode(RECORDS).listen();
});

afterEach(async () => {
  node.faults = {};
  if (!page) return;
  const trouble = await troubleOf(page);
  await page.close();
  page = null;
  assert.deepEqual(trouble, []);
});

after(async () => {
  await browser?.close();
  await node?.close();
});

const open = async (query = '', options = {}) => {
  page = await openPage(browser, `${node.url}/${query}`, options);
  return page;
};
const rows = () => page.locator('.list .row');
const stats = (text) => page.locator('#stats').filter({ hasText: text }).waitFor();
const shot = (name) => page.screenshot({ path: `${OUTPUT}${name}.png` });
const promise = () => {
  let keep;
  return { kept: new Promise((resolve) => { keep = resolve; }), keep };
};
const problem = (status, detail, field) => ({ status, problem: { title: 'The title', status, detail, field } });

test('a hundred thousand rows scroll smoothly, wrapped or not', async () => {
  await open('?limit=10000&from=0');
  await stats(/^10,000 of 100,500 records/);
  const list = page.locator('.list');
  for (let loaded = 10_000; loaded < 100_000; ) {
    await page.keyboard.press('G');
    await page.waitForFunction((before) => Number(document.getElementById('stats').textContent.split(' ')[0].replaceAll(',', '')) > before, loaded);
    loaded = await page.evaluate(() => Number(document.getElementById('stats').textContent.split(' ')[0].replaceAll(',', '')));
  }
  await page.keyboard.press('G');
  await page.locator('.list-end', { hasText: '100,000 records are loaded' }).waitFor();
  const devtools = await browser.context.newCDPSession(page);
  // What the thread works, not how long that takes: others may be at work too.
  await devtools.send('Performance.enable', { timeDomain: 'threadTicks' });
  const workMs = async () => {
    const { metrics } = await devtools.send('Performance.getMetrics');
    const seconds = ['ScriptDuration', 'LayoutDuration', 'RecalcStyleDuration'].map((name) => metrics.find((metric) => metric.name === name).value);
    return 1000 * seconds.reduce((sum, value) => sum + value, 0);
  };
  for (const wrap of [false, true]) {
    if (wrap) await page.keyboard.press('w');
    const before = await workMs();
    const { frames, blank } = await list.evaluate(scrollHard);
    const perFrame = (await workMs() - before) / frames;
    // Two thirds of a screen a frame is a wheel spun hard. Work is a few ms; the bound leaves room for busy machines.
    assert.ok(perFrame < 50, `${perFrame.toFixed(1)} ms of work a frame${wrap ? ', wrapped' : ''}`);
    assert.equal(blank, 0, 'rows were blank');
    assert.ok(await page.locator('.block').count() < 150);
  }
  await page.keyboard.press('g');
  await rows().first().filter({ hasText: RECORDS.at(-1).service }).waitFor();
});

/** Scrolls fast from several places of the list; counts frames in which its middle was empty. */
async function scrollHard(list) {
  const nextFrame = () => new Promise((resolve) => { requestAnimationFrame(resolve); });
  const frames = 150;
  let blank = 0;
  for (let step = 0; step < frames; step += 1) {
    if (step % 30 === 0) list.scrollTop = list.scrollHeight * ((step * 7) % frames) / frames;
    else list.scrollTop += 400;
    await nextFrame();
    const box = list.getBoundingClientRect();
    const middle = document.elementFromPoint(box.left + 200, box.top + box.height / 2);
    if (!middle?.closest('.block, .list-end')) blank += 1;
  }
  return { frames, blank };
}

test('what one reads stays where it is when a record above folds or is measured', async () => {
  // Stack traces: their lines cannot be told from their length, so estimates are wrong.
  await open('?limit=500&wrap=1&word=panic');
  await stats(/^500 of/);
  const list = page.locator('.list');
  await list.evaluate((element) => { element.scrollTop = 7000; });
  await listAtRest(page);
  const watch = () => page.evaluate(() => {
    const box = document.querySelector('.list').getBoundingClientRect();
    const block = document.elementFromPoint(box.left + 100, box.top + box.height / 2).closest('.block');
    return { key: block.dataset.key, top: Math.round(block.getBoundingClientRect().top) };
  });
  const before = await watch();
  // Rows above come into the page and are measured as one scrolls up a little and back.
  await list.evaluate(async (element) => {
    for (const by of [-300, -300, -300, -300, 300, 300, 300, 300]) {
      element.scrollTop += by;
      await new Promise((resolve) => { requestAnimationFrame(() => requestAnimationFrame(resolve)); });
    }
  });
  assert.deepEqual(await watch(), before);
});

test('each way to fail is named with its cause', async () => {
  const cases = [
    [problem(400, '`regex`: unclosed group at 4', 'regex'), [/unclosed group at 4/, /refuses the parameter regex/]],
    [problem(503, 'the node is not ready: partition 2 is being repaired'), [/partition 2 is being repaired/]],
    [{ status: 502 }, [/The node answers 502/]],
    [{ breakAfter: 20 }, [/The answer broke off/, /connection to the node was lost midway/]],
  ];
  for (const [fault, texts] of cases) {
    node.faults = { search: fault };
    await open(fault.breakAfter ? '' : '?regex=a(b');
    for (const text of texts) await page.getByRole('alert').filter({ hasText: text }).first().waitFor();
    assert.deepEqual(await axe(page), []);
    node.faults = {};
    await page.goto(`${node.url}/?contains=invoice`);
    await stats(/records/);
    await page.close();
  }
  page = null;
});

test('an answer that breaks off midway leaves the rows that came, and a retry mends it', async () => {
  // What the page has not read when the connection breaks is lost to it.
  const rowsCame = promise();
  node.faults = { search: { breakAfter: 20_000, until: rowsCame.kept } };
  await open();
  await rows().nth(10).waitFor();
  rowsCame.keep();
  await page.locator('.notice.is-error', { hasText: 'The answer broke off' }).waitFor();
  assert.ok(await rows().count() > 10);
  node.faults = {};
  await page.getByRole('button', { name: 'Try again' }).click();
  await stats(/^500 of/);
  assert.equal(await page.locator('.notice').count(), 0);
});

test('a network that is down is named, and the page recovers', async () => {
  await open();
  await stats(/^500 of/);
  await browser.context.setOffline(true);
  await page.keyboard.press('r');
  await page.getByRole('alert').filter({ hasText: 'The storage node cannot be reached' }).first().waitFor();
  await shot('network-down');
  await browser.context.setOffline(false);
  await page.getByRole('button', { name: 'Try again' }).click();
  await stats(/^500 of/);
});

test('the next page that fails is asked for again on demand', async () => {
  await open();
  await stats(/^500 of/);
  node.faults = { search: problem(503, 'too busy') };
  await page.keyboard.press('G');
  await page.locator('.list-end', { hasText: 'too busy' }).waitFor();
  node.faults = {};
  await page.locator('.list-end').getByRole('button', { name: 'Try again' }).click();
  await stats(/^1,500 of/);
});

test('a histogram or service list that fails does not take the records with it', async () => {
  node.faults = { histogram: problem(503, 'too many buckets'), services: problem(500, 'no services') };
  await open();
  await stats(/^500 records/);
  await page.locator('.histogram-error', { hasText: 'too many buckets' }).waitFor();
  await page.click('#services');
  await page.locator('.services', { hasText: 'no services' }).waitFor();
});

test('partial answers name what they lack', async () => {
  node.faults = { search: { partial: 'node http://10.0.0.2:8082 does not answer' }, histogram: { partial: 'budget of 1 GB' } };
  await open();
  await page.locator('.notice.is-partial', { hasText: 'node http://10.0.0.2:8082 does not answer' }).waitFor();
  await page.locator('.histogram-partial').waitFor();
  await stats(/^500 records/);
  assert.deepEqual(await axe(page), []);
});

test('an answer of a node that was long without its leader says how old it may be', async () => {
  node.faults = { search: { staleness: '9000' } };
  await open();
  await stats(/^500 of/);
  assert.equal(await page.locator('.notice').count(), 0);
  for (const [staleness, text] of [['42400', 'for 42 s'], ['unknown', 'since its start']]) {
    node.faults = { search: { staleness } };
    await open();
    await page.locator('.notice.is-partial', { hasText: text }).waitFor();
  }
  assert.deepEqual(await axe(page), []);
  node.faults = {};
  await page.click('.notice button');
  await page.locator('.notice').waitFor({ state: 'detached' });
});

test('while the next answer is awaited the old rows stay and say so', async () => {
  await open();
  await stats(/^500 of/);
  const looked = promise();
  node.faults = { search: { until: looked.kept } };
  await page.keyboard.press('r');
  await page.locator('.list.is-stale').waitFor();
  await stats(/^Searching…/);
  assert.ok(await rows().count() > 20);
  looked.keep();
  await stats(/^500 of/);
});

test('what was counted for one question is not told of the next', async () => {
  await open();
  await stats(/^500 of 100,500/);
  const looked = promise();
  node.faults = { histogram: { until: looked.kept } };
  await page.fill('#query', 'invoice');
  await page.press('#query', 'Enter');
  await stats(/^500 records/);
  looked.keep();
  await stats(/^500 of /);
});

test('a gap in the tail is marked where it is', async () => {
  await open('?tail=1&limit=100');
  await stats(/^Live · 100 records/);
  for (const tail of node.tails) tail.gap(17);
  node.append(corpus(5, { seed: 5, spanMs: 5 }));
  // The gap may be shown before the records that come after it.
  await page.locator('.block').nth(5).locator('.gap', { hasText: '17 records missing here' }).waitFor();
  assert.deepEqual(await axe(page), []);
});

test('more than a page can hold while paused is counted, not kept', async () => {
  await open('?tail=1&limit=100');
  await stats(/^Live · 100 records/);
  await rows().nth(3).click();
  await stats(/paused/);
  node.append(corpus(6000, { seed: 6, spanMs: 1000 }));
  const pill = page.locator('.pill', { hasText: '6,000 new' });
  await pill.waitFor();
  await pill.click();
  await page.locator('.list').evaluate((element) => { element.scrollTop = 5000 * 22 - 200; });
  await page.locator('.gap', { hasText: '1,000 records missing here: they came while the tail was paused' }).waitFor();
});

test('a tail of a node that lost touch with the others says so until it is back', async () => {
  await open('?tail=1&limit=100');
  const notice = page.locator('.notice.is-partial', { hasText: 'has lost touch with the others' });
  assert.equal(await notice.count(), 0);
  for (const tail of node.tails) tail.stale('2300');
  await notice.waitFor();
  assert.deepEqual(await axe(page), []);
  for (const tail of node.tails) tail.stale(null);
  await notice.waitFor({ state: 'detached' });
});

test('a tail whose connection breaks says so and goes on where it was', async () => {
  await open('?tail=1&limit=100');
  await stats(/^Live · 100 records/);
  const told = await watchFor(page, '[role="alert"]', 'The live tail was closed by the node');
  for (const tail of [...node.tails]) tail.end();
  await told();
  node.append(corpus(3, { seed: 8, spanMs: 3 }));
  await stats(/^Live · 103 records/);
  assert.equal(await page.getByRole('alert').count(), 0);
});

test('auto-refresh shows what is new, but not to who reads on below', async () => {
  await open('?refresh=1&limit=100');
  await stats(/^100 of/);
  const latest = { ...RECORDS.at(-1), timestamp: Date.now(), message: 'brand new' };
  node.append([latest]);
  await rows().filter({ hasText: 'brand new' }).waitFor();
  await wheel(page, 400);
  // A search that began at the top may still be on its way. The next page may be there.
  await stats(/ of /);
  const before = await rows().allTextContents();
  node.append([{ ...latest, timestamp: Date.now(), message: 'newer still' }]);
  const asked = [];
  page.on('request', (request) => { if (!request.url().includes('cursor=')) asked.push(request.url()); });
  // By the page's own clock: the refresh of every second was due in this time, at least once.
  await page.evaluate(() => new Promise((resolve) => { setTimeout(resolve, 1500); }));
  assert.deepEqual(asked, []);
  assert.deepEqual(await rows().allTextContents(), before);
  await page.keyboard.press('g');
  await rows().filter({ hasText: 'newer still' }).waitFor();
});

test('an empty store says how to fill it, an empty range where the records are', async () => {
  const empty = await new MockNode([]).listen();
  page = await openPage(browser, empty.url);
  await page.getByRole('heading', { name: 'Nothing is stored yet' }).waitFor();
  assert.deepEqual(await axe(page), []);
  empty.append(corpus(50, { end: Date.UTC(2024, 0, 1), spanMs: 1000 }));
  await page.keyboard.press('r');
  await page.getByRole('heading', { name: 'Nothing in this range' }).waitFor();
  await page.getByRole('button', { name: 'Go to the newest records' }).click();
  await stats(/^50 records/);
  await page.close();
  page = null;
  await empty.close();
});

test('the clipboard of a plain http page is reached another way', async () => {
  await open('?limit=100');
  await stats(/^100 of/);
  await page.evaluate(() => { Object.defineProperty(navigator, 'clipboard', { value: undefined }); });
  const told = await watchFor(page, '.toast.is-shown', 'Copied the record');
  await page.keyboard.press('j');
  await page.keyboard.press('y');
  await told();
});

test('the bars of a moving range stand still while it is followed', async () => {
  const asked = [];
  await open('?refresh=1&limit=100');
  await stats(/^100 of/);
  page.on('request', (request) => { if (request.url().includes('/v1/histogram')) asked.push(new URL(request.url()).searchParams); });
  await page.waitForEvent('request', { predicate: () => asked.length >= 2 });
  const [first, second] = asked.map((params) => Number(params.get('from')));
  const step = Number.parseInt(asked[0].get('step'), 10);
  assert.equal(step, 30_000);
  assert.equal((second - first) % step, 0);
});
