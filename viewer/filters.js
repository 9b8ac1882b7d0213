// The query box and the chips of the filters that hold.

import { Component, createRef, html } from './dom.js';
import { fetchJson } from './api.js';
import { Icon } from './icons.js';
import { MODES, describe, parseInput, toInput } from './query.js';
import { rangeParams, toggled, withLabel, withLine } from './state.js';
import { visible } from './text.js';

/** Labels and values offered while typing. */
const SUGGESTIONS_MAX = 50;

export class QueryBox extends Component {
  constructor(props) {
    super(props);
    props.handle.current = this;
    this.state = { text: '', mode: 'auto', matchCase: false, suggestions: [], message: '' };
    this.input = createRef();
    this.labels = null;
    this.onInput = (event) => this.typed(event.target.value);
    this.onMode = (event) => this.setState({ mode: event.target.value });
    this.onCase = () => this.setState({ matchCase: !this.state.matchCase });
    this.onSubmit = (event) => { event.preventDefault(); this.submit(); };
    this.onKeyDown = (event) => this.pressed(event);
    this.onFocus = () => this.suggest(this.state.text);
  }

  focus() {
    this.input.current.focus();
    this.input.current.select();
  }

  /** Takes a filter back into the box, to be changed. */
  edit(term) {
    const line = term.line;
    this.setState({ text: toInput(term), mode: 'auto', matchCase: line ? line.kind === 'contains' || line.kind === 'regex' : this.state.matchCase });
    this.input.current.focus();
  }

  typed(text) {
    this.setState({ text });
    this.suggest(text);
  }

  pressed(event) {
    if (event.key === 'Backspace' && this.state.text === '' && this.props.lastTerm) {
      event.preventDefault();
      this.props.onTakeBack();
    }
  }

  submit() {
    const term = parseInput(this.state.text, this.state);
    if (!term) return;
    this.setState({ text: '', suggestions: [] });
    this.props.onTerm(term);
  }

  /** Offers names of labels, and after `name=` the values they have. */
  async suggest(text) {
    const value = /^(-?[A-Za-z_][\w.:-]*)(!?=)/.exec(text);
    const wanted = value ? `labels/${encodeURIComponent(value[1].replace(/^-/, ''))}/values` : 'labels';
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    try {
      const params = rangeParams(this.props.state);
      if (value) params.set('limit', String(SUGGESTIONS_MAX));
      const { value: found } = await fetchJson(wanted, params);
      if (this.wanted !== wanted) return;
      const texts = value ? found.map((entry) => `${value[1]}${value[2]}${entry.value}`) : found.map((entry) => `${entry.name}=`);
      this.setState({ suggestions: texts.slice(0, SUGGESTIONS_MAX) });
    } catch {
      // Suggestions only help: without them one types.
      this.wanted = null;
    }
  }

  render(_props, { text, mode, matchCase, suggestions }) {
    const term = parseInput(text, { mode, matchCase });
    return html`<form class="query" role="search" onSubmit=${this.onSubmit}>
      <${Icon} name="search" />
      <select class="query-mode" aria-label="How the text is read" value=${mode} onChange=${this.onMode} title=${MODES.find((entry) => entry.mode === mode).hint}>
        ${MODES.map((entry) => html`<option value=${entry.mode}>${entry.label}</option>`)}
      </select>
      <input id="query" ref=${this.input} type="text" value=${text} onInput=${this.onInput} onKeyDown=${this.onKeyDown} onFocus=${this.onFocus}
        list="query-suggestions" autocomplete="off" autocapitalize="off" spellcheck=${false} maxlength="4000" enterkeyhint="search"
        aria-label="Add a filter" aria-describedby="query-hint" placeholder="Filter: text, -not, /regex/, word:x, label=value" />
      <datalist id="query-suggestions">${suggestions.map((suggestion) => html`<option value=${suggestion} />`)}</datalist>
      <button type="button" class="icon-button case" aria-pressed=${matchCase ? 'true' : 'false'} aria-label="Match case" title="Match case" onClick=${this.onCase}>Aa</button>
      <kbd class="query-key" aria-hidden="true">/</kbd>
      <div id="query-hint" class="query-hint" hidden=${!term}>${term && html`<kbd>Enter</kbd> ${visible(describe(term))}`}</div>
    </form>`;
  }
}

