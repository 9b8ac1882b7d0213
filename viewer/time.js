// Times: what people type, what the API takes, what the page shows. Pure: the present is always passed in.

/** Milliseconds of each unit of a relative time, as the API has them. */
const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** The largest time a `Date` can hold. A record's timestamp is a u64 and can be beyond it. */
const DATE_MS_MAX = 8_640_000_000_000_000;

/** Ranges offered by the picker. `from: '0'` is everything. */
export const PRESETS = [
  { from: '-5m', label: 'Last 5 minutes' },
  { from: '-15m', label: 'Last 15 minutes' },
  { from: '-30m', label: 'Last 30 minutes' },
  { from: '-1h', label: 'Last hour' },
  { from: '-3h', label: 'Last 3 hours' },
  { from: '-12h', label: 'Last 12 hours' },
  { from: '-24h', label: 'Last 24 hours' },
  { from: '-2d', label: 'Last 2 days' },
  { from: '-7d', label: 'Last 7 days' },
  { from: '-30d', label: 'Last 30 days' },
  { from: '0', label: 'All time' },
];

const RELATIVE = /^-(\d+)(ms|s|m|h|d)$/;
const CIVIL = /^(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?)?\s*(Z|[+-]\d{2}:?\d{2})?$/i;

/** Whether a time moves with the present. */
export function isRelative(text) {
  return text === 'now' || RELATIVE.test(text);
}

/**
 * The milliseconds a text means, or null if it means none. Takes what the API takes (RFC 3339, Unix ms, `-15m`, `now`)
 * and, for people, a date and time without a zone, which is local.
 * @param {string} text
 * @param {number} now
 * @returns {number | null}
 */
export function parseTime(text, now) {
  const trimmed = text.trim();
  if (trimmed === 'now') return now;
  const relative = RELATIVE.exec(trimmed);
  if (relative) return now - Number(relative[1]) * UNIT_MS[relative[2]];
  if (/^\d{1,16}$/.test(trimmed)) return Number(trimmed);
  return parseCivil(trimmed);
}

function parseCivil(text) {
  const match = CIVIL.exec(text);
  if (!match) return null;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map((part) => Number(part ?? 0));
  if (month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59) return null;
  const millisecond = Number((match[7] ?? '').padEnd(3, '0').slice(0, 3));
  const parts = [year, month - 1, day, hour, minute, second, millisecond];
  const date = match[8] ? new Date(Date.UTC(...parts)) : new Date(...parts);
  // The 31st of a shorter month would silently become the 1st of the next.
  if ((match[8] ? date.getUTCDate() : date.getDate()) !== day) return null;
  return date.getTime() - zoneOffsetMs(match[8]);
}

function zoneOffsetMs(zone) {
  if (!zone || zone.toUpperCase() === 'Z') return 0;
  const sign = zone.startsWith('-') ? -1 : 1;
  const digits = zone.slice(1).replace(':', '');
  return sign * (Number(digits.slice(0, 2)) * 60 + Number(digits.slice(2))) * 60_000;
}

/** A typed time as the API takes it: relative times stay, local ones become RFC 3339. Null if it means none. */
export function toApiTime(text, now) {
  const trimmed = text.trim();
  if (isRelative(trimmed) || /^\d{1,16}$/.test(trimmed)) return trimmed;
  const ms = parseTime(trimmed, now);
  return ms === null ? null : formatIso(ms);
}

/** RFC 3339 in UTC, or the bare number where a `Date` cannot hold it. */
export function formatIso(ms) {
  return isDate(ms) ? new Date(ms).toISOString() : String(ms);
}

const two = (number) => String(number).padStart(2, '0');

function isDate(ms) {
  return Number.isFinite(ms) && Math.abs(ms) <= DATE_MS_MAX;
}

/** `2024-05-01`, local. */
export function formatDay(ms) {
  if (!isDate(ms)) return '';
  const date = new Date(ms);
  return `${String(date.getFullYear()).padStart(4, '0')}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/** `14:03:22.123`, local. */
export function formatClock(ms) {
  if (!isDate(ms)) return String(ms);
  const date = new Date(ms);
  const milliseconds = String(date.getMilliseconds()).padStart(3, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${milliseconds}`;
}

/** `2024-05-01 14:03:22.123`, local; zero seconds and milliseconds are left out when `short`. */
export function formatLocal(ms, short = false) {
  if (!isDate(ms)) return String(ms);
  let clock = formatClock(ms);
  if (short) clock = clock.replace(/(:00)?\.000$/, '');
  return `${formatDay(ms)} ${clock}`;
}

/** What the picker's button says of a range. */
export function rangeLabel(from, to, now) {
  const preset = PRESETS.find((candidate) => candidate.from === from);
  if (preset && (to === '' || to === 'now')) return preset.label;
  if (RELATIVE.test(from) && (to === '' || to === 'now')) return `Last ${from.slice(1)}`;
  const start = side(from, now, 'the beginning');
  const end = side(to, now, 'now');
  const sameDay = start.day !== '' && start.day === end.day;
  return `${start.text} – ${sameDay ? end.clock : end.text}`;
}

function side(text, now, otherwise) {
  if (text === '' || text === '0' || isRelative(text)) {
    return { day: '', clock: '', text: text === '' || text === '0' || text === 'now' ? otherwise : text };
  }
  const ms = parseTime(text, now);
  if (ms === null) return { day: '', clock: '', text };
  const local = formatLocal(ms, true);
  return { day: formatDay(ms), clock: local.slice(11), text: local };
}

/**
 * A range widened to twice its width, or moved by half of it.
 * @param {{from: number, to: number}} range
 * @param {'out' | 'earlier' | 'later'} how
 */
export function moveRange({ from, to }, how) {
  const half = Math.max(1, Math.round((to - from) / 2));
  const [fromBy, toBy] = { out: [-half, half], earlier: [-half, -half], later: [half, half] }[how];
  return { from: Math.max(0, from + fromBy), to: Math.max(1, to + toBy) };
}

/** `3 days ago`, for people. */
export function ago(ms, now) {
  const seconds = Math.round((now - ms) / 1000);
  if (seconds < 0) return 'in the future';
  const steps = [[60, 'second'], [60, 'minute'], [24, 'hour'], [365, 'day'], [Infinity, 'year']];
  let value = seconds;
  for (const [size, name] of steps) {
    if (value < size) return `${value} ${name}${value === 1 ? '' : 's'} ago`;
    value = Math.floor(value / size);
  }
  return '';
}
