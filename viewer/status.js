// How things stand: the line of numbers, and notices that name the cause when something is missing.

import { html } from './dom.js';
import { Icon } from './icons.js';
import { isFiltered, rangeParams } from './state.js';
import { formatBytes, formatCount, plural } from './text.js';
import { ago, formatLocal, parseTime } from './time.js';

/** From when on it is worth telling that an answer is made of what a node knew earlier: longer than an election takes. */
const STALENESS_SHOWN_MS = 10_000;

/** `1,234 records · scanned 3.2 MB, skipped 96 % · 4 ms` */
export function StatsText({ session }) {
  const { rows, stats, tail, phase, error } = session;
  if (tail) return tailText(tail);
  if (phase === 'loading') return 'Searching…';
  if (error && rows.length === 0) return 'No answer';
  return html`${countText(session)}${stats && html`<span class="cost">${costOf(stats).map((part) => ` · ${part}`).join('')}</span>`}`;
}

function countText({ rows, histogram: { value, error, partial, loading }, cursor }) {
  const loaded = rows.length;
  // Until the histogram of these rows is there, the one at hand counts what was asked for before. And one of whole bars can
  // reach a little further back than the range: once all is loaded, that is the count.
  const total = value && !error && !partial && !loading && cursor ? value.total : 0;
  return total > loaded ? `${formatCount(loaded)} of ${plural(total, 'record')}` : plural(loaded, 'record');
}

function costOf({ scanned_bytes: scanned, skipped_bytes: skipped, time_ms: time }) {
  const parts = [];
  if (scanned !== undefined) {
    const share = skipped > 0 ? `, skipped ${shareText(skipped / (scanned + skipped))}` : '';
    parts.push(`scanned ${formatBytes(scanned)}${share}`);
  }
  if (time !== undefined) parts.push(`${time < 10 ? Number(time.toFixed(1)) : Math.round(time)} ms`);
  return parts;
}

function shareText(share) {
  // 99.96 % must not read as everything.
  const percent = share * 100;
  return `${percent > 99 && percent < 100 ? Math.min(99.9, percent).toFixed(1) : Math.round(percent)} %`;
}

function tailText({ status, received, paused }) {
  const word = { connecting: 'Connecting…', lost: 'Not connected', live: paused ? 'Live, paused' : 'Live' }[status];
  return `${word} · ${plural(received, 'record')} received`;
}

/** What is wrong, above the list. */
export function Notices({ session, state, onRetry }) {
  const { error, partial, staleness, tail, services, rows } = session;
  const partials = new Set([partial, services.partial].filter(Boolean));
  return html`<div class="notices">
    ${error && rows.length > 0 && html`<div class="notice is-error" role="alert"><${Icon} name="alert" />
      <span><strong>${error.title}.</strong> ${error.detail}</span>
      <button type="button" class="button small" onClick=${onRetry}>Try again</button></div>`}
    ${!error && tail?.status === 'lost' && html`<div class="notice is-error" role="alert"><${Icon} name="alert" />
      <span><strong>${tail.error?.title ?? 'The live tail broke off'}.</strong> ${tail.error?.detail} Trying again; ${rows.length > 0 ? 'it goes on where it was.' : ''}</span></div>`}
    ${!error && [...partials].map((reason) => html`<div class="notice is-partial" role="status"><${Icon} name="alert" />
      <span><strong>Partial.</strong> Records are missing from this answer: ${reason}</span>
      ${state.tail ? null : html`<button type="button" class="button small" onClick=${onRetry}>Search again</button>`}</div>`)}
    ${!error && !tail && staleness > STALENESS_SHOWN_MS && html`<div class="notice is-partial" role="status"><${Icon} name="alert" />
      <span><strong>Old.</strong> ${staleText(staleness)}</span>
      <button type="button" class="button small" onClick=${onRetry}>Search again</button></div>`}
    ${!error && tail?.status === 'live' && tail.isStale && html`<div class="notice is-partial" role="status"><${Icon} name="alert" />
      <span><strong>Old.</strong> A node that is followed has lost touch with the others: the newest records come when it is back.</span></div>`}
  </div>`;
}

