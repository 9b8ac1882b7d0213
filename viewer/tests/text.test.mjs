import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatBytes, formatCount, formatShort, highlighter, hueOf, levelOf, oneLine, plural, safeRegex, visible } from '../text.js';

const line = (kind, value, not = false) => ({ kind, not, value });
const hits = (lines, text) => highlighter(lines)(text).map(({ text: part, hit }) => (hit ? `[${part}]` : part)).join('');

test('matches are found as the engine finds them', () => {
  assert.equal(hits([line('contains', 'a.b')], 'a.b axb A.B'), '[a.b] axb A.B');
  assert.equal(hits([line('icontains', 'err')], 'Error ERR'), '[Err]or [ERR]');
  assert.equal(hits([line('word', 'user')], 'user user_id superuser user=1 üuser'), '[user] user_id superuser [user]=1 üuser');
  assert.equal(hits([line('regex', '(?i)USER=\\d+')], 'user=42 x'), '[user=42] x');
});

test('overlapping matches join, excluding filters mark nothing, the text stays whole', () => {
  assert.equal(hits([line('contains', 'abc'), line('contains', 'cd')], 'abcde'), '[abc][d]e');
  assert.equal(hits([line('contains', 'abc', true)], 'abc'), 'abc');
  assert.equal(hits([line('regex', 'x*')], 'abc'), 'abc');
  assert.equal(hits([line('contains', '*+?()[]{}|^$\\/-')], 'a*+?()[]{}|^$\\/-b'), 'a[*+?()[]{}|^$\\/-]b');
});

test('a pattern that could take for ever is not run', () => {
  for (const pattern of ['(a+)+$', '(a|aa)*b', '.*.*.*x', '(x{1,}){2,}', '(?P<n>a)', '[', '(?x) a']) assert.equal(safeRegex(pattern), null, pattern);
  for (const pattern of ['user=4\\d', 'a|b', '(?i)x+y*', '[(+*]+']) assert.notEqual(safeRegex(pattern), null, pattern);
  const started = performance.now();
  const mark = highlighter([line('regex', '.*.*=b')]);
  for (let row = 0; row < 100; row += 1) mark('a'.repeat(100_000));
  assert.ok(performance.now() - started < 3000);
});

test('a slow machine takes no marks away: literals never, a regex only after it was slow time and again', (context) => {
  let now = 0;
  context.mock.method(performance, 'now', () => { now += 1000; return now; });
  const literal = highlighter([line('icontains', 'err')]);
  const regex = highlighter([line('regex', 'er+')]);
  const marked = (mark) => Array.from({ length: 6 }, () => mark('error').some(({ hit }) => hit));
  assert.deepEqual(marked(literal), [true, true, true, true, true, true]);
  assert.deepEqual(marked(regex), [true, true, true, false, false, false]);
});

test('characters that deceive are seen', () => {
  assert.equal(visible('a\u0000b\u001b[31m'), 'a␀b␛[31m');
  assert.equal(visible('abc\u202edef'), 'abc⟨U+202E⟩def');
  assert.equal(visible('tab\tline\n ü😀'), 'tab\tline\n ü😀');
  assert.equal(oneLine('a\r\nb\nc\td'), 'a⏎b⏎c d');
});

test('levels are known in the words of many', () => {
  for (const [text, name, letter] of [['error', 'error', 'E'], ['Warning', 'warn', 'W'], ['CRITICAL', 'fatal', 'F'], ['notice', 'info', 'I'], ['audit', 'other', 'A'], ['', 'none', '·'], [undefined, 'none', '·'], ['<b>', 'other', '<']]) {
    assert.deepEqual([levelOf(text).name, levelOf(text).letter], [name, letter], text);
  }
});

test('a service has its hue for good, and hues are spread', () => {
  assert.equal(hueOf('auth'), hueOf('auth'));
  const hues = Array.from({ length: 200 }, (_, index) => hueOf(`service-${index}`));
  assert.ok(hues.every((hue) => hue >= 0 && hue < 360));
  assert.ok(new Set(hues.map((hue) => Math.floor(hue / 30))).size === 12);
});

test('numbers read well', () => {
  assert.equal(formatCount(1_234_567), '1,234,567');
  assert.deepEqual([999, 1000, 1234, 9960, 123_456, 1_000_000, 2_500_000_000].map(formatShort), ['999', '1k', '1.2k', '9k', '123k', '1M', '2.5G']);
  assert.deepEqual([0, 999, 3_204_112, 999_600, 12_345_678].map(formatBytes), ['0 B', '999 B', '3.2 MB', '1.0 MB', '12 MB']);
  assert.equal(plural(1, 'record'), '1 record');
});
