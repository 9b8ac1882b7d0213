// The viewer as people use it, on two real storage nodes.

import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { after, afterEach, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { axe, openPage, startBrowser, troubleOf, watchFor, wheel } from './browser.mjs';
import { SPAN_MS_OF_TESTS, corpus } from './corpus.mjs';
import { startCluster } from './nodes.mjs';

const OUTPUT = fileURLToPath(new URL('../output/viewer/', import.meta.url));
const RECORDS = corpus(12_000, { spanMs: SPAN_MS_OF_TESTS });
const NEEDLE = 'needle_7f3a9c';
const XSS = [
  '<script>globalThis.hacked = 1</script>',
  '"><img src=x onerror="globalThis.hacked=1">',
  "javascript:globalThis.hacked=1//';alert(1)//",
  '<svg/onload=globalThis.hacked=1>{{constructor.constructor("globalThis.hacked=1")()}}${globalThis.hacked=1}',
];

let browser;
let cluster;
let page;

before(async () => {
  await mkdir(OUTPUT, { recursive: true });
  browser = await startBrowser();
  cluster = await startCluster();
  const needle = { ...RECORDS[6000], service: 'billing', message: `payment ${NEEDLE} declined\nsecond line` };
  await cluster.append([...RECORDS.slice(0, 6000), needle, ...RECORDS.slice(6000)]);
}, { timeout: 120_000 });

afterEach(async () => {
  if (!page) return;
  const trouble = await troubleOf(page);
  await page.close();
  page = null;
  assert.deepEqual(trouble, []);
});

after(async () => {
  await browser?.close();
  await cluster?.close();
});

const open = async (query = '', options = {}) => {
  page = await openPage(browser, `${cluster.url}/${query}`, options);
  return page;
};
const rows = () => page.locator('.list .row');
const stats = (text) => page.locator('#stats').filter({ hasText: text }).waitFor();
const shot = (name) => page.screenshot({ path: `${OUTPUT}${name}.png` });

test('the page is served with a policy that allows nothing inline', async () => {
  const response = await fetch(`${cluster.url}/`);
  assert.match(response.headers.get('content-type'), /^text\/html/);
  const policy = response.headers.get('content-security-policy') ?? '';
  assert.match(policy, /default-src 'none'/);
  assert.match(policy, /script-src 'self'/);
  assert.match(policy, /frame-ancestors 'none'/);
  assert.doesNotMatch(policy, /unsafe/);
  const module = await fetch(`${cluster.url}/viewer/app.js`);
  assert.match(module.headers.get('content-type'), /javascript/);
});

test('it loads the newest records, counts and the histogram', async () => {
  await open();
  await stats(/500 of 12,001 records/);
  await stats(/scanned .* ms/);
  assert.ok(await rows().count() > 20);
  const newest = RECORDS.at(-1);
  await rows().first().filter({ hasText: newest.service }).waitFor();
  assert.equal(await rows().first().locator('.cell-time').getAttribute('title'), `${new Date(newest.timestamp).toISOString()} (UTC)`);
  assert.match(await page.locator('.histogram-plot').getAttribute('aria-label'), /^Histogram: 12,001 records/);
  await page.locator('.histogram-plot canvas').waitFor();
  assert.deepEqual(await axe(page), []);
  await shot('overview-dark');
});

test('scrolling loads what is older, up to the oldest record', async () => {
  await open('?limit=1000&service=billing');
  const total = RECORDS.filter(({ service }) => service === 'billing').length + 1;
  await stats(new RegExp(`of ${total.toLocaleString('en-US')} records`));
  await page.keyboard.press('G');
  await stats(new RegExp(`^${total.toLocaleString('en-US')} records`));
  await page.keyboard.press('G');
  await page.locator('.list-end', { hasText: 'That is all' }).waitFor();
  const oldest = RECORDS.find(({ service }) => service === 'billing');
  // The rows that the key scrolls to are drawn when the browser tells the list that it was scrolled, a frame later.
  const last = page.locator(`.list .row[aria-rowindex="${total + 1}"]`);
  assert.equal(await last.locator('.cell-time').getAttribute('title'), `${new Date(oldest.timestamp).toISOString()} (UTC)`);
});

test('services and levels filter, and the counts are the records\'', async () => {
  await open();
  await stats(/records/);
  await page.click('#services');
  const count = RECORDS.filter(({ service }) => service === 'payments').length.toLocaleString('en-US');
  const option = page.locator('.services li', { hasText: 'payments' });
  await option.filter({ hasText: count }).waitFor();
  await option.getByRole('checkbox').check();
  await page.keyboard.press('Escape');
  await page.getByRole('button', { name: /^ERROR/ }).click();
  const errors = RECORDS.filter(({ service, level }) => service === 'payments' && level === 'ERROR').length;
  await stats(new RegExp(`^${errors} records`));
  assert.match(page.url(), /service=payments&level=ERROR/);
  assert.deepEqual(new Set(await page.locator('.list .cell-service').allTextContents()), new Set(['Service', 'payments']));
});

test('a text typed is found, marked, and can be turned round and taken back', async () => {
  await open();
  await stats(/records/);
  await page.keyboard.press('/');
  await page.keyboard.type(NEEDLE.toUpperCase());
  await page.locator('.query-hint', { hasText: `message contains ${NEEDLE.toUpperCase()} (any case)` }).waitFor();
  await page.keyboard.press('Enter');
  await stats(/^1 record /);
  assert.equal(await rows().locator('mark').textContent(), NEEDLE);
  assert.match(await rows().locator('.cell-message').textContent(), /declined⏎second line/);
  await page.locator('.chip-sign').click();
  await stats(/of 12,000 records/);
  await page.getByRole('button', { name: /^Remove the filter/ }).click();
  await stats(/of 12,001 records/);
});

test('words, regexes and labels filter in and out', async () => {
  const cases = [
    [`word:${NEEDLE}`, () => 1],
    ['word:needle', () => 0],
    ['/user=4\\d{4}\\b/', () => RECORDS.filter(({ message }) => /user=4\d{4}\b/.test(message)).length],
    ['-request_id', () => RECORDS.filter(({ message }) => !message.includes('request_id')).length + 1],
    ['region!=eu-west-1', () => [...RECORDS, RECORDS[6000]].filter(({ labels }) => labels.region !== 'eu-west-1').length],
    ['host=~auth-[01]', () => [...RECORDS, RECORDS[6000]].filter(({ labels }) => /^auth-[01]$/.test(labels.host)).length],
  ];
  for (const [text, expected] of cases) {
    await open('?limit=10000');
    await stats(/records/);
    await page.fill('#query', text);
    await page.press('#query', 'Enter');
    const wanted = expected();
    await page.locator('.chip').waitFor();
    await stats(new RegExp(`^${Math.min(wanted, 10_000).toLocaleString('en-US')} (of .* )?record`));
    await page.close();
  }
  page = null;
});

test('names and values of labels are offered while typing', async () => {
  await open();
  await page.focus('#query');
  await page.locator('#query-suggestions option[value="region="]').waitFor({ state: 'attached' });
  await page.fill('#query', 'region=');
  await page.locator('#query-suggestions option[value="region=eu-west-1"]').waitFor({ state: 'attached' });
});

test('a drag over the histogram zooms, back goes back', async () => {
  await open();
  await stats(/of 12,001 records/);
  const box = await page.locator('.u-over').boundingBox();
  await page.mouse.move(box.x + box.width * 0.3, box.y + 20);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.5, box.y + 25, { steps: 5 });
  await page.mouse.up();
  await page.waitForURL(/from=\d{4}-.*&to=\d{4}-/);
  const range = new URL(page.url()).searchParams;
  const [from, to] = ['from', 'to'].map((name) => Date.parse(range.get(name)));
  assert.ok(to - from > 500_000 && to - from < 900_000, `${to - from}`);
  const inside = [...RECORDS, RECORDS[6000]].filter(({ timestamp }) => timestamp >= from && timestamp < to).length;
  await stats(new RegExp(`of ${inside.toLocaleString('en-US')} records`));
  await page.getByRole('button', { name: 'Zoom out (z)' }).click();
  await page.waitForURL((url) => url.searchParams.get('from') !== range.get('from'));
  await page.goBack();
  await stats(new RegExp(`of ${inside.toLocaleString('en-US')} records`));
  await page.goBack();
  await stats(/of 12,001 records/);
});

