// A button that opens a panel below it. Closes on Escape, on a click elsewhere, and when the focus leaves.

import { Component, createRef, html } from './dom.js';
import { Icon } from './icons.js';

export class Popover extends Component {
  constructor(props) {
    super(props);
    this.state = { open: false };
    this.root = createRef();
    this.button = createRef();
    this.panel = createRef();
    this.onOutside = (event) => {
      if (!event.composedPath().includes(this.root.current)) this.close(false);
    };
    this.close = (refocus = true) => {
      if (!this.state.open) return;
      this.setState({ open: false });
      if (refocus) this.button.current?.focus();
    };
    this.toggle = () => this.setState({ open: !this.state.open });
    this.onKeyDown = (event) => {
      if (event.key !== 'Escape' || !this.state.open) return;
      event.stopPropagation();
      this.close();
    };
    this.onFocusOut = (event) => {
      if (event.relatedTarget && !this.root.current.contains(event.relatedTarget)) this.close(false);
    };
  }

  componentDidUpdate(_props, before) {
    if (before.open === this.state.open) return;
    const listen = this.state.open ? 'addEventListener' : 'removeEventListener';
    document[listen]('pointerdown', this.onOutside, true);
    if (this.state.open) {
      this.props.onOpen?.();
      (this.panel.current.querySelector('[data-autofocus]') ?? this.panel.current).focus();
    }
  }

  componentWillUnmount() {
    document.removeEventListener('pointerdown', this.onOutside, true);
  }

  render({ id, label, title, icon, name, active, children, align }) {
    const { open } = this.state;
    return html`<div class="popover" ref=${this.root} onKeyDown=${this.onKeyDown} onFocusOut=${this.onFocusOut}>
      <button type="button" id=${id} class=${`button ${active ? 'is-active' : ''}`} ref=${this.button} title=${title}
        aria-haspopup="dialog" aria-expanded=${open ? 'true' : 'false'} onClick=${this.toggle}>
        ${icon && html`<${Icon} name=${icon} />`}<span class="button-text">${label}</span><${Icon} name="down" />
      </button>
      ${open && html`<div class=${`panel panel-${align ?? 'left'}`} ref=${this.panel} role="dialog" aria-label=${name} tabindex="-1">
        ${children(this.close)}
      </div>`}
    </div>`;
  }
}
