// The plots of the training page over training steps: loss, accuracy, fidelity and rank by site, bytes. All share one hover line.

const LEAST_SPAN = 20; // steps that the axis has room for at least
const SHORT_DASH = [5, 4];

const trainPlots = {
  hover: null, // the step under the pointer or chosen by key, in all plots
  selected: null, // a site's name
  logarithmic: true,
  all: [],

  /** A frame for a plot: its scale over steps, ticks below, and what is drawn on it. */
  frame(id, run, { left = 38, right = 10, top = 8, bottom = 18 } = {}) {
    const made = surface($(id));
    if (!made) return null;
    const { context, width, height } = made;
    const span = Math.max(LEAST_SPAN, run.done);
    const x = (step) => left + ((step - 1) / Math.max(1, span - 1)) * (width - left - right);
    return { context, width, height, left, right, top, bottom, span, x, floor: height - bottom };
  },

  ticks(frame, run) {
    const { context, width, floor, x, span } = frame;
    const step = tickStep(span, Math.max(2, width / 100));
    const wide = String(span).length * 3.2;
    for (let t = step; t <= span; t += step) label(context, `${t}`, Math.min(x(t), width - wide), floor + 10, { align: "center" });
    label(context, "1", x(1), floor + 10, { align: "center" });
  },

  /** Where settings changed, and the pointer. */
  over(frame, run) {
    const { context, x, top, floor } = frame;
    for (const [step] of run.notes) upright(context, Math.round(x(step)) + 0.5, top, floor, { colour: ink.accent, dash: [2, 3] });
    if (this.hover !== null && this.hover <= frame.span) upright(context, x(this.hover), top, floor, { colour: ink.text });
  },

  values(frame, ticks, y, text) {
    let above = -Infinity;
    for (const value of ticks) {
      rule(frame.context, y(value), frame.left, frame.width - frame.right);
      if (Math.abs(y(value) - above) < 11) continue;
      above = y(value);
      label(frame.context, text(value), frame.left - 5, y(value), { align: "right" });
    }
  },

  loss(run) {
    const frame = this.frame("loss-plot", run);
    if (!frame) return;
    const { context, top, floor, x } = frame;
    const sides = ["plain", "laser"].map((side) => [side, run.track(`loss.${side}`)]);
    let least = Infinity, most = -Infinity;
    for (const [, track] of sides) track.extremes(1, run.done + 1, (first, last, low, high) => { if (low > 0) least = Math.min(least, low); most = Math.max(most, high); });
    if (most < 0 || least === Infinity) return;
    const log = this.logarithmic;
    const scale = log ? (value) => Math.log10(Math.max(value, least)) : (value) => value;
    const from = log ? scale(least) - 0.02 : 0, to = Math.max(scale(most) + (log ? 0.02 : 0), from + 1e-6);
    const y = (value) => floor - ((scale(value) - from) / (to - from)) * (floor - top);
    const ticks = log ? logTicks(least, most) : evenTicks(0, most, 4);
    if (log && ticks.length < 3) ticks.push(...evenTicks(least, most, 3).filter((value) => !ticks.includes(value)));
    ticks.sort((a, b) => b - a);
    this.values(frame, ticks, y, (value) => `${Number(value.toPrecision(3))}`);
    this.ticks(frame, run);
    for (const [side, track] of sides) curve(context, track, 1, run.done + 1, x, y, ink[SIDE_INK[side]], 1, 0.38);
    for (const [side] of sides) curve(context, run.track(`mean.${side}`), 1, run.done + 1, x, y, ink[SIDE_INK[side]], side === "laser" ? 1.8 : 2.2);
    this.over(frame, run);
  },

  exact(run) {
    const frame = this.frame("exact-plot", run);
    if (!frame) return;
    const { context, top, floor, x } = frame;
    let most = 0.1;
    for (const name of ["exact.laser", "exact.plain", "train.laser", "train.plain"]) run.track(name).extremes(1, run.done + 1, (first, last, low, high) => { most = Math.max(most, high); });
    most = Math.min(1, 1.08 * most);
    const y = (value) => floor - (value / most) * (floor - top);
    this.values(frame, evenTicks(0, most, 4), y, (value) => `${Math.round(100 * value)} %`);
    this.ticks(frame, run);
    for (const side of ["plain", "laser"]) {
      const colour = ink[SIDE_INK[side]];
      curve(context, run.track(`train.${side}`), 1, run.done + 1, x, y, colour, 1, 0.45);
      const track = run.track(`exact.${side}`);
      context.strokeStyle = context.fillStyle = colour;
      context.lineWidth = 2;
      if (side === "plain") context.setLineDash(SHORT_DASH);
      context.beginPath();
      let open = false;
      track.extremes(1, run.done + 1, (first, last, low, high) => { const at = x(Math.min(last, run.done)); if (open) context.lineTo(at, y(high)); else context.moveTo(at, y(high)); open = true; });
      context.stroke();
      context.setLineDash([]);
      track.extremes(1, run.done + 1, (first, last, low, high) => { context.beginPath(); context.arc(x(Math.min(last, run.done)), y(high), side === "laser" ? 2.6 : 3.2, 0, 7); context.fill(); });
    }
    this.over(frame, run);
  },

  /** Sites that have, or had, a basis. */
  based: (run) => run.sites.map((site, i) => ({ ...site, colour: siteColour(i) })).filter((site) => site.dim > 0 && run.track(`rank:${site.name}`).newest !== null),

  inOrder(run) {
    const sites = this.based(run);
    return [...sites.filter(({ name }) => name !== this.selected), ...sites.filter(({ name }) => name === this.selected)];
  },

  fidelity(run) {
    const frame = this.frame("fidelity-plot", run, { top: 14 });
    if (!frame) return;
    const { context, top, floor, x, left, width, right } = frame;
    const sites = this.inOrder(run);
    if (!sites.length) return;
    const epsilon = run.laser?.min_fidelity;
    let least = ruled(run) ? epsilon ?? 1 : 1;
    for (const { name } of sites) run.track(`fidelity:${name}`).extremes(1, run.done + 1, (first, last, low) => { least = Math.min(least, low); });
    const base = [0.99, 0.95, 0.9, 0.8, 0.6, 0.4].find((value) => value <= least) ?? 0;
    // By their nines, as in the debugger: 0.9, 0.99 and 0.999 are equally far apart, and 1 is where 0.9999 is.
    const nines = (value) => Math.min(4, -Math.log10(Math.max(1e-9, 1 - value)));
    const y = (value) => floor - ((nines(value) - nines(base)) / (4 - nines(base))) * (floor - top);
    this.values(frame, [1, 0.999, 0.99, 0.9, base].filter((value, n, all) => value >= base && all.indexOf(value) === n), y, (value) => `${value}`);
    this.ticks(frame, run);
    for (const { name, colour } of sites) {
      const chosen = this.selected === name;
      curve(context, run.track(`fidelity:${name}`), 1, run.done + 1, x, y, colour, chosen ? 2.2 : 1.2, this.selected === null || chosen ? 1 : 0.45);
    }
    if (epsilon > base && ruled(run)) {
      rule(context, y(epsilon), left, width - right, { colour: ink.amber, dash: SHORT_DASH });
      label(context, `ε = ${epsilon.toFixed(3)}`, width - right, y(epsilon) + 8 < floor ? y(epsilon) + 8 : y(epsilon) - 8, { align: "right", colour: ink.amber, weight: 600 });
    }
    marksAt(context, run.when("grow", this.selected), x, Infinity, (at) => triangle(context, at, top - 7, 3.2, ink.amber, true));
    marksAt(context, run.when("reset", this.selected), x, Infinity, (at) => triangle(context, at, top - 7, 4, ink.red));
    this.over(frame, run);
  },

  rank(run) {
    const frame = this.frame("rank-plot", run, { top: 6 });
    if (!frame) return;
    const { context, top, floor, x } = frame;
    if (!this.based(run).length) return;
    const y = (share) => floor - share * (floor - top);
    this.values(frame, [0, 0.5, 1], y, (value) => `${Math.round(100 * value)}`);
    this.ticks(frame, run);
    for (const { name, dim, colour } of this.inOrder(run)) {
      const chosen = this.selected === name;
      staircase(context, run.track(`rank:${name}`), 1, run.done + 1, x, (rank) => y(rank / dim), colour, chosen ? 2.2 : 1.2, this.selected === null || chosen ? 1 : 0.45);
    }
    this.over(frame, run);
  },

  /** Full and kept bytes of one optimiser step over the run: of the selected site, else of all that is saved. */
  bytes(run) {
    const frame = this.frame("bytes-plot", run, { left: 2, right: 4, top: 4, bottom: 3 });
    if (!frame) return;
    const { context, top, floor, x, left, width, right } = frame;
    const site = this.selected;
    const full = run.track(site === null ? "bytes.full" : `full:${site}`), kept = run.track(site === null ? "bytes.saved" : `kept:${site}`);
    let most = 1;
    for (const track of [full, kept]) track.extremes(1, run.done + 1, (first, last, low, high) => { most = Math.max(most, high); });
    const y = (value) => floor - (value / most) * (floor - top - 2);
    rule(context, floor, left, width - right);
    curve(context, full, 1, run.done + 1, x, y, ink.muted, 1.2);
    curve(context, kept, 1, run.done + 1, x, y, ink.green, 1.8);
    this.over(frame, run);
  },

  draw(run) {
    this.loss(run);
    this.exact(run);
    this.fidelity(run);
    this.rank(run);
    this.bytes(run);
    this.says(run);
  },

  /** What the plots show, in words for those who do not see them. */
  says(run) {
    const at = run.done ? `at step ${run.done}` : "nothing is trained yet";
    const number = (name, text) => { const value = run.track(name).newest; return value === null ? NONE : text(value); };
    const both = (name, text) => `${number(`${name}.laser`, text)} with LASER, ${number(`${name}.plain`, text)} without, ${at}`;
    mark($("loss-plot"), "aria-label", `Loss: ${run.done ? both("loss", (value) => fixed(value, 3)) : at}`);
    mark($("exact-plot"), "aria-label", `Exact accuracy on validation puzzles: ${run.done ? both("exact", percent) : at}`);
    const sites = this.based(run);
    const list = (kind, text) => sites.map(({ name, label: shown }) => `${shown} ${number(`${kind}:${name}`, text)}`).join(", ");
    mark($("fidelity-plot"), "aria-label", `Fidelity by site ${at}: ${list("fidelity", fidelityText)}`);
    mark($("rank-plot"), "aria-label", `Rank by site ${at}: ${list("rank", (value) => `${value}`)}`);
    mark($("bytes-plot"), "aria-label", `Bytes of a step over training steps: ${number("bytes.full", bytes)} in full, ${number("bytes.saved", bytes)} kept, ${at}`);
  },

  // Hovering

  /** `lines(run, step)`: what a plot's tooltip says of a step. */
  wire(id, run, lines) {
    const canvas = $(id);
    this.all.push(id);
    const left = id === "bytes-plot" ? 2 : 38, right = id === "bytes-plot" ? 4 : 10;
    const tell = (step, across, down) => {
      const shown = run();
      if (!shown?.done || step < 1 || step > shown.done) { this.hide(); return; }
      if (this.hover !== step) { this.hover = step; redraw(); }
      const first = Math.floor((step - 1) / shown.size) * shown.size + 1, last = Math.min(first + shown.size - 1, shown.done);
      const note = shown.noteAt(step);
      tip.show([
        { name: first === last ? "step" : "steps, lowest to highest", value: first === last ? `${step}` : `${first} to ${last}` }, ...lines(shown, step),
        ...(note ? noteWords(note[1]) : []),
      ], across, down);
    };
    const stepAt = (offset, width, shown) => Math.round(1 + ((offset - left) / (width - left - right)) * (Math.max(LEAST_SPAN, shown.done) - 1));
    canvas.addEventListener("pointermove", (event) => { const shown = run(); if (shown) tell(stepAt(event.offsetX, canvas.clientWidth, shown), event.clientX, event.clientY); });
    canvas.addEventListener("pointerleave", () => this.hide());
    canvas.tabIndex = 0;
    canvas.addEventListener("keydown", (event) => {
      const shown = run(), by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
      if (!shown?.done || (!by && event.key !== "Home" && event.key !== "End")) return;
      event.preventDefault();
      const from = this.hover ?? shown.done;
      const step = event.key === "Home" ? 1 : event.key === "End" ? shown.done : Math.min(shown.done, Math.max(1, from + by * shown.size));
      const box = canvas.getBoundingClientRect();
      tell(step, box.left + left + ((step - 1) / Math.max(1, Math.max(LEAST_SPAN, shown.done) - 1)) * (box.width - left - right), box.top + box.height / 2);
    });
    canvas.addEventListener("blur", () => this.hide());
  },

  hide() {
    tip.hide();
    if (this.hover === null) return;
    this.hover = null;
    redraw();
  },
};

