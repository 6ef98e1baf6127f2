// The leading directions of the selected site at the step shown, each as a heat map over the board, and what their removal flips.

const ACTIVITY = {
  coefficient: "How much of the direction is in each token: its coefficient.",
  loading: "This layer's inputs lie along the sequence: the direction's own weight on each token, times the root mean square of its coefficients.",
  written: "This layer's inputs are inner features of the mixer: what its weight writes into each token for the direction, times the root mean square of its coefficients.",
};

const directionsView = {
  asker: null,
  found: null,
  places: [],
  flips: false,
  wire() {
    this.asker = new Asker("deeper.directions", {
      wanted: (store) => (views.shows("solve") && lookable(store) && store.frame.index > 0 && store.sites.length
        ? { site: store.sites[store.selected ?? 0].name, flips: this.flips && !player.playing } : null),
      take: (reply) => { this.found = reply; },
    });
    $("directions-flips").addEventListener("click", () => { this.flips = !this.flips; redraw(); });
    const canvas = $("directions-plot");
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => tip.hide());
    canvas.addEventListener("click", (event) => {
      for (const place of this.places) {
        const under = underPoint(place, event.offsetX, event.offsetY);
        if (under?.cell !== undefined) picked.choose(under.cell);
      }
    });
  },
  build() { this.found = null; this.asker.forget(); },

  now(store) { const { found } = this; return found && found.site === store.sites[store.selected ?? 0]?.name ? found : null; },

  /** Room for what stands below a map. */
  foot: (found) => (found.directions[0].flips ? 28 : 15),

  /** Two or three maps in a row, whichever leaves them larger. */
  grid(store, found, width, height) {
    const [first, second] = [2, 3].map((across) => {
      const wide = width / across, tall = height / Math.ceil(found.directions.length / across);
      return { across, wide, tall, side: boardPlace(store, found.directions[0].prefix.length, 0, 0, wide - 4, tall - this.foot(found)).side };
    });
    return second.side > first.side ? second : first;
  },

  draw(store) {
    if (!views.shows("solve")) return;
    const found = store.frame.index === 0 ? null : this.now(store), current = found?.step === store.frame.index;
    if (showsAlready($("directions-plot"), found, current, picked.cell)) return;
    const made = surface($("directions-plot"));
    this.places = [];
    if (!made || !found) return;
    const { context, width, height } = made, { across, wide, tall } = this.grid(store, found, width, height);
    if (!current) context.globalAlpha = 0.6; // still of another step
    found.directions.forEach((one, n) => {
      const x = (n % across) * wide, y = Math.floor(n / across) * tall;
      const place = boardPlace(store, one.prefix.length, x + 2, y, wide - 4, tall - this.foot(found));
      const most = Math.max(...one.cells.map(Math.abs), ...one.prefix.map(Math.abs), 1e-9);
      const colour = (value) => (value === null ? null : diverging(value / most));
      drawBoard(context, place, one.cells, one.prefix, colour);
      for (const [cell] of one.flips ?? []) ringCell(context, place, cell, ink.red, 1.5);
      if (picked.cell !== null) ringCell(context, place, picked.cell, ink.text, 1);
      this.places.push(place);
      const below = place.top + place.rows * place.side + 8;
      label(context, percent(one.share), x + wide / 2, below, { align: "center", size: 10, colour: ink.text });
      if (one.flips) label(context, `${one.flips.length} flip${one.flips.length === 1 ? "" : "s"}`, x + wide / 2, below + 13, { align: "center", size: 10, colour: one.flips.length ? ink.red : ink.muted, weight: one.flips.length ? 600 : 400 });
    });
    context.globalAlpha = 1;
  },

  tell(store) {
    if (!views.shows("solve")) return;
    const found = this.now(store), site = store.sites[store.selected ?? 0];
    hide($("directions-empty"), Boolean(found) && store.frame.index > 0);
    say($("directions-empty"), !lookable(store) ? NOT_LOOKABLE : store.frame.index === 0 ? "Step on: then the selected site has an input." : this.asker.failed ? "Nothing can be shown at this step." : "Computing …");
    say($("directions-title"), site ? `Directions of ${site.label}` : "Directions");
    say($("directions-rank"), !found ? "" : found.rank === null ? "no basis" : `k ${found.rank}`);
    explain($("directions-rank"), () => (!found ? "" : found.rank === null ? "No basis was in force: the input's own leading directions."
      : `Within the basis of ${found.rank} directions that stored this step, which keeps ${percent(found.kept, 2)} of the input's energy.`));
    say($("directions-note"), found ? "amber +, blue −" : "");
    explain($("directions-note"), () => `${ACTIVITY[found?.activity] ?? ""} Each map has a scale of its own; its strip on top: the prefix tokens. Below: the share of the input's energy.`);
    const measuring = this.flips && found && found.directions.some((one) => one.flips === null);
    say($("directions-flips"), !this.flips ? "measure flips" : measuring ? (player.playing ? "flips: when paused" : "measuring …") : "flips: on");
    mark($("directions-flips"), "aria-pressed", this.flips);
    mark($("directions-plot"), "aria-label", found
      ? `Directions of ${site.label} at step ${found.step}: ${found.directions.map((one, n) => `${n + 1}: ${percent(one.share)} of the energy${one.flips ? `, ${one.flips.length} flips` : ""}`).join("; ")}`
      : "Directions of the selected site: nothing yet");
  },

  hover(event) {
    const { store } = player, found = store && this.now(store);
    for (const [n, place] of this.places.entries()) {
      const under = found && underPoint(place, event.offsetX, event.offsetY), one = found?.directions[n];
      if (!under || !one) continue;
      const value = under.cell === undefined ? one.prefix[under.prefix] : one.cells[under.cell];
      const lines = [
        { name: `direction ${n + 1}: share of energy`, value: percent(one.share, 2) },
        { name: under.cell === undefined ? `prefix token ${under.prefix + 1}` : cellName(store, under.cell), value: value === null ? NONE : value.toPrecision(3), strong: true },
      ];
      if (one.flips) {
        const flipped = one.flips.map(([cell, to]) => `${cellName(store, cell)} → ${store.puzzle.symbols[to] || "blank"}`);
        lines.push({ name: "without it, nats per open cell", value: one.kl.toPrecision(2) }, { name: "answer cells that flip", value: flipped.length ? flipped.slice(0, 8).join(", ") + (flipped.length > 8 ? " …" : "") : "none" });
      }
      tip.show(lines, event.clientX, event.clientY);
      return;
    }
    tip.hide();
  },
};

parts.push(directionsView);
