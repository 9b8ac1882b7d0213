// One record, whole: its fields with filters, or its JSON as a tree.

import { Component, html } from './dom.js';
import { copyText } from './export.js';
import { fieldsOf, filterBy, parsedJson } from './fields.js';
import { Icon } from './icons.js';
import { JsonTree } from './json_tree.js';
import { Highlighted, LevelMark, ServiceName } from './row_view.js';
import { recordOf } from './rows.js';
import { ago, formatIso, formatLocal } from './time.js';
import { visible } from './text.js';

/** Characters of a message shown at once: more would stall the page's layout. */
const MESSAGE_MAX = 50_000;

export class RecordDetail extends Component {
  constructor(props) {
    super(props);
    this.state = { view: 'fields' };
  }

  render({ row, state, known, highlight, onFilter, onContext, onLink, onToast }, { view }) {
    const record = recordOf(row);
    const copy = async (text, what) => onToast((await copyText(text)) ? `Copied ${what}` : 'The browser does not let the page copy');
    const tab = (name, label) => html`<button type="button" role="tab" aria-selected=${view === name ? 'true' : 'false'}
      class="tab" onClick=${() => this.setState({ view: name })}>${label}</button>`;
    return html`<div class="detail">
      <div class="detail-bar">
        <div role="tablist" aria-label="How the record is shown" class="tabs">${tab('fields', 'Fields')}${tab('json', 'JSON')}</div>
        <span class="detail-place">partition ${row.partition} · offset ${row.offset}</span>
        <span class="grow"></span>
        ${onContext && html`<button type="button" class="button small" onClick=${() => onContext(row)} title="The records around this one (c)"><${Icon} name="context" /> Context</button>`}
        <button type="button" class="button small" onClick=${() => copy(row.raw, 'the record')} title="Copy the record's JSON (y)"><${Icon} name="copy" /> Copy</button>
        <button type="button" class="button small" onClick=${() => copy(onLink(row), 'a link to the record')} title="Copy a link to this record"><${Icon} name="link" /> Link</button>
      </div>
      ${view === 'json'
        ? html`<div class="json"><${JsonTree} value=${record} /></div>`
        : html`<${Fields} record=${record} state=${state} known=${known} highlight=${highlight} onFilter=${onFilter} copy=${copy} />`}
    </div>`;
  }
}

function Fields({ record, state, known, highlight, onFilter, copy }) {
  return html`<table class="fields"><tbody>
    ${fieldsOf(record).map((field) => html`<tr key=${field.name} class=${`field field-${field.kind}`}>
      <td class="field-actions"><span>
        <${FilterButton} field=${field} out=${false} state=${state} known=${known} onFilter=${onFilter} />
        <${FilterButton} field=${field} out=${true} state=${state} known=${known} onFilter=${onFilter} />
        <button type="button" class="icon-button" title=${`Copy ${field.name}`} aria-label=${`Copy ${field.name}`} onClick=${() => copy(field.value, field.name)}><${Icon} name="copy" /></button>
      </span></td>
      <th scope="row">${visible(field.name)}</th>
      <td class="field-value"><${FieldValue} field=${field} highlight=${highlight} /></td>
    </tr>`)}
  </tbody></table>`;
}

function FilterButton({ field, out, state, known, onFilter }) {
  const change = filterBy(field, out, state, known);
  if (!change) return html`<span class="icon-button is-empty"></span>`;
  const title = out ? `Leave out records with this ${field.name}` : `Only records with this ${field.name}`;
  return html`<button type="button" class="icon-button" title=${title} aria-label=${title} onClick=${() => onFilter(change)}>
    <${Icon} name=${out ? 'minus' : 'plus'} /></button>`;
}

function FieldValue({ field, highlight }) {
  if (field.kind === 'time') {
    const ms = Number(field.value);
    return html`${formatLocal(ms)} <span class="dim">${formatIso(ms)} · ${ago(ms, Date.now())}</span>`;
  }
  if (field.kind === 'service') return html`<${ServiceName} service=${field.value} />`;
  if (field.kind === 'level') return html`<span class="level-value"><${LevelMark} level=${field.value} /><span aria-hidden="true">${visible(field.value)}</span></span>`;
  const json = parsedJson(field.value);
  if (json !== undefined) return html`<div class="json"><${JsonTree} value=${json} name=${undefined} /></div>`;
  if (field.kind !== 'message') return visible(field.value) || html`<span class="dim">(empty)</span>`;
  const cut = field.value.length > MESSAGE_MAX;
  const text = cut ? field.value.slice(0, MESSAGE_MAX) : field.value;
  return html`<div class="message"><${Highlighted} text=${text} highlight=${highlight} />
    ${cut && html`<span class="cut"> … ${field.value.length - MESSAGE_MAX} more characters: copy the record for all</span>`}</div>`;
}
