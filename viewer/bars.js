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

/** A tick's text: the finer the axis, the finer the time; a new day names itself. */
export function tickLabel(ms, stepMs, previousMs) {
  const text = formatLocal(ms);
  const clock = stepMs >= 60_000 ? text.slice(11, 16) : stepMs >= 1000 ? text.slice(11, 19) : text.slice(14, 23);
  const day = formatDay(ms);
  if (stepMs >= 86_400_000) return day.slice(5);
  return previousMs !== null && formatDay(previousMs) !== day ? `${day.slice(5)} ${clock}` : clock;
}
