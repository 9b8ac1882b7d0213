// The list of records: of 100,000 rows, those in sight are in the page.
//
// Invariant: what the reader looks at does not move when heights above it turn out otherwise than estimated.

import { Component, createRef, html } from './dom.js';
import { Heights } from './heights.js';
import { RowView, rowId } from './row_view.js';
import { isGap } from './rows.js';

/** Rows rendered above and below those in sight, so that a quick scroll shows no blank. */
const OVERSCAN = 8;
const LINE_PX = 18;
/** Height of the line of column names, which sticks to the top. */
const HEAD_PX = 24;

/** The heights of a row by how it is shown; `viewer.css` has the same. */
const ROW_PX = { wide: 22, narrow: 42 };

export class LogList extends Component {
  constructor(props) {
    super(props);
    props.handle.current = this;
    this.state = { first: 0, last: 60 };
    this.scroller = createRef();
    this.heights = new Heights();
    /** Measured heights of rows that are not of the standard one. */
    this.measured = new Map();
    this.generation = -1;
    this.elements = new Map();
    this.resized = new ResizeObserver((entries) => this.onResized(entries));
    // As last seen: asking the element in the middle of an update would make the browser lay it out once more.
    this.scrollTop = 0;
    this.clientHeight = 600;
    this.onScroll = () => {
      this.scrollTop = this.scroller.current.scrollTop;
      this.look();
    };
    this.onClick = (event) => this.clicked(event);
  }

  componentDidMount() {
    this.resized.observe(this.scroller.current);
    this.clientHeight = this.scroller.current.clientHeight;
    this.look();
  }

  componentDidUpdate() {
    this.look();
  }

  componentWillUnmount() {
    this.resized.disconnect();
  }

  // Heights.

  standardHeight(index) {
    const row = this.props.rows[index];
    const known = this.measured.get(row.key);
    if (known !== undefined) return known;
    const base = this.props.narrow ? ROW_PX.narrow : ROW_PX.wide;
    if (!this.props.wrap || isGap(row)) return base;
    const lines = Math.ceil(Math.min(row.message.length, 2000) / (this.columns ?? 120));
    return base + (Math.max(1, lines) - 1) * LINE_PX;
  }

  /** Takes in how the rows changed since the last look. */
  sync({ rows, generation, prepended, dropped, wrap, narrow }) {
    const heightOf = (index) => this.standardHeight(index);
    const layout = `${wrap}${narrow}`;
    if (layout !== this.layout) {
      this.layout = layout;
      this.measured.clear();
      this.anchor = this.heights.count > 0 ? this.place() : null;
      this.generation = -1;
    } else if (generation !== this.generation) {
      this.anchor = null;
    }
    if (generation !== this.generation) {
      this.heights.reset(rows.length, heightOf);
      Object.assign(this, { generation, prepended, dropped });
      return;
    }
    const came = prepended - this.prepended;
    if (came > 0) this.heights.prepend(came, heightOf, dropped - this.dropped);
    Object.assign(this, { prepended, dropped });
    if (this.heights.count < rows.length) this.heights.append(rows.length - this.heights.count, heightOf);
  }

  /** The first row in sight, and how far it is scrolled out. */
  place() {
    const index = this.heights.at(this.scrollTop);
    return { index, offset: this.scrollTop - this.heights.top(index) };
  }

  onResized(entries) {
    const scroller = this.scroller.current;
    if (!scroller) return;
    const first = this.heights.at(this.scrollTop);
    let above = 0;
    let changed = false;
    for (const { target, borderBoxSize } of entries) {
      if (target === scroller) {
        this.clientHeight = scroller.clientHeight;
        changed = this.measureColumns() || changed;
        continue;
      }
      const index = this.indexOf(target.dataset.key);
      const height = borderBoxSize[0].blockSize;
      if (index < 0 || height === 0 || Math.abs(height - this.heights.height(index)) < 0.5) continue;
      this.measured.set(target.dataset.key, height);
      const by = this.heights.set(index, height);
      if (index < first) above += by;
      changed = true;
    }
    if (above !== 0) this.scrollTo(this.scrollTop + above);
    if (changed) this.forceUpdate();
  }

  /** How many characters fit a message's line, to estimate wrapped heights by. */
  measureColumns() {
    const message = this.scroller.current.querySelector('.cell-message');
    const columns = message ? Math.max(20, Math.floor(message.clientWidth / 7.6)) : this.columns;
    if (columns === this.columns) return false;
    this.columns = columns;
    return true;
  }

  /** The index of a rendered row. */
  indexOf(key) {
    const { rows } = this.props;
    for (let index = this.state.first; index < Math.min(this.state.last + 1, rows.length); index += 1) {
      if (rows[index].key === key) return index;
    }
    return rows.findIndex((row) => row.key === key);
  }

  // Scrolling.

