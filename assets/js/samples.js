// What cannot be told by a lowest and a highest, in memory that does not grow with the run either: something per step (a place, a row of
// shares), the newest without gaps and of the older ones every n-th; and steps at which something happened.

const MOST_MARKS = 4_096; // of a kind: more than a plot has pixels across

class Samples {
  /** `newest`: items held without gaps, at least half as many; `older`: how many of those before; `start`: the first step. */
  constructor(newest, older, start = 0) {
    this.limits = { newest, older };
    this.recent = []; // steps `first` and on
    this.first = start;
    this.older = []; // of the steps 0, stride, 2 · stride … before `first`
    this.stride = 1;
  }

  get length() { return this.first + this.recent.length; }

  push(item) {
    this.recent.push(item);
    const { newest, older } = this.limits;
    if (this.recent.length <= newest) return;
    for (const given of this.recent.splice(0, newest / 2)) {
      if (this.first % this.stride === 0) this.older.push(given);
      this.first += 1;
      if (this.older.length <= older) continue;
      this.stride *= 2;
      this.older = this.older.filter((_, n) => n % 2 === 0);
    }
  }

  /** Forget all from step `from` on. */
  cut(from) {
    if (from >= this.length) return;
    this.recent.length = Math.max(0, from - this.first);
    if (from >= this.first) return;
    this.first = from;
    this.older.length = Math.ceil(from / this.stride);
  }

  /** The step held at or before step t. */
  stepBefore(t) {
    const newest = Math.min(t, this.length - 1);
    return newest >= this.first ? newest : newest - (newest % this.stride);
  }

  /** What is held of exactly step t. */
  at(t) {
    if (t >= this.first) return this.recent[t - this.first];
    return t % this.stride ? undefined : this.older[t / this.stride];
  }

  /** Visit what is held of the steps [from, to): visit(step, item). */
  each(from, to, visit) {
    const end = Math.min(to, this.length);
    for (let n = Math.ceil(from / this.stride); n < this.older.length && n * this.stride < end; n++) visit(n * this.stride, this.older[n]);
    for (let t = Math.max(from, this.first); t < end; t++) visit(t, this.recent[t - this.first]);
  }

  copy() {
    return Object.assign(new Samples(this.limits.newest, this.limits.older), this, { recent: this.recent.slice(), older: this.older.slice() });
  }
}

/** Steps at which something happened, ascending. Of very many, those that would share a pixel are one: none vanishes from a plot. */
class Marks {
  constructor() { this.forget(); }

  forget() {
    this.steps = [];
    this.grain = 1; // of each so many steps the first mark is held
  }

  push(step) {
    if (this.covers(step)) return;
    this.steps.push(step);
    if (this.steps.length <= MOST_MARKS) return;
    const all = this.steps;
    this.steps = [];
    this.grain *= 2;
    for (const one of all) if (!this.covers(one)) this.steps.push(one);
  }

  covers(step) { return this.steps.length > 0 && Math.floor(this.steps.at(-1) / this.grain) === Math.floor(step / this.grain); }

  /** Forget all from step `from` on. */
  cut(from) {
    if (from === 0) { this.forget(); return; }
    while (this.steps.at(-1) >= from) this.steps.pop();
  }

  copy() { return Object.assign(new Marks(), this, { steps: this.steps.slice() }); }

  [Symbol.iterator]() { return this.steps.values(); }
}
