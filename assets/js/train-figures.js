// What the training page holds of a run: figures by training step as the studio sends them, block by block. Nothing is drawn here.

/** One figure over the steps 1, 2, …: a block is `size` steps, of which the lowest and the highest are known. */
class Track {
  constructor() { this.low = []; this.high = []; this.size = 1; }

  /** Take blocks from `start` on in place of those held. */
  take(start, size, low, high) {
    this.size = size;
    for (const [held, news] of [[this.low, low], [this.high, high]]) {
      while (held.length < start) held.push(null);
      held.length = start;
      for (const value of news) held.push(value);
    }
  }

  /** Visit the blocks that touch the steps [from, to): visit(first step, last step, lowest, highest); those without a figure are left out. */
  extremes(from, to, visit) {
    const { low, high, size } = this;
    for (let n = Math.max(0, Math.floor((from - 1) / size)); n < low.length && n * size + 1 < to; n++) {
      if (low[n] !== null) visit(n * size + 1, (n + 1) * size, low[n], high[n]);
    }
  }

  /** Lowest and highest of the block of a step; null where there is no figure. */
  span(step) {
    const n = Math.floor((step - 1) / this.size);
    return n >= 0 && n < this.low.length && this.low[n] !== null ? { low: this.low[n], high: this.high[n] } : null;
  }

  /** The newest figure at or before a step, as { step, low, high }; null where there is none. */
  latest(step = Infinity) {
    for (let n = Math.min(this.low.length - 1, Math.floor((step - 1) / this.size)); n >= 0; n--) {
      if (this.low[n] !== null) return { step: (n + 1) * this.size, low: this.low[n], high: this.high[n] };
    }
    return null;
  }

  get newest() { return this.latest()?.low ?? null; }
}

const NO_TRACK = new Track();

/** One run as the page knows it. */
class TrainedRun {
  constructor(name) {
    this.name = name;
    this.state = "none";
    this.forget();
    this.sites = [];
    this.laser = null;
    this.models = [];
  }

  forget() {
    this.done = 0; // steps recorded
    this.size = 0; // of a block, 0: none is held
    this.blocks = 0;
    this.tracks = new Map();
    this.events = new Map(); // "grow:SITE" and "reset:SITE" to counts by block
    this.notes = []; // [step, settings that came into force with it, or { budget } where it began by measuring one]
  }

  /** What to ask for: the last block may have been filling. */
  get lacks() { return { block: Math.max(0, this.blocks - 1), size: this.size, notes: this.notes.length }; }

  /** Take a reply in; false where it cannot be joined to what is held, which is then forgotten: ask again. */
  take(reply) {
    const { figures } = reply;
    if (figures.steps < this.done || reply.noted < this.notes.length) { this.forget(); return false; }
    if (figures.start === 0) { this.tracks.clear(); this.events.clear(); }
    this.size = figures.size;
    this.done = figures.steps;
    this.blocks = Math.ceil(figures.steps / figures.size);
    for (const [name, low] of Object.entries(figures.low)) {
      if (!this.tracks.has(name)) this.tracks.set(name, new Track());
      this.tracks.get(name).take(figures.start, figures.size, low, figures.high[name] ?? low);
    }
    for (const [name, counts] of Object.entries(figures.counts)) {
      const held = this.events.get(name) ?? [];
      while (held.length < figures.start) held.push(0);
      held.length = figures.start;
      held.push(...counts);
      this.events.set(name, held);
    }
    this.notes.push(...reply.notes);
    for (const name of ["state", "laser", "steps", "batch", "puzzles", "sites", "models", "left", "text", "problem", "refused", "own"]) this[name] = reply[name];
    return true;
  }

  track(name) { return this.tracks.get(name) ?? NO_TRACK; }

  /** How often something happened so far: "grow" or "reset", at one site or at all. */
  count(kind, site = null) {
    let sum = 0;
    for (const [name, counts] of this.events) {
      if (name.startsWith(`${kind}:`) && (site === null || name === `${kind}:${site}`)) for (const count of counts) sum += count;
    }
    return sum;
  }

  /** First steps of the blocks in which it happened, ascending. */
  when(kind, site = null) {
    const blocks = new Set();
    for (const [name, counts] of this.events) {
      if (!name.startsWith(`${kind}:`) || (site !== null && name !== `${kind}:${site}`)) continue;
      counts.forEach((count, n) => { if (count) blocks.add(n); });
    }
    return [...blocks].sort((a, b) => a - b).map((n) => n * this.size + 1);
  }

  /** What happened in the block of a step, by site: [kind, site, how often]. */
  happened(step) {
    const n = Math.floor((step - 1) / this.size);
    return [...this.events].flatMap(([name, counts]) => {
      const [kind, site] = [name.slice(0, name.indexOf(":")), name.slice(name.indexOf(":") + 1)];
      return counts[n] ? [[kind, site, counts[n]]] : [];
    });
  }

  /** Every measuring of the budget: [step it came before, { cosine, seconds, choice? }]. */
  get checks() { return this.notes.filter(([, note]) => note.budget).map(([step, note]) => [step, note.budget]); }

  /** What the budget led to last; null before, or without one. */
  get choice() { return this.checks.findLast(([, { choice }]) => choice)?.[1].choice ?? null; }

  /** What is noted of a step. */
  noteAt(step) { return this.notes.find(([at]) => Math.floor((at - 1) / this.size) === Math.floor((step - 1) / this.size)) ?? null; }

  /** Every figure by step as CSV; of blocks of several steps the lowest and the highest. */
  csv() {
    const names = [...this.tracks.keys()], several = this.size > 1;
    const field = (text) => (/[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const value = (number) => (number === null || number === undefined ? "" : `${number}`);
    const head = several ? ["first step", "last step", ...names.flatMap((name) => [`${name} lowest`, `${name} highest`])] : ["step", ...names];
    const lines = [head.map(field).join(",")];
    for (let n = 0; n < this.blocks; n++) {
      const figures = names.flatMap((name) => { const { low, high } = this.tracks.get(name); return several ? [low[n], high[n]] : [low[n]]; });
      lines.push([n * this.size + 1, ...(several ? [Math.min((n + 1) * this.size, this.done)] : []), ...figures.map(value)].join(","));
    }
    return `${lines.join("\r\n")}\r\n`;
  }
}
