// One record on one line: level, time, service, message.

import { Component, classes, html } from './dom.js';
import { formatClock, formatDay, formatIso } from './time.js';
import { ROW_CHARACTERS_MAX, hueOf, levelOf, oneLine, plural, visible } from './text.js';
import { isGap } from './rows.js';

/** The level as a letter in a box: the letter and the box's filling tell it, the colour only helps. */
export function LevelMark({ level }) {
  const { name, letter } = levelOf(level);
  return html`<span class=${`mark mark-${name}`} title=${level || 'no level'}>
    <span aria-hidden="true">${letter}</span><span class="sr-only">${level || 'no level'}</span>
  </span>`;
}

export function ServiceName({ service }) {
  return html`<span class="service" style=${{ '--hue': String(hueOf(service)) }} title=${service}>${visible(service)}</span>`;
}

/** A text cut into what was searched for and what was not. */
export function Highlighted({ text, highlight, shape = visible }) {
  return highlight(text).map(({ text: part, hit }) => (hit ? html`<mark>${shape(part)}</mark>` : shape(part)));
}

function Message({ message, highlight, wrap }) {
  const cut = message.length > ROW_CHARACTERS_MAX;
  const text = cut ? message.slice(0, ROW_CHARACTERS_MAX) : message;
  return html`<${Highlighted} text=${text} highlight=${highlight} shape=${wrap ? wrapped : oneLine} />${cut && html`<span class="cut">…</span>`}`;
}

function wrapped(text) {
  return visible(text.replace(/\r\n|\r/g, '\n'));
}

/** The cells of a record's line. */
export class RowView extends Component {
  shouldComponentUpdate(next) {
    const { props } = this;
    return props.row !== next.row || props.index !== next.index || props.selected !== next.selected
      || props.expanded !== next.expanded || props.wrap !== next.wrap || props.highlight !== next.highlight;
  }

  render({ row, index, selected, expanded, wrap, highlight }) {
    if (isGap(row)) {
      return html`<div class="gap" role="row" aria-rowindex=${index + 2}><span role="gridcell" aria-colspan="4">
        ${plural(row.missed, 'record')} missing here: ${row.reason}</span></div>`;
    }
    const level = levelOf(row.level).name;
    return html`<div id=${rowId(row.key)} role="row" aria-rowindex=${index + 2} aria-selected=${selected ? 'true' : 'false'}
      aria-expanded=${expanded ? 'true' : 'false'}
      class=${classes('row', `level-${level}`, { 'is-selected': selected, 'is-expanded': expanded, 'is-wrapped': wrap })}>
      <span role="gridcell" class="cell-level"><${LevelMark} level=${row.level} /></span>
      <span role="gridcell" class="cell-time" title=${`${formatIso(row.timestamp)} (UTC)`}><span class="day">${formatDay(row.timestamp).slice(5)}</span>${' '}<span>${formatClock(row.timestamp)}</span></span>
      <span role="gridcell" class="cell-service"><${ServiceName} service=${row.service} /></span>
      <span role="gridcell" class="cell-message"><${Message} message=${row.message} highlight=${highlight} wrap=${wrap} /></span>
    </div>`;
  }
}

export function rowId(key) {
  return `row-${key.replace(/\W/g, '-')}`;
}