/** A note in words: settings that changed, or a budget that was measured. */
function noteWords({ budget, ...settings }) {
  if (!budget) return [`settings changed: rank ${settings.rank}, ε ${settings.min_fidelity}, p ${settings.patience}, growth ${settings.growth}`];
  const { choice } = budget;
  return [choice ? `budget ${choice.asked}: chosen, cosine ${fixed(choice.mean, 4)} (${fixed(choice.worst, 4)} at worst)` : `budget measured again: cosine ${fixed(budget.cosine, 4)}, kept`];
}

const SIDE_INK = { laser: "accent", plain: "muted" };
const SIDE_NAME = { laser: "with LASER", plain: "without" };

/** Both sides' figures at a step. */
const sideLines = (name, text, what = "") => (run, step) => ["laser", "plain"].map((side) => ({ colour: ink[SIDE_INK[side]], name: `${SIDE_NAME[side]}${what}`, value: spanOf(run.track(`${name}.${side}`).span(step), text) }));

/** A span as text: one number, or the lowest and the highest. */
function spanOf(span, text) {
  if (!span) return NONE;
  const low = text(span.low), high = text(span.high);
  return low === high ? low : `${low} to ${high}`;
}

function evenTicks(from, to, wanted) {
  const step = tickStep(to - from, wanted), ticks = [];
  for (let value = Math.ceil(from / step - 1e-9) * step; value <= to + 1e-9; value += step) ticks.push(value);
  return ticks;
}

/** 1, 2 and 5 times powers of ten between two numbers. */
function logTicks(from, to) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(from)); power <= Math.ceil(Math.log10(to)); power++) {
    for (const digit of [5, 2, 1]) { const value = digit * 10 ** power; if (value >= from && value <= to) ticks.push(value); }
  }
  return ticks;
}
