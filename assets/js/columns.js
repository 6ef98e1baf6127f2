// A number per step, in memory that does not grow with the run: the newest steps as they are, all steps as blocks of their lowest and
// highest. Only this file knows how; panels ask for the figure or the span of a step, and for the extremes along an axis.

const NEWEST = 4_096; // steps held as they are at most; of a long run at least half as many, from the newest back
const BLOCKS = 4_096; // over a whole run: more than a plot has pixels across. When they are used up, they double in size
const SHORT = 1_024; // a run that gets longer takes all its memory at once, and no more after that

class Column {
  /** `start`: its first step; 0 but for a part of a run, which is held as it is. */
  constructor(start = 0) {
    this.start = start;
    this.forget();
  }

  forget() {
    this.length = this.first = this.start; // the step that comes next; the first of those that are held as they are
    this.size = 1; // steps of a block. Block n begins with step 1 + n · size: step 0, before any step was taken, is in none
    this.zero = NaN; // the figure of step 0, once it is not held with the newest
    this.raw = this.low = this.high = null; // no memory before there is a figure; NaN, or low above high, where there is none
    this.detail = null; // a column of some older steps as they are, where somebody looks closely
  }

  // Taking in

  /** The figure of the next step; anything that is no finite number: none. */
  push(value) {
    const t = this.length;
    if (this.start === 0) {
      if (t - this.first === NEWEST) this.letGo();
      if (t > BLOCKS * this.size) this.merge();
    }
    this.length = t + 1;
    const figure = Number.isFinite(value);
    if (!figure && !this.raw) return;
    this.makeRoom();
    this.raw[t - this.first] = figure ? value : NaN;
    if (figure && this.low) this.widen(t, value);
  }

  makeRoom() {
    const count = this.length - this.first, short = this.start > 0 || this.length <= SHORT;
    if (!this.raw || this.raw.length < count) {
      const fresh = new Float64Array(short ? Math.max(128, 2 ** Math.ceil(Math.log2(count))) : NEWEST).fill(NaN);
      if (this.raw) fresh.set(this.raw);
      this.raw = fresh;
    }
    if (this.low || short) return;
    this.low = new Float64Array(BLOCKS).fill(Infinity);
    this.high = new Float64Array(BLOCKS).fill(-Infinity);
    for (let t = this.first; t < this.length - 1; t++) this.widen(t, this.raw[t - this.first]);
  }

  /** Give up the older half of the steps that are held as they are. */
  letGo() {
    const first = Math.max(1, this.first) + NEWEST / 2;
    if (this.first === 0 && this.raw) this.zero = this.raw[0];
    this.raw?.copyWithin(0, first - this.first);
    this.first = first;
  }

  merge() {
    this.size *= 2;
    if (!this.low) return;
    for (const [blocks, further, none] of [[this.low, Math.min, Infinity], [this.high, Math.max, -Infinity]]) {
      for (let n = 0; n < BLOCKS / 2; n++) blocks[n] = further(blocks[2 * n], blocks[2 * n + 1]);
      blocks.fill(none, BLOCKS / 2);
    }
  }

  blockOf(t) { return Math.floor((t - 1) / this.size); }

  widen(t, value) {
    if (t === 0) return;
    const n = this.blockOf(t);
    if (value < this.low[n]) this.low[n] = value;
    if (value > this.high[n]) this.high[n] = value;
  }

  /**
   * Forget all from step `from` on. Returns the step from which figures are wanted again: `from`, or where only blocks were held of
   * what is now the newest, so far before it that the newest steps will be held as they are.
   */
  cut(from) {
    if (from >= this.length) return this.length;
    const back = this.first > 0 && 1 + this.blockOf(from) * this.size < this.first; // of its block not all is held as it is
    const end = back ? 1 + this.blockOf(from - NEWEST / 2) * this.size : from;
    if (end <= 0 || (back && end <= 1)) { this.forget(); return 0; }
    if (back) this.first = end;
    this.length = end;
    if (this.low) {
      const n = Math.max(0, this.blockOf(end));
      this.low.fill(Infinity, n);
      this.high.fill(-Infinity, n);
      for (let t = Math.max(this.first, 1 + n * this.size); t < end; t++) this.widen(t, this.raw[t - this.first]);
    }
    return end;
  }

