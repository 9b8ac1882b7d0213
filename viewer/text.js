// Texts of records, made fit to show: control characters visible, matches found, levels and services told apart. Pure.

/**
 * @typedef {import('./state.js').LineFilter} LineFilter
 * @typedef {{text: string, hit: boolean}} Segment
 */

/** Characters of a message that a row shows; the whole is in the expanded record. */
export const ROW_CHARACTERS_MAX = 2000;

/**
 * Characters that a user's regex is run over for highlighting, by its number of open repetitions: JavaScript's engine
 * backtracks, which takes the length to the power of one more than these.
 */
const REGEX_CHARACTERS_MAX = [100_000, 2000, 300];
/** A regex that took longer than this is not run again after a few times: once may be the machine's fault. */
const REGEX_MS_MAX = 50;
const SLOW_RUNS_MAX = 3;
const HITS_MAX = 200;

// Marks that reorder or hide text, which a hostile record could use to look like another: shown by name.
const DECEPTIVE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff]/g;

/** A text in which control characters are seen: pictures for the old ones, code points for the others. */
export function visible(text) {
  return text.replace(DECEPTIVE, (character) => {
    const code = character.codePointAt(0);
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    if (code === 0x7f) return '\u2421';
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, '0')}⟩`;
  });
}

/** A message on one line: line ends as ⏎. */
export function oneLine(text) {
  return visible(text.replace(/\r\n|\n|\r/g, '⏎').replace(/\t/g, ' '));
}

/**
 * A function that cuts a text into what the including line filters match and what not.
 * @param {LineFilter[]} lines
 * @returns {(text: string) => Segment[]}
 */
export function highlighter(lines) {
  const patterns = lines.filter((line) => !line.not).map(patternOf).filter((pattern) => pattern !== null);
  if (patterns.length === 0) return (text) => [{ text, hit: false }];
  return (text) => segments(text, patterns.flatMap((pattern) => hitsOf(text, pattern)).sort((a, b) => a[0] - b[0]));
}

function patternOf({ kind, value }) {
  if (kind === 'regex') return regexPattern(value);
  const escaped = value.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
  const whole = kind === 'word' ? `(?<![\\p{L}\\p{N}_])${escaped}(?![\\p{L}\\p{N}_])` : escaped;
  return { regex: new RegExp(whole, kind === 'icontains' ? 'giu' : 'gu'), charactersMax: REGEX_CHARACTERS_MAX[0], slowRuns: -Infinity };
}

function regexPattern(source) {
  const regex = safeRegex(source);
  return regex && { regex, charactersMax: REGEX_CHARACTERS_MAX[repetitions(bareOf(source))], slowRuns: 0 };
}

/** A pattern without what its characters mean literally. */
function bareOf(pattern) {
  return pattern.replace(/\\./gs, 'x').replace(/\[(?:[^\]])*\]/g, 'x');
}

function repetitions(bare) {
  return (bare.match(/[*+]|\{\d*,\d*\}/g) ?? []).length;
}

/**
 * The engine's regex as JavaScript's, or null where it may mean something else or take too long: the engine's runs in
 * linear time, JavaScript's does not, and the pattern may come from a link that somebody sent.
 */
export function safeRegex(source) {
  let flags = 'gu';
  let pattern = source;
  const inline = /^\(\?([ims]+)\)/.exec(pattern);
  if (inline) {
    flags += [...new Set(inline[1])].join('');
    pattern = pattern.slice(inline[0].length);
  }
  const bare = bareOf(pattern);
  if (/\)(?:[*+]|\{\d*,)/.test(bare)) return null;
  if (repetitions(bare) >= REGEX_CHARACTERS_MAX.length) return null;
  try {
    return new RegExp(pattern, flags);
  } catch {
    return null;
  }
}

function hitsOf(text, pattern) {
  const hits = [];
  if (pattern.slowRuns >= SLOW_RUNS_MAX) return hits;
  const { regex, charactersMax } = pattern;
  const scope = text.slice(0, charactersMax);
  const started = performance.now();
  regex.lastIndex = 0;
  for (let found = regex.exec(scope); found && hits.length < HITS_MAX; found = regex.exec(scope)) {
    if (found[0] === '') regex.lastIndex += 1;
    else hits.push([found.index, found.index + found[0].length]);
  }
  if (performance.now() - started > REGEX_MS_MAX) pattern.slowRuns += 1;
  return hits;
}

function segments(text, hits) {
  const out = [];
  let end = 0;
  for (const [from, to] of hits) {
    const start = Math.max(from, end);
    if (to <= start) continue;
    if (start > end) out.push({ text: text.slice(end, start), hit: false });
    out.push({ text: text.slice(start, to), hit: true });
    end = to;
  }
  if (end < text.length || out.length === 0) out.push({ text: text.slice(end), hit: false });
  return out;
}

/** Levels from the worst, each with what names it: the class for its colour, the letter and the words for it. */
export const LEVELS = [
  { name: 'fatal', letter: 'F', words: ['FATAL', 'CRITICAL', 'CRIT', 'EMERG', 'EMERGENCY', 'ALERT', 'PANIC'] },
  { name: 'error', letter: 'E', words: ['ERROR', 'ERR', 'SEVERE'] },
  { name: 'warn', letter: 'W', words: ['WARN', 'WARNING'] },
  { name: 'info', letter: 'I', words: ['INFO', 'INFORMATION', 'NOTICE'] },
  { name: 'debug', letter: 'D', words: ['DEBUG', 'FINE'] },
  { name: 'trace', letter: 'T', words: ['TRACE', 'VERBOSE', 'FINEST'] },
];
const LEVEL_OF_WORD = new Map(LEVELS.flatMap((level, rank) => level.words.map((word) => [word, { ...level, rank }])));
const OTHER = { name: 'other', letter: '?', rank: LEVELS.length };
const NONE = { name: 'none', letter: '·', rank: LEVELS.length + 1 };

/** The kind of a level, in whatever words the client says it. */
export function levelOf(text) {
  if (!text) return NONE;
  const upper = text.toUpperCase();
  return LEVEL_OF_WORD.get(upper) ?? { ...OTHER, letter: [...visible(upper)][0] ?? '?' };
}

/** The hue of a service, 0 to 359, the same on every page. */
export function hueOf(service) {
  let hash = 0x811c9dc5;
  for (let index = 0; index < service.length; index += 1) {
    hash = Math.imul(hash ^ service.charCodeAt(index), 0x01000193) >>> 0;
  }
  // The low bits of similar names are close: spread them by the golden ratio.
  return Math.floor(((hash * 0.618033988749895) % 1) * 360);
}

const numbers = new Intl.NumberFormat('en-US');

/** `1,234`. */
export function formatCount(count) {
  return numbers.format(count);
}

/** `1.2 k`: for axes and chips. */
export function formatShort(count) {
  if (count < 1000) return String(count);
  const [divisor, unit] = count < 1e6 ? [1e3, 'k'] : count < 1e9 ? [1e6, 'M'] : [1e9, 'G'];
  const value = count / divisor;
  return `${value < 9.95 ? value.toFixed(1).replace(/\.0$/, '') : Math.floor(value)}${unit}`;
}

/** `3.2 MB`, in powers of ten. */
export function formatBytes(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const units = ['kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = '';
  for (const next of units) {
    value /= 1000;
    unit = next;
    if (value < 999.5) break;
  }
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${unit}`;
}

/** `12 records`, `1 record`. */
export function plural(count, word) {
  return `${formatCount(count)} ${word}${count === 1 ? '' : 's'}`;
}
