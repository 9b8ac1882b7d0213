import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { parseStats, readLines } from '../api.js';
import { SseParser, follow } from '../tail.js';

const bytes = new TextEncoder();

async function linesOf(chunks) {
  const stream = new ReadableStream({ start(controller) { chunks.forEach((chunk) => controller.enqueue(chunk)); controller.close(); } });
  const lines = [];
  for await (const some of readLines(stream)) lines.push(...some);
  return lines;
}

test('lines are the same wherever the stream is cut', async () => {
  const whole = bytes.encode('{"a":"ü€😀"}\nsecond\n\nlast');
  const expected = ['{"a":"ü€😀"}', 'second', '', 'last'];
  for (let cut = 0; cut <= whole.length; cut += 1) {
    assert.deepEqual(await linesOf([whole.slice(0, cut), whole.slice(cut)]), expected, `cut at ${cut}`);
  }
});

test('events are parsed as the standard says', () => {
  const parser = new SseParser();
  const events = ': beat\nevent: record\nid: 5\ndata: {"a":\ndata:1}\n\nid: 6\n\ndata: x\r\n\r\n'.split('\n').map((line) => parser.push(line)).filter(Boolean);
  assert.deepEqual(events, [{ event: 'record', data: '{"a":\n1}', id: '5' }, { event: 'message', data: 'x', id: '6' }]);
});

test('a query\'s cost is read from its header', () => {
  assert.deepEqual(parseStats('scanned_bytes=12, skipped_bytes=90, time_ms=0.4'), { scanned_bytes: 12, skipped_bytes: 90, time_ms: 0.4 });
  assert.equal(parseStats(null), null);
});

let server;
const asked = [];
before(async () => {
  const realFetch = globalThis.fetch;
  server = createServer((request, response) => {
    asked.push(request.headers['last-event-id'] ?? null);
    if (request.url.includes('refuse')) {
      response.writeHead(400, { 'Content-Type': 'application/problem+json' });
      response.end('{"title":"Bad parameter","status":400,"detail":"`regex`: unclosed group","field":"regex"}');
      return;
    }
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    const start = Number(request.headers['last-event-id'] ?? -1) + 1;
    for (let offset = start; offset < start + 3; offset += 1) {
      response.write(`event: record\nid: ${offset}\ndata: {"partition":0,"offset":${offset},"record":{"message":"m"}}\n\n`);
    }
    response.write('event: partial\ndata: {"partial":"node b did not answer"}\n\nevent: partial\ndata: {"partial":null}\n\n');
    response.write('event: stale\ndata: {"staleness":"2300"}\n\nevent: stale\ndata: {"staleness":null}\n\n');
    response.write('event: gap\ndata: {"missed":7}\n\n');
    response.end();
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  globalThis.fetch = (path, options) => realFetch(`http://127.0.0.1:${server.address().port}${path}`, options);
});
after(() => server.close());

test('a tail that broke off goes on after the last record it saw', async () => {
  const stop = new AbortController();
  const offsets = [];
  const gaps = [];
  const states = [];
  const partials = [];
  const stale = [];
  await follow(new URLSearchParams(), {
    signal: stop.signal,
    onRows: (rows) => { offsets.push(...rows.map((row) => row.offset)); },
    onGap: (missed) => { gaps.push(missed); if (gaps.length === 2) stop.abort(); },
    onStale: (isStale) => { stale.push(isStale); },
    onStatus: (status, error, partial) => {
      if (states.at(-1) === 'live' && status === 'live') partials.push(partial);
      else states.push(status);
    },
  });
  assert.deepEqual(offsets, [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(partials.slice(0, 2), ['node b did not answer', null]);
  assert.deepEqual(gaps, [7, 7]);
  // At each beginning nothing is known to be out of touch.
  assert.deepEqual(stale, [false, true, false, false, true, false]);
  assert.deepEqual(asked.splice(0), [null, '2']);
  assert.deepEqual(states.slice(0, 5), ['connecting', 'live', 'lost', 'connecting', 'live']);
});

test('a tail that is refused says why and does not try again', async () => {
  let last;
  await follow(new URLSearchParams('refuse=1'), {
    signal: new AbortController().signal, onRows: () => {}, onGap: () => {}, onStale: () => {},
    onStatus: (status, error) => { last = { status, title: error?.title, field: error?.field }; },
  });
  assert.deepEqual(last, { status: 'lost', title: '`regex`: unclosed group', field: 'regex' });
  assert.equal(asked.splice(0).length, 1);
});
