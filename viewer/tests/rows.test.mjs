import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gapRow, parseRow, recordOf, toNdjson } from '../rows.js';
import { fieldsOf, filterBy, parsedJson } from '../fields.js';
import { defaultState } from '../state.js';

const RECORD = '{"timestamp":1714564800000, "service":"a","message":"has }{ and \\"record\\":1","labels":{"record":"x"}}';
const LINE = `{"partition":2,"offset":77,"record":${RECORD}}`;

test('a row has the record\'s bytes as stored', () => {
  const row = parseRow(LINE);
  assert.equal(row.key, '2:77');
  assert.equal(row.raw, RECORD);
  assert.equal(row.level, '');
  assert.equal(row.message, 'has }{ and "record":1');
  assert.deepEqual(recordOf(row), JSON.parse(RECORD));
});

test('a line that is no record is refused', () => {
  for (const line of ['{}', '[]', '1', 'null', '{"partition":1,"offset":2}', '{"partition":"1","offset":2,"record":{}}', '{"partition":1,']) {
    assert.throws(() => parseRow(line), line);
  }
});

test('a record of odd types does not stop the page', () => {
  const row = parseRow('{"partition":0,"offset":0,"record":{"timestamp":"x","service":5,"message":{"a":1},"level":null}}');
  assert.equal(row.service, '5');
  assert.equal(row.message, '{"a":1}');
  assert.equal(row.level, '');
  assert.ok(Number.isNaN(row.timestamp));
});

test('rows are copied byte for byte, gaps are not', () => {
  assert.equal(toNdjson([parseRow(LINE), gapRow(3, 'why', '1'), parseRow(LINE)]), `${RECORD}\n${RECORD}\n`);
});

test('fields come in the order in which one reads them', () => {
  const names = fieldsOf({ received_at: 1, labels: { z: '1', a: '2' }, message: 'm', service: 's', timestamp: 2, extra: { x: 1 }, client_ip: 'i' }).map(({ name }) => name);
  assert.deepEqual(names, ['timestamp', 'service', 'message', 'label.z', 'label.a', 'extra', 'received_at', 'client_ip']);
});

test('each field filters in and out as far as the API can', () => {
  const state = defaultState();
  const known = { services: ['a', 'b', 'c'], levels: ['ERROR', 'INFO'] };
  const by = (name, record, out) => filterBy(fieldsOf(record).find((field) => field.name === name), out, state, known);
  assert.deepEqual(by('label.r', { labels: { r: 'eu' } }, false), { labels: [{ name: 'r', op: '=', value: 'eu' }] });
  assert.deepEqual(by('label.r', { labels: { r: 'eu' } }, true), { labels: [{ name: 'r', op: '!=', value: 'eu' }] });
  assert.deepEqual(by('service', { service: 'b' }, false), { services: ['b'] });
  assert.deepEqual(by('service', { service: 'b' }, true), { services: ['a', 'c'] });
  assert.deepEqual(by('level', { level: 'error' }, true), { levels: ['INFO'] });
  assert.deepEqual(by('message', { message: 'm' }, true), { lines: [{ kind: 'contains', not: true, value: 'm' }] });
  assert.equal(by('client_ip', { client_ip: 'i' }, false), null);
  assert.equal(by('timestamp', { timestamp: 1 }, true), null);
});

test('leaving out the only service there is cannot be asked', () => {
  const field = { name: 'service', value: 'a', kind: 'service' };
  assert.equal(filterBy(field, true, defaultState(), { services: ['a'], levels: [] }), null);
});

test('JSON within a text is found, other text is not', () => {
  assert.deepEqual(parsedJson(' {"a":[1]} '), { a: [1] });
  for (const text of ['{a}', '5', '"x"', 'null', '[1', 'x {"a":1}']) assert.equal(parsedJson(text), undefined);
});
