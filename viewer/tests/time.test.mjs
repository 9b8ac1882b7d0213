import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ago, formatClock, formatIso, formatLocal, moveRange, parseTime, rangeLabel, toApiTime } from '../time.js';

const NOW = Date.UTC(2024, 4, 1, 12, 0, 0);

test('times that the API takes mean what they mean there', () => {
  assert.equal(parseTime('-15m', NOW), NOW - 900_000);
  assert.equal(parseTime('-250ms', NOW), NOW - 250);
  assert.equal(parseTime('now', NOW), NOW);
  assert.equal(parseTime('1714564800000', NOW), NOW);
  assert.equal(parseTime('2024-05-01T12:00:00Z', NOW), NOW);
  assert.equal(parseTime('2024-05-01T14:00:00.000+02:00', NOW), NOW);
  assert.equal(parseTime('2024-05-01T06:30:00-0530', NOW), NOW);
});

test('a time without a zone is local', () => {
  assert.equal(parseTime('2024-05-01 14:03:22.123', NOW), new Date(2024, 4, 1, 14, 3, 22, 123).getTime());
  assert.equal(parseTime('2024-05-01', NOW), new Date(2024, 4, 1).getTime());
  assert.equal(parseTime('2024-5-1 9:05', NOW), new Date(2024, 4, 1, 9, 5).getTime());
});

test('what is no time is none', () => {
  for (const text of ['', 'soon', '15m', '-15', '-1w', '2024-13-01', '2024-02-31', '2024-05-01 25:00', '2024-05-01 12:61', '1e9']) {
    assert.equal(parseTime(text, NOW), null, text);
  }
});

test('the API gets relative times as they are and local ones as RFC 3339', () => {
  assert.equal(toApiTime(' -1h ', NOW), '-1h');
  assert.equal(toApiTime('1714564800000', NOW), '1714564800000');
  assert.equal(toApiTime('2024-05-01 14:03', NOW), new Date(2024, 4, 1, 14, 3).toISOString());
  assert.equal(toApiTime('yesterday', NOW), null);
});

test('what is shown can be typed back', () => {
  for (const ms of [0, NOW, NOW + 1, NOW + 61_001, 951_782_400_000]) {
    assert.equal(parseTime(formatLocal(ms), NOW), ms);
    assert.equal(parseTime(formatIso(ms), NOW), ms);
  }
  assert.match(formatClock(NOW + 7), /^\d\d:\d\d:\d\d\.007$/);
});

test('a timestamp beyond what a Date holds is shown as a number', () => {
  assert.equal(formatIso(1e18), '1000000000000000000');
  assert.equal(formatClock(NaN), 'NaN');
});

test('ranges are named in words', () => {
  assert.equal(rangeLabel('-1h', '', NOW), 'Last hour');
  assert.equal(rangeLabel('-45m', '', NOW), 'Last 45m');
  assert.equal(rangeLabel('0', '', NOW), 'All time');
  const day = (hour) => new Date(2024, 4, 1, hour).toISOString();
  assert.equal(rangeLabel(day(9), day(10), NOW), '2024-05-01 09:00 – 10:00');
  assert.equal(rangeLabel(day(9), '', NOW), '2024-05-01 09:00 – now');
});

test('a range widens to twice its width and moves by half of it', () => {
  assert.deepEqual(moveRange({ from: 1000, to: 2000 }, 'out'), { from: 500, to: 2500 });
  assert.deepEqual(moveRange({ from: 1000, to: 2000 }, 'earlier'), { from: 500, to: 1500 });
  assert.deepEqual(moveRange({ from: 1000, to: 2000 }, 'later'), { from: 1500, to: 2500 });
  assert.equal(moveRange({ from: 10, to: 2000 }, 'out').from, 0);
});

test('ages are in the largest unit that fits', () => {
  assert.equal(ago(NOW - 1000, NOW), '1 second ago');
  assert.equal(ago(NOW - 3 * 86_400_000, NOW), '3 days ago');
  assert.equal(ago(NOW + 60_000, NOW), 'in the future');
});
