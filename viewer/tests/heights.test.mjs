import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Heights } from '../heights.js';

test('tops and rows agree with a plain sum after any mix of changes', () => {
  let seed = 42;
  const random = (size) => { seed = (seed * 48_271) % 2_147_483_647; return seed % size; };
  const heights = new Heights();
  let model = [];
  for (let round = 0; round < 400; round += 1) {
    const fresh = Array.from({ length: random(60) }, () => 20 + random(30));
    const change = random(4);
    if (change === 0) {
      model = [...model, ...fresh];
      heights.append(fresh.length, (index) => model[index]);
    } else if (change === 1) {
      const dropped = random(Math.min(40, model.length + 1));
      model = [...fresh, ...model.slice(0, model.length - dropped)];
      heights.prepend(fresh.length, (index) => model[index], dropped);
    } else if (change === 2 && model.length > 0) {
      const index = random(model.length);
      const before = model[index];
      model[index] = 10 + random(500);
      assert.equal(heights.set(index, model[index]), model[index] - before);
    } else if (round % 50 === 3) {
      model = fresh;
      heights.reset(fresh.length, (index) => model[index]);
    }
    check(heights, model, random);
  }
});

function check(heights, model, random) {
  assert.equal(heights.count, model.length);
  assert.equal(heights.total, model.reduce((sum, height) => sum + height, 0));
  if (model.length === 0) return;
  const y = random(heights.total + 50);
  const index = heights.at(y);
  assert.ok(heights.top(index) <= y);
  assert.ok(index === model.length - 1 || heights.top(index + 1) > y);
}

test('an empty list has no height', () => {
  const heights = new Heights();
  assert.equal(heights.total, 0);
  assert.equal(heights.at(100), 0);
});

test('a change at the front of 100,000 rows costs well below a frame', () => {
  const heights = new Heights();
  heights.reset(100_000, () => 22);
  assert.equal(heights.total, 2_200_000);
  const started = performance.now();
  for (let round = 0; round < 20; round += 1) {
    heights.set(0, 30 + round);
    heights.at(1_100_000);
  }
  assert.ok((performance.now() - started) / 20 < 8);
});
