// Records as rows of the list. Pure.

/**
 * @typedef {object} Row
 * @property {string} key `partition:offset`: the record's name, the same on every page
 * @property {number} partition
 * @property {number} offset
 * @property {number} timestamp
 * @property {string} service
 * @property {string} level
 * @property {string} message
 * @property {string} raw the record as stored
 *
 * @typedef {object} Gap a mark in the list where records are missing
 * @property {string} key
 * @property {number} missed
 * @property {string} reason
 */

/** Rows kept: beyond it the page would grow without end. */
export const ROWS_MAX = 100_000;

/** The row of a line `{"partition":P,"offset":O,"record":{…}}`. Throws a SyntaxError if it is none. */
export function parseRow(line) {
  const { partition, offset, record } = JSON.parse(line);
  if (typeof record !== 'object' || record === null || !Number.isInteger(offset) || !Number.isInteger(partition)) {
    throw new SyntaxError('not a record with its partition and offset');
  }
  return {
    key: `${partition}:${offset}`,
    partition,
    offset,
    timestamp: Number(record.timestamp ?? NaN),
    service: textOf(record.service),
    level: textOf(record.level),
    message: textOf(record.message),
    raw: rawRecord(line),
  };
}

function textOf(value) {
  if (value === undefined || value === null) return '';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** The record's own bytes within the line: what is copied must be what is stored. */
function rawRecord(line) {
  const mark = '"record":';
  return line.slice(line.indexOf(mark) + mark.length, line.lastIndexOf('}')).trim();
}

/** @returns {Gap} */
export function gapRow(missed, reason, id) {
  return { key: `gap:${id}`, missed, reason };
}

export function isGap(row) {
  return 'missed' in row;
}

/** The row's record, parsed anew: rows are many, expanded ones few. */
export function recordOf(row) {
  return JSON.parse(row.raw);
}

/** Rows as NDJSON, byte for byte as stored. */
export function toNdjson(rows) {
  const lines = rows.filter((row) => !isGap(row)).map((row) => `${row.raw}\n`);
  return lines.join('');
}
