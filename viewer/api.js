// The storage node's read API: requests, streamed answers, errors with their cause.
//
// Must not know of the page's state or elements.

import { parseRow } from './rows.js';

/** Why a request has no answer, in words that can be shown. */
export class ApiError extends Error {
  /**
   * @param {{kind: 'network' | 'refused' | 'node' | 'garbled', title: string, detail?: string, status?: number, field?: string}} cause
   */
  constructor({ kind, title, detail = '', status = 0, field = '' }) {
    super(detail ? `${title}: ${detail}` : title);
    this.name = 'ApiError';
    this.kind = kind;
    this.title = title;
    this.detail = detail;
    this.status = status;
    this.field = field;
  }
}

/** Whether an error only says that the request was given up. */
export function isAbort(error) {
  return error?.name === 'AbortError';
}

/**
 * @typedef {object} Stats what a query cost, of `Query-Stats`
 * @property {number} scanned_bytes
 * @property {number} skipped_bytes
 * @property {number} segments
 * @property {number} segments_skipped
 * @property {number} blocks
 * @property {number} blocks_skipped
 * @property {number} time_ms
 */

/** @returns {Stats | null} */
export function parseStats(header) {
  if (!header) return null;
  const stats = {};
  for (const part of header.split(/[,;]/)) {
    const [name, value] = part.split('=').map((text) => text.trim());
    if (name && Number.isFinite(Number(value))) stats[name] = Number(value);
  }
  return stats;
}

/**
 * How many milliseconds old may be what an answer was made of: without end, where no node knows; `null` where that is
 * no question.
 * @returns {number | null}
 */
export function parseStaleness(header) {
  if (!header) return null;
  const ms = Number(header);
  return Number.isFinite(ms) ? ms : Infinity;
}

/**
 * Searches. Rows are handed over as they arrive.
 * @param {URLSearchParams} params
 * @param {{signal?: AbortSignal, onRows: (rows: import('./rows.js').Row[]) => void}} options
 * @returns {Promise<{cursor: string | null, stats: Stats | null, partial: string | null, staleness: number | null}>}
 */
export async function search(params, { signal, onRows }) {
  const asked = new URLSearchParams(params);
  asked.set('fields', 'meta');
  const response = await get(`/v1/search?${asked}`, { signal, accept: 'application/x-ndjson' });
  await readRows(response, onRows);
  const { headers } = response;
  return {
    cursor: headers.get('Next-Cursor'), stats: parseStats(headers.get('Query-Stats')),
    partial: partialOf(response), staleness: parseStaleness(headers.get('Edgelog-Staleness')),
  };
}

/** The records around one, in the order of their offsets. */
export async function context(params, { signal } = {}) {
  const response = await get(`/v1/context?${params}`, { signal, accept: 'application/x-ndjson' });
  const rows = [];
  await readRows(response, (some) => rows.push(...some));
  return rows;
}

/** Any of the answers that are one JSON value: `histogram`, `services`, `labels`, `labels/NAME/values`. */
export async function fetchJson(path, params, { signal } = {}) {
  const response = await get(`/v1/${path}?${params}`, { signal, accept: 'application/json' });
  const partial = partialOf(response);
  try {
    return { value: await response.json(), partial };
  } catch (error) {
    throw brokenAnswer(error);
  }
}

/** Sends a request; throws an ApiError for anything but success. */
export async function get(path, { signal, accept, headers = {} }) {
  let response;
  try {
    response = await fetch(path, { signal, headers: { Accept: accept, ...headers }, cache: 'no-store' });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw unreachable();
  }
  if (!response.ok) throw await refusalOf(response);
  return response;
}

function unreachable() {
  const host = globalThis.location?.host ?? 'the server';
  return new ApiError({
    kind: 'network',
    title: 'The storage node cannot be reached',
    detail: `${host} does not answer: it has stopped, or the network is down`,
  });
}

async function refusalOf(response) {
  const kind = response.status >= 500 ? 'node' : 'refused';
  const fallback = { kind, title: `The node answers ${response.status} ${response.statusText}`.trim(), status: response.status };
  try {
    const problem = await response.json();
    const { title, detail, field } = problem;
    return new ApiError({ ...fallback, title: detail || title || fallback.title, field: field ?? '' });
  } catch {
    return new ApiError(fallback);
  }
}

function partialOf(response) {
  return response.headers.get('Partial');
}

function brokenAnswer(error) {
  if (isAbort(error)) return error;
  if (error instanceof SyntaxError) {
    return new ApiError({ kind: 'garbled', title: 'The answer makes no sense', detail: error.message });
  }
  return new ApiError({ kind: 'network', title: 'The answer broke off', detail: 'the connection to the node was lost midway' });
}

async function readRows(response, onRows) {
  try {
    for await (const lines of readLines(response.body)) {
      const rows = lines.filter((line) => line !== '').map(parseRow);
      if (rows.length > 0) onRows(rows);
    }
  } catch (error) {
    throw brokenAnswer(error);
  }
}

/**
 * The lines of a stream of bytes, as many at a time as arrived.
 * @param {ReadableStream<Uint8Array>} stream
 */
export async function* readLines(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      const lines = (rest + decoder.decode(value, { stream: !done })).split('\n');
      if (done) {
        yield lines;
        return;
      }
      rest = lines.pop();
      if (lines.length > 0) yield lines;
    }
  } finally {
    // Reached early when the consumer stops: the answer's rest must not be received for nothing.
    reader.cancel().catch(() => {});
  }
}