test('an absolute range is typed, and a wrong one is refused with its reason', async () => {
  await open();
  await page.click('#range');
  await page.getByRole('textbox', { name: 'From' }).fill('yesterday');
  await page.getByRole('button', { name: 'Apply' }).click();
  await page.getByRole('alert').filter({ hasText: '“yesterday” is no time' }).waitFor();
  const middle = RECORDS[3000].timestamp;
  await page.getByRole('textbox', { name: 'From' }).fill(new Date(middle).toISOString());
  await page.getByRole('textbox', { name: 'To' }).fill(String(middle + 60_000));
  await page.getByRole('button', { name: 'Apply' }).click();
  const inside = RECORDS.filter(({ timestamp }) => timestamp >= middle && timestamp < middle + 60_000).length;
  await stats(new RegExp(`^${inside} records`));
});

test('a record expands to all its fields, which filter, and to its JSON, which folds', async () => {
  await open(`?contains=${NEEDLE}`);
  await stats(/^1 record /);
  await rows().first().click();
  const detail = page.locator('.detail');
  await detail.locator('.field', { hasText: 'label.region' }).waitFor();
  assert.match(await detail.locator('.field-message').innerText(), /declined\nsecond line/);
  assert.deepEqual(await axe(page), []);
  await page.getByRole('tab', { name: 'JSON' }).click();
  await detail.locator('.json-key', { hasText: '"labels"' }).waitFor();
  await page.getByRole('button', { name: /^Fold labels/ }).click();
  await detail.locator('.json-count', { hasText: '3 fields' }).waitFor();
  await page.getByRole('tab', { name: 'Fields' }).click();
  await detail.getByRole('button', { name: 'Only records with this label.region' }).click();
  await page.waitForURL(/label\.region=/);
  await stats(/^1 record /);
  await rows().first().click();
  await detail.getByRole('button', { name: 'Leave out records with this label.region' }).click();
  await page.getByRole('heading', { name: 'No record passes' }).waitFor();
});

