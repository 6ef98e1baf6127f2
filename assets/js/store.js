// What the page knows of its run: the frame shown whole, and all recorded steps as plain number columns for the curves.

const FIDELITIES = ["energy", "centred", "functional"];
const figure = (value) => (Number.isFinite(value) ? value : null);

class Store {
  constructor(opened) {
    this.run = opened.run;
    this.model = opened.model;
    this.puzzle = opened.puzzle;
    this.length = opened.length; // the trained depth, in steps
    this.presets = opened.presets ?? {};
    this.defaults = opened.defaults ?? null;
    this.options = {};
    this.sites = opened.sites.map((site, position) => ({ ...site, colour: siteColour(position) }));
    this.position = new Map(this.sites.map((site, position) => [site.name, position]));
    this.cycle = this.model.L_cycles + 1; // steps of an H cycle
    this.supervision = this.model.H_cycles * this.cycle;
    this.selected = null;
    this.ledger = "history";
    this.spectra = { site: "", rows: [], most: 0, greatest: 0 };
    this.epoch = opened.epoch;
    this.notesKnown = 0;
    this.clear(0);
    this.take(opened);
  }

  clear(from) {
    this.cuts = (this.cuts ?? 0) + 1; // how often what was recorded was taken away
    if (from === 0) {
      const perSite = () => this.sites.map(() => []);
      this.rows = 0;
      for (const name of COLUMNS) this[name] = [];
      for (const name of SITE_COLUMNS) this[name] = perSite();
      this.latent = { Hx: [], Hy: [], Lx: [], Ly: [] };
      this.events = [];
      this.marks = { reset: [], grew: [], policy: [], solved: [] }; // steps with such an event, ascending
      this.siteMarks = perSite(); // [step, kind] of resets and growth
      this.lows = { energy: 1, centred: 1, functional: 1 };
      this.maxRank = 0;
      this.maxTurn = 0;
      this.maxChanged = 1;
      this.maxResidual = 0;
      this.minResidual = Infinity;
      this.box = null; // of the latent path: [least x, least y, most x, most y]
    } else if (from < this.rows) {
      for (const name of COLUMNS) cutColumn(this[name], from);
      for (const name of SITE_COLUMNS) for (const column of this[name]) cutColumn(column, from);
      for (const column of Object.values(this.latent)) cutColumn(column, from);
      this.events = this.events.filter((event) => event.step < from);
      for (const [kind, steps] of Object.entries(this.marks)) this.marks[kind] = steps.filter((step) => step < from);
      this.siteMarks = this.siteMarks.map((marks) => marks.filter(([step]) => step < from));
      this.rows = from;
    }
  }

  /** Take a reply in: rows from `start` on replace what the page had of them. */
  take(reply) {
    if (reply.epoch !== this.epoch || reply.start < this.rows) this.clear(reply.start);
    this.epoch = reply.epoch;
    for (const row of reply.rows) this.add(row);
    this.frame = reply.frame;
    this.head = reply.head;
    this.turns = reply.turns;
    this.bestTurns = reply.best_turns ?? {};
    this.update = reply.update;
    this.cost = reply.cost;
    this.settings = reply.settings;
    this.options = reply.options ?? {};
    this.link = reply.link;
    this.state = reply.state;
    this.problem = reply.problem;
    if (watched.on(this)) watched.take(this, reply);
    this.span = this.findSpan();
    if (reply.spectra) this.takeSpectra(reply.spectra);
    this.trackLow(this.measure, this.settings.min_fidelity);
  }

  add(row) {
    const t = row.index;
    this.changed[t] = row.changed;
    this.halt[t] = row.halt_probability;
    this.residual[t] = row.residual;
    this.kept[t] = figure(row.kept);
    this.full[t] = figure(row.full);
    this.right[t] = figure(row.right);
    this.flips[t] = figure(row.flips);
    this.kl[t] = figure(row.kl);
    this.functionalAll[t] = figure(row.functional);
    this.gradientAll[t] = figure(row.gradient);
    this.batchSolved[t] = figure(row.batch_solved);
    this.batchRight[t] = figure(row.batch_right);
    this.addLatent(t, row.latent ?? []);
    this.maxChanged = Math.max(this.maxChanged, row.changed);
    if (row.residual > 0) {
      this.maxResidual = Math.max(this.maxResidual, row.residual);
      this.minResidual = Math.min(this.minResidual, row.residual);
    }
    this.sites.forEach((site, i) => {
      const [fidelity, rank = 0, , turn, centred, functional, best, window] = row.sites[site.name] ?? [];
      this.fidelity[i][t] = figure(fidelity);
      this.rank[i][t] = rank;
      this.turn[i][t] = figure(turn); // largest angle where a step refreshed
      this.centred[i][t] = figure(centred);
      this.functional[i][t] = figure(functional);
      this.best[i][t] = figure(best);
      this.window[i][t] = figure(window);
      this.trackLow("energy", fidelity);
      this.trackLow("centred", centred);
      this.trackLow("functional", functional);
      this.maxRank = Math.max(this.maxRank, rank);
      if (turn > this.maxTurn) this.maxTurn = turn;
    });
    for (const event of row.events) {
      this.events.push(event);
      const steps = this.marks[event.kind];
      if (steps && steps.at(-1) !== t) steps.push(t);
      if (event.kind === "reset" || event.kind === "grew") this.siteMarks[this.position.get(event.site)]?.push([t, event.kind]);
    }
    this.rows = t + 1;
  }

