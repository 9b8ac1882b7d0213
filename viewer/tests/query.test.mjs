import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describe, parseInput, toInput } from '../query.js';

const line = (kind, value, not = false) => ({ type: 'line', line: { kind, not, value } });
const label = (name, op, value) => ({ type: 'label', label: { name, op, value } });

test('signs say what a text means', () => {
  const cases = [
    ['timed out', line('icontains', 'timed out')],
    ['-timed out', line('icontains', 'timed out', true)],
    ['"  a "', line('icontains', '  a ')],
    ['-"a=b"', line('icontains', 'a=b', true)],
    ['/user=4\\d/', line('regex', '(?i)user=4\\d')],
    ['-/(?s)x/', line('regex', '(?s)x', true)],
    ['word:refused', line('word', 'refused')],
    ['-word:refused', line('word', 'refused', true)],
    ['region=eu', label('region', '=', 'eu')],
    ['label.region!=eu', label('region', '!=', 'eu')],
    ['-region=eu', label('region', '!=', 'eu')],
    ['host=~web-.*', label('host', '=~', 'web-.*')],
    ['host!~web', label('host', '!~', 'web')],
    ['a="x"', label('a', '=', 'x')],
    ['service:api', { type: 'service', value: 'api' }],
    ['level:error', { type: 'level', value: 'ERROR' }],
    ['user=4 failed', line('icontains', 'user=4 failed')],
    ['-', line('icontains', '-')],
    ['/', line('icontains', '/')],
    ['//', line('icontains', '//')],
    ['  ', null],
  ];
  for (const [text, expected] of cases) assert.deepEqual(parseInput(text), expected, text);
});

test('a mode takes the text as it is', () => {
  assert.deepEqual(parseInput('-a=b', { mode: 'contains', matchCase: true }), line('contains', '-a=b'));
  assert.deepEqual(parseInput('a=b', { mode: 'word' }), line('word', 'a=b'));
  assert.deepEqual(parseInput('/a/', { mode: 'regex', matchCase: true }), line('regex', '/a/'));
});

test('a filter taken back into the box is the same filter when entered again', () => {
  const terms = [line('contains', 'a b'), line('contains', '-x', true), line('regex', 'a/b'), line('word', 'w', true), label('r', '!~', 'x y'.replace(' ', '')), { type: 'service', value: 's' }];
  for (const term of terms) assert.deepEqual(parseInput(toInput(term), { matchCase: true }), term);
});

test('filters are told in words', () => {
  assert.equal(describe(line('icontains', 'x')), 'message contains x (any case)');
  assert.equal(describe(label('region', '!=', '')), 'label region is not (empty)');
});
