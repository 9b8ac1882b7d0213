// The heights of a list's rows, and which row is where. Most are of the standard height; a few were measured.
//
// Invariant: `top(i + 1) - top(i)` is the height of row i. Sums are made anew from the first row that changed, which at
// 100,000 rows is a tenth of a millisecond: no tree is worth it.

export class Heights {
  #heights = new Float64Array(256);
  #tops = new Float64Array(257);
  #count = 0;
  /** Tops up to and with this index are right. */
  #summed = 0;

  get count() {
    return this.#count;
  }

  get total() {
    return this.top(this.#count);
  }

  /** Starts again with rows of the given heights. */
  reset(count, heightOf) {
    this.#grow(count);
    this.#count = count;
    for (let index = 0; index < count; index += 1) this.#heights[index] = heightOf(index);
    this.#summed = 0;
  }

  /** Takes in rows at the end. */
  append(count, heightOf) {
    const before = this.#count;
    this.#grow(before + count);
    this.#count += count;
    for (let index = before; index < this.#count; index += 1) this.#heights[index] = heightOf(index);
  }

  /** Takes in rows at the start, and leaves out so many at the end. */
  prepend(count, heightOf, dropped = 0) {
    const kept = Math.max(0, this.#count - dropped);
    this.#grow(kept + count);
    this.#heights.copyWithin(count, 0, kept);
    this.#count = kept + count;
    for (let index = 0; index < count; index += 1) this.#heights[index] = heightOf(index);
    this.#summed = 0;
  }

  height(index) {
    return this.#heights[index];
  }

  /** Sets a row's height and returns by how much it changed. */
  set(index, height) {
    const change = height - this.#heights[index];
    if (change !== 0) {
      this.#heights[index] = height;
      this.#summed = Math.min(this.#summed, index);
    }
    return change;
  }

  /** Where row `index` begins; for the count itself, where the last one ends. */
  top(index) {
    for (let at = this.#summed; at < index; at += 1) this.#tops[at + 1] = this.#tops[at] + this.#heights[at];
    this.#summed = Math.max(this.#summed, index);
    return this.#tops[index];
  }

  /** The row at a height: the last one that begins at or above it. */
  at(y) {
    if (this.#count === 0) return 0;
    this.top(this.#count);
    let low = 0;
    let high = this.#count - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#tops[middle] <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #grow(count) {
    if (count <= this.#heights.length) return;
    const capacity = Math.max(count, this.#heights.length * 2);
    const heights = new Float64Array(capacity);
    heights.set(this.#heights.subarray(0, this.#count));
    const tops = new Float64Array(capacity + 1);
    tops.set(this.#tops.subarray(0, this.#summed + 1));
    this.#heights = heights;
    this.#tops = tops;
  }
}