function staleText(staleness) {
  const since = Number.isFinite(staleness) ? `for ${Math.round(staleness / 1000)} s` : 'since its start';
  return `A node that answered has not heard ${since} that it has all records: the newest may be missing.`;
}

/** Why there is no answer at all. */
export function FailedState({ error, onRetry }) {
  return html`<div class="empty is-error" role="alert">
    <${Icon} name="alert" />
    <h2>${error.title}</h2>
    ${error.detail && html`<p>${error.detail}</p>`}
    ${error.field && html`<p>The node refuses the parameter <code>${error.field}</code>: its filter is marked above.</p>`}
    <p class="actions"><button type="button" class="button primary" onClick=${onRetry}>Try again</button></p>
  </div>`;
}

/** Why the list is empty, and what to do about it. */
export function EmptyState({ session, state, now, onChange }) {
  if (session.tail) {
    return html`<div class="empty"><h2>Waiting for records</h2><p>${isFiltered(state) ? 'None that passes the filters came yet.' : 'None came yet.'}</p></div>`;
  }
  const { extent } = session;
  if (extent?.records === 0) return html`<${NothingStored} />`;
  const range = rangeParams(state);
  const from = parseTime(range.get('from') ?? '0', now) ?? 0;
  const to = parseTime(state.to || 'now', now) ?? now;
  const outside = extent && (extent.last < from || extent.first >= to);
  return html`<div class="empty">
    <h2>${outside ? 'Nothing in this range' : 'No record passes'}</h2>
    ${outside
      ? html`<p>${plural(extent.records, 'record')} lie between ${formatLocal(extent.first, true)} and ${formatLocal(extent.last, true)} (${ago(extent.last, now)}).</p>`
      : html`<p>${isFiltered(state) ? 'There are records, but none in this range passes the filters.' : 'No record has a time in this range.'}</p>`}
    <p class="actions">
      ${outside && html`<button type="button" class="button primary" onClick=${() => onChange(aroundNewest(extent))}>Go to the newest records</button>`}
      ${(range.has('from') || range.has('to')) && html`<button type="button" class="button" onClick=${() => onChange({ from: '0', to: '' })}>Search all time</button>`}
      ${isFiltered(state) && html`<button type="button" class="button" onClick=${() => onChange({ services: [], levels: [], lines: [], labels: [], partition: '' })}>Clear the filters</button>`}
    </p>
  </div>`;
}

function aroundNewest({ first, last }) {
  const from = Math.max(first, last - 3_600_000);
  return { from: new Date(from).toISOString(), to: new Date(last + 1).toISOString() };
}

const EXAMPLE = `curl http://localhost:8080/v1/logs -H 'Content-Type: application/json' \\
  -d '[{"service":"hello","level":"INFO","message":"the first record"}]'`;

function NothingStored() {
  return html`<div class="empty"><h2>Nothing is stored yet</h2><p>Send the first record to the ingest:</p>
    <pre tabindex="0">${EXAMPLE}</pre></div>`;
}

/** What is at the list's end. */
export function ListEnd({ session, state, onRetry, onChange }) {
  const { moreError, loadingMore, cursor, rows, isFull, tail, phase } = session;
  if (rows.length === 0 || phase === 'loading') return null;
  if (moreError) {
    return html`<div class="list-end" role="alert"><${Icon} name="alert" /> ${moreError.title} <button type="button" class="button small" onClick=${onRetry}>Try again</button></div>`;
  }
  if (tail) return html`<div class="list-end">The live tail began here. <button type="button" class="link" onClick=${() => onChange({ tail: false })}>Search what is older</button></div>`;
  if (isFull) return html`<div class="list-end">${plural(rows.length, 'record')} are loaded, as many as the page takes: narrow the range or the filters to see others.</div>`;
  if (loadingMore || cursor) return html`<div class="list-end">Loading ${state.direction === 'forward' ? 'newer' : 'older'} records…</div>`;
  return html`<div class="list-end">That is all${state.direction === 'forward' ? ' there is in this range' : ': nothing older in this range'}.</div>`;
}