/** The change of the state that a term makes. */
export function applyTerm(state, term) {
  if (term.type === 'line') return withLine(state, term.line);
  if (term.type === 'label') return withLabel(state, term.label);
  const list = term.type === 'service' ? 'services' : 'levels';
  return state[list].includes(term.value) ? {} : { [list]: [...state[list], term.value] };
}

/** The filters that hold, one chip each; `invalid` is the parameter that the node refused. */
export function Chips({ state, invalid, onChange, onEdit }) {
  const without = (list, entry) => state[list].filter((other) => other !== entry);
  const services = state.services.map((value) => html`<${Chip} key=${`s${value}`} term=${{ type: 'service', value }} sign="service" text=${value}
    onRemove=${() => onChange({ services: toggled(state.services, value) })} />`);
  const lines = state.lines.map((line) => html`<${Chip} key=${`l${line.kind}${line.not}${line.value}`} term=${{ type: 'line', line }}
    sign=${signOf(line)} text=${line.value} not=${line.not} isInvalid=${invalid === `${line.not ? 'not_' : ''}${line.kind}`}
    onTurn=${() => onChange({ lines: state.lines.map((other) => (other === line ? { ...line, not: !line.not } : other)) })}
    onEdit=${() => onEdit({ type: 'line', line }, { lines: without('lines', line) })}
    onRemove=${() => onChange({ lines: without('lines', line) })} />`);
  const labels = state.labels.map((label) => html`<${Chip} key=${`m${label.name}${label.op}${label.value}`} term=${{ type: 'label', label }}
    sign=${`${label.name} ${label.op}`} text=${label.value || '(empty)'} not=${label.op.startsWith('!')} isInvalid=${invalid.startsWith(`label.${label.name}`)}
    onTurn=${() => onChange({ labels: state.labels.map((other) => (other === label ? { ...label, op: turnedOp(label.op) } : other)) })}
    onEdit=${() => onEdit({ type: 'label', label }, { labels: without('labels', label) })}
    onRemove=${() => onChange({ labels: without('labels', label) })} />`);
  const partition = state.partition !== '' && html`<${Chip} key="p" term=${{ type: 'partition', value: state.partition }} sign="partition" text=${state.partition}
    onRemove=${() => onChange({ partition: '' })} />`;
  const chips = [...services, ...lines, ...labels, partition].filter(Boolean);
  if (chips.length === 0) return null;
  return html`<ul class="chips" aria-label="Filters that hold">${chips}
    ${chips.length > 1 && html`<li key="clear"><button type="button" class="link" onClick=${() => onChange({ services: [], levels: [], lines: [], labels: [], partition: '' })}>Clear all</button></li>`}
  </ul>`;
}

function signOf({ kind, not }) {
  if (kind === 'regex') return not ? '!~' : '=~';
  if (kind === 'word') return not ? 'not word' : 'word';
  return `${not ? 'not ' : ''}contains${kind === 'icontains' ? '' : ' Aa'}`;
}

function turnedOp(op) {
  return { '=': '!=', '!=': '=', '=~': '!~', '!~': '=~' }[op];
}

function Chip({ term, sign, text, not, isInvalid, onTurn, onEdit, onRemove }) {
  const words = term.type === 'partition' ? `partition is ${term.value}` : describe(term);
  const turnTitle = not ? 'Leaves these records out: press to keep only them' : 'Keeps only these records: press to leave them out';
  return html`<li class=${`chip ${not ? 'is-not' : ''} ${isInvalid ? 'is-invalid' : ''}`} title=${visible(words)}>
    ${onTurn
      ? html`<button type="button" class="chip-sign" title=${turnTitle} aria-label=${`${sign} ${visible(text)}: ${turnTitle}`} onClick=${onTurn}>${sign}</button>`
      : html`<span class="chip-sign">${sign}</span>`}
    ${onEdit
      ? html`<button type="button" class="chip-text" title="Change it" aria-label=${`${visible(text)}: change the filter`} onClick=${onEdit}>${visible(text)}</button>`
      : html`<span class="chip-text">${visible(text)}</span>`}
    <button type="button" class="chip-remove" aria-label=${`Remove the filter: ${visible(words)}`} onClick=${onRemove}><${Icon} name="close" /></button>
  </li>`;
}