test('what is copied and saved is what is stored', async () => {
  await open(`?contains=${NEEDLE}`);
  await stats(/^1 record /);
  const stored = await (await fetch(`${cluster.url}/v1/search?contains=${NEEDLE}`)).text();
  const copied = await watchFor(page, '.toast.is-shown', 'Copied 1 record as NDJSON');
  await page.getByRole('button', { name: 'Copy', exact: true }).click();
  await copied();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), stored);
  const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Download' }).click()]);
  assert.match(file.suggestedFilename(), /^edgelog-records-.*\.ndjson$/);
  assert.equal(await readFile(await file.path(), 'utf8'), stored);
  const copiedQuery = await watchFor(page, '.toast.is-shown', 'Copied a curl command');
  await page.getByRole('button', { name: 'curl' }).click();
  await copiedQuery();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), `curl '${cluster.url}/v1/search?contains=${NEEDLE}&from=-1h&limit=500'`);
});

test('a link shows the record among its neighbours, and a filter leads out', async () => {
  await open(`?contains=${NEEDLE}`);
  await stats(/^1 record /);
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  const copied = await watchFor(page, '.toast.is-shown', 'Copied a link to the record');
  await page.getByRole('button', { name: 'Link' }).click();
  await copied();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  await page.close();
  page = await openPage(browser, link);
  const dialog = page.getByRole('dialog', { name: /^Context/ });
  await dialog.locator('.is-centre', { hasText: NEEDLE }).waitFor();
  await dialog.locator('.dialog-foot', { hasText: '21 records' }).waitFor();
  await dialog.getByLabel('Records on each side').selectOption('25');
  await dialog.locator('.dialog-foot', { hasText: '51 records' }).waitFor();
  await dialog.getByRole('checkbox', { name: 'same service' }).check();
  await page.waitForFunction(() => new Set([...document.querySelectorAll('.context .cell-service')].map((cell) => cell.textContent)).size === 1);
  assert.deepEqual(await axe(page), []);
  await shot('context');
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'detached' });
  assert.doesNotMatch(page.url(), /at=/);
});

test('the tail follows while records are stored, and stands still while one reads', async () => {
  await open('?limit=100');
  await stats(/records/);
  await page.keyboard.press('t');
  await stats(/^Live · 100 records received/);
  let sent = 0;
  const fresh = (count) => corpus(count, { seed: 100 + sent, spanMs: 10 }).map((record) => ({ ...record, message: `live ${sent++}` }));
  for (let round = 0; round < 5; round += 1) await cluster.append(fresh(20));
  await stats(/^Live · 200 records received/);
  await rows().filter({ hasText: /live \d/ }).first().waitFor();
  // Received is not yet shown.
  await page.locator('.list .grid[aria-rowcount="201"]').waitFor();
  await wheel(page, 700);
  await stats(/^Live, paused/);
  const before = await rows().allTextContents();
  await cluster.append(fresh(30));
  const pill = page.locator('.pill', { hasText: '30 new' });
  await pill.waitFor();
  assert.deepEqual(await rows().allTextContents(), before);
  assert.deepEqual(await axe(page), []);
  await shot('tail');
  await pill.click();
  await stats(/^Live · 230 records received/);
  await page.locator('.list .row', { hasText: /live 1[0-7]\d|live 12\d/ }).first().waitFor();
  await page.keyboard.press('t');
  await stats(/scanned/);
  assert.doesNotMatch(page.url(), /tail/);
});

