// What is typed into the query box, as filters, and filters in words. Pure.
//
//   text            contains, in any case unless `Aa` is on        -text         does not
//   "any text"      the text between the quotes, as it is          /regex/       matches the regex
//   word:text       the whole word                                 name=value    a label; also != =~ !~
//   service:name    one more service                               level:error   one more level

/**
 * @typedef {import('./state.js').LineFilter} LineFilter
 * @typedef {import('./state.js').LabelMatcher} LabelMatcher
 * @typedef {{type: 'line', line: LineFilter} | {type: 'label', label: LabelMatcher}
 *   | {type: 'service', value: string} | {type: 'level', value: string}} Term
 */

/** How the box reads a text. `auto` goes by the signs above; the others take it as it is. */
export const MODES = [
  { mode: 'auto', label: 'Auto', hint: 'by the signs typed: -not, /regex/, word:x, label=value' },
  { mode: 'contains', label: 'Contains', hint: 'the text as typed' },
  { mode: 'word', label: 'Word', hint: 'a whole word; the fastest' },
  { mode: 'regex', label: 'Regex', hint: 'a regular expression' },
];

const LABEL = /^([A-Za-z_][\w.:-]*)(=~|!~|!=|=)(.*)$/s;

/**
 * @param {string} text
 * @param {{mode?: string, matchCase?: boolean}} [options]
 * @returns {Term | null} null for nothing
 */
export function parseInput(text, { mode = 'auto', matchCase = false } = {}) {
  const trimmed = text.trim();
  if (trimmed === '') return null;
  const contains = matchCase ? 'contains' : 'icontains';
  if (mode === 'contains') return line(contains, false, trimmed);
  if (mode === 'word') return line('word', false, trimmed);
  if (mode === 'regex') return line('regex', false, withCase(trimmed, matchCase));
  return parseSigns(trimmed, contains, matchCase);
}

function parseSigns(text, contains, matchCase) {
  const not = text.length > 1 && text.startsWith('-');
  const rest = not ? text.slice(1).trim() : text;
  const quoted = between(rest, '"');
  if (quoted !== null) return line(contains, not, quoted);
  const regex = between(rest, '/');
  if (regex !== null) return line('regex', not, withCase(regex, matchCase));
  const word = after(rest, 'word:');
  if (word) return line('word', not, word);
  const service = after(rest, 'service:');
  if (service && !not) return { type: 'service', value: service };
  const level = after(rest, 'level:');
  if (level && !not) return { type: 'level', value: level.toUpperCase() };
  const label = LABEL.exec(rest);
  if (label && !label[3].includes(' ')) return labelTerm(label, not);
  return line(contains, not, rest);
}

function labelTerm([, name, op, value], not) {
  const turned = { '=': '!=', '!=': '=', '=~': '!~', '!~': '=~' };
  return { type: 'label', label: { name: name.replace(/^label\./, ''), op: not ? turned[op] : op, value: unquoted(value) } };
}

function line(kind, not, value) {
  return value === '' ? null : { type: 'line', line: { kind, not, value } };
}

function withCase(regex, matchCase) {
  return matchCase || regex === '' || regex.startsWith('(?') ? regex : `(?i)${regex}`;
}

function between(text, sign) {
  return text.length > 2 && text.startsWith(sign) && text.endsWith(sign) ? text.slice(1, -1) : null;
}

function after(text, prefix) {
  return text.startsWith(prefix) ? unquoted(text.slice(prefix.length).trim()) : '';
}

function unquoted(text) {
  return between(text, '"') ?? text;
}

/**
 * A filter as text that `parseInput` turns into it again: for editing a chip.
 * @param {Term} term
 */
export function toInput(term) {
  if (term.type === 'label') return `${term.label.name}${term.label.op}${quotedIfSpaced(term.label.value)}`;
  if (term.type !== 'line') return `${term.type}:${term.value}`;
  const { kind, not, value } = term.line;
  const sign = not ? '-' : '';
  if (kind === 'regex') return `${sign}/${value}/`;
  if (kind === 'word') return `${sign}word:${value}`;
  return `${sign}"${value}"`;
}

function quotedIfSpaced(value) {
  return value.includes(' ') ? `"${value}"` : value;
}

/**
 * What a filter does, in words.
 * @param {Term} term
 */
export function describe(term) {
  if (term.type === 'service') return `service is ${term.value}`;
  if (term.type === 'level') return `level is ${term.value}`;
  if (term.type === 'label') {
    const verb = { '=': 'is', '!=': 'is not', '=~': 'matches', '!~': 'does not match' }[term.label.op];
    return `label ${term.label.name} ${verb} ${term.label.value === '' ? '(empty)' : term.label.value}`;
  }
  const { kind, not, value } = term.line;
  return `message ${verbOf(kind, not)} ${value}${kind === 'icontains' ? ' (any case)' : ''}`;
}

/** The verb of a line filter. */
export function verbOf(kind, not) {
  if (kind === 'regex') return not ? 'does not match' : 'matches';
  if (kind === 'word') return not ? 'has not the word' : 'has the word';
  return not ? 'does not contain' : 'contains';
}
