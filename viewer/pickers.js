// What is picked rather than typed: services, levels, the time range.

import { Component, createRef, html } from './dom.js';
import { Icon } from './icons.js';
import { Popover } from './popover.js';
import { LevelMark, ServiceName } from './row_view.js';
import { RANGE_DEFAULT, toggled } from './state.js';
import { formatCount, formatShort, levelOf } from './text.js';
import { PRESETS, formatLocal, parseTime, rangeLabel, toApiTime } from './time.js';

/** Levels always offered, so that the row of chips does not jump; others when records have them. */
const LEVELS_OFFERED = ['ERROR', 'WARN', 'INFO', 'DEBUG'];
/** From so many services on, a box to look for one. */
const SEARCHABLE_MIN = 8;

export class ServicePicker extends Component {
  constructor(props) {
    super(props);
    this.state = { text: '' };
  }

  entries() {
    const { services, state } = this.props;
    const listed = services.value ?? [];
    const missing = state.services.filter((name) => !listed.some((entry) => entry.service === name));
    return [...listed, ...missing.map((service) => ({ service, records: 0, levels: {} }))]
      .sort((a, b) => b.records - a.records || (a.service < b.service ? -1 : 1));
  }

  render({ services, state, onChange }, { text }) {
    const { services: chosen } = state;
    const label = chosen.length === 0 ? 'All services' : chosen.length === 1 ? chosen[0] : `${chosen.length} services`;
    return html`<${Popover} id="services" icon=${null} label=${label} name="Services" active=${chosen.length > 0} title="Services" onOpen=${() => this.setState({ text: '' })}>
      ${() => {
        const entries = this.entries();
        const found = entries.filter(({ service }) => service.toLowerCase().includes(text.toLowerCase()));
        return html`<div class="services">
          ${entries.length >= SEARCHABLE_MIN && html`<input type="search" data-autofocus class="services-search" placeholder="Look for a service" aria-label="Look for a service"
            value=${text} onInput=${(event) => this.setState({ text: event.target.value })} />`}
          ${services.error && html`<p class="notice is-error">${services.error.title}</p>`}
          ${services.partial && html`<p class="notice is-partial">Partial: ${services.partial}</p>`}
          <ul class="options">
            ${found.map((entry) => html`<li key=${entry.service}>
              <label class="option"><input type="checkbox" checked=${chosen.includes(entry.service)} onChange=${() => onChange({ services: toggled(chosen, entry.service) })} />
                <${ServiceName} service=${entry.service} /><${Counts} entry=${entry} /></label>
              <button type="button" class="link only" aria-label=${`Only ${entry.service}`} onClick=${() => onChange({ services: [entry.service] })}>only</button>
            </li>`)}
          </ul>
          ${found.length === 0 && html`<p class="dim pad">${entries.length === 0 ? 'No service has records in this range' : 'No service is called that'}</p>`}
          ${chosen.length > 0 && html`<button type="button" class="button small" onClick=${() => onChange({ services: [] })}>All services</button>`}
        </div>`;
      }}
    <//>`;
  }
}

function Counts({ entry }) {
  const errors = Object.entries(entry.levels ?? {})
    .reduce((sum, [level, count]) => (levelOf(level).rank <= 1 ? sum + count : sum), 0);
  return html`<span class="counts">${errors > 0 && html`<span class="errors" title="Errors">${formatShort(errors)} E</span>`}
    <span title=${`${formatCount(entry.records)} records`}>${formatCount(entry.records)}</span></span>`;
}

/** @param {{totals: Map<string, number>}} props counts by upper-cased level, where known */
export function LevelChips({ state, totals, onChange }) {
  const more = [...totals.keys(), ...state.levels].filter((level) => level !== '' && !LEVELS_OFFERED.includes(level));
  const levels = [...LEVELS_OFFERED, ...new Set(more)].sort((a, b) => levelOf(a).rank - levelOf(b).rank);
  return html`<div class="levels" role="group" aria-label="Levels">
    ${levels.map((level) => {
      const on = state.levels.includes(level);
      const count = state.levels.length === 0 || on ? totals.get(level) : undefined;
      return html`<button type="button" key=${level} class=${`level-chip ${state.levels.length > 0 && !on ? 'is-off' : ''}`} aria-pressed=${on ? 'true' : 'false'}
        onClick=${() => onChange({ levels: toggled(state.levels, level) })}>
        <${LevelMark} level=${level} /><span class="level-name" aria-hidden="true">${level}</span>
        ${count > 0 && html`<span class="dim">${formatShort(count)}</span>`}
      </button>`;
    })}
  </div>`;
}

export class TimePicker extends Component {
  constructor(props) {
    super(props);
    this.state = { from: '', to: '', wrong: '' };
    this.from = createRef();
    this.onOpen = () => {
      const now = Date.now();
      const shown = (text) => {
        const ms = /^\d|T/.test(text) ? parseTime(text, now) : null;
        return ms === null ? text : ms === 0 ? '' : formatLocal(ms, true);
      };
      this.setState({ from: shown(this.props.state.from || RANGE_DEFAULT), to: shown(this.props.state.to), wrong: '' });
    };
  }

  apply(event, close) {
    event.preventDefault();
    const now = Date.now();
    const from = this.state.from.trim() === '' ? '0' : toApiTime(this.state.from, now);
    const to = this.state.to.trim() === '' ? '' : toApiTime(this.state.to, now);
    const start = from === null ? null : parseTime(from, now);
    const end = to === null ? null : parseTime(to || 'now', now);
    if (start === null) this.setState({ wrong: `“${this.state.from}” is no time. Try 2024-05-01 14:30, or -15m.` });
    else if (end === null) this.setState({ wrong: `“${this.state.to}” is no time. Try 2024-05-01 14:30, or now.` });
    else if (to !== '' && end <= start) this.setState({ wrong: 'The range ends before it begins.' });
    else {
      close();
      this.props.onChange({ from, to });
    }
  }

  render({ state, onChange }, { from, to, wrong }) {
    const current = state.from || RANGE_DEFAULT;
    const label = rangeLabel(current, state.to, Date.now());
    return html`<${Popover} id="range" icon="clock" label=${label} name="Time range" title="Time range" align="right" onOpen=${this.onOpen}>
      ${(close) => html`<div class="range">
        <ul class="options presets" aria-label="Ranges up to now">
          ${PRESETS.map((preset) => html`<li key=${preset.from}><button type="button" class="option" aria-pressed=${preset.from === current && state.to === '' ? 'true' : 'false'}
            onClick=${() => { close(); onChange({ from: preset.from === RANGE_DEFAULT ? '' : preset.from, to: '' }); }}>${preset.label}</button></li>`)}
        </ul>
        <form class="absolute" onSubmit=${(event) => this.apply(event, close)}>
          <label>From<input type="text" data-autofocus value=${from} onInput=${(event) => this.setState({ from: event.target.value })} placeholder="the beginning" autocomplete="off" spellcheck=${false} /></label>
          <label>To<input type="text" value=${to} onInput=${(event) => this.setState({ to: event.target.value })} placeholder="now" autocomplete="off" spellcheck=${false} /></label>
          <p class="dim">Local time, as in 2024-05-01 14:30, or RFC 3339, Unix ms, -15m</p>
          ${wrong && html`<p class="notice is-error" role="alert"><${Icon} name="alert" /> ${wrong}</p>`}
          <button type="submit" class="button primary">Apply</button>
        </form>
      </div>`}
    <//>`;
  }
}
