// The keyboard. One table says which key does what, for the handler and for the help.

import { Component, createRef, html } from './dom.js';
import { Icon } from './icons.js';

/** Keys, the action each calls, and what it does in words. */
export const KEYS = [
  { keys: ['/'], action: 'focusQuery', does: 'Go to the query box' },
  { keys: ['j', 'ArrowDown'], action: 'next', does: 'Next record' },
  { keys: ['k', 'ArrowUp'], action: 'previous', does: 'Previous record' },
  { keys: ['Enter'], action: 'toggle', does: 'Expand or fold the record' },
  { keys: ['c'], action: 'context', does: 'Records around the record' },
  { keys: ['y'], action: 'copy', does: 'Copy the record' },
  { keys: ['g', 'Home'], action: 'top', does: 'To the first record' },
  { keys: ['G', 'End'], action: 'end', does: 'To the last loaded record' },
  { keys: ['PageDown'], action: 'pageDown', does: 'A screen down' },
  { keys: ['PageUp'], action: 'pageUp', does: 'A screen up' },
  { keys: ['t'], action: 'tail', does: 'Live tail on or off' },
  { keys: ['r'], action: 'refresh', does: 'Search again' },
  { keys: ['w'], action: 'wrap', does: 'Wrap long messages' },
  { keys: ['z'], action: 'zoomOut', does: 'Zoom out' },
  { keys: ['?'], action: 'help', does: 'This help' },
  { keys: ['Escape'], action: 'escape', does: 'Close, fold, or leave the box' },
];
const ACTIONS = new Map(KEYS.flatMap(({ keys, action }) => keys.map((key) => [key, action])));

/** The action of a key press, or null where the element in focus wants the key itself. */
export function actionOf(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return null;
  const action = ACTIONS.get(event.key) ?? null;
  const { target } = event;
  // A dialog has its own keys, and closes itself on Escape.
  if (target.closest?.('dialog, [role="dialog"]')) return null;
  if (target.closest?.('input, textarea, select')) return action === 'escape' ? action : null;
  // Enter on a button presses the button; the arrows in a list of tabs or a menu are its own.
  if (action === 'toggle' && target.closest?.('button, a, summary')) return null;
  return action;
}

const NAMES = { PageDown: 'Page ↓', PageUp: 'Page ↑', ArrowDown: '↓', ArrowUp: '↑', Escape: 'Esc' };

export class HelpDialog extends Component {
  constructor(props) {
    super(props);
    this.dialog = createRef();
  }

  componentDidMount() {
    this.dialog.current.showModal();
  }

  render({ onClose }) {
    const close = () => this.dialog.current.close();
    return html`<dialog class="dialog help" ref=${this.dialog} aria-labelledby="help-title" onClose=${onClose}
      onClick=${(event) => { if (event.target === this.dialog.current) close(); }}>
      <div class="dialog-head"><h2 id="help-title">Keys and queries</h2><span class="grow"></span>
        <button type="button" class="icon-button" aria-label="Close" onClick=${close}><${Icon} name="close" /></button></div>
      <div class="dialog-body help-body" tabindex="0" role="region" aria-label="Help">
        <dl class="keys">${KEYS.map(({ keys, does }) => html`<div><dt>${keys.map((key) => html`<kbd>${NAMES[key] ?? key}</kbd>`)}</dt><dd>${does}</dd></div>`)}</dl>
        <dl class="keys queries">${QUERIES.map(([text, does]) => html`<div><dt><code>${text}</code></dt><dd>${does}</dd></div>`)}</dl>
        <p class="dim">Drag over the histogram to zoom in. The page's address holds the query and the range: send it on.</p>
      </div>
    </dialog>`;
  }
}

const QUERIES = [
  ['timeout', 'messages that contain it, in any case'],
  ['-timeout', 'messages that do not'],
  ['"  text "', 'exactly the text between the quotes'],
  ['word:refused', 'messages with the whole word; the fastest'],
  ['/user=4\\d/', 'messages that match the regular expression'],
  ['region=eu', 'records with the label; also != =~ !~'],
  ['service:api', 'one more service'],
  ['level:error', 'one more level'],
];
