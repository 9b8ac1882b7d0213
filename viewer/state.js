// The page's state and its URL. Pure.
//
// Invariant: `fromUrl(toUrl(state))` is the state again. The filters have the names that the API gives them, so the
// query of the page's address can be pasted behind `/v1/search?`.

/**
 * @typedef {{kind: 'contains' | 'icontains' | 'word' | 'regex', not: boolean, value: string}} LineFilter
 * @typedef {{name: string, op: '=' | '!=' | '=~' | '!~', value: string}} LabelMatcher
 * @typedef {object} State
 * @property {string} from a time as the API takes it; '' for the default range
 * @property {string} to '' for the present
 * @property {string[]} services
 * @property {string[]} levels upper-cased
 * @property {LineFilter[]} lines
 * @property {LabelMatcher[]} labels
 * @property {string} partition '' for all
 * @property {number} limit records of one answer
 * @property {'backward' | 'forward'} direction
 * @property {boolean} tail
 * @property {number} refresh seconds; 0 for never
 * @property {boolean} wrap
 * @property {string} at `partition:offset` of the record whose surroundings are shown, or ''
 * @property {number} around records on each side of it
 */

export const RANGE_DEFAULT = '-1h';
export const LIMITS = [100, 500, 1000, 5000, 10_000];
export const REFRESHES = [0, 5, 10, 30, 60];
export const AROUNDS = [10, 25, 50, 100];
const KINDS = ['contains', 'icontains', 'word', 'regex'];

/** @returns {State} */
export function defaultState() {
  return {
    from: '', to: '', services: [], levels: [], lines: [], labels: [], partition: '', limit: 500,
    direction: 'backward', tail: false, refresh: 0, wrap: false, at: '', around: 10,
  };
}

/**
 * The filters as the API's parameters.
 * @param {State} state
 */
export function filterParams(state) {
  const params = new URLSearchParams();
  for (const service of state.services) params.append('service', service);
  for (const level of state.levels) params.append('level', level);
  for (const line of state.lines) params.append(`${line.not ? 'not_' : ''}${line.kind}`, line.value);
  for (const label of state.labels) params.append(...labelParam(label));
  if (state.partition !== '') params.set('partition', state.partition);
  return params;
}

/** The range as the API's parameters. `from=0` is the API's own default and is left out. */
export function rangeParams(state) {
  const params = new URLSearchParams();
  const from = state.from || RANGE_DEFAULT;
  if (from !== '0') params.set('from', from);
  if (state.to !== '') params.set('to', state.to);
  return params;
}

/** A label matcher as a parameter: `name!` negates, a leading `~` makes a regex, `\~` is a literal tilde. */
function labelParam({ name, op, value }) {
  const key = `label.${name}${op.startsWith('!') ? '!' : ''}`;
  if (op.endsWith('~')) return [key, `~${value}`];
  // `\~` at the start would be read as an escaped tilde: only a regex can say it.
  if (value.startsWith('\\~')) return [key, `~${escapeRegex(value)}`];
  return [key, value.startsWith('~') ? `\\${value}` : value];
}

function parseLabel(key, text) {
  const negated = key.endsWith('!');
  const name = key.slice('label.'.length, negated ? -1 : undefined);
  if (text.startsWith('~')) return { name, op: negated ? '!~' : '=~', value: text.slice(1) };
  return { name, op: negated ? '!=' : '=', value: text.startsWith('\\~') ? text.slice(1) : text };
}

/** A text as a regex that matches just it. */
export function escapeRegex(text) {
  return text.replace(/[\\^$.*+?()[\]{}|#&~-]/g, '\\$&');
}

/**
 * The state as the address's query, without the `?`.
 * @param {State} state
 */
export function toUrl(state) {
  const standard = defaultState();
  const params = filterParams(state);
  if (state.from !== '') params.set('from', state.from);
  if (state.to !== '') params.set('to', state.to);
  if (state.limit !== standard.limit) params.set('limit', String(state.limit));
  if (state.direction !== standard.direction) params.set('direction', state.direction);
  if (state.tail) params.set('tail', '1');
  if (state.refresh !== 0) params.set('refresh', `${state.refresh}s`);
  if (state.wrap) params.set('wrap', '1');
  if (state.at !== '') params.set('at', state.at);
  if (state.around !== standard.around) params.set('around', String(state.around));
  return params.toString();
}

/**
 * The state that an address's query names. What it does not know, or what makes no sense, it leaves at the default.
 * @param {string} query
 * @returns {State}
 */
export function fromUrl(query) {
  const state = defaultState();
  for (const [key, value] of new URLSearchParams(query)) readParam(state, key, value);
  if (state.tail) state.direction = 'backward';
  return state;
}

function readParam(state, key, value) {
  const line = /^(not_)?(contains|icontains|word|regex)$/.exec(key);
  if (line && value !== '') state.lines.push({ kind: line[2], not: Boolean(line[1]), value });
  else if (key.startsWith('label.') && key.replace(/!$/, '').length > 6) state.labels.push(parseLabel(key, value));
  else if (key === 'service') addOnce(state.services, value);
  else if (key === 'level') addOnce(state.levels, value.toUpperCase());
  else if (key === 'from' || key === 'to') state[key] = value;
  else if (key === 'partition' && /^\d{1,5}$/.test(value)) state.partition = value;
  else if (key === 'limit') state.limit = numberOf(value, 1, 10_000, state.limit);
  else if (key === 'around') state.around = numberOf(value, 1, 1000, state.around);
  else if (key === 'direction' && value === 'forward') state.direction = value;
  else if (key === 'refresh') state.refresh = numberOf(value.replace(/s$/, ''), 1, 3600, 0);
  else if (key === 'tail' || key === 'wrap') state[key] = value === '1';
  else if (key === 'at' && /^\d{1,5}:\d{1,16}$/.test(value)) state.at = value;
}

function addOnce(list, value) {
  if (value !== '' && !list.includes(value)) list.push(value);
}

function numberOf(text, min, max, otherwise) {
  const number = Number(text);
  return Number.isInteger(number) && number >= min && number <= max ? number : otherwise;
}

/** The parts of the state that decide which records are shown. Two states with the same key show the same. */
export function searchKey(state) {
  return `${filterParams(state)}&${rangeParams(state)}&${state.limit}&${state.direction}&${state.tail}`;
}

/** Whether anything narrows the records besides the range. */
export function isFiltered(state) {
  return filterParams(state).toString() !== '';
}

/** The list with the value taken out if it is in, put in if it is not. */
export function toggled(list, value) {
  return list.includes(value) ? list.filter((other) => other !== value) : [...list, value];
}

/**
 * The state with a line filter added, or its opposite turned round.
 * @param {State} state
 * @param {LineFilter} line
 * @returns {Partial<State>}
 */
export function withLine(state, line) {
  if (!KINDS.includes(line.kind) || line.value === '') return {};
  const rest = state.lines.filter((other) => other.kind !== line.kind || other.value !== line.value);
  return { lines: [...rest, line] };
}

/**
 * The state with a label matcher added, or its opposite turned round.
 * @param {State} state
 * @param {LabelMatcher} label
 * @returns {Partial<State>}
 */
export function withLabel(state, label) {
  const isRegex = label.op.endsWith('~');
  const rest = state.labels.filter(
    (other) => other.name !== label.name || other.value !== label.value || other.op.endsWith('~') !== isRegex,
  );
  return { labels: [...rest, label] };
}
