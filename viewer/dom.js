// The one place that binds templates to Preact. All text given to a template becomes a text node: nothing in the viewer
// sets HTML from strings.

import { h } from './vendor/preact.js';
import htm from './vendor/htm.js';

export { Component, createRef, render } from './vendor/preact.js';
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from './vendor/preact-hooks.js';

export const html = htm.bind(h);

/** Joins the class names that hold: `classes('row', { open })`. */
export function classes(...parts) {
  const names = [];
  for (const part of parts) {
    if (!part) continue;
    if (typeof part === 'string') names.push(part);
    else for (const [name, holds] of Object.entries(part)) if (holds) names.push(name);
  }
  return names.join(' ');
}
