// What is known of the records that a state asks for: rows, counts, errors; loads them, follows the tail.
//
// Invariant: what belongs to an earlier state never gets in: every request is aborted when the next state runs. Must
// not know of elements; it says `onChange` and the page looks.

import { niceStep, nextBegin } from './bars.js';
import { context, fetchJson, isAbort, search } from './api.js';
import { ROWS_MAX, gapRow, isGap } from './rows.js';
import { filterParams, rangeParams } from './state.js';
import { follow } from './tail.js';
import { isRelative, parseTime } from './time.js';

/** Rows that the tail shows; older ones leave at the end. */
const TAIL_ROWS_MAX = 10_000;
/** Rows that wait while the tail is paused; the oldest of them are counted, not kept. */
const PENDING_MAX = 5000;
/** Rows of a page after the first: a scroll should wait for little. */
const PAGE_ROWS_MAX = 1000;
/** How often arrived rows are shown: more often the eye cannot follow. */
const FLUSH_MS = 60;
const HISTOGRAM_TAIL_MS = 5000;

export class Session {
  /** @param {{onChange: () => void}} options */
  constructor({ onChange }) {
    this.onChange = onChange;
    /** @type {(import('./rows.js').Row | import('./rows.js').Gap)[]} changed in place; the counts below tell how */
    this.rows = [];
    /** Goes up when the rows are others. */
    this.generation = 0;
    /** Rows that came in at the start, and left at the end, in this generation. */
    this.prepended = 0;
    this.dropped = 0;
    /** @type {'idle' | 'loading' | 'ready' | 'failed'} */
    this.phase = 'idle';
    this.loadingMore = false;
    this.cursor = null;
    this.stats = null;
    this.error = null;
    this.moreError = null;
    this.partial = null;
    /** How many milliseconds old the rows' answers may be; `null` where that is no question. */
    this.staleness = null;
    /** The last histogram, when it came, and, if its range moves with the present, how long that is. */
    this.histogram = { value: null, error: null, partial: null, loading: false, at: 0, span: 0 };
    this.services = { value: null, error: null, partial: null };
    this.nextSpan = 0;
    this.extent = null;
    this.tail = null;
    this.abort = new AbortController();
    this.counts = new AbortController();
  }

  /** Loads what the state asks for, in place of what was. Old rows stay until the first new ones are there. */
  run(state) {
    this.#stop();
    this.state = state;
    this.phase = 'loading';
    this.error = this.moreError = this.partial = this.staleness = null;
    this.cursor = null;
    this.loadingMore = false;
    this.tail = null;
    if (state.tail) this.#startTail();
    else this.#searchFirst(this.abort.signal);
    this.#loadCounts();
    this.onChange();
  }

  /** Gives everything up. */
  stop() {
    this.#stop();
  }

