// Comparison: the page's run, A, and another, B, at the same step. The server brings B there; what is drawn comes from one reply.

const comparing = {
  key: "",
  about: null, // of B, as the server chose it
  told: null, // the newest comparison
  points: new Map(), // of the curves: step -> [KL, halting of A, of B]
  version: 0,
  whole: false,
  busy: false,
  offered: "",
  run: "",
  rows: new Map(),

  wire() {
    $("compare-with").addEventListener("change", (event) => this.with(event.target.value));
    for (const id of ["model", "answer", "tracker"]) {
      $(`compare-${id}`).addEventListener("click", () => { const step = this.told?.parted?.[id]; if (Number.isInteger(step)) player.seek(step); });
    }
    for (const id of ["compare-kl", "compare-halt"]) {
      $(id).addEventListener("click", (event) => player.seek(this.stepAt($(id), event.offsetX)));
      $(id).addEventListener("pointermove", (event) => this.hover($(id), event));
      $(id).addEventListener("pointerleave", () => tip.hide());
    }
    commands.add({ id: "compare", title: "compare this run with another", group: "Branching", when: (store) => branches.possible(store), run: () => {
      views.show("compare");
      $("compare-with").focus();
    } });
  },

  build(store) {
    const family = branches.of(store)?.list ?? [], before = this.run;
    this.run = store.run;
    this.offered = "";
    this.forget();
    if (!family.some((one) => one.id === before)) this.key = ""; // another model or puzzle: nothing of this page's
    else if (this.key === `branch:${store.run}`) this.key = `branch:${before}`; // B was opened: the two change places
    this.about = null;
  },

  /** A row for every site that one of the two has, A's first. */
  buildRows(store) {
    this.rows.clear();
    $("compare-rows").replaceChildren();
    const mine = store.sites.map(({ name, label: text }) => [name, text]);
    for (const [name, text] of new Map([...mine, ...this.about.sites])) {
      const node = make("div", {}, $("compare-rows"));
      this.rows.set(name, Array.from({ length: 6 }, (_, i) => make("span", { cls: i ? "num" : "", text: i ? NONE : text }, node)));
    }
  },

  /** Compare with what a key names from now on, and show it. */
  with(key) {
    if (key !== this.key) { this.key = key; this.about = null; this.forget(); }
    if (key && !views.shows("compare")) views.show("compare");
    if (!key) inquire("compare.choose", { key: "" }, { quiet: true });
    redraw();
  },

  forget() { Object.assign(this, { told: null, points: new Map(), version: 0, whole: false }); },

  tell(store) {
    if (!views.shows("compare")) return;
    const list = branches.of(store)?.list;
    if (list && this.key.startsWith("branch:") && !list.some((one) => this.key === `branch:${one.id}`)) this.with(""); // it was deleted
    this.offer(store);
    const possible = branches.possible(store);
    hide($("compare-body"), !this.key);
    hide($("compare-empty"), Boolean(this.key));
    $("compare-with").disabled = !possible;
    if (!possible) say($("compare-empty"), "A recording has no model here that could be run beside it.");
    if (this.key) { this.write(store); this.ask(); }
  },

  draw(store) {
    if (!views.shows("compare") || !this.told || !this.about) return;
    const { told, about } = this;
    if (told.answers) {
      drawAnswer($("compare-a"), about.mine, told.answers[0], told.wrong[0], told.cells);
      drawAnswer($("compare-b"), about.puzzle, told.answers[1], told.wrong[1], told.cells);
    }
    this.curve($("compare-kl"), store, [[0, ink.text]], Math.max(1e-3, ...[...this.points.values()].map(([kl]) => kl ?? 0)));
    this.curve($("compare-halt"), store, [[1, ink.accent], [2, ink.amber]], 1);
  },

  // What it can be compared with

  async offer(store) {
    const now = JSON.stringify([store.run, (branches.of(store)?.list ?? []).map(({ id, name }) => [id, name])]);
    if (now === this.offered || !branches.possible(store)) return;
    this.offered = now;
    const reply = await inquire("compare.offers", {}, { quiet: true });
    if (!reply || player.store !== store) return;
    const select = $("compare-with");
    select.replaceChildren(make("option", { value: "", text: "nothing" }));
    for (const [title, choices] of reply.groups) {
      const group = make("optgroup", { label: title }, select);
      for (const [value, text] of choices) make("option", { value, text }, group);
    }
    select.value = this.key;
  },

  // Asking

  get due() {
    const { store } = player, { told } = this;
    if (!store || !this.key || !views.shows("compare") || player.expired) return false;
    if (!this.about || !told || told.key !== this.key || told.wanted !== store.frame.index || told.epoch !== store.epoch) return true;
    return (told.reached < told.wanted && !told.ends) || (!player.playing && !this.whole);
  },

  async ask() {
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.due) if (!(await this.askOnce())) break;
    } finally {
      this.busy = false;
    }
  },

  async askOnce() {
    const { store } = player, { key } = this, { epoch } = store;
    if (!this.about) {
      const about = await inquire("compare.choose", { key });
      if (player.store !== store || key !== this.key) return true;
      if (!about) { this.key = ""; $("compare-with").value = ""; redraw(); return false; }
      this.about = about;
      this.buildRows(store);
      $("compare-with").value = key;
    }
    const known = { key, version: this.version, points: this.points.size, curve: !player.playing };
    const told = await inquire("compare.at", known);
    if (player.store !== store || key !== this.key) return true;
    if (!told) { this.key = ""; $("compare-with").value = ""; redraw(); return false; }
    const { curve } = told;
    if (curve) {
      if (curve.version !== this.version) { this.points = new Map(); this.version = curve.version; }
      for (const [step, ...values] of curve.points) this.points.set(step, values);
      this.whole = curve.whole;
    }
    this.told = { ...(told.answers ? {} : this.told), ...told, epoch }; // on its way, the last picture stays
    redraw();
    await nextPicture();
    return true;
  },

  // Showing

  write(store) {
    const { told, about } = this;
    const list = branches.of(store)?.list ?? [];
    say($("compare-name-a"), list.find((one) => one.id === store.run)?.name ?? "this run");
    say($("compare-name-b"), about ? about.title : "…");
    mark($("compare-card"), "data-step", told?.answers ? told.index : "");
    if (!told?.answers) {
      say($("compare-says-b"), told ? `computing step ${told.reached} of ${told.wanted}` : "");
      return;
    }
    const verdict = (i) => `t ${told.index}${told.solved[i] ? " · solved" : told.solved[i] === false ? " · not solved" : ""}`;
    say($("compare-says-a"), verdict(0));
    say($("compare-says-b"), told.ends ? `${verdict(1)} · its end` : told.reached < told.wanted ? `computing step ${told.reached} of ${told.wanted}` : verdict(1));
    ["a", "b"].forEach((side, i) => mark($(`compare-${side}`), "aria-label", boardWords(side.toUpperCase(), i ? about?.puzzle : about?.mine, told.answers[i])));
    for (const id of ["model", "answer", "tracker"]) {
      const step = told.parted[id];
      say($(`compare-${id}`), step === null ? "not yet" : `t ${step}`);
      $(`compare-${id}`).disabled = step === null;
    }
    say($("compare-cells"), !told.cells.length ? "same answer" : told.cells.length > 1 ? `${told.cells.length} cells differ` : "1 cell differs");
    say($("compare-kl-now"), told.kl === null ? NONE : told.kl === 0 ? "0" : told.kl < 1e-4 ? told.kl.toExponential(1) : fixed(told.kl, 4));
    say($("compare-halt-a"), fixed(told.halting[0], 2));
    say($("compare-halt-b"), fixed(told.halting[1], 2));
    for (const [name, cells] of this.rows) {
      const site = told.sites[name];
      const angle = site?.angles ? `${fixed(site.angles[0], 1)}° · ${fixed(site.angles[1], 1)}°` : NONE;
      const sign = site?.difference > 0 ? "+" : "";
      const texts = site ? [fidelityText(site.a), fidelityText(site.b), site.difference === null ? NONE : `${sign}${fixed(site.difference, 4)}`, `${site.ranks[0]} · ${site.ranks[1]}`, angle] : [];
      cells.slice(1).forEach((cell, i) => say(cell, texts[i] ?? NONE));
    }
  },

  stepAt(canvas, x) {
    const { store } = player, [width] = sizes.get(canvas) ?? [1];
    return Math.round(Math.min(1, Math.max(0, (x - 4) / Math.max(1, width - 8))) * store.span);
  },

  hover(canvas, event) {
    if (!player.store || !this.points.size) return;
    const at = this.stepAt(canvas, event.offsetX);
    const step = [...this.points.keys()].reduce((best, one) => (Math.abs(one - at) < Math.abs(best - at) ? one : best));
    const [kl, a, b] = this.points.get(step);
    tip.show([`step ${step}`, { name: "KL", value: kl === null ? NONE : kl.toPrecision(3) }, { name: "halts A", value: fixed(a, 3), colour: ink.accent }, { name: "halts B", value: fixed(b, 3), colour: ink.amber }], event.clientX, event.clientY);
  },

  /** Lines of some columns of the points over the run's time, with the cursor. */
  curve(canvas, store, lines, top) {
    const face = surface(canvas);
    if (!face) return;
    const { context, width, height } = face;
    const x = (step) => 4 + ((width - 8) * step) / store.span, y = (value) => height - 4 - ((height - 8) * value) / top;
    context.strokeStyle = ink.line;
    context.lineWidth = 1;
    context.strokeRect(0.5, 0.5, width - 1, height - 1);
    const steps = [...this.points.keys()].sort((one, other) => one - other);
    for (const [column, colour] of lines) {
      context.beginPath();
      let before = null;
      for (const step of steps) {
        const value = this.points.get(step)[column];
        if (value === null) continue;
        if (before !== null) context.lineTo(x(step), y(before)); // it rests between the ends of H cycles
        context[before === null ? "moveTo" : "lineTo"](x(step), y(value));
        before = value;
      }
      context.strokeStyle = colour;
      context.lineWidth = 1.6;
      context.stroke();
    }
    context.beginPath();
    context.moveTo(x(store.frame.index), 1);
    context.lineTo(x(store.frame.index), height - 1);
    context.strokeStyle = ink.muted;
    context.lineWidth = 1;
    context.stroke();
    if (lines.length === 1) label(context, top >= 0.1 ? top.toFixed(2) : top.toExponential(0), 7, 10, { size: 9.5 });
  },
};

