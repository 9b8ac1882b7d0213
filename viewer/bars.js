// The histogram's numbers as uPlot draws them: stacked sums, colours' names, the words for a bucket. Pure.

import { levelOf, plural } from './text.js';
import { formatDay, formatLocal } from './time.js';

/**
 * @typedef {{from: number, to: number, step: number, levels: string[], buckets: number[][], total: number}} Histogram
 */

/**
 * The levels from the bottom of a bar to its top: the worst at the bottom, where bars are easiest to compare.
 * @param {Histogram} histogram
 */
export function stackOrder(histogram) {
  return histogram.levels
    .map((level, column) => ({ level, column, ...levelOf(level) }))
    .sort((a, b) => a.rank - b.rank || (a.level < b.level ? -1 : 1));
}

/** uPlot's data: the buckets' starts, then for each level from the top of the stack down the sum up to it. */
export function stackedData(histogram, order) {
  const starts = histogram.buckets.map((_, index) => histogram.from + index * histogram.step);
  const sums = histogram.buckets.map(() => 0);
  const series = order.map(({ column }) => {
    histogram.buckets.forEach((counts, index) => { sums[index] += counts[column] ?? 0; });
    return sums.map((sum) => (sum === 0 ? null : sum));
  });
  return [starts, ...series.reverse()];
}

/** The counts of each level over all buckets, in stack order, without those that have none. */
export function levelTotals(histogram) {
  return stackOrder(histogram)
    .map((entry) => ({ ...entry, records: histogram.buckets.reduce((sum, counts) => sum + (counts[entry.column] ?? 0), 0) }))
    .filter(({ records }) => records > 0);
}

/** Whole buckets that a dragged span touches. */
export function snapped(histogram, fromMs, toMs) {
  const { from, to, step } = histogram;
  const first = Math.max(0, Math.floor((fromMs - from) / step));
  const last = Math.max(first + 1, Math.ceil((toMs - from) / step));
  return { from: from + first * step, to: Math.min(Math.max(to, from + step), from + last * step) };
}

/** The histogram in a sentence, for who does not see it. */
export function summary(histogram) {
  const levels = levelTotals(histogram).map(({ level, records }) => `${records} ${level || 'without a level'}`);
  const range = `from ${formatLocal(histogram.from, true)} to ${formatLocal(histogram.to, true)}`;
  return `Histogram: ${plural(histogram.total, 'record')} ${range}${levels.length > 0 ? `: ${levels.join(', ')}` : ''}`;
}

/** `10s`, `5m`: how wide a bucket is. */
export function widthOf(stepMs) {
  const units = [[86_400_000, 'd'], [3_600_000, 'h'], [60_000, 'm'], [1000, 's'], [1, 'ms']];
  const [size, unit] = units.find(([unitMs]) => stepMs >= unitMs) ?? [1, 'ms'];
  const value = stepMs / size;
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${unit}`;
}

const STEPS_MS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000,
  1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000, 86_400_000, 172_800_000, 604_800_000,
];

/** The width of a bar, one that people count in, so that a span has at most so many. */
export function niceStep(spanMs, barsMax) {
  return STEPS_MS.find((step) => spanMs / step <= barsMax) ?? Math.ceil(spanMs / barsMax / 86_400_000) * 86_400_000;
}

/**
 * The begin of the next histogram of a range that moves with the present: whole bars after that of the one before, so
 * that the bars stay the same and do not flicker. By the node's clock, which may differ from the page's.
 * @param {Histogram} before
 * @param {number} elapsedMs since it came
 * @param {number} spanMs
 */
export function nextBegin(before, elapsedMs, spanMs) {
  const begin = before.to + elapsedMs - spanMs;
  return before.from + Math.floor((begin - before.from) / before.step) * before.step;
}

/** A tick's text: the finer the axis, the finer the time; a new day names itself. */
export function tickLabel(ms, stepMs, previousMs) {
  const text = formatLocal(ms);
  const clock = stepMs >= 60_000 ? text.slice(11, 16) : stepMs >= 1000 ? text.slice(11, 19) : text.slice(14, 23);
  const day = formatDay(ms);
  if (stepMs >= 86_400_000) return day.slice(5);
  return previousMs !== null && formatDay(previousMs) !== day ? `${day.slice(5)} ${clock}` : clock;
}
