import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';

const here = (path) => new URL(`../${path}`, import.meta.url);

test('vendored files are those that the table names', () => {
  const readme = readFileSync(here('vendor/README.md'), 'utf8');
  const rows = [...readme.matchAll(/^\| `([^`]+)` \|.*`([0-9a-f]{64})` \|$/gm)];
  const files = readdirSync(here('vendor')).filter((name) => /\.(js|css)$/.test(name));
  assert.deepEqual(rows.map((row) => row[1]).sort(), files.sort());
  for (const [, file, sum] of rows) {
    assert.equal(createHash('sha256').update(readFileSync(here(`vendor/${file}`))).digest('hex'), sum, file);
  }
});

test('nothing in the page is inline, evaluated, from elsewhere, or HTML made of strings', () => {
  const page = readFileSync(here('index.html'), 'utf8');
  assert.doesNotMatch(page, /<script(?![^>]*\ssrc="\/viewer\/)|<style|\sstyle=|\son\w+=|javascript:/i);
  for (const [, url] of page.matchAll(/(?:src|href)="([^"]+)"/g)) assert.match(url, /^\/viewer\//);
  for (const name of readdirSync(here('.')).filter((file) => file.endsWith('.js'))) {
    const code = readFileSync(here(name), 'utf8');
    assert.doesNotMatch(code, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|dangerously|https?:\/\/(?!localhost|\$)/, name);
    assert.ok(code.split('\n').length < 500, `${name} is long`);
  }
});