/** What a small board shows, row by row, for those who do not see it. */
function boardWords(side, puzzle, answer) {
  if (!puzzle) return `${side}'s answer`;
  const { width, height, symbols } = puzzle;
  const value = (i) => symbols[answer[i]] || "-";
  const rows = Array.from({ length: height }, (_, row) => Array.from({ length: width }, (_, column) => value(row * width + column)).join(" "));
  return `${side}'s answer: ${rows.join(" / ")}`;
}

/** A small board of what the model answers, in given cells too: givens bold, wrong cells red, those that differ between the runs on amber. */
function drawAnswer(canvas, puzzle, answer, wrong, differing) {
  const face = surface(canvas);
  if (!face) return;
  const { context } = face, { width: columns, height: rows, given, cells, symbols, blocks, domain } = puzzle;
  const side = Math.floor(Math.min(face.width / columns, face.height / rows));
  const left = Math.round((face.width - side * columns) / 2), top = Math.round((face.height - side * rows) / 2);
  const other = new Set(differing), bad = new Set(wrong ?? []);
  const sudoku = domain === "sudoku";
  for (let cell = 0; cell < cells.length; cell++) {
    const x = left + side * (cell % columns), y = top + side * Math.floor(cell / columns);
    const value = answer[cell];
    context.fillStyle = cellColour(domain, value) ?? (value < 0 ? ink.sunken : ink.card);
    context.fillRect(x, y, side, side);
    if (other.has(cell)) {
      context.globalAlpha = sudoku ? 0.35 : 1;
      context.fillStyle = context.strokeStyle = ink.amber;
      context.lineWidth = 2;
      if (sudoku) context.fillRect(x, y, side, side); else context.strokeRect(x + 1, y + 1, side - 2, side - 2);
      context.globalAlpha = 1;
    }
    context.strokeStyle = ink.line;
    context.lineWidth = 1;
    context.strokeRect(x + 0.5, y + 0.5, side, side);
    if (!sudoku || !(value > 0)) continue;
    label(context, symbols[value] ?? "?", x + side / 2, y + side / 2 + 1, {
      size: Math.max(8, side * 0.5), align: "center", weight: given[cell] ? 700 : 400, colour: bad.has(cell) ? ink.red : ink.text,
    });
  }
  context.strokeStyle = ink.muted;
  context.lineWidth = 1.5;
  const [high, wide] = blocks ?? [rows, columns];
  for (let row = 0; row <= rows; row += high) { context.beginPath(); context.moveTo(left, top + side * row); context.lineTo(left + side * columns, top + side * row); context.stroke(); }
  for (let column = 0; column <= columns; column += wide) { context.beginPath(); context.moveTo(left + side * column, top); context.lineTo(left + side * column, top + side * rows); context.stroke(); }
}

parts.push(comparing);
