// What the page knows of its run: the frame shown whole, and all recorded steps as plain number columns for the curves.

class Store {
  constructor(opened) {
    this.run = opened.run;
    this.model = opened.model;
    this.puzzle = opened.puzzle;
    this.length = opened.length;
    this.sites = opened.sites.map((site, position) => ({ ...site, colour: siteColour(position) }));
    this.position = new Map(this.sites.map((site, position) => [site.name, position]));
    this.selected = null;
    this.ledger = "history";
    this.epoch = opened.epoch;
    this.clear(0);
    this.take(opened);
  }

  clear(from) {
    if (from === 0) {
      this.rows = 0;
      this.changed = [];
      this.halt = [];
      this.residual = [];
      this.events = [];
      this.cuts = (this.cuts ?? 0) + 1; // how often events were taken away
      this.fidelity = this.sites.map(() => []);
      this.rank = this.sites.map(() => []);
      this.turn = this.sites.map(() => []); // largest angle where a step refreshed, null elsewhere
      this.low = 1;
      this.maxRank = 0;
      this.maxTurn = 0;
      this.maxChanged = 1;
      this.maxResidual = 0;
      this.minResidual = Infinity;
    } else if (from < this.rows) {
      for (const column of [this.changed, this.halt, this.residual, ...this.fidelity, ...this.rank, ...this.turn]) column.length = from;
      this.events = this.events.filter((event) => event.step < from);
      this.cuts += 1;
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
    this.update = reply.update;
    this.cost = reply.cost;
    this.settings = reply.settings;
    this.link = reply.link;
    this.state = reply.state;
    this.problem = reply.problem;
    this.trackLow(this.settings.min_fidelity);
  }

  add(row) {
    const t = row.index;
    this.changed[t] = row.changed;
    this.halt[t] = row.halt_probability;
    this.residual[t] = row.residual;
    this.maxChanged = Math.max(this.maxChanged, row.changed);
    if (row.residual > 0) {
      this.maxResidual = Math.max(this.maxResidual, row.residual);
      this.minResidual = Math.min(this.minResidual, row.residual);
    }
    this.sites.forEach((site, i) => {
      const [fidelity = null, rank = 0, , turn = null] = row.sites[site.name] ?? [];
      this.fidelity[i][t] = fidelity;
      this.rank[i][t] = rank;
      this.turn[i][t] = turn;
      if (fidelity !== null) this.trackLow(fidelity);
      this.maxRank = Math.max(this.maxRank, rank);
      if (turn !== null) this.maxTurn = Math.max(this.maxTurn, turn);
    });
    this.events.push(...row.events);
    this.rows = t + 1;
  }

  trackLow(value) { if (value < this.low) this.low = value; }

  /** Bottom of the fidelity scale, shared by map and plot: 0.80 unless something fell below. */
  get floor() { return [0.8, 0.6, 0.4, 0.2].find((value) => this.low >= value) ?? 0; }

  /** Where a fidelity stands between the floor (0) and 1 (1): the one scale of lines and colours. */
  scaled(fidelity) {
    const low = onScale(this.floor), high = onScale(1);
    return (onScale(fidelity) - low) / (high - low);
  }
}

// Fidelities crowd below 1, so the scale counts nines by default: 0.9, 0.99 and 0.999 are equally far apart.
const MOST_NINES = 4;
let scaleKind = "nines";
const onScale = (fidelity) => (scaleKind === "nines" ? Math.min(MOST_NINES, -Math.log10(Math.max(1 - fidelity, 1e-9))) : fidelity);
