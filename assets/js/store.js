// What the page knows of its run: the frame shown whole, and of all recorded steps what the curves need, in bounded memory.

const FIDELITIES = ["energy", "centred", "functional"];

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
    this.spectra = noSpectra("");
    this.farthest = opened.farthest; // the last step a run past the trained depth may have
    this.epoch = opened.epoch;
    this.notesKnown = 0;
    this.clear(0);
    this.take(opened);
  }

  /** Nothing recorded; `start` is the first step that will be, 0 but in a part of a run. */
  blank(start) {
    this.start = start;
    const column = () => new Column(start);
    for (const name of COLUMNS) this[name] = column();
    for (const name of SITE_COLUMNS) this[name] = this.sites.map(column);
    this.rows = start;
    this.latent = new Samples(start ? Infinity : 2_048, 2_048, start); // [x of z_H, y of z_H, x of z_L, y of z_L]
    this.events = []; // the newest
    this.eventsTold = 0; // how many there have been in all since the list was last cut
    this.marks = { reset: new Marks(), grew: new Marks(), policy: new Marks(), solved: new Marks() };
    this.siteMarks = this.sites.map(() => ({ grew: new Marks(), reset: new Marks() }));
    this.lows = { energy: 1, centred: 1, functional: 1 };
    this.maxRank = 0;
    this.maxTurn = 0;
    this.maxChanged = 1;
    this.maxResidual = 0;
    this.minResidual = Infinity;
    this.box = null; // of the latent path: [least x, least y, most x, most y]
  }

  /** Forget what was recorded from step `from` on. */
  clear(from) {
    this.cuts = (this.cuts ?? 0) + 1; // how often what was recorded was taken away
    let end = from;
    for (const column of from ? this.columns : []) end = column.cut(from); // the same of all
    if (end === 0) { this.blank(0); return; }
    this.rows = Math.min(this.rows, end);
    this.latent.cut(end);
    this.events = this.events.filter((event) => event.step < end);
    this.eventsTold = this.events.length;
    for (const marks of [...Object.values(this.marks), ...this.siteMarks.flatMap(Object.values)]) marks.cut(end);
  }

  get columns() { return [...COLUMNS.map((name) => this[name]), ...SITE_COLUMNS.flatMap((name) => this[name])]; }

  /** Take a reply in: rows from `start` on replace what the page had of them. */
  take(reply) {
    if (reply.epoch !== this.epoch || reply.start < this.rows) this.clear(reply.start);
    this.reply = reply; // what the parts of the page tell from
    this.epoch = reply.epoch;
    for (const row of reply.rows) if (row.index === this.rows) this.add(row); // where earlier ones are wanted again, those come first
    this.frame = reply.frame;
    this.head = reply.head;
    this.turns = reply.turns;
    this.bestTurns = reply.best_turns;
    this.gaps = reply.gaps;
    this.causes = reply.causes;
    this.measured = reply.measured;
    this.eventCount = reply.event_count;
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
    this.changed.push(row.changed);
    this.halt.push(row.halt_probability);
    this.residual.push(row.residual);
    this.kept.push(row.kept);
    this.full.push(row.full);
    this.right.push(row.right);
    this.flips.push(row.flips);
    this.kl.push(row.kl);
    this.functionalAll.push(row.functional);
    this.gradientAll.push(row.gradient);
    this.batchSolved.push(row.batch_solved);
    this.batchRight.push(row.batch_right);
    this.addLatent(row.latent);
    this.maxChanged = Math.max(this.maxChanged, row.changed);
    if (row.residual > 0) {
      this.maxResidual = Math.max(this.maxResidual, row.residual);
      this.minResidual = Math.min(this.minResidual, row.residual);
    }
    this.sites.forEach((site, i) => {
      const [fidelity, rank = 0, action, turn, centred, functional, best] = row.sites[site.name] ?? [];
      this.fidelity[i].push(fidelity);
      this.rank[i].push(rank);
      this.action[i].push(action === undefined ? null : ACTIONS.indexOf(action));
      this.turn[i].push(turn); // largest angle where a step refreshed
      this.centred[i].push(centred);
      this.functional[i].push(functional);
      this.best[i].push(best);
      this.trackLow("energy", fidelity);
      this.trackLow("centred", centred);
      this.trackLow("functional", functional);
      this.maxRank = Math.max(this.maxRank, rank);
      if (turn > this.maxTurn) this.maxTurn = turn;
    });
    for (const event of row.events) {
      this.events.push(event);
      this.eventsTold += 1;
      this.marks[event.kind]?.push(t);
      this.siteMarks[this.position.get(event.site)]?.[event.kind]?.push(t);
    }
    if (this.events.length > EVENTS_HELD) this.events.splice(0, EVENTS_HELD / 2);
    this.rows = t + 1;
  }

  addLatent(place) {
    this.latent.push(place);
    if (!place.length) return; // a run that has no such plane
    const [hx, hy, lx, ly] = place;
    const [a, b, c, d] = this.box ?? [Infinity, Infinity, -Infinity, -Infinity];
    this.box = [Math.min(a, hx, lx), Math.min(b, hy, ly), Math.max(c, hx, lx), Math.max(d, hy, ly)];
  }

  /** Energy shares per step of the selected site, from `start` on. */
  takeSpectra({ site, start, rows }) {
    if (site !== this.spectra.site) this.spectra = noSpectra(site);
    const { spectra } = this;
    if (start < spectra.rows.length) { spectra.rows.cut(start); spectra.cut = Math.min(spectra.cut ?? start, start); }
    for (const shares of rows) {
      spectra.rows.push(shares);
      if (!shares?.length) continue;
      spectra.most = Math.max(spectra.most, shares.length);
      spectra.greatest = Math.max(spectra.greatest, shares[0]);
    }
  }

  /** The latent path as [step, place], ascending; the step shown is always among them. */
  get path() {
    const path = [], now = this.frame.index;
    this.latent.each(0, this.rows, (t, place) => path.push([t, place]));
    const at = path.findIndex(([t]) => t >= now);
    if (at < 0) path.push([now, this.frame.latent]);
    else if (path[at][0] > now) path.splice(at, 0, [now, this.frame.latent]);
    return path;
  }

  /** The steps that the page knows of only together with step t; t alone where it is held as it is. */
  block(t) { return this.residual.block(t); }

  /** The first of the newest steps that are held as they are, with all of theirs. */
  get whole() { return this.residual.size === 1 ? 0 : this.residual.first; }

  /** Show some older steps as they are from now on, in place of their blocks: those of a part. */
  lookAt(part) {
    for (const name of COLUMNS) this[name].detail = part[name];
    for (const name of SITE_COLUMNS) this[name].forEach((column, i) => { column.detail = part[name][i]; });
    for (const [name, note] of this.notes ?? []) note.column.detail = part.notes.get(name)?.column ?? new Column(part.start);
  }

  /** Numbers held of the recorded steps; that they stop growing is tested and measured. */
  get held() {
    const items = (samples) => [...samples.older, ...samples.recent].reduce((sum, item) => sum + (item?.length ?? 0), 0);
    const marks = [...Object.values(this.marks), ...this.siteMarks.flatMap(Object.values)].reduce((sum, { steps }) => sum + steps.length, 0);
    return this.columns.reduce((sum, column) => sum + column.held, 0) + items(this.latent) + items(this.spectra.rows) + marks + this.events.length;
  }

  /** A copy that later steps do not change: the records of replies are replaced by the next reply anyway. */
  still() {
    const shot = Object.assign(Object.create(Store.prototype), this);
    for (const name of COLUMNS) shot[name] = this[name].copy();
    for (const name of SITE_COLUMNS) shot[name] = this[name].map((column) => column.copy());
    shot.latent = this.latent.copy();
    shot.spectra = { ...this.spectra, rows: this.spectra.rows.copy() };
    shot.events = this.events.slice();
    shot.siteMarks = this.siteMarks.map(({ grew, reset }) => ({ grew: grew.copy(), reset: reset.copy() }));
    if (this.notes) shot.notes = new Map([...this.notes].map(([name, note]) => [name, { ...note, column: note.column.copy() }]));
    return shot;
  }

  /** A store of the same run that holds some recorded rows alone, as they are. */
  part(start, rows) {
    const part = Object.create(this);
    part.blank(start);
    part.notes = new Map();
    for (const row of rows) part.add(row);
    return part;
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
    const { name } = this.sites[position];
    if (kind === "functional") return this.newestOf("functional")?.sites[name] ?? null;
    return this.frame.sites[name]?.[kind === "energy" ? "fidelity" : kind] ?? null;
  }

  /** What was measured last at a cycle's end, up to the step shown; null where that was cycles ago. */
  newestOf(what) {
    const newest = this.measured[what];
    return newest && newest.step > this.frame.index - 2 * this.cycle ? newest : null;
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
const SITE_COLUMNS = ["fidelity", "rank", "action", "turn", "centred", "functional", "best"];
const ACTIONS = ["keep", "grow", "reset"]; // of the rule, as numbers in a column
const EVENTS_HELD = 2_000; // the newest, at least half as many; the server has all

const noSpectra = (site) => ({ site, rows: new Samples(1_024, 1_024), most: 0, greatest: 0 });

// Fidelities crowd below 1, so the scale counts nines by default: 0.9, 0.99 and 0.999 are equally far apart.
const MOST_NINES = 4;
let scaleKind = "nines";
let kindShown = "energy"; // of FIDELITIES, in map and plot
const onScale = (fidelity) => (scaleKind === "nines" ? Math.min(MOST_NINES, -Math.log10(Math.max(1 - fidelity, 1e-9))) : fidelity);
