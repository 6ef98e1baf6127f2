// Memory: what each site keeps, what all keep over time, and what a single step costs.

const memory = {
  place: null,
  build(store) {
    const rows = $("memory-rows");
    rows.replaceChildren();
    this.rows = store.sites.map((site, i) => {
      const row = make("button", { cls: "memory-row", type: "button", role: "row" }, rows);
      make("span", { cls: "name", text: site.label, role: "cell" }, row);
      const bar = make("span", { cls: "bar", role: "cell" }, row);
      const full = make("i", { cls: "full" }, bar);
      const basis = make("i", { cls: "basis" }, full); // coefficients and bases together; the coefficients lie on top
      const kept = make("i", { cls: "kept" }, full);
      kept.style.background = basis.style.background = site.colour;
      const value = make("b", { cls: "num", role: "cell", text: NONE }, row);
      row.addEventListener("click", () => select(i));
      return { row, full, kept, basis, value };
    });
  },

  draw(store) {
    const lines = store.sites.map((site) => store.frame.sites[site.name]?.[store.ledger] ?? null);
    const widest = Math.max(1, ...lines.map((line) => line?.full ?? 0));
    const dim = Math.max(...store.sites.map((site) => site.dim));
    const share = (part, whole) => Math.min(1, part / Math.max(1, whole)).toFixed(4);
    store.sites.forEach((site, i) => {
      const line = lines[i], { row, full, kept, basis, value } = this.rows[i];
      row.classList.toggle("selected", store.selected === i);
      // Scaled, not resized: no layout is computed while it runs.
      dress(full, "transform", `scaleX(${line ? share(line.full, widest) : share(site.dim, dim)})`);
      dress(kept, "transform", `scaleX(${line ? share(line.stored, line.full) : 0})`);
      dress(basis, "transform", `scaleX(${line ? share(line.stored + line.basis, line.full) : 0})`);
      say(value, line ? percent(line.saving, 0) : NONE);
      explain(row, () => this.words(store, i));
    });
    const { frame } = store;
    const ran = frame.index > 0, training = store.ledger === "training";
    const total = frame[store.ledger];
    say($("memory-saved"), ran ? `saved ${percent(total.saving)}` : `saved ${NONE}`);
    say($("memory-full"), ran ? bytes(total.full) : NONE);
    say($("memory-kept"), ran ? bytes(total.stored + total.basis) : NONE);
    say($("memory-basis"), ran ? bytes(total.basis) : NONE);
    const even = frame.break_even;
    say($("memory-even"), training
      ? `of all saved bytes ${ran && frame.training_all?.full ? percent(frame.training_all.saving) : NONE}`
      : even === null ? (ran ? "no break-even yet" : "break-even –") : `break-even at t ${even}`);
    const step = frame.step_full > 0;
    say($("memory-step"), step ? `${bytes(frame.step_full)} → ${bytes(frame.step_stored)}` : NONE);
    this.carry(store);
    const cuda = Number.isFinite(frame.allocated);
    hide($("memory-cuda"), !cuda);
    if (cuda) say($("memory-allocated"), `${bytes(frame.allocated)} · peak ${bytes(frame.peak)}`);
  },

  /** What happened to the stored steps of the selected site when its basis moved. */
  carry(store) {
    const site = store.sites[store.selected ?? 0], data = store.frame.sites[site.name];
    say($("memory-carried"), data && Number.isFinite(data.carried) ? `${data.carried}` : NONE);
    say($("memory-retained"), data ? brief(data.retained) : NONE);
    say($("memory-versions"), data ? `${data.versions}` : NONE);
  },

  words(store, i) {
    const site = store.sites[i], line = store.frame.sites[site.name]?.[store.ledger];
    if (!line) return `${site.label}: nothing has run yet`;
    const data = store.frame.sites[site.name];
    const what = store.ledger === "history"
      ? `; what is stored keeps ${fidelityText(data.retained)} of the energy, ${data.carried ?? 0} steps carried over, ${data.versions} basis `
        + `version${data.versions === 1 ? "" : "s"}, ${data.break_even === null ? "no break-even yet" : `break-even at step ${data.break_even}`}`
      : "; one training step with these bases";
    return `${site.label}: full ${bytes(line.full)}, stored ${bytes(line.stored)}, bases ${bytes(line.basis)}, net saving ${percent(line.saving)}${what}`;
  },

  /** Bytes of time travel over the run: at full width, and as kept. */
  paint(store) {
    const made = surface($("memory-plot"));
    if (!made) return;
    const { context, width, height } = made;
    const left = 1, right = 3, top = 4, bottom = 3;
    this.place = { left, right, width };
    const x = (t) => left + (t / store.span) * (width - left - right);
    const most = Math.max(1, store.full.newest ?? 0, store.kept.newest ?? 0);
    const y = (value) => top + (1 - value / most) * (height - top - bottom);
    rule(context, height - bottom, left, width - right);
    const now = store.frame.index;
    if (store.rows > 1) {
      pastAndFuture(store, (from, to, alpha) => {
        curve(context, store.full, from, to, x, y, ink.muted, 1.2, alpha);
        curve(context, store.kept, from, to, x, y, ink.green, 1.8, alpha);
      });
      // Both only grow, so the lower right is free.
      label(context, "full", width - right - 34, height - bottom - 7, { size: 9.5, align: "right" });
      label(context, "kept", width - right - 3, height - bottom - 7, { size: 9.5, colour: ink.green, weight: 600, align: "right" });
    } else {
      label(context, "full and kept bytes over the run", width / 2, height / 2, { align: "center", size: 10 });
    }
    cursorLine(context, x(now), 1, height - bottom);
    hoverLine(context, this, x, top, height - bottom);
    mark($("memory-plot"), "aria-label", store.rows > 1
      ? `Bytes of the history over time: ${bytes(store.frame.history.full)} in full, ${bytes(store.frame.history.stored + store.frame.history.basis)} kept at step ${now}`
      : "Bytes over time: nothing has run yet");
  },

  wire() {
    wirePlot(this, $("memory-plot"), (store, t) => {
      const full = store.full.span(t), kept = store.kept.span(t);
      const saved = store.full.holds(t) ? [{ name: "saved", value: percent(1 - kept?.low / full?.low) }] : []; // of a block one cannot tell
      return [{ colour: ink.muted, name: "full", value: spanText(full, bytes) }, { colour: ink.green, name: "kept", value: spanText(kept, bytes) }, ...saved];
    });
  },
};
