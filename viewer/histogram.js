// The histogram over the range: bars stacked by level, drag to zoom.

import { Component, createRef, html } from './dom.js';
import uPlot from './vendor/uplot.js';
import { snapped, stackOrder, stackedData, summary, tickLabel, widthOf } from './bars.js';
import { Icon } from './icons.js';
import { formatCount, formatShort } from './text.js';
import { formatLocal } from './time.js';

const HEIGHT_PX = 92;
/** A drag shorter than this is a click that slipped. */
const DRAG_PX_MIN = 4;

export class Histogram extends Component {
  constructor(props) {
    super(props);
    this.box = createRef();
    this.tip = createRef();
    this.resized = new ResizeObserver(() => this.resize());
  }

  componentDidMount() {
    this.resized.observe(this.box.current);
    this.draw();
  }

  componentDidUpdate(before) {
    if (before.histogram.value !== this.props.histogram.value || before.theme !== this.props.theme) this.draw();
  }

  componentWillUnmount() {
    this.resized.disconnect();
    this.plot?.destroy();
  }

  resize() {
    const width = this.box.current?.clientWidth ?? 0;
    if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT_PX });
    else if (!this.plot) this.draw();
  }

  draw() {
    this.plot?.destroy();
    this.plot = null;
    const { value } = this.props.histogram;
    const width = this.box.current.clientWidth;
    if (!value || value.buckets.length === 0 || width === 0) return;
    const order = stackOrder(value);
    this.plot = new uPlot(this.options(value, order, width), stackedData(value, order), this.box.current);
  }

  options(value, order, width) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const font = `11px ${colour('--font-ui')}`;
    const axis = { stroke: colour('--text-dim'), font, ticks: { show: false } };
    return {
      width,
      height: HEIGHT_PX,
      ms: 1,
      legend: { show: false },
      padding: [6, 20, 0, 0],
      scales: {
        x: { time: true, range: () => [value.from, Math.max(value.to, value.from + value.step)] },
        y: { range: (_plot, _min, max) => [0, Math.max(1, max ?? 1) * 1.05] },
      },
      axes: [
        { ...axis, grid: { show: false }, size: 20, gap: 3, space: 90,
          values: (_plot, ticks) => ticks.map((tick, index) => tickLabel(tick, ticks[1] - ticks[0] || value.step, index > 0 ? ticks[index - 1] : null)) },
        { ...axis, grid: { stroke: colour('--grid'), width: 1 }, size: 44, gap: 4, space: 26,
          incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 1e8, 1e9],
          values: (_plot, ticks) => ticks.map(formatShort) },
      ],
      cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false, dist: DRAG_PX_MIN } },
      series: [{}, ...order.toReversed().map(({ name }) => this.series(name, colour(`--level-${name}`)))],
      hooks: { setSelect: [(plot) => this.selected(plot)], setCursor: [(plot) => this.pointed(plot, order)] },
    };
  }

  series(name, colour) {
    return {
      fill: () => filling(name, colour),
      stroke: colour,
      width: 0,
      points: { show: false },
      paths: uPlot.paths.bars({ size: [0.86, 48], align: 1, gap: 1 }),
    };
  }

  selected(plot) {
    const { left, width } = plot.select;
    if (width < DRAG_PX_MIN) return;
    const span = [plot.posToVal(left, 'x'), plot.posToVal(left + width, 'x')];
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.props.onZoom(snapped(this.props.histogram.value, ...span));
  }

  /** Shows what the bar under the pointer stands for. */
  pointed(plot, order) {
    const tip = this.tip.current;
    const { value } = this.props.histogram;
    const { left } = plot.cursor;
    const index = left >= 0 ? Math.floor((plot.posToVal(left, 'x') - value.from) / value.step) : -1;
    const counts = value.buckets[index];
    tip.hidden = !counts;
    if (!counts) return;
    const start = value.from + index * value.step;
    const lines = order.toReversed().filter(({ column }) => counts[column] > 0)
      .map(({ level, letter, name, column }) => tipLine(`mark mark-${name}`, letter, level || 'no level', counts[column]));
    const head = document.createElement('div');
    head.textContent = `${formatLocal(start, value.step >= 1000)}, ${widthOf(value.step)}`;
    tip.replaceChildren(head, ...lines);
    if (lines.length === 0) tip.append('no records');
    const at = plot.valToPos(start, 'x') + 44 + 12;
    tip.style.left = `${Math.min(at, this.box.current.clientWidth - tip.offsetWidth - 4)}px`;
  }

  render({ histogram, failed }) {
    const { value, error, partial, loading } = histogram;
    return html`<section class=${`histogram ${loading ? 'is-loading' : ''}`} aria-label="Records over time">
      <div class="histogram-plot" ref=${this.box} role="img" aria-label=${value ? summary(value) : 'Histogram: nothing loaded yet'}></div>
      <div class="histogram-tip" ref=${this.tip} hidden aria-hidden="true"></div>
      ${error && !failed && html`<p class="histogram-error"><${Icon} name="alert" /> No histogram: ${error.title}</p>`}
      ${partial && !error && html`<p class="histogram-partial" title=${partial}>partial</p>`}
    </section>`;
  }
}

/** Buttons that move the range: what dragging cannot do, and what the keyboard can. */
export function RangeButtons({ step, range, onMove }) {
  const button = (how, label, icon) => html`<button type="button" class="icon-button" aria-label=${label} title=${label}
    disabled=${!range} onClick=${() => onMove(how)}><${Icon} name=${icon} /></button>`;
  return html`<span class="group">
    ${step && html`<span class="histogram-step">a bar is ${widthOf(step)}</span>`}
    ${button('earlier', 'Earlier', 'left')}${button('out', 'Zoom out (z)', 'zoomOut')}${button('later', 'Later', 'right')}
  </span>`;
}

function tipLine(className, letter, level, count) {
  const line = document.createElement('div');
  const mark = document.createElement('span');
  mark.className = className;
  mark.textContent = letter;
  line.append(mark, ` ${level} ${formatCount(count)}`);
  return line;
}

const patterns = new Map();

/** Warnings are hatched and errors solid, so that they differ without colour too. */
function filling(name, colour) {
  if (name !== 'warn' && name !== 'fatal') return colour;
  const ratio = Math.max(1, Math.round(devicePixelRatio));
  const key = `${name}${colour}${ratio}`;
  if (!patterns.has(key)) patterns.set(key, hatching(colour, 5 * ratio, name === 'fatal'));
  return patterns.get(key);
}

function hatching(colour, size, crossed) {
  const tile = document.createElement('canvas');
  tile.width = tile.height = size;
  const pen = tile.getContext('2d');
  pen.fillStyle = colour;
  pen.globalAlpha = 0.45;
  pen.fillRect(0, 0, size, size);
  pen.globalAlpha = 1;
  pen.strokeStyle = colour;
  pen.lineWidth = size / 3.2;
  const lines = crossed ? [[0, size, size, 0], [0, 0, size, size]] : [[0, size, size, 0], [-1, 1, 1, -1], [size - 1, size + 1, size + 1, size - 1]];
  for (const [x1, y1, x2, y2] of lines) {
    pen.beginPath();
    pen.moveTo(x1, y1);
    pen.lineTo(x2, y2);
    pen.stroke();
  }
  return pen.createPattern(tile, 'repeat');
}
