// The read API of a storage node, in memory: for what a real node cannot be made to do at will (100,000 rows at once,
// every kind of error, an answer that breaks off, a gap in the tail). The other tests run against real nodes.

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import path from 'node:path';

const VIEWER = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../viewer');
export const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

export class MockNode {
  constructor(records = []) {
    /** @type {{partition: number, offset: number, record: object}[]} by time */
    this.stored = [];
    this.tails = new Set();
    /** What goes wrong: `{[path]: {status, problem, partial, staleness, breakAfter, until}}`; what waits `until` a promise is kept is the break, else the answer. */
    this.faults = {};
    this.append(records);
  }

  append(records) {
    for (const record of records) {
      const entry = { partition: 0, offset: this.stored.length, record };
      this.stored.push(entry);
      for (const tail of this.tails) tail.push(entry);
    }
  }

  async listen() {
    this.server = createServer((request, response) => this.#answer(request, response).catch((error) => {
      const wrong = error instanceof SyntaxError;
      if (wrong) json(response, { title: 'Bad parameter', status: 400, detail: error.message, field: 'regex' }, 400, 'application/problem+json');
      else json(response, { title: String(error), status: 500 }, 500, 'application/problem+json');
    }));
    await new Promise((resolve) => { this.server.listen(0, '127.0.0.1', resolve); });
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  close() {
    this.server.closeAllConnections();
    return new Promise((resolve) => { this.server.close(resolve); });
  }

  async #answer(request, response) {
    const url = new URL(request.url, 'http://mock');
    const route = url.pathname.replace('/v1/', '');
    const fault = this.faults[route] ?? {};
    if (fault.breakAfter === undefined) await fault.until;
    if (fault.partial) response.setHeader('Partial', fault.partial);
    if (fault.staleness) response.setHeader('Edgelog-Staleness', fault.staleness);
    if (fault.status) return json(response, fault.problem, fault.status, 'application/problem+json');
    if (url.pathname === '/v1/search') return this.#search(url.searchParams, response, fault);
    if (url.pathname === '/v1/histogram') return json(response, this.#histogram(url.searchParams));
    if (url.pathname === '/v1/services') return json(response, this.#services(url.searchParams));
    if (url.pathname === '/v1/labels') return json(response, this.#labels());
    if (url.pathname.startsWith('/v1/labels/')) return json(response, this.#labelValues(decodeURIComponent(url.pathname.split('/')[3])));
    if (url.pathname === '/v1/context') return this.#context(url.searchParams, response);
    if (url.pathname === '/v1/tail') return this.#tail(url.searchParams, request, response);
    return serveFile(url.pathname, response);
  }

  async #search(params, response, fault) {
    const started = performance.now();
    const limit = Number(params.get('limit') ?? 100);
    const matches = this.stored.filter(matcher(params));
    if (params.get('direction') !== 'forward') matches.reverse();
    const from = Number(params.get('cursor') ?? 0);
    const page = matches.slice(from, from + limit);
    if (from + limit < matches.length) response.setHeader('Next-Cursor', String(from + limit));
    const time = (performance.now() - started).toFixed(1);
    response.setHeader('Query-Stats', `scanned_bytes=3204112, skipped_bytes=81400000, segments=3, segments_skipped=2, blocks=40, blocks_skipped=38, time_ms=${time}`);
    response.setHeader('Content-Type', 'application/x-ndjson');
    const meta = params.get('fields') === 'meta';
    const text = page.map((entry) => `${JSON.stringify(meta ? entry : entry.record)}\n`).join('');
    if (fault.breakAfter === undefined) return response.end(text);
    await new Promise((resolve) => { response.write(text.slice(0, fault.breakAfter), resolve); });
    await fault.until;
    return response.destroy();
  }

  #histogram(params) {
    const matches = this.stored.filter(matcher(params));
    const times = matches.map(({ record }) => record.timestamp);
    const start = timeOf(params.get('from')) ?? Math.min(...times, Date.now());
    const to = timeOf(params.get('to')) ?? Math.max(...times, start) + 1;
    const from = start;
    const step = params.has('step') ? Number.parseInt(params.get('step'), 10) : Math.max(1, Math.ceil((to - from) / Number(params.get('buckets') ?? 60)));
    const levels = [...new Set(matches.map(({ record }) => (record.level ?? '').toUpperCase()))].sort();
    const buckets = Array.from({ length: Math.ceil((to - from) / step) }, () => levels.map(() => 0));
    for (const { record } of matches) {
      const bucket = buckets[Math.floor((record.timestamp - from) / step)];
      if (bucket) bucket[levels.indexOf((record.level ?? '').toUpperCase())] += 1;
    }
    return { from, to, step, levels, buckets, total: matches.length };
  }

  #services(params) {
    const services = new Map();
    for (const { record } of this.stored.filter(matcher(params))) {
      const entry = services.get(record.service) ?? { service: record.service, records: 0, first: record.timestamp, last: record.timestamp, levels: {} };
      entry.records += 1;
      entry.last = record.timestamp;
      const level = (record.level ?? '').toUpperCase();
      entry.levels[level] = (entry.levels[level] ?? 0) + 1;
      services.set(record.service, entry);
    }
    return [...services.values()];
  }

  #labels() {
    const counts = new Map();
    for (const { record } of this.stored) for (const name of Object.keys(record.labels ?? {})) counts.set(name, (counts.get(name) ?? 0) + 1);
    return [...counts].map(([name, records]) => ({ name, records }));
  }

  #labelValues(name) {
    const counts = new Map();
    for (const { record } of this.stored) {
      const value = record.labels?.[name];
      if (value !== undefined) counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    return [...counts].map(([value, records]) => ({ value, records }));
  }

  #context(params, response) {
    const offset = Number(params.get('offset'));
    const [before, after] = [Number(params.get('before') ?? 10), Number(params.get('after') ?? 10)];
    const centre = this.stored[offset];
    if (!centre) return json(response, { title: 'Not found', status: 404, detail: `partition 0 has no offset ${offset}` }, 404, 'application/problem+json');
    const same = ({ record }) => params.get('service') !== 'same' || record.service === centre.record.service;
    const entries = [...this.stored.slice(0, offset).filter(same).slice(-before), centre, ...this.stored.slice(offset + 1).filter(same).slice(0, after)];
    response.setHeader('Content-Type', 'application/x-ndjson');
    return response.end(entries.map((entry) => `${JSON.stringify(entry)}\n`).join(''));
  }

  #tail(params, request, response) {
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
    response.write(': hello\n\n');
    const passes = matcher(params);
    const push = (entry) => { if (passes(entry)) response.write(`event: record\nid: ${entry.offset}\ndata: ${JSON.stringify(entry)}\n\n`); };
    const after = request.headers['last-event-id'];
    const earlier = after === undefined ? this.stored.filter(passes).slice(-Number(params.get('last') ?? 10)) : this.stored.slice(Number(after) + 1);
    earlier.forEach(push);
    const tell = (event, data) => response.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
    const tail = { push, gap: (missed) => tell('gap', { missed }), stale: (staleness) => tell('stale', { staleness }), end: () => response.end() };
    this.tails.add(tail);
    response.on('close', () => this.tails.delete(tail));
  }
}