  addLatent(t, [hx, hy, lx, ly]) {
    const { Hx, Hy, Lx, Ly } = this.latent;
    Hx[t] = figure(hx); Hy[t] = figure(hy); Lx[t] = figure(lx); Ly[t] = figure(ly);
    if (![hx, hy, lx, ly].every(Number.isFinite)) return;
    const [a, b, c, d] = this.box ?? [Infinity, Infinity, -Infinity, -Infinity];
    this.box = [Math.min(a, hx, lx), Math.min(b, hy, ly), Math.max(c, hx, lx), Math.max(d, hy, ly)];
  }

  /** Energy shares per step of the selected site, from `start` on. */
  takeSpectra({ site, start, rows }) {
    const { spectra } = this;
    if (site !== spectra.site) this.spectra = { site, rows: [], most: 0, greatest: 0 };
    if (start < this.spectra.rows.length) { this.spectra.rows.length = start; this.spectra.cut = Math.min(this.spectra.cut ?? start, start); }
    for (const shares of rows) {
      this.spectra.rows.push(shares);
      if (!shares?.length) continue;
      this.spectra.most = Math.max(this.spectra.most, shares.length);
      this.spectra.greatest = Math.max(this.spectra.greatest, shares[0]);
    }
  }

  trackLow(kind, value) { if (Number.isFinite(value) && value < this.lows[kind]) this.lows[kind] = value; }

  /** Columns of a fidelity by its kind. */
  get kinds() { return { energy: this.fidelity, centred: this.centred, functional: this.functional }; }

  /** The fidelity that the rule reads. */
  get measure() { return this.settings.measure ?? "energy"; }

  /** Steps the time axes show: the trained depth, and where a run goes on past it, room in whole supervision steps. */
  findSpan() {
    const reached = Math.max(this.rows - 1, this.head ?? 0);
    let span = this.length;
    while (span < reached || (span === this.length && this.options.beyond)) {
      span = Math.ceil((span * 1.25) / this.supervision) * this.supervision;
    }
    return span;
  }

  /** What a site's setting is: its own, or that of all. */
  setting(position, name) { return this.settings.sites?.[this.sites[position].name]?.[name] ?? this.settings[name]; }

  /** The fidelity of a kind at the step shown; of what is measured at a cycle's end, the newest. */
  fidelityOf(position, kind) {
    const column = this.kinds[kind][position];
    return kind === "functional" ? latest(column, this.frame.index, 2 * this.cycle) : column[this.frame.index] ?? null;
  }

  /** Bottom of the fidelity scale, shared by map and plot: 0.80 unless something fell below. */
  get floor() { return [0.8, 0.6, 0.4, 0.2].find((value) => this.lows[kindShown] >= value) ?? 0; }

  /** Where a fidelity stands between the floor (0) and 1 (1): the one scale of lines and colours. */
  scaled(fidelity) {
    const low = onScale(this.floor), high = onScale(1);
    return (onScale(fidelity) - low) / (high - low);
  }
}

const COLUMNS = [
  "changed", "halt", "residual", "kept", "full", "right", "flips", "kl", "functionalAll", "gradientAll", "batchSolved", "batchRight",
];
const SITE_COLUMNS = ["fidelity", "rank", "turn", "centred", "functional", "best", "window"];

// Fidelities crowd below 1, so the scale counts nines by default: 0.9, 0.99 and 0.999 are equally far apart.
const MOST_NINES = 4;
let scaleKind = "nines";
let kindShown = "energy"; // of FIDELITIES, in map and plot
const onScale = (fidelity) => (scaleKind === "nines" ? Math.min(MOST_NINES, -Math.log10(Math.max(1 - fidelity, 1e-9))) : fidelity);
