// Inside a net application: every site in order, what it reads and returns exactly, and what the history still holds of it.

const inside = {
  open: false,
  step: null, // the one whose inside is held
  sites: [],
  chosen: 0,
  selected: null, // the site selected on the page when that was looked at last
  asking: false,

  wire() {
    $("inside-close").addEventListener("click", () => this.toggle());
    $("inside-before").addEventListener("click", () => this.move(-1));
    $("inside-after").addEventListener("click", () => this.move(1));
    $("inside-rows").addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      if (row) this.choose([...row.parentNode.children].indexOf(row));
    });
    $("inside").addEventListener("keydown", (event) => {
      const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (by) { event.preventDefault(); this.move(by); }
      if (event.key === "Escape") this.toggle();
    });
  },

  build() { Object.assign(this, { step: null, sites: [], chosen: 0 }); },

  toggle() {
    this.open = !this.open;
    if (this.open) player.pause();
    hide($("inside"), !this.open);
    if (!this.open) { $("into").focus(); return; }
    this.step = null;
    this.selected = player.store.selected;
    redraw();
    $("inside-sites").focus();
  },

  choose(n) {
    this.chosen = n;
    const { store } = player, at = store.position.get(this.sites[n]?.site);
    if (at !== undefined && at !== store.selected) select(at); else redraw();
  },

  /** The next site, or the one before; past the last one on to the first of the next net application, and back alike. */
  move(by) {
    const to = this.chosen + by;
    if (to >= 0 && to < this.sites.length) { this.choose(to); return; }
    this.chosen = by > 0 ? 0 : Math.max(0, this.sites.length - 1);
    if (by > 0) player.stepOn(); else player.back();
  },

  async ask() {
    if (this.asking) return;
    this.asking = true;
    const { store } = player, step = store.frame.index;
    const reply = await inquire("travel.inside", {}, { quiet: true });
    this.asking = false;
    if (player.store !== store) return;
    Object.assign(this, { step, sites: reply?.step === step ? reply.sites : [], failed: !reply });
    this.chosen = Math.min(this.chosen, Math.max(0, this.sites.length - 1));
    this.list();
    redraw();
  },

  list() {
    $("inside-rows").replaceChildren(...this.sites.map((site, n) => {
      const row = make("div", { role: "option", id: `inside-${n}` });
      const figures = [`${n + 1}`, site.label, `${site.dim_in} → ${site.dim_out}`, short(site.input_norm), short(site.output_norm), fidelityText(site.fidelity), fidelityText(site.kept), fixed(site.error, 3)];
      figures.forEach((text, i) => make("span", { text, cls: i === 1 ? "" : "num" }, row));
      if (site.kept === null) explain(row, () => "The history had to drop what it held of this step; the exact values were computed again.");
      return row;
    }));
  },

  draw(store) {
    if (!this.open) return;
    const { index } = store.frame;
    if (store.selected !== this.selected) { // chosen elsewhere on the page
      this.selected = store.selected;
      const at = this.sites.findIndex((site) => store.position.get(site.site) === store.selected);
      if (at >= 0) this.chosen = at;
    }
    if (index !== this.step && !player.playing && player.target === null) this.ask();
    const site = index === this.step ? this.sites[this.chosen] : null;
    const most = Math.max(...(site?.inputs ?? [0]), ...(site?.read_back ?? [0]));
    this.map(store, $("inside-exact"), site?.inputs, most, "exact input");
    this.map(store, $("inside-stored"), site?.read_back, most, site?.kept === null ? "dropped" : "as stored");
    this.map(store, $("inside-output"), site?.outputs, Math.max(...(site?.outputs ?? [0])), "output");
  },

  /** Mean squares per cell as a small board. */
  map(store, canvas, values, most, what) {
    dress(canvas, "aspect-ratio", `${store.puzzle.width} / ${store.puzzle.height}`);
    const made = surface(canvas);
    if (!made) return;
    const { context, width, height } = made, { puzzle, frame } = store;
    const none = what === "dropped" ? "dropped" : this.asking || player.playing || this.step === null ? "…" : this.sites.length ? "no rows of cells" : "before any step";
    say(canvas.nextElementSibling.lastElementChild, values ? `to ${short(Math.max(...values))}` : "");
    mark(canvas, "aria-label", values ? `${what}: mean square of each cell, from ${short(Math.min(...values))} to ${short(Math.max(...values))}` : `${what}: ${none}`);
    if (!values) { label(context, none, width / 2, height / 2, { align: "center" }); return; }
    const side = Math.min(width / puzzle.width, height / puzzle.height);
    const left = (width - side * puzzle.width) / 2, top = 0, gap = side > 8 ? 1 : 0;
    values.forEach((value, i) => {
      const row = Math.floor(i / puzzle.width), column = i % puzzle.width, colour = cividis(most > 0 ? value / most : 0);
      context.fillStyle = rgb(colour);
      context.fillRect(left + column * side, top + row * side, side - gap, side - gap);
      const symbol = puzzle.domain === "sudoku" ? puzzle.symbols[puzzle.given[i] ? puzzle.cells[i] : hasAnswer(frame) ? frame.answer[i] : 0] : "";
      if (symbol && side > 12) label(context, symbol, left + (column + 0.5) * side, top + (row + 0.5) * side, { align: "center", size: Math.min(12, side * 0.55), colour: inkOn(colour), weight: puzzle.given[i] ? 700 : 400 });
    });
  },

  tell(store) {
    if (!this.open) return;
    const { frame } = store, ready = frame.index === this.step && this.sites.length > 0;
    say($("inside-title"), frame.index ? `Inside step ${frame.index}: s ${frame.s} · h ${frame.h} · l ${frame.l}` : "Inside step 0");
    const update = frame.l === "H" ? "z_H = net(z_H, z_L)" : "z_L = net(z_L, z_H + x)";
    say($("inside-says"), !frame.index ? "the state before any step: no net has been applied" : this.failed ? "this cannot be computed again here" : ready ? `${update}; computed again from the nearest keyframe, bit for bit` : "computing …");
    [...$("inside-rows").children].forEach((row, n) => {
      mark(row, "aria-selected", n === this.chosen);
      row.classList.toggle("stale", !ready);
    });
    mark($("inside-sites"), "aria-activedescendant", `inside-${this.chosen}`);
    const site = ready ? this.sites[this.chosen] : null;
    say($("inside-site"), site ? `${site.site}` : "");
    say($("inside-shape"), site ? (site.kept === null ? "dropped from the history" : `keeps ${fidelityText(site.kept)} of its energy · rank ${site.rank} of ${site.dim_in}`) : "");
  },
};

/** A figure in at most four digits. */
const short = (value) => (!Number.isFinite(value) ? NONE : Math.abs(value) >= 1e4 || (value !== 0 && Math.abs(value) < 1e-2) ? value.toExponential(1) : Number(value.toPrecision(3)).toString());

parts.push(inside);