function timeOf(text) {
  if (text === null) return null;
  if (text === 'now') return Date.now();
  const relative = /^-(\d+)(ms|s|m|h|d)$/.exec(text);
  if (relative) return Date.now() - Number(relative[1]) * UNIT_MS[relative[2]];
  return /^\d+$/.test(text) ? Number(text) : Date.parse(text);
}

function matcher(params) {
  const [from, to] = [timeOf(params.get('from')) ?? 0, timeOf(params.get('to')) ?? Infinity];
  const services = params.getAll('service');
  const levels = params.getAll('level').map((level) => level.toUpperCase());
  const tests = [...params].flatMap(([name, value]) => testOf(name, value));
  return ({ record }) => record.timestamp >= from && record.timestamp < to
    && (services.length === 0 || services.includes(record.service))
    && (levels.length === 0 || levels.includes((record.level ?? '').toUpperCase()))
    && tests.every((test) => test(record));
}

function testOf(name, value) {
  const line = /^(not_)?(contains|icontains|word|regex)$/.exec(name);
  if (line) {
    const test = lineTest(line[2], value);
    return [(record) => test(record.message) !== Boolean(line[1])];
  }
  const label = /^label\.([^!]+)(!?)$/.exec(name);
  if (!label) return [];
  const regex = value.startsWith('~') ? new RegExp(`^(?:${value.slice(1)})$`) : null;
  const text = value.replace(/^\\~/, '~');
  return [(record) => {
    const actual = record.labels?.[label[1]] ?? '';
    return (regex ? regex.test(actual) : actual === text) !== (label[2] === '!');
  }];
}

function lineTest(kind, value) {
  if (kind === 'contains') return (message) => message.includes(value);
  if (kind === 'icontains') return (message) => message.toLowerCase().includes(value.toLowerCase());
  const source = kind === 'word' ? `(?<!\\w)${value.replace(/\W/g, '\\$&')}(?!\\w)` : value.replace(/^\(\?i\)/, '');
  const regex = new RegExp(source, value.startsWith('(?i)') ? 'i' : '');
  return (message) => regex.test(message);
}

function json(response, value, status = 200, type = 'application/json') {
  response.writeHead(status, { 'Content-Type': type });
  response.end(JSON.stringify(value));
}

async function serveFile(pathname, response) {
  const relative = pathname === '/' ? 'index.html' : pathname.replace(/^\/viewer\//, '');
  const file = path.join(VIEWER, relative);
  if (!file.startsWith(VIEWER)) return json(response, {}, 404);
  try {
    const body = await readFile(file);
    response.writeHead(200, { 'Content-Type': TYPES[path.extname(file)] ?? 'application/octet-stream', 'Content-Security-Policy': CSP });
    response.end(body);
  } catch {
    json(response, { title: 'Not found', status: 404 }, 404);
  }
  return undefined;
}
