// The records around one, in the order in which they were stored.

import { Component, createRef, html } from './dom.js';
import { isAbort } from './api.js';
import { copyText } from './export.js';
import { Icon } from './icons.js';
import { RowView } from './row_view.js';
import { toNdjson } from './rows.js';
import { surroundings } from './session.js';
import { AROUNDS } from './state.js';
import { plural } from './text.js';

const plain = (text) => [{ text, hit: false }];

export class ContextDialog extends Component {
  constructor(props) {
    super(props);
    this.state = { rows: null, error: null, sameService: false, open: true };
    this.dialog = createRef();
    this.centre = createRef();
    this.onClose = () => this.props.onClose();
    this.onSame = () => this.setState({ sameService: !this.state.sameService }, () => this.load());
    this.onAround = (event) => this.props.onAround(Number(event.target.value));
    this.toggle = () => this.setState({ open: !this.state.open });
    this.onBackdrop = (event) => { if (event.target === this.dialog.current) this.dialog.current.close(); };
  }

  componentDidMount() {
    this.dialog.current.showModal();
    this.load();
  }

  componentDidUpdate(before) {
    if (before.at !== this.props.at || before.around !== this.props.around) this.load();
  }

  componentWillUnmount() {
    this.abort?.abort();
  }

  async load() {
    this.abort?.abort();
    this.abort = new AbortController();
    const { signal } = this.abort;
    const { at, around } = this.props;
    const [partition, offset] = at.split(':').map(Number);
    try {
      const rows = await surroundings({ partition, offset }, { before: around, after: around, sameService: this.state.sameService, signal });
      if (signal.aborted) return;
      this.setState({ rows, error: null }, () => this.centre.current?.scrollIntoView({ block: 'center' }));
    } catch (error) {
      if (!isAbort(error)) this.setState({ error, rows: null });
    }
  }

  render({ at, around, detail }, { rows, error, sameService, open }) {
    const [partition, offset] = at.split(':');
    return html`<dialog class="dialog context" ref=${this.dialog} aria-labelledby="context-title" onClose=${this.onClose} onClick=${this.onBackdrop}>
      <div class="dialog-head">
        <h2 id="context-title">Context <span class="dim">partition ${partition} · offset ${offset}</span></h2>
        <span class="grow"></span>
        <label class="check"><input type="checkbox" checked=${sameService} onChange=${this.onSame} /> same service</label>
        <label class="select-label">±<select aria-label="Records on each side" onChange=${this.onAround}>
          ${[...new Set([...AROUNDS, around])].sort((a, b) => a - b).map((count) => html`<option value=${count} selected=${count === around}>${count}</option>`)}
        </select></label>
        ${rows && html`<button type="button" class="button small" onClick=${() => copyText(toNdjson(rows))} title="Copy these records as NDJSON"><${Icon} name="copy" /> Copy</button>`}
        <button type="button" class="icon-button" aria-label="Close" onClick=${() => this.dialog.current.close()}><${Icon} name="close" /></button>
      </div>
      <div class="dialog-body" tabindex="0" autofocus role="region" aria-label="Records around it">
        ${error && html`<p class="notice is-error" role="alert"><${Icon} name="alert" /> <strong>${error.title}</strong> ${error.detail}</p>`}
        ${!rows && !error && html`<p class="dim pad">Loading…</p>`}
        ${rows && html`<${Surroundings} rows=${rows} at=${at} open=${open} detail=${detail} onToggle=${this.toggle} centre=${this.centre} />`}
      </div>
      ${rows && html`<div class="dialog-foot dim">${plural(rows.length, 'record')} in the order in which they were stored</div>`}
    </dialog>`;
  }
}

function Surroundings({ rows, at, open, detail, onToggle, centre }) {
  return html`<div role="treegrid" aria-label="Records around it" class="grid is-static">
    <div role="rowgroup">
      ${rows.map((row, index) => {
        const isCentre = row.key === at;
        return html`<div key=${row.key} role="presentation" class=${isCentre ? 'block is-centre' : 'block'} ref=${isCentre ? centre : null}
          onClick=${isCentre ? (event) => event.target.closest('.row') && onToggle() : null}>
          <${RowView} row=${row} index=${index} selected=${isCentre} expanded=${isCentre && open} wrap=${false} highlight=${plain} />
          ${isCentre && open && html`<div role="row" class="detail-row"><div role="gridcell" aria-colspan="4">${detail(row)}</div></div>`}
        </div>`;
      })}
    </div>
  </div>`;
}

