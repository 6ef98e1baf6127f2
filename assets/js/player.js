// One request at a time: ask, draw, only then ask again. Wishes that come meanwhile wait, and the latest of a kind wins.

const POLL_MS = 250; // how often a page at the newest step of a recording asks for more

const player = {
  server: null,
  store: null,
  playing: false,
  failure: null,
  expired: false,
  loading: true,
  speed: 15,
  fastest: 60, // this speed means: as fast as it goes
  drawn: 0, // pictures drawn since the page was opened
  busy: false,
  heading: null, // the step that is being sought now
  painted: Promise.resolve(), // the picture drawn last is on the screen
  polled: 0, // when it was last asked whether there is more
  fetched: "", // what there was when more was last asked for
  debt: 0, // steps that are due but not asked for yet
  wish: { open: null, resume: "", tune: null, seek: null, restart: false, back: 0, step: 0, travel: null },

  // What the user wants

  /** A run for a query; `resume` names the run there was before a reload, which is taken up where it still lives. */
  open(query, resume = "") { this.halt(); Object.assign(this.wish, { open: query, resume }); this.pump(); },
  play() {
    if (this.playing || !this.store) return;
    this.failure = null;
    if (this.store.state === "done") this.wish.seek = 0; // at the end: show the run again
    this.playing = true;
    this.since = performance.now();
    this.debt = 1;
    this.token += 1;
    drawStatus();
    this.pump();
  },
  /** Stop asking. A reply under way belongs to an older token and will not be drawn. */
  halt() {
    this.token += 1;
    this.playing = false;
    this.wish.travel = null;
    clearTimeout(this.timer);
  },
  pause() { this.halt(); if (this.store) { drawStatus(); keepAddress(true); } },
  toggle() { if (this.playing) this.pause(); else this.play(); },
  stepOn() { this.pause(); this.failure = null; this.wish.step += 1; this.pump(); },
  back() { this.pause(); this.wish.back += 1; this.pump(); },
  restart() { this.pause(); this.failure = null; this.wish.restart = true; this.wish.seek = null; this.pump(); },
  /** A step of another size, or on to where something happens; its replies may stop on the way, and it goes on until it is there. */
  go(travel) { this.pause(); this.failure = null; this.wish.travel = travel; this.pump(); },
  seek(step) { this.pause(); this.wish.seek = step; this.pump(); },
  tune(changes) {
    const waiting = this.wish.tune;
    this.wish.tune = { ...waiting, ...changes };
    if (waiting?.sites && changes.sites) this.wish.tune.sites = { ...waiting.sites, ...changes.sites };
    this.pump();
  },
  /** Something else is looked at: fetch what is missing of it. */
  look() { this.pump(); },
  setSpeed(value) { this.speed = value; this.since = performance.now(); this.debt = Math.min(this.debt, 1); if (this.playing) this.pump(); },
  token: 0,

  /** The step that is travelled to and not reached yet; null where none is. */
  get target() {
    const sought = this.playing || this.failure ? null : this.wish.seek ?? this.heading;
    return this.store && sought !== this.store.frame.index ? sought : null;
  },

  // How it gets it

  async pump() {
    if (this.busy) return;
    this.busy = true;
    try {
      for (let job = this.next(); job; job = this.next()) await this.run(job);
    } finally {
      this.busy = false;
    }
  },

  next() {
    const { wish, store } = this;
    if (wish.open !== null) {
      const { open: query, resume } = wish;
      Object.assign(wish, { open: null, resume: "", tune: null, seek: null, restart: false, back: 0, step: 0, travel: null });
      const data = { query, replaces: store && !this.expired ? store.run : "" };
      return { call: "open_run", data: resume ? { ...data, resume } : data, opens: true };
    }
    if (!store || this.expired) return null;
    // Spectra are large: they are asked for only while they are looked at.
    const site = tabs.shows("tab-spectrum") ? store.sites[store.selected ?? 0]?.name ?? "" : "";
    const spectra = site && site === store.spectra.site ? store.spectra.rows.length : 0;
    const known = { run: store.run, at: store.frame.index, since: store.rows, epoch: store.epoch, site, spectra_since: spectra, ...watched.known(store), ...travel.known(store) };
    if (wish.tune) {
      const changes = wish.tune;
      wish.tune = null;
      return { call: "tune_run", data: { ...known, changes } };
    }
    if (wish.restart) { wish.restart = false; return { call: "command_run", data: { ...known, name: "restart" } }; }
    if (wish.seek !== null) {
      const value = wish.seek;
      wish.seek = null;
      return { call: "command_run", data: { ...known, name: "seek", value }, target: value };
    }
    if (wish.travel) {
      const going = wish.travel;
      wish.travel = null;
      return { call: "command_run", data: { ...known, ...going }, travel: going, walk: this.token };
    }
    if (wish.back > 0) { wish.back -= 1; return { call: "command_run", data: { ...known, name: "back" } }; }
    if (wish.step > 0) { wish.step -= 1; return { call: "advance_run", data: { ...known, steps: 1 } }; }
    if (!this.playing) {
      // A reply holds a bounded number of rows: fetch the rest, as long as that gets anywhere.
      const lacking = watches.lacks(store);
      const there = `${store.epoch} ${store.rows} ${site} ${spectra} ${store.head} ${lacking && watches.known(store)}`;
      if ((store.rows > store.head && (!site || spectra > store.head) && !lacking) || this.fetched === there) return null;
      this.fetched = there;
      return { call: "advance_run", data: { ...known, steps: 0 } };
    }
    const steps = this.due();
    return steps ? { call: "advance_run", data: { ...known, steps }, token: this.token } : null;
  },

  /** Steps to ask for now; where none is due yet, a timer asks again. */
  due() {
    if (watched.waits(this.store) && this.rests()) return 0;
    if (this.speed >= this.fastest) return 10_000; // the server stops after the time for one picture
    const now = performance.now();
    this.debt = Math.min(this.debt + ((now - this.since) / 1000) * this.speed, 8);
    this.since = now;
    const steps = Math.floor(this.debt + 1e-6);
    if (steps) { this.debt -= steps; return steps; }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.pump(), (1000 * (1 - this.debt)) / this.speed);
    return 0;
  },

  /** Whether to leave off asking for a while, because a run that others make has no more steps yet; a timer asks again. */
  rests() {
    const now = performance.now(), left = this.polled + POLL_MS - now;
    if (left <= 0) { this.polled = now; return false; }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.pump(), left + 1);
    Object.assign(this, { since: now, debt: 1 });
    return true;
  },

  async run(job) {
    let reply = null;
    if (job.opens) { this.loading = true; drawStatus(); }
    if (job.travel?.value) { this.heading = job.travel.value; drawStatus(); }
    if (job.target !== undefined) { this.heading = job.target; drawStatus(); }
    try {
      reply = await this.server[job.call](job.data);
    } catch {
      reply = null;
    }
    if (job.opens) this.loading = false;
    this.heading = null;
    // The browser paints while the engine computes; what comes sooner waits, so that every picture is really seen.
    if (job.token !== undefined) await this.painted;
    if (job.token !== undefined && job.token !== this.token) return; // paused meanwhile: this picture is not wanted any more
    if (!reply || typeof reply !== "object") reply = { error: "the studio does not answer: is it still running? Then press Play again" };
    if (reply.error) {
      this.halt();
      Object.assign(this.wish, { tune: null, seek: null, restart: false, back: 0, step: 0, travel: null });
      this.failure = reply.error;
      this.expired ||= Boolean(reply.expired);
      drawStatus();
      if (reply.needs) models.question(reply);
      else notify(reply.error, { reload: this.expired, lasting: true });
      return;
    }
    this.failure = null;
    const before = this.store?.frame.index;
    if (job.opens) {
      this.expired = false;
      this.store = new Store(reply);
      built(this.store, reply);
      if (reply.target > reply.frame.index) this.wish.seek = reply.target;
      if (reply.notices.length) notify(reply.notices.join(" · "));
    } else {
      this.store.take(reply);
    }
    if (this.playing && (reply.state !== "paused" || reply.travel?.stopped.length)) this.playing = false;
    if (job.travel && !reply.travel.arrived && reply.state === "paused" && job.walk === this.token && this.wish.seek === null) {
      this.wish.travel = { ...job.travel, value: reply.travel.target ?? 0 };
    }
    if (job.target > reply.frame.index && reply.state === "paused" && this.wish.seek === null && watched.mayReach(this.store, before)) this.wish.seek = job.target;
    drawAll();
    this.painted = nextPicture();
  },
};

/** After the browser has painted; a hidden page paints nothing, so it plays slowly and costs little. */
function nextPicture() {
  return new Promise((resolve) => {
    const late = setTimeout(resolve, 1000);
    requestAnimationFrame(() => { clearTimeout(late); resolve(); });
  });
}