test('the keyboard alone gets everywhere', async () => {
  await open();
  await stats(/records/);
  for (const key of ['j', 'j', 'j', 'k']) await page.keyboard.press(key);
  assert.equal(await page.locator('[aria-selected="true"][role="row"]').getAttribute('aria-rowindex'), '3');
  await page.keyboard.press('Enter');
  await page.locator('.detail').waitFor();
  await page.keyboard.press('c');
  const around = page.getByRole('dialog', { name: /^Context/ });
  await around.waitFor();
  await page.keyboard.press('Escape');
  // A key that is pressed while the dialog closes is the dialog's.
  await around.waitFor({ state: 'detached' });
  await page.keyboard.press('Escape');
  await page.locator('.detail').waitFor({ state: 'detached' });
  await page.keyboard.press('w');
  await page.waitForURL(/wrap=1/);
  await page.keyboard.press('?');
  const help = page.getByRole('dialog', { name: 'Keys and queries' });
  await help.waitFor();
  assert.deepEqual(await axe(page), []);
  await page.keyboard.press('Escape');
  await help.waitFor({ state: 'detached' });
  await page.keyboard.press('/');
  await page.keyboard.type('jkt?');
  assert.equal(await page.inputValue('#query'), 'jkt?');
  await page.keyboard.press('Escape');
  await page.keyboard.press('j');
  assert.equal(await page.inputValue('#query'), 'jkt?');
});

test('a hostile record is text in every place it is shown', async () => {
  const now = Date.now();
  await cluster.append(XSS.map((text, index) => ({
    timestamp: now + index, service: text, level: text, message: `${text} \u202e${text}`, labels: { [text]: text, plain: text, json: `{"${index}":${JSON.stringify(text)}}` },
    received_at: now, ingested_node_id: text, client_ip: text,
  })));
  await open('?from=-5m&to=');
  for (const text of XSS) {
    await page.goto(`${cluster.url}/?${new URLSearchParams({ service: text, level: text.toUpperCase(), contains: text, 'label.plain': text })}`);
    await stats(/^1 record /);
    await rows().first().click();
    await page.locator('.field', { hasText: 'client_ip' }).filter({ hasText: text }).waitFor();
    await page.getByRole('tab', { name: 'JSON' }).click();
    await page.locator('.json-string').first().waitFor();
    await page.keyboard.press('c');
    await page.getByRole('dialog').waitFor();
    await page.keyboard.press('Escape');
    await page.click('#services');
    await page.locator('.services .option', { hasText: text }).waitFor();
    await page.fill('#query', text);
    await page.locator('.query-hint', { hasText: text.slice(1, 20) }).waitFor();
  }
  await page.goto(`${cluster.url}/?tail=1&service=${encodeURIComponent(XSS[0])}`);
  await stats(/^Live · 1 record received/);
  assert.equal(await page.evaluate(() => globalThis.hacked), undefined);
  assert.equal(await page.locator('#app img, #app script, #app [onload], #app [onerror]').count(), 0);
});

test('the theme is the system\'s until one is chosen, and is kept', async () => {
  await open('', { colorScheme: 'light' });
  await stats(/records/);
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await background();
  assert.deepEqual(await axe(page), []);
  await shot('overview-light');
  await page.click('#theme');
  assert.notEqual(await background(), light);
  const dark = await background();
  await page.reload();
  await stats(/records/);
  assert.equal(await background(), dark);
  await page.evaluate(() => localStorage.removeItem('edgelog.theme'));
});

test('it is usable at a width of 400 px', async () => {
  await open('', { width: 400, height: 800 });
  await stats(/records/);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 400);
  await rows().nth(1).click();
  await page.locator('.field-message').waitFor();
  assert.equal(await page.evaluate(() => document.querySelector('.list').scrollWidth <= document.querySelector('.list').clientWidth), true);
  assert.deepEqual(await axe(page), []);
  await shot('narrow');
  await page.click('#range');
  const panel = await page.locator('.panel').boundingBox();
  assert.ok(panel.x >= 0 && panel.x + panel.width <= 400);
  await page.getByRole('button', { name: 'Last 5 minutes' }).click();
  await page.waitForURL(/from=-5m/);
});

test('a node refuses a wrong regex, and the page says which filter and why', async () => {
  await open('?regex=a(b&level=ERROR');
  const alert = page.getByRole('alert');
  await alert.filter({ hasText: 'regex' }).waitFor();
  await page.locator('.chip.is-invalid', { hasText: 'a(b' }).waitFor();
  assert.deepEqual(await axe(page), []);
});

test('a lost node makes the answer partial, and the page names it', async () => {
  await cluster.second.stop();
  await open();
  const notice = page.locator('.notice.is-partial', { hasText: 'Partial.' });
  await notice.first().waitFor();
  assert.match(await notice.first().textContent(), new RegExp(cluster.second.url.replace('http://', '')));
  // The services, which are partial too, may come before the records.
  await rows().nth(20).waitFor();
  assert.deepEqual(await axe(page), []);
  await shot('lost-node');
});