  /** Looks which rows are in sight, and tells who wants to know. */
  look() {
    if (this.anchor) {
      const { index, offset } = this.anchor;
      this.anchor = null;
      this.scrollTo(this.heights.top(Math.min(index, this.heights.count)) + offset);
    }
    const { scrollTop, clientHeight } = this;
    const first = Math.max(0, this.heights.at(scrollTop) - OVERSCAN);
    const last = Math.min(Math.max(0, this.heights.count - 1), this.heights.at(scrollTop + clientHeight) + OVERSCAN);
    if (first !== this.state.first || last !== this.state.last) this.setState({ first, last });
    this.props.onTop(scrollTop < 4);
    if (this.heights.total - scrollTop - clientHeight < clientHeight * 2) this.props.onNearEnd();
  }

  scrollTo(top) {
    this.scroller.current.scrollTop = top;
    this.scrollTop = this.scroller.current.scrollTop;
  }

  toTop() {
    this.scrollTo(0);
  }

  toEnd() {
    this.scrollTo(this.scroller.current.scrollHeight);
  }

  /** Scrolls by a screen, less a line to hold on to. */
  page(by) {
    this.scrollTo(this.scrollTop + by * (this.clientHeight - HEAD_PX - ROW_PX.wide));
  }

  /** Scrolls just so far that a row is in sight. */
  reveal(index) {
    const inSight = this.clientHeight - (this.props.narrow ? 0 : HEAD_PX);
    const top = this.heights.top(index);
    const bottom = top + Math.min(this.heights.height(index), inSight);
    if (top < this.scrollTop) this.scrollTo(top);
    else if (bottom > this.scrollTop + inSight) this.scrollTo(bottom - inSight);
  }

  /** The row so many rows from the selected one; the first in sight if none is selected. */
  step(by) {
    const { rows, selected } = this.props;
    if (rows.length === 0) return null;
    let index = selected ? this.indexOf(selected) : -1;
    if (index < 0) index = this.place().index - (by > 0 ? by : 0);
    do index += by; while (rows[index] && isGap(rows[index]));
    if (!rows[index]) return null;
    this.reveal(index);
    return rows[index];
  }

  clicked(event) {
    const line = event.target.closest('.row');
    if (!line || event.target.closest('button, a')) return;
    // A click that ends a selection of text wants the text.
    if (!document.getSelection().isCollapsed) return;
    const key = line.closest('.block').dataset.key;
    const row = this.props.rows[this.indexOf(key)];
    if (row) this.props.onToggle(row);
  }

  render(props) {
    this.sync(props);
    const { rows, expanded, selected, wrap, highlight, narrow, detail, footer, stale, zone } = props;
    const { first } = this.state;
    const last = Math.min(this.state.last, rows.length - 1);
    const blocks = [];
    for (let index = first; index <= last; index += 1) {
      const row = rows[index];
      const open = expanded.has(row.key);
      blocks.push(html`<${Block} key=${row.key} name=${row.key} observer=${this.resized}>
        <${RowView} row=${row} index=${index} selected=${row.key === selected} expanded=${open} wrap=${wrap} highlight=${highlight} />
        ${open && html`<div role="row" class="detail-row"><div role="gridcell" aria-colspan="4">${detail(row)}</div></div>`}
      <//>`);
    }
    const inSight = blocks.some(({ key }) => key === selected);
    return html`<div class=${`list ${narrow ? 'is-narrow' : ''} ${stale ? 'is-stale' : ''}`} ref=${this.scroller} onScroll=${this.onScroll}>
      <div class="grid" role="treegrid" aria-label="Records" aria-rowcount=${rows.length + 1} aria-colcount="4" aria-busy=${stale ? 'true' : 'false'}
        tabindex="0" aria-activedescendant=${inSight ? rowId(selected) : undefined} onClick=${this.onClick} id="records">
        <div role="row" class="head" aria-rowindex="1">
          <span role="columnheader" class="cell-level"><span class="sr-only">Level</span></span>
          <span role="columnheader" class="cell-time">Time <span class="zone">${zone}</span></span>
          <span role="columnheader" class="cell-service">Service</span>
          <span role="columnheader" class="cell-message">Message</span>
        </div>
        <div class="spacer" role="rowgroup" style=${{ height: `${this.heights.total}px` }}>
          <div class="window" role="presentation" style=${{ transform: `translateY(${this.heights.top(Math.min(first, this.heights.count))}px)` }}>${blocks}</div>
        </div>
      </div>
      ${footer}
    </div>`;
  }
}

/** A record's line and, when expanded, what is below it; tells the observer when its height changes. */
class Block extends Component {
  constructor(props) {
    super(props);
    this.element = createRef();
  }

  componentDidMount() {
    this.props.observer.observe(this.element.current);
  }

  componentWillUnmount() {
    this.props.observer.unobserve(this.element.current);
  }

  render({ name, children }) {
    return html`<div class="block" role="presentation" data-key=${name} ref=${this.element}>${children}</div>`;
  }
}