  #stop() {
    this.abort.abort();
    this.counts.abort();
    this.abort = new AbortController();
    clearTimeout(this.flushTimer);
    clearInterval(this.histogramTimer);
    this.flushTimer = 0;
  }

  /** Records that came while the tail was paused. */
  get waiting() {
    if (!this.tail?.paused) return 0;
    return this.tail.lost + this.tail.pending.filter((row) => !isGap(row)).length;
  }

  get isFull() {
    return this.rows.length >= ROWS_MAX;
  }

  // Searching.

  #searchParams(limit, cursor) {
    const params = new URLSearchParams([...filterParams(this.state), ...rangeParams(this.state)]);
    params.set('limit', String(limit));
    if (this.state.direction === 'forward') params.set('direction', 'forward');
    if (cursor) params.set('cursor', cursor);
    return params;
  }

  async #searchFirst(signal) {
    let first = true;
    const onRows = (rows) => {
      if (signal.aborted) return;
      if (first) this.#replace(rows);
      else for (const row of rows) this.rows.push(row);
      first = false;
      this.onChange();
    };
    try {
      const answer = await search(this.#searchParams(this.state.limit, null), { signal, onRows });
      if (first) this.#replace([]);
      this.phase = 'ready';
      this.cursor = answer.cursor;
      this.stats = answer.stats;
      this.partial = answer.partial;
      this.staleness = answer.staleness;
      if (first && !this.state.tail) this.#loadExtent(signal);
    } catch (error) {
      if (isAbort(error) || signal.aborted) return;
      if (first) this.#replace([]);
      this.phase = 'failed';
      this.error = error;
    }
    this.onChange();
  }

  /**
   * Loads the next page, if there is one and none is on its way. After a failure only when asked again: scrolling must
   * not press a node that is in trouble.
   */
  async loadMore({ again = false } = {}) {
    if (this.loadingMore || !this.cursor || this.isFull || this.phase !== 'ready') return;
    if (this.moreError && !again) return;
    const { signal } = this.abort;
    this.loadingMore = true;
    this.moreError = null;
    this.onChange();
    try {
      const limit = Math.min(PAGE_ROWS_MAX, ROWS_MAX - this.rows.length);
      const onRows = (rows) => {
        if (signal.aborted) return;
        for (const row of rows) this.rows.push(row);
        this.onChange();
      };
      const answer = await search(this.#searchParams(limit, this.cursor), { signal, onRows });
      this.cursor = answer.cursor;
      this.stats = sumStats(this.stats, answer.stats);
      this.partial ??= answer.partial;
    } catch (error) {
      if (isAbort(error) || signal.aborted) return;
      this.moreError = error;
    }
    this.loadingMore = false;
    this.onChange();
  }

  #replace(rows) {
    this.rows = rows.slice();
    this.generation += 1;
    this.prepended = this.dropped = 0;
  }

  // Counts.

  #loadCounts() {
    this.counts = new AbortController();
    const { signal } = this.counts;
    const range = rangeParams(this.state);
    this.#load('services', 'services', range, signal);
    this.#loadHistogram(signal);
    if (this.state.tail) this.histogramTimer = setInterval(() => this.#loadHistogram(signal), HISTOGRAM_TAIL_MS);
  }

  #loadHistogram(signal) {
    const params = this.#histogramParams();
    this.histogram.loading = true;
    return this.#load('histogram', 'histogram', params, signal);
  }

  #histogramParams() {
    const range = rangeParams(this.state);
    const params = new URLSearchParams([...filterParams(this.state), ...range]);
    const [from, to] = [range.get('from'), range.get('to') ?? 'now'];
    this.nextSpan = 0;
    // Over all time, the axis goes as far as the data.
    if (from === null) {
      params.set('buckets', String(barsMax()));
      return params;
    }
    const now = Date.now();
    const span = parseTime(to, now) - parseTime(from, now);
    if (!(span > 0)) return params;
    const step = niceStep(span, barsMax());
    params.set('step', `${step}ms`);
    // With an open end it goes to the present: that nothing came is what one wants to see.
    params.set('to', to);
    const isMoving = isRelative(from) && to === 'now';
    this.nextSpan = isMoving ? span : 0;
    const { value: before, at, span: spanBefore } = this.histogram;
    if (isMoving && before?.step === step && spanBefore === span) params.set('from', String(nextBegin(before, now - at, span)));
    return params;
  }

  async #load(name, path, params, signal) {
    try {
      const { value, partial } = await fetchJson(path, params, { signal });
      if (signal.aborted) return;
      this[name] = { value, partial, error: null, loading: false, at: Date.now(), span: this.nextSpan };
    } catch (error) {
      if (isAbort(error) || signal.aborted) return;
      this[name] = { ...this[name], partial: null, error, loading: false };
    }
    this.onChange();
  }

  /** Where there are records at all: what an empty answer needs to say something useful. */
  async #loadExtent(signal) {
    try {
      const { value } = await fetchJson('services', new URLSearchParams(), { signal });
      const some = value.filter((service) => service.records > 0);
      this.extent = {
        records: some.reduce((sum, service) => sum + service.records, 0),
        first: Math.min(...some.map((service) => service.first)),
        last: Math.max(...some.map((service) => service.last)),
      };
      this.onChange();
    } catch {
      // The empty answer stands without it.
      this.extent = null;
    }
  }

  // Following.

  #startTail() {
    const { signal } = this.abort;
    this.tail = { status: 'connecting', error: null, paused: false, pending: [], lost: 0, gaps: 0, received: 0, seen: new Set(), fresh: true, isStale: false };
    const params = filterParams(this.state);
    params.set('last', String(Math.min(this.state.limit, 1000)));
    const { tail } = this;
    follow(params, {
      signal,
      onRows: (rows) => this.#arrived(tail, rows),
      onGap: (missed) => {
        tail.gaps += 1;
        tail.pending.push(gapRow(missed, 'this page was too slow for them', tail.gaps));
        this.#scheduleFlush();
      },
      onStale: (isStale) => {
        tail.isStale = isStale;
        this.onChange();
      },
      onStatus: (status, error, partial) => {
        tail.status = status;
        tail.error = error ?? null;
        this.partial = partial ?? null;
        if (status === 'live') {
          this.phase = 'ready';
          this.#scheduleFlush();
        }
        if (error?.kind === 'refused') {
          this.#replace([]);
          this.phase = 'failed';
          this.error = error;
        }
        this.onChange();
      },
    });
  }

  #arrived(tail, rows) {
    for (const row of rows) {
      if (tail.seen.has(row.key)) continue;
      tail.seen.add(row.key);
      tail.pending.push(row);
      tail.received += 1;
    }
    if (tail.pending.length > PENDING_MAX) {
      for (const row of tail.pending.splice(0, tail.pending.length - PENDING_MAX)) {
        tail.seen.delete(row.key);
        tail.lost += row.missed ?? 1;
      }
    }
    this.#scheduleFlush();
  }

  #scheduleFlush() {
    this.flushTimer ||= setTimeout(() => {
      this.flushTimer = 0;
      this.#flush();
    }, FLUSH_MS);
  }

  /** Pauses the tail, or shows what came meanwhile and goes on. */
  setPaused(paused) {
    if (!this.tail || this.tail.paused === paused) return;
    this.tail.paused = paused;
    this.#flush();
  }

  #flush() {
    const { tail } = this;
    if (tail && !tail.paused) {
      const rows = tail.pending.reverse();
      if (tail.lost > 0) {
        tail.gaps += 1;
        rows.push(gapRow(tail.lost, 'they came while the tail was paused', tail.gaps));
      }
      tail.pending = [];
      tail.lost = 0;
      this.#prependTail(tail, rows);
    }
    this.onChange();
  }

  #prependTail(tail, rows) {
    if (tail.fresh) {
      tail.fresh = false;
      this.#replace(rows);
      return;
    }
    this.rows.unshift(...rows);
    this.prepended += rows.length;
    const excess = Math.max(0, this.rows.length - TAIL_ROWS_MAX);
    for (const row of this.rows.splice(this.rows.length - excess, excess)) tail.seen.delete(row.key);
    this.dropped += excess;
  }
}

/** As many bars as there is room for. */
function barsMax() {
  const width = globalThis.innerWidth ?? 1200;
  return Math.max(30, Math.min(160, Math.floor(width / 10)));
}

function sumStats(before, after) {
  if (!before || !after) return after ?? before;
  const sum = {};
  for (const name of Object.keys({ ...before, ...after })) sum[name] = (before[name] ?? 0) + (after[name] ?? 0);
  return sum;
}

/**
 * The records around one.
 * @param {{partition: number, offset: number}} place
 */
export function surroundings({ partition, offset }, { before, after, sameService, signal }) {
  const params = new URLSearchParams({ partition, offset, before, after });
  if (sameService) params.set('service', 'same');
  return context(params, { signal });
}
