// The page: holds the state, keeps it in the address, and puts the parts together.

import { Component, createRef, html, render } from './dom.js';
import { levelTotals } from './bars.js';
import { ContextDialog } from './context.js';
import { copyText, curlFor, download, fileName } from './export.js';
import { Chips, QueryBox, applyTerm } from './filters.js';
import { Histogram, RangeButtons } from './histogram.js';
import { Icon } from './icons.js';
import { HelpDialog, actionOf } from './keys.js';
import { LogList } from './list.js';
import { LevelChips, ServicePicker, TimePicker } from './pickers.js';
import { RecordDetail } from './record.js';
import { isGap, toNdjson } from './rows.js';
import { Session } from './session.js';
import { LIMITS, REFRESHES, fromUrl, searchKey, toUrl } from './state.js';
import { EmptyState, FailedState, ListEnd, Notices, StatsText } from './status.js';
import { formatCount, highlighter, plural } from './text.js';
import { formatIso, moveRange } from './time.js';

const NARROW = matchMedia('(max-width: 640px)');
const DARK = matchMedia('(prefers-color-scheme: dark)');
const TOAST_MS = 2500;

class App extends Component {
  constructor(props) {
    super(props);
    this.session = new Session({ onChange: () => this.setState({ tick: this.state.tick + 1 }) });
    this.state = { url: fromUrl(location.search), tick: 0, expanded: new Set(), selected: '', atTop: true, help: false, toast: '', theme: document.documentElement.dataset.theme ?? '' };
    // Preact hands the `ref` of a component to it as a property: these two are set by the components themselves.
    this.list = createRef();
    this.query = createRef();
    this.change = (patch) => this.navigate({ ...this.state.url, ...patch });
    this.retry = () => this.session.run(this.state.url);
    this.loadMore = () => this.session.loadMore();
    this.onTop = (atTop) => { if (atTop !== this.state.atTop) this.setState({ atTop }, () => this.pauseOrGoOn()); };
    this.toggle = (row) => this.toggleRow(row);
    this.detail = (row) => this.renderDetail(row);
    this.toast = (toast) => this.showToast(toast);
    this.redraw = () => this.setState({});
  }

  componentDidMount() {
    addEventListener('popstate', () => this.navigate(fromUrl(location.search), { push: false }));
    addEventListener('keydown', (event) => this.pressed(event));
    NARROW.addEventListener('change', this.redraw);
    DARK.addEventListener('change', this.redraw);
    this.session.run(this.state.url);
    this.scheduleRefresh();
  }

  /** Goes to another state; searches if it shows other records. */
  navigate(url, { push = true } = {}) {
    const before = this.state.url;
    const next = { ...url, direction: url.tail ? 'backward' : url.direction };
    if (push && toUrl(next) !== toUrl(before)) history.pushState(null, '', address(next));
    const changed = searchKey(next) !== searchKey(before);
    this.setState({ url: next, ...(changed && { expanded: new Set(), selected: '' }) }, () => {
      if (changed) {
        this.list.current?.toTop();
        this.session.run(next);
      }
      this.scheduleRefresh();
    });
  }

  scheduleRefresh() {
    clearInterval(this.refreshTimer);
    const { refresh, tail } = this.state.url;
    if (refresh === 0 || tail) return;
    this.refreshTimer = setInterval(() => {
      const { atTop, expanded, url } = this.state;
      // Who reads on below, or in a record, must not lose the place.
      if (atTop && expanded.size === 0 && !document.hidden && this.session.phase !== 'loading') this.session.run(url);
    }, refresh * 1000);
  }

  pauseOrGoOn() {
    this.session.setPaused(!this.state.atTop || this.state.expanded.size > 0);
  }

  resumeTail() {
    this.setState({ expanded: new Set(), selected: '' }, () => {
      this.list.current?.toTop();
      this.session.setPaused(false);
    });
  }

  toggleRow(row) {
    const expanded = new Set(this.state.expanded);
    if (!expanded.delete(row.key)) expanded.add(row.key);
    this.setState({ expanded, selected: row.key }, () => this.pauseOrGoOn());
  }

