// The fields of a record, and which filters each allows. Pure.

import { withLabel, withLine } from './state.js';

/**
 * @typedef {object} Field
 * @property {string} name as shown: `level`, `label.region`
 * @property {string} value as text
 * @property {'time' | 'service' | 'level' | 'message' | 'label' | 'other'} kind
 * @property {string} [label] the label's name
 */

const KINDS = { timestamp: 'time', received_at: 'time', service: 'service', level: 'level', message: 'message' };
const ORDER = ['timestamp', 'level', 'service', 'message'];
const LAST = ['received_at', 'ingested_node_id', 'client_ip'];

/**
 * A record's fields: what the client sent first, what the ingest added last.
 * @param {Record<string, unknown>} record
 * @returns {Field[]}
 */
export function fieldsOf(record) {
  const names = Object.keys(record).filter((name) => name !== 'labels' && !ORDER.includes(name) && !LAST.includes(name));
  const present = (name) => Object.hasOwn(record, name);
  const plain = (name) => ({ name, value: textOf(record[name]), kind: KINDS[name] ?? 'other' });
  return [...ORDER.filter(present).map(plain), ...labelsOf(record.labels), ...names.map(plain), ...LAST.filter(present).map(plain)];
}

function labelsOf(labels) {
  if (typeof labels !== 'object' || labels === null) return [];
  return Object.entries(labels).map(([label, value]) => ({ name: `label.${label}`, value: textOf(value), kind: 'label', label }));
}

function textOf(value) {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/**
 * The change of the state that shows only records with this field's value, or all but them. Null where the API has no
 * such filter.
 * @param {Field} field
 * @param {boolean} out
 * @param {import('./state.js').State} state
 * @param {{services: string[], levels: string[]}} known what else there is: leaving one out means choosing the others
 * @returns {Partial<import('./state.js').State> | null}
 */
export function filterBy(field, out, state, known) {
  switch (field.kind) {
    case 'label':
      return withLabel(state, { name: field.label, op: out ? '!=' : '=', value: field.value });
    case 'message':
      return field.value === '' ? null : withLine(state, { kind: 'contains', not: out, value: field.value });
    case 'service':
      return choose('services', field.value, out, state, known.services);
    case 'level':
      return choose('levels', field.value.toUpperCase(), out, state, known.levels);
    default:
      return null;
  }
}

function choose(list, value, out, state, all) {
  if (!out) return { [list]: [value] };
  const from = state[list].length > 0 ? state[list] : all;
  const others = from.filter((other) => other !== value);
  return others.length === 0 ? null : { [list]: others };
}

/** The object or array that a text is the JSON of, or undefined. */
export function parsedJson(text) {
  const trimmed = text.trim();
  if (trimmed.length > 100_000 || !/^[[{]/.test(trimmed)) return undefined;
  try {
    const value = JSON.parse(trimmed);
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}