  // Asking

  /** Whether a step is held as it is. */
  holds(t) {
    return t >= this.first || t === this.start || this.size === 1 || (this.detail !== null && t >= this.detail.start && t < this.detail.length);
  }

  /** The figure of a step; null where there is none, or where only its block is held. */
  at(t) {
    if (t < this.start || t >= this.length || !this.raw) return null;
    let value = NaN;
    if (t >= this.first) value = this.raw[t - this.first];
    else if (t === 0) value = this.zero;
    else if (this.size === 1) value = this.low?.[t - 1];
    else if (this.holds(t)) value = this.detail.at(t);
    return Number.isFinite(value) ? value : null;
  }

  /** The steps that are only known together with step t: those of its block; t alone where it is held as it is. */
  block(t) {
    if (this.holds(t)) return { from: t, to: t };
    const n = this.blockOf(t);
    return { from: 1 + n * this.size, to: Math.min((n + 1) * this.size, this.length - 1) };
  }

  /** What is known of step t: the lowest and highest of its block; null where there is no figure. */
  span(t) {
    if (t < this.start || t >= this.length || !this.raw) return null;
    const block = this.block(t);
    if (this.holds(t)) {
      const value = this.at(t);
      return value === null ? null : { ...block, low: value, high: value };
    }
    const n = this.blockOf(t);
    return this.low && this.low[n] <= this.high[n] ? { ...block, low: this.low[n], high: this.high[n] } : null;
  }

  /** The span of the newest figure at or before step `now`, not older than `reach` steps; null where there is none. */
  latest(now, reach = Infinity) {
    let t = Math.min(now, this.length - 1);
    while (t >= this.start && t > now - reach && this.raw) {
      const span = this.span(t);
      if (span) return span;
      t = this.block(t).from - 1;
    }
    return null;
  }

  /** Visit the steps and blocks that touch [from, to): visit(first step, last step, lowest, highest); those without a figure are left out. */
  extremes(from, to, visit) {
    const end = Math.min(to, this.length);
    let t = Math.max(from, this.start);
    while (t < end && this.raw) {
      if (this.holds(t)) {
        const value = this.at(t);
        if (value !== null) visit(t, t, value, value);
        t += 1;
      } else {
        const n = this.blockOf(t), last = Math.min((n + 1) * this.size, this.length - 1);
        if (this.low && this.low[n] <= this.high[n]) visit(1 + n * this.size, last, this.low[n], this.high[n]);
        t = last + 1;
      }
    }
  }

  /** Whether there is any figure. */
  get filled() {
    let any = false;
    this.extremes(this.start, this.length, () => { any = true; });
    return any;
  }

  /** The lowest and the highest figure; ∞ and −∞ where there is none. */
  get least() {
    let least = Infinity;
    this.extremes(this.start, this.length, (first, last, low) => { least = Math.min(least, low); });
    return least;
  }
  get most() {
    let most = -Infinity;
    this.extremes(this.start, this.length, (first, last, low, high) => { most = Math.max(most, high); });
    return most;
  }

  get newest() { return this.at(this.length - 1); }

  /** Numbers held in memory. */
  get held() { return (this.raw?.length ?? 0) + (this.low ? 2 * BLOCKS : 0); }

  /** A copy that later steps do not change. */
  copy() { return Object.assign(new Column(this.start), this, { raw: this.raw?.slice() ?? null, low: this.low?.slice() ?? null, high: this.high?.slice() ?? null }); }
}

/** The figures of a span as text, by a function that writes one of them: a block's as its lowest and highest. */
function spanText(span, text) {
  if (!span) return NONE;
  const low = text(span.low), high = text(span.high);
  return low === high ? low : `${low} to ${high}`;
}
