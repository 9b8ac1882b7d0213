// The live tail: server-sent events over fetch. The browser's own EventSource hides why a request was refused, and
// cannot be told to start after a given id.
//
// Invariant: after a broken connection it goes on after the last id it saw, so no record is shown twice or left out.

import { ApiError, get, isAbort, readLines } from './api.js';
import { parseRow } from './rows.js';

const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 10_000;
/** The server sends a heartbeat every 15 s; after three of them missed, the connection is dead. */
const SILENCE_MS_MAX = 50_000;

/**
 * @typedef {{event: string, data: string, id: string | null}} SseEvent
 */

/** Turns the lines of an event stream into events. */
export class SseParser {
  #event = '';
  #data = [];
  #id = null;

  /**
   * @param {string} line
   * @returns {SseEvent | null} the event that ends with this line, if one does
   */
  push(line) {
    const text = line.endsWith('\r') ? line.slice(0, -1) : line;
    if (text === '') return this.#end();
    const colon = text.indexOf(':');
    if (colon === 0) return null;
    const field = colon < 0 ? text : text.slice(0, colon);
    const value = colon < 0 ? '' : text.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') this.#event = value;
    else if (field === 'data') this.#data.push(value);
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    return null;
  }

  #end() {
    const event = this.#data.length === 0
      ? null
      : { event: this.#event || 'message', data: this.#data.join('\n'), id: this.#id };
    this.#event = '';
    this.#data = [];
    return event;
  }
}

/**
 * Follows the tail until the signal says stop.
 * @param {URLSearchParams} params the filters, and `last`
 * @param {object} options
 * @param {AbortSignal} options.signal
 * @param {(rows: import('./rows.js').Row[]) => void} options.onRows in order of arrival
 * @param {(missed: number) => void} options.onGap
 * @param {(isStale: boolean) => void} options.onStale whether a replica that is followed has lost touch with the others
 * @param {(status: 'connecting' | 'live' | 'lost', error?: ApiError | null, partial?: string | null) => void} options.onStatus
 */
export async function follow(params, { signal, onRows, onGap, onStale, onStatus }) {
  let lastId = null;
  let wait = RETRY_MS_MIN;
  while (!signal.aborted) {
    onStatus('connecting');
    try {
      for await (const { opened, events } of connect(params, lastId, signal)) {
        if (opened) {
          // What is out of touch is told anew.
          onStale(false);
          onStatus('live', null, opened.headers.get('Partial'));
          wait = RETRY_MS_MIN;
        } else {
          lastId = events.findLast((event) => event.id !== null)?.id ?? lastId;
          deliver(events, { onRows, onGap, onStale }, (partial) => onStatus('live', null, partial));
        }
      }
      if (!signal.aborted) onStatus('lost', new ApiError({ kind: 'network', title: 'The live tail was closed by the node' }));
    } catch (error) {
      if (isAbort(error) || signal.aborted) return;
      onStatus('lost', error);
      // A query that is refused will be refused again.
      if (error.kind === 'refused' && error.status !== 429) return;
    }
    await pause(wait, signal);
    wait = Math.min(wait * 2, RETRY_MS_MAX);
  }
}

async function* connect(params, lastId, signal) {
  const silence = new AbortController();
  let timer = 0;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENCE_MS_MAX);
  };
  const headers = lastId === null ? {} : { 'Last-Event-ID': lastId };
  try {
    heard();
    const either = AbortSignal.any([signal, silence.signal]);
    const response = await get(`/v1/tail?${params}`, { signal: either, accept: 'text/event-stream', headers });
    yield { opened: response };
    const parser = new SseParser();
    for await (const lines of readLines(response.body)) {
      heard();
      const events = lines.map((line) => parser.push(line)).filter((event) => event !== null);
      if (events.length > 0) yield { events };
    }
  } catch (error) {
    if (silence.signal.aborted && !signal.aborted) throw lost('nothing was heard from the node for a while');
    throw error instanceof ApiError || isAbort(error) ? error : lost('the connection to the node was lost');
  } finally {
    clearTimeout(timer);
  }
}

function lost(detail) {
  return new ApiError({ kind: 'network', title: 'The live tail broke off', detail });
}

function deliver(events, { onRows, onGap, onStale }, onPartial) {
  let rows = [];
  for (const event of events) {
    if (event.event === 'record') {
      rows.push(parseRow(event.data));
    } else if (event.event === 'gap') {
      if (rows.length > 0) onRows(rows);
      rows = [];
      onGap(Number(JSON.parse(event.data).missed) || 0);
    } else if (event.event === 'partial') {
      // A node was lost, or is back.
      onPartial(JSON.parse(event.data).partial ?? null);
    } else if (event.event === 'stale') {
      onStale(JSON.parse(event.data).staleness !== null);
    }
  }
  if (rows.length > 0) onRows(rows);
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
