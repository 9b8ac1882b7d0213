// Out of the page: the clipboard, files, and the same query for a terminal.

import { filterParams, rangeParams } from './state.js';
import { formatIso } from './time.js';

/** Copies a text; says whether it could. The clipboard's API is there only on https and localhost. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text) {
  const area = document.createElement('textarea');
  area.value = text;
  area.className = 'offscreen';
  area.setAttribute('aria-hidden', 'true');
  // In an open dialog, everything outside it is inert and cannot be selected.
  (document.querySelector('dialog[open]') ?? document.body).append(area);
  area.select();
  const copied = document.execCommand('copy');
  area.remove();
  return copied;
}

/** Gives a text to the browser as a file to save. */
export function download(text, name) {
  const url = URL.createObjectURL(new Blob([text], { type: 'application/x-ndjson' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A file's name that says what and when. */
export function fileName(state, now) {
  const what = state.services.length === 1 ? state.services[0].replace(/[^\w.-]+/g, '_') : 'records';
  return `edgelog-${what}-${formatIso(now).replace(/[:.]/g, '-')}.ndjson`;
}

/** The state's query for curl. */
export function curlFor(state, origin) {
  const params = new URLSearchParams([...filterParams(state), ...rangeParams(state)]);
  params.set('limit', String(state.limit));
  if (state.direction === 'forward') params.set('direction', 'forward');
  const url = `${origin}/v1/search?${params}`;
  return `curl '${url.replaceAll("'", '%27')}'`;
}