  showToast(toast) {
    clearTimeout(this.toastTimer);
    this.setState({ toast });
    this.toastTimer = setTimeout(() => this.setState({ toast: '' }), TOAST_MS);
  }

  setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem('edgelog.theme', theme);
    } catch {
      // Storage is denied: the theme holds until the page is left.
    }
    this.setState({ theme });
  }

  /** The range in milliseconds, if it is known. */
  range() {
    const { value } = this.session.histogram;
    return value && value.to > value.from ? { from: value.from, to: value.to } : null;
  }

  moveRange(how) {
    const range = this.range();
    if (range) this.zoom(moveRange(range, how));
  }

  zoom({ from, to }) {
    this.change({ from: formatIso(Math.floor(from)), to: formatIso(Math.ceil(to)), tail: false });
  }

  linkTo(row) {
    return new URL(address({ ...this.state.url, tail: false, at: row.key }), location.href).href;
  }

  selectedRow() {
    return this.session.rows.find((row) => row.key === this.state.selected && !isGap(row)) ?? null;
  }

  pressed(event) {
    const action = actionOf(event);
    if (!action) return;
    const handler = this.actions()[action];
    if (handler() !== false) event.preventDefault();
  }

  actions() {
    const { url } = this.state;
    const list = this.list.current;
    const step = (by) => {
      const row = list.step(by);
      if (row) this.setState({ selected: row.key });
    };
    const withRow = (use) => () => {
      const row = this.selectedRow();
      if (row) use(row);
    };
    return {
      focusQuery: () => this.query.current.focus(),
      next: () => step(1),
      previous: () => step(-1),
      toggle: withRow((row) => this.toggleRow(row)),
      context: withRow((row) => this.change({ at: row.key })),
      copy: withRow(async (row) => this.toast((await copyText(row.raw)) ? 'Copied the record' : 'The browser does not let the page copy')),
      top: () => list.toTop(),
      end: () => list.toEnd(),
      pageDown: () => list.page(1),
      pageUp: () => list.page(-1),
      tail: () => this.change({ tail: !url.tail }),
      refresh: this.retry,
      wrap: () => this.change({ wrap: !url.wrap }),
      zoomOut: () => this.moveRange('out'),
      help: () => this.setState({ help: true }),
      escape: () => this.escape(),
    };
  }

  escape() {
    const focused = document.activeElement;
    if (focused?.matches('input, select, textarea')) focused.blur();
    else if (this.state.expanded.size > 0) this.setState({ expanded: new Set() }, () => this.pauseOrGoOn());
    else if (this.state.selected !== '') this.setState({ selected: '' });
    else return false;
    return true;
  }

  async copyRows() {
    const { rows } = this.session;
    const copied = await copyText(toNdjson(rows));
    this.toast(copied ? `Copied ${plural(rows.length, 'record')} as NDJSON` : 'The browser does not let the page copy');
  }

  known() {
    const services = this.session.services.value ?? [];
    const levels = new Set(services.flatMap((entry) => Object.keys(entry.levels ?? {})).map((level) => level.toUpperCase()));
    levels.delete('');
    return { services: services.map((entry) => entry.service), levels: [...levels] };
  }

  renderDetail(row) {
    return html`<${RecordDetail} row=${row} state=${this.state.url} known=${this.known()} highlight=${this.highlight()}
      onFilter=${(patch) => this.change({ ...patch, at: '' })} onToast=${this.toast} onLink=${(linked) => this.linkTo(linked)}
      onContext=${this.state.url.at === row.key ? null : () => this.change({ at: row.key })} />`;
  }

  /** The same function as long as the filters are the same, so that rows are not drawn again for nothing. */
  highlight() {
    const key = JSON.stringify(this.state.url.lines);
    if (key !== this.highlightKey) {
      this.highlightKey = key;
      this.highlighter = highlighter(this.state.url.lines);
    }
    return this.highlighter;
  }

  render(_props, { url, expanded, selected, atTop, help, toast, theme }) {
    const { session } = this;
    const effectiveTheme = theme || (DARK.matches ? 'dark' : 'light');
    const isEmpty = session.rows.length === 0 && session.phase === 'ready';
    const waiting = session.waiting;
    return html`
      <header class="top">
        <h1 class="brand"><span class="brand-mark" aria-hidden="true"></span>edgelog</h1>
        <${QueryBox} handle=${this.query} state=${url} lastTerm=${lastTerm(url)} onTerm=${(term) => this.change(applyTerm(url, term))} onTakeBack=${() => this.takeBack()} />
        ${this.renderControls(url, effectiveTheme)}
      </header>
      <main class="page">
      <div class="filters" role="group" aria-label="Filters">
        <${ServicePicker} services=${session.services} state=${url} onChange=${this.change} />
        <${LevelChips} state=${url} totals=${countsByLevel(session.histogram)} onChange=${this.change} />
        <${Chips} state=${url} invalid=${session.error?.field ?? ''} onChange=${this.change} onEdit=${(term, patch) => { this.query.current.edit(term); this.change(patch); }} />
        <span class="grow"></span>
        ${this.renderView(url)}
      </div>
      <${Histogram} histogram=${session.histogram} failed=${session.phase === 'failed'} theme=${effectiveTheme} onZoom=${(range) => this.zoom(range)} />
      ${this.renderStats(session, url)}
      <${Notices} session=${session} state=${url} onRetry=${this.retry} />
      <div class="records">
        ${waiting > 0 && html`<button type="button" class="pill" onClick=${() => this.resumeTail()}><${Icon} name="up" /> ${formatCount(waiting)} new</button>`}
        ${session.phase === 'failed' && session.rows.length === 0 && html`<${FailedState} error=${session.error} onRetry=${this.retry} />`}
        ${isEmpty && html`<${EmptyState} session=${session} state=${url} now=${Date.now()} onChange=${this.change} />`}
        <${LogList} handle=${this.list} rows=${session.rows} generation=${session.generation} prepended=${session.prepended} dropped=${session.dropped}
          expanded=${expanded} selected=${selected} wrap=${url.wrap} narrow=${NARROW.matches} highlight=${this.highlight()} zone=${zoneName()}
          stale=${session.phase === 'loading' && !session.tail} detail=${this.detail} onToggle=${this.toggle} onTop=${this.onTop} onNearEnd=${this.loadMore}
          footer=${html`<${ListEnd} session=${session} state=${url} onRetry=${() => session.loadMore({ again: true })} onChange=${this.change} />`} />
        ${session.phase === 'loading' && session.rows.length === 0 && html`<div class="skeleton" aria-hidden="true"></div>`}
      </div>
      <div class=${`toast ${toast ? 'is-shown' : ''}`} role="status">${toast}</div>
      </main>
      ${url.at !== '' && html`<${ContextDialog} key="context" at=${url.at} around=${url.around} detail=${this.detail} onAround=${(around) => this.change({ around })} onClose=${() => this.change({ at: '' })} />`}
      ${help && html`<${HelpDialog} onClose=${() => this.setState({ help: false })} />`}
    `;
  }

  /** Takes the last chip back into the box. */
  takeBack() {
    const { url } = this.state;
    const term = lastTerm(url);
    const list = term.type === 'line' ? 'lines' : 'labels';
    this.query.current.edit(term);
    this.change({ [list]: url[list].slice(0, -1) });
  }

  renderControls(url, theme) {
    const other = theme === 'dark' ? 'light' : 'dark';
    return html`<div class="controls">
      <${TimePicker} state=${url} onChange=${(patch) => this.change({ ...patch, tail: false })} />
      <span class="joined">
        <button type="button" class="button" aria-label="Search again" title="Search again (r)" onClick=${this.retry}><${Icon} name="refresh" /></button>
        <select aria-label="Search again every" title="Search again every" disabled=${url.tail} onChange=${(event) => this.change({ refresh: Number(event.target.value) })}>
          ${[...new Set([...REFRESHES, url.refresh])].sort((a, b) => a - b).map((seconds) => html`<option value=${seconds} selected=${seconds === url.refresh}>${seconds === 0 ? 'off' : `${seconds} s`}</option>`)}
        </select>
      </span>
      <button type="button" id="tail" class=${`button live ${url.tail ? 'is-on' : ''}`} aria-pressed=${url.tail ? 'true' : 'false'} title="Live tail (t)" onClick=${() => this.change({ tail: !url.tail })}>
        <${Icon} name=${url.tail ? 'stop' : 'play'} /> Live</button>
      <button type="button" class="icon-button" id="theme" aria-label=${`To the ${other} theme`} title=${`To the ${other} theme`} onClick=${() => this.setTheme(other)}><${Icon} name=${theme === 'dark' ? 'sun' : 'moon'} /></button>
      <button type="button" class="icon-button" aria-label="Keys and queries" title="Keys and queries (?)" onClick=${() => this.setState({ help: true })}><${Icon} name="help" /></button>
    </div>`;
  }

  renderView(url) {
    return html`<div class="view">
      <label class="select-label">Last<select id="limit" aria-label="Records of one answer" onChange=${(event) => this.change({ limit: Number(event.target.value) })}>
        ${[...new Set([...LIMITS, url.limit])].sort((a, b) => a - b).map((limit) => html`<option value=${limit} selected=${limit === url.limit}>${formatCount(limit)}</option>`)}
      </select></label>
      <select id="direction" aria-label="Order" disabled=${url.tail} onChange=${(event) => this.change({ direction: event.target.value })}>
        <option value="backward" selected=${url.direction === 'backward'}>newest first</option>
        <option value="forward" selected=${url.direction === 'forward'}>oldest first</option>
      </select>
      <button type="button" id="wrap" class="icon-button" aria-pressed=${url.wrap ? 'true' : 'false'} aria-label="Wrap long messages" title="Wrap long messages (w)" onClick=${() => this.change({ wrap: !url.wrap })}><${Icon} name="wrap" /></button>
    </div>`;
  }

  renderStats(session, url) {
    const { rows } = session;
    return html`<div class="stats">
      <span id="stats" role="status" aria-live=${session.tail ? 'off' : 'polite'}>${session.tail?.status === 'live' && html`<span class=${`dot ${session.tail.paused ? 'is-paused' : ''}`} aria-hidden="true"></span>`}<${StatsText} session=${session} /></span>
      <span class="grow"></span>
      <${RangeButtons} step=${session.histogram.value?.step} range=${this.range()} onMove=${(how) => this.moveRange(how)} />
      <span class="group">
        <button type="button" class="button quiet" disabled=${rows.length === 0} title="Copy the loaded records as NDJSON" onClick=${() => this.copyRows()}><${Icon} name="copy" /> Copy</button>
        <button type="button" class="button quiet" disabled=${rows.length === 0} title="Save the loaded records as NDJSON" onClick=${() => download(toNdjson(rows), fileName(url, Date.now()))}><${Icon} name="download" /> Download</button>
        <button type="button" class="button quiet" title="Copy this query as a curl command" onClick=${async () => this.toast((await copyText(curlFor(url, location.origin))) ? 'Copied a curl command' : 'The browser does not let the page copy')}><${Icon} name="terminal" /> curl</button>
      </span>
    </div>`;
  }
}

function address(url) {
  const query = toUrl(url);
  return query === '' ? location.pathname : `?${query}`;
}

/** The filter that Backspace takes back. */
function lastTerm({ labels, lines }) {
  if (labels.length > 0) return { type: 'label', label: labels.at(-1) };
  if (lines.length > 0) return { type: 'line', line: lines.at(-1) };
  return null;
}

function countsByLevel({ value }) {
  return new Map(value ? levelTotals(value).map(({ level, records }) => [level, records]) : []);
}

function zoneName() {
  const minutes = -new Date().getTimezoneOffset();
  if (minutes === 0) return 'UTC';
  const sign = minutes < 0 ? '−' : '+';
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  return `UTC${sign}${hours}${rest ? `:${String(rest).padStart(2, '0')}` : ''}`;
}

render(html`<${App} />`, document.getElementById('app'));
