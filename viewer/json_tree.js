// A JSON value as a tree whose objects and arrays fold.

import { Component, html } from './dom.js';
import { visible } from './text.js';

/** Children shown of one object or array until more are asked for. */
const CHILDREN_MAX = 100;
/** Characters of one text. */
const TEXT_MAX = 20_000;

export class JsonTree extends Component {
  constructor(props) {
    super(props);
    this.state = { open: props.depth === undefined || props.depth < 2, shown: CHILDREN_MAX };
    this.toggle = () => this.setState({ open: !this.state.open });
    this.more = () => this.setState({ shown: this.state.shown * 10 });
  }

  render({ value, name, depth = 0, comma }, { open, shown }) {
    const label = name !== undefined && html`<span class="json-key">${JSON.stringify(visible(name))}</span>: `;
    if (typeof value !== 'object' || value === null) {
      return html`<div class="json-line">${label}<${Leaf} value=${value} />${comma && ','}</div>`;
    }
    const isArray = Array.isArray(value);
    const entries = isArray ? value.map((child) => [undefined, child]) : Object.entries(value);
    const [left, right] = isArray ? '[]' : '{}';
    if (entries.length === 0) return html`<div class="json-line">${label}${left}${right}${comma && ','}</div>`;
    const count = `${entries.length} ${isArray ? 'element' : 'field'}${entries.length === 1 ? '' : 's'}`;
    const head = html`<button type="button" class="json-fold" aria-expanded=${open ? 'true' : 'false'} onClick=${this.toggle}
      aria-label=${`${open ? 'Fold' : 'Unfold'} ${name ?? 'the record'}, ${count}`}><span aria-hidden="true">${open ? '▾' : '▸'}</span></button>`;
    if (!open) {
      return html`<div class="json-line">${head}${label}${left}<span class="json-count"> ${count} </span>${right}${comma && ','}</div>`;
    }
    return html`<div class="json-node">
      <div class="json-line">${head}${label}${left}</div>
      <div class="json-children">
        ${entries.slice(0, shown).map(([key, child], index) => html`<${JsonTree} key=${key ?? index} name=${key} value=${child}
          depth=${depth + 1} comma=${index < entries.length - 1} />`)}
        ${entries.length > shown && html`<button type="button" class="link" onClick=${this.more}>${entries.length - shown} more</button>`}
      </div>
      <div class="json-line">${right}${comma && ','}</div>
    </div>`;
  }
}

function Leaf({ value }) {
  if (typeof value !== 'string') return html`<span class=${`json-${value === null ? 'null' : typeof value}`}>${String(value)}</span>`;
  const cut = value.length > TEXT_MAX;
  const text = JSON.stringify(cut ? value.slice(0, TEXT_MAX) : value);
  return html`<span class="json-string">${visible(text)}</span>${cut && html`<span class="cut"> ${value.length - TEXT_MAX} more characters</span>`}`;
}
