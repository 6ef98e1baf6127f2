// A run that another process recorded (laser_studio.watch): noted curves in place of a board, forwards in place of cycles, and
// settings that can be read but not changed. The page reads along while the file grows.

const SITES_PER_ROW = 4;

const watched = {
  place: null,

  on(store) { return Boolean(store?.model.watched); },

  /** What a request must say beside the usual. */
  known(store) { return this.on(store) ? { notes_since: store.notesKnown } : {}; },

  /** Take in what a reply says of notes: those that are new, and the newest up to the step shown. */
  take(store, reply) {
    store.length = Math.max(1, reply.head);
    store.ended = reply.ended;
    store.noted = reply.noted;
    store.notes ??= new Map();
    if (reply.notes.start !== store.notesKnown) return;
    this.addNotes(store, reply.notes.rows);
    store.notesKnown += reply.notes.rows.length;
  },

  /** Noted values, ascending by step: a column per name, with gaps where nothing was noted. */
  addNotes(store, rows) {
    for (const [name, step, value] of rows) {
      if (!store.notes.has(name)) store.notes.set(name, { column: new Column(store.start), low: Infinity, high: -Infinity, colour: siteColour(store.notes.size) });
      const note = store.notes.get(name);
      note.column.cut(step); // noted twice at a step: the later one counts
      while (note.column.length < step) note.column.push(null);
      note.column.push(value);
      if (!Number.isFinite(value)) continue;
      note.low = Math.min(note.low, value);
      note.high = Math.max(note.high, value);
    }
  },

  /** At the newest step there is nothing to be played yet. */
  waits(store) { return this.on(store) && store.frame.index >= store.head; },

  /** Whether to travel on to a step asked for: of a recording, as long as there is more to be read. */
  mayReach(store, before) { return !this.on(store) || store.frame.index > before; },

  // The page

  build(store) {
    const on = this.on(store);
    mark($("page"), "data-kind", on ? "watched" : "puzzle");
    say($("board-title"), on ? "Watched run" : "Board");
    $("watched").hidden = !on;
    for (const id of ["tracker", "override"]) $(id).toggleAttribute("inert", on);
    if (!on) return;
    store.sites.forEach((site, i) => { site.layer = Math.floor(i / SITES_PER_ROW); });
    if (!tabs.shows("tab-memory")) tabs.show($("memory-tabs"), $("tab-memory"));
    if (kindShown === "functional") kindShown = "energy";
    const { model } = store;
    say($("watched-name"), model.watched);
    say($("watched-file"), model.file);
    $("watched-list").replaceChildren();
    this.rows = new Map();
  },

  about(store) {
    const { model } = store;
    say($("about"), `${model.device} · ${model.dtype} · recorded`);
    explain($("about"), () => `Where the watched module ran, and its number format. ${compact(model.parameters)} weights; recorded by laser_studio.watch.`);
  },

  address({ s, h, l }) { return s ? `forward ${s} · ${h > 1 ? `window ${h} · ` : ""}step ${l}` : "before the first forward"; },

  draw(store) {
    const { frame } = store;
    this.paint(store);
    say($("board-batch"), "");
    say($("board-step"), `step ${frame.index} / ${store.head}`);
    say($("watched-says"), `${this.address(frame)}${frame.index ? ` · ${frame.batch} in the batch` : ""} · ${store.ended ? "the run has ended" : "the file may still grow: Play follows it"}`);
    for (const [name, note] of store.notes) {
      if (!this.rows.has(name)) {
        const row = make("div", { cls: "note-row" }, $("watched-list"));
        make("i", { style: `background:${note.colour}` }, row);
        make("span", { text: name }, row);
        this.rows.set(name, { value: make("b", {}, row), range: make("span", { cls: "range" }, row) });
      }
      const { value, range } = this.rows.get(name);
      say(value, noteText(store.noted[name]));
      say(range, note.low <= note.high ? `${noteText(note.low)} to ${noteText(note.high)}` : "");
    }
  },

  /** The noted curves, each on its own scale from its lowest to its highest value so far. */
  paint(store) {
    const made = surface($("notes-plot"));
    if (!made) return;
    const { context, width, height } = made;
    const left = 6, right = 8, top = 6, bottom = 18;
    this.place = { left, right, width };
    const x = (t) => left + (t / store.span) * (width - left - right);
    rule(context, height - bottom, left, width - right);
    stepTicks(context, store, x, width, height - 7, { top, wanted: 4, size: 9.5 });
    const now = store.frame.index;
    for (const note of store.notes.values()) {
      const range = note.high - note.low || 1;
      const y = (value) => top + 3 + (1 - (value - note.low) / range) * (height - top - bottom - 6);
      drawNote(context, note, store, x, y, 1.6);
    }
    if (!store.notes.size) label(context, 'nothing noted: watcher.note("loss", loss) draws a curve here', width / 2, height / 2, { align: "center" });
    cursorLine(context, x(now), top, height - bottom);
    hoverLine(context, this, x, top, height - bottom);
    const said = [...store.notes.keys()].map((name) => `${name} ${noteText(store.noted[name])}`).join(", ");
    mark($("notes-plot"), "aria-label", `Noted curves at step ${now}: ${said || "none"}`);
  },

  /** The timeline's lanes that a puzzle's run fills otherwise: the first two noted curves. */
  names(store, narrow) {
    const [first = "no notes", second = "–"] = [...store.notes.keys()].map((name) => (name.length > 14 ? `${name.slice(0, 13)}…` : name));
    return [first, narrow ? "resets" : "resets, growth", second, narrow ? "residual" : "residual, log"];
  },

  lanes(context, store, x, base, room) {
    [...store.notes.values()].slice(0, 2).forEach((note, n) => {
      const range = note.high - note.low || 1;
      const y = (value) => base(2 * n) - (0.06 + (0.9 * (value - note.low)) / range) * room;
      drawNote(context, note, store, x, y, 1.3);
    });
  },

  // Settings: seen, not changed

  /** What Gradio's controls show: the recording's values, as far as a control can show them (a rank may be a plain number). */
  controls(store) {
    const { settings } = store;
    const keep = { __type__: "update" }, update = (value) => ({ ...keep, value });
    const values = { ...settings, rank: String(settings.rank).endsWith("%") ? Number.parseFloat(settings.rank) : null };
    return [update(store.model.name), keep, keep, ...["rank", "min_fidelity", "patience", "refresh", "measure", "growth"].map((name) => {
      const node = $(name.replace("_", "-")), slider = node.querySelector("input[type=range]"), value = values[name];
      const fits = slider ? value !== null && value >= Number(slider.min) && value <= Number(slider.max) : true;
      node.classList.toggle("unfit", !fits);
      return fits ? update(value) : keep;
    })];
  },

  tellSettings(store) {
    const { settings, model } = store;
    const own = Object.keys(settings.sites ?? {}).length;
    const window = settings.refresh === "supervision" ? (model.every ? `every ${model.every} forwards` : "closed by hand") : settings.refresh === "cycle" ? "a forward" : "a step";
    say($("rank-note"), `Recorded with rank ${settings.rank}, ε ${settings.min_fidelity}, patience ${settings.patience}, growth ${settings.growth}, by ${settings.measure} fidelity; `
      + `a window: ${window}${own ? `; ${own} site${own > 1 ? "s" : ""} with settings of their own` : ""}. `
      + "This run was recorded in another process: settings are those of the recording.");
    tuning.tellSite(store);
  },

  wire() {
    wirePlot(this, $("notes-plot"), (store, t) => {
      const told = [...store.notes].map(([name, note]) => ({ colour: note.colour, name, value: spanText(note.column.latest(t), noteText) }));
      return told.length ? told : null;
    });
    $("watched-newest").addEventListener("click", () => player.seek(MOST_STEPS));
  },
};

const MOST_STEPS = 1_000_000; // the server takes it for the newest there is
const noteText = (value) => (Number.isFinite(value) ? `${Number(value.toPrecision(4))}` : NONE);

/** A noted curve: up to the step shown in full strength, from the last value before it on faint. */
function drawNote(context, { column, colour }, store, x, y, width) {
  const last = column.latest(store.frame.index)?.to ?? 0;
  points(context, column, last, column.length, x, y, colour, width, 0.3);
  points(context, column, 0, last + 1, x, y, colour, width, 1);
}
