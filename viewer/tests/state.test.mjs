import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultState, filterParams, fromUrl, searchKey, toUrl, toggled, withLabel, withLine } from '../state.js';

const line = (kind, value, not = false) => ({ kind, not, value });
const label = (name, op, value) => ({ name, op, value });

test('the default state is the empty address', () => {
  assert.equal(toUrl(defaultState()), '');
  assert.deepEqual(fromUrl(''), defaultState());
});

test('filters have the API\'s names and escapes', () => {
  const state = {
    ...defaultState(),
    services: ['a&b', 'ü'], levels: ['ERROR'],
    lines: [line('contains', 'x=1'), line('icontains', 'Y', true), line('word', 'w'), line('regex', 'a+b', true)],
    labels: [label('region', '=', 'eu'), label('a', '!=', ''), label('b', '=~', 'x.*'), label('c', '!~', 'y'), label('d', '=', '~tilde')],
    partition: '3',
  };
  assert.deepEqual([...filterParams(state)], [
    ['service', 'a&b'], ['service', 'ü'], ['level', 'ERROR'],
    ['contains', 'x=1'], ['not_icontains', 'Y'], ['word', 'w'], ['not_regex', 'a+b'],
    ['label.region', 'eu'], ['label.a!', ''], ['label.b', '~x.*'], ['label.c!', '~y'], ['label.d', '\\~tilde'],
    ['partition', '3'],
  ]);
});

test('a literal that looks like an escaped tilde is sent as a regex that matches just it', () => {
  const state = { ...defaultState(), labels: [label('a', '=', '\\~x.y')] };
  assert.deepEqual([...filterParams(state)], [['label.a', '~\\\\\\~x\\.y']]);
});

test('an address gives its state again, whatever is in it', () => {
  const texts = ['a', 'x y', '&=?#%+', '~x', '!', 'ü€😀', '<img>', "'\"", '\\', 'a\nb'];
  let seed = 1;
  const random = (size) => { seed = (seed * 48_271) % 2_147_483_647; return seed % size; };
  const some = (make) => Array.from({ length: random(4) }, make);
  const kinds = ['contains', 'icontains', 'word', 'regex'];
  for (let round = 0; round < 500; round += 1) {
    const state = {
      from: ['', '-15m', '0', '2024-05-01T00:00:00.000Z'][random(4)], to: ['', 'now', '1714564800000'][random(3)],
      services: [...new Set(some(() => texts[random(texts.length)]))], levels: [...new Set(some(() => ['ERROR', 'WARN', 'Ü'][random(3)]))],
      lines: some(() => line(kinds[random(4)], texts[random(texts.length)], random(2) === 1)),
      labels: some(() => label(['region', 'a.b', 'x_y'][random(3)], ['=', '!=', '=~', '!~'][random(4)], ['', ...texts][random(texts.length + 1)])),
      partition: ['', '0', '17'][random(3)], limit: [100, 500, 777][random(3)], direction: ['backward', 'forward'][random(2)],
      tail: false, refresh: [0, 5, 60][random(3)], wrap: random(2) === 1, at: ['', '0:123'][random(2)], around: [10, 50][random(2)],
    };
    assert.deepEqual(fromUrl(toUrl(state)), state);
  }
});

test('what an address says wrong is left at the default', () => {
  const state = fromUrl('limit=1e9&around=-1&refresh=soon&tail=yes&at=<script>&partition=x&contains=&service=&unknown=1&direction=up');
  assert.deepEqual(state, defaultState());
});

test('the tail is always newest first', () => {
  assert.equal(fromUrl('tail=1&direction=forward').direction, 'backward');
});

test('only what decides the records makes another search', () => {
  const state = defaultState();
  for (const patch of [{ wrap: true }, { at: '0:1' }, { around: 50 }, { refresh: 5 }]) assert.equal(searchKey({ ...state, ...patch }), searchKey(state));
  for (const patch of [{ limit: 100 }, { direction: 'forward' }, { tail: true }, { from: '-2h' }, { levels: ['X'] }]) {
    assert.notEqual(searchKey({ ...state, ...patch }), searchKey(state));
  }
});

test('a filter turns its opposite round instead of standing beside it', () => {
  const state = { ...defaultState(), lines: [line('word', 'a'), line('word', 'b')], labels: [label('r', '=', 'eu'), label('r', '=~', 'eu')] };
  assert.deepEqual(withLine(state, line('word', 'a', true)).lines, [line('word', 'b'), line('word', 'a', true)]);
  assert.deepEqual(withLabel(state, label('r', '!=', 'eu')).labels, [label('r', '=~', 'eu'), label('r', '!=', 'eu')]);
  assert.deepEqual(withLine(state, line('word', '')), {});
});

test('toggling puts in and takes out', () => {
  assert.deepEqual(toggled(['a'], 'b'), ['a', 'b']);
  assert.deepEqual(toggled(['a', 'b'], 'a'), ['b']);
});
