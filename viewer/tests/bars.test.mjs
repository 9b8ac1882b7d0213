import assert from 'node:assert/strict';
import { test } from 'node:test';
import { levelTotals, nextBegin, niceStep, snapped, stackOrder, stackedData, summary, tickLabel, widthOf } from '../bars.js';

const HISTOGRAM = { from: 1000, to: 1030, step: 10, levels: ['DEBUG', 'ERROR', ''], buckets: [[1, 2, 0], [0, 0, 0], [4, 0, 1]], total: 8 };

test('bars are stacked with the worst level at the bottom', () => {
  const order = stackOrder(HISTOGRAM);
  assert.deepEqual(order.map(({ level }) => level), ['ERROR', 'DEBUG', '']);
  // The top of the stack first: it is drawn first and the rest over it.
  assert.deepEqual(stackedData(HISTOGRAM, order), [[1000, 1010, 1020], [3, null, 5], [3, null, 4], [2, null, null]]);
});

test('totals and the summary count each level', () => {
  assert.deepEqual(levelTotals(HISTOGRAM).map(({ level, records }) => [level, records]), [['ERROR', 2], ['DEBUG', 5], ['', 1]]);
  assert.match(summary(HISTOGRAM), /^Histogram: 8 records from .* to .*: 2 ERROR, 5 DEBUG, 1 without a level$/);
});

test('a drag zooms to the whole buckets that it touches', () => {
  assert.deepEqual(snapped(HISTOGRAM, 1003, 1011), { from: 1000, to: 1020 });
  assert.deepEqual(snapped(HISTOGRAM, 1010, 1010), { from: 1010, to: 1020 });
  assert.deepEqual(snapped(HISTOGRAM, 900, 2000), { from: 1000, to: 1030 });
});

test('bars are as wide as people count', () => {
  assert.deepEqual([[3_600_000, 130], [900_000, 130], [86_400_000, 40], [10, 60], [400 * 86_400_000, 60]].map(([span, max]) => widthOf(niceStep(span, max))),
    ['30 s', '10 s', '1 h', '1 ms', '7 d']);
  for (const span of [1, 1000, 1e6, 1e9, 1e13]) assert.ok(span / niceStep(span, 60) <= 60);
});

test('the bars of a moving range stay where they are', () => {
  const before = { from: 1000, to: 2000, step: 100 };
  assert.equal(nextBegin(before, 0, 1000), 1000);
  assert.equal(nextBegin(before, 99, 1000), 1000);
  assert.equal(nextBegin(before, 250, 1000), 1200);
});

test('widths and ticks have the unit that fits', () => {
  assert.deepEqual([1, 500, 30_000, 300_000, 5_400_000].map(widthOf), ['1 ms', '500 ms', '30 s', '5 m', '1.5 h']);
  const noon = new Date(2024, 4, 1, 12).getTime();
  assert.equal(tickLabel(noon, 300_000, null), '12:00');
  assert.equal(tickLabel(noon, 5000, noon - 5000), '12:00:00');
  assert.equal(tickLabel(noon, 43_200_000, noon - 86_400_000), '05-01 12:00');
});
