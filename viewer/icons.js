// Line icons, 16 × 16, in the colour of the text beside them. They only decorate: each stands by a name or a label.

import { html } from './dom.js';

const PATHS = {
  search: 'M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9ZM10.3 10.3 14 14',
  clock: 'M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2ZM8 4.8V8l2.2 1.6',
  refresh: 'M13.4 6.5A5.5 5.5 0 0 0 3.3 5M13.5 3v3.5H10M2.6 9.5A5.5 5.5 0 0 0 12.7 11M2.5 13V9.5H6',
  play: 'M5 3.2v9.6l7.5-4.8Z',
  stop: 'M4 4h8v8H4Z',
  sun: 'M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M3.4 12.6l.9-.9M11.7 4.3l.9-.9',
  moon: 'M13 9.6A5.6 5.6 0 0 1 6.4 3 5.6 5.6 0 1 0 13 9.6Z',
  help: 'M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2ZM6.3 6.3a1.7 1.7 0 1 1 2.5 1.5c-.6.3-.8.7-.8 1.3M8 11.2v.3',
  down: 'M4.5 6.5 8 10l3.5-3.5',
  close: 'M4.5 4.5l7 7M11.5 4.5l-7 7',
  copy: 'M6 6h7v7H6ZM10 6V3H3v7h3',
  download: 'M8 2.5v7.5M5 7.3l3 3 3-3M3 13h10',
  terminal: 'M3 4.5 6.5 8 3 11.5M8 11.5h5',
  zoomOut: 'M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9ZM10.3 10.3 14 14M5 7h4',
  left: 'M9.5 4.5 6 8l3.5 3.5',
  right: 'M6.5 4.5 10 8l-3.5 3.5',
  plus: 'M8 3.5v9M3.5 8h9',
  minus: 'M3.5 8h9',
  wrap: 'M2.5 4h11M2.5 8h8.5a2 2 0 0 1 0 4H8M9.5 10.3 7.8 12l1.7 1.7M2.5 12h3',
  link: 'M6.7 9.3a2.3 2.3 0 0 0 3.3 0l2.5-2.5a2.3 2.3 0 0 0-3.3-3.3l-.7.7M9.3 6.7a2.3 2.3 0 0 0-3.3 0L3.5 9.2a2.3 2.3 0 0 0 3.3 3.3l.7-.7',
  context: 'M3 3.5h10M3 6h7M3 12.5h10M3 10h7M2 8h12',
  alert: 'M8 2.2 14.3 13H1.7ZM8 6.5v3M8 11.2v.3',
  up: 'M4.5 9.5 8 6l3.5 3.5',
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" fill="none"
    stroke="currentColor" stroke-width="1.4" stroke-linecap="round" stroke-linejoin="round"><path d=${PATHS[name]} /></svg>`;
}
