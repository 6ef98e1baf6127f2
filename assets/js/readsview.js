// Where the chosen cell reads from in the net application shown: attention weights, or the mixer's row, on the board.

const readsView = {
  asker: null,
  found: null,
  place: null,
  kind: "exact",
  layer: 0,
  head: "mean",
  wire() {
    this.asker = new Asker("deeper.mixing", {
      wanted: (store) => ((views.shows("solve") || heat.on) && picked.cell !== null && store.frame.index > 0 ? { cell: picked.cell, layer: this.layer } : null),
      take: (reply) => { this.found = reply; },
    });
    for (const input of document.querySelectorAll("#reads-kind input")) input.addEventListener("change", () => { this.kind = input.value; redraw(); });
    $("reads-layer").addEventListener("change", (event) => { this.layer = Number(event.target.value); redraw(); });
    $("reads-head").addEventListener("change", (event) => { this.head = event.target.value; redraw(); });
    const canvas = $("reads-plot");
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => tip.hide());
    canvas.addEventListener("click", (event) => { const under = underPoint(this.place, event.offsetX, event.offsetY); if (under?.cell !== undefined) picked.choose(under.cell); });
  },
  build(store) {
    this.found = null;
    this.asker.forget();
    this.layer = Math.min(this.layer, Math.max(0, (store.model.layers ?? 1) - 1));
    $("reads-layer").replaceChildren(...Array.from({ length: store.model.layers ?? 0 }, (_, n) => make("option", { value: `${n}`, text: `${n}` })));
    $("reads-layer").value = `${this.layer}`;
    this.heads = 0;
  },

  /** What is known for the cell and layer chosen, of whichever step; null where nothing is. */
  get now() { const { found } = this; return found && found.cell === picked.cell && found.layer === this.layer ? found : null; },

  /** The weights shown, all tokens; null where there are none of that kind. */
  weights(kind = this.kind) {
    const { now } = this;
    if (!now) return null;
    if (kind === "difference") {
      const exact = this.weights("exact"), compressed = this.weights("compressed");
      return compressed && compressed.map((value, i) => value - exact[i]);
    }
    const rows = now[kind];
    if (!rows) return null;
    return this.head === "mean" || !rows[Number(this.head)] ? rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length) : rows[Number(this.head)];
  },

  colour(weights) {
    const most = Math.max(...weights.map(Math.abs), 1e-9);
    return this.kind === "difference" ? (value) => diverging(value / most) : (value) => cividis(Math.sqrt(value / most));
  },

  draw(store) {
    if (!views.shows("solve")) return;
    const weights = store.frame.index === 0 ? null : this.weights();
    const current = this.now?.step === store.frame.index;
    if (showsAlready($("reads-plot"), weights && this.now, this.kind, this.head, current, store.update?.step)) return;
    const made = surface($("reads-plot"));
    this.place = null;
    if (!made || !weights) return;
    const { context, width, height } = made, { prefix } = this.now;
    const scale = this.colour(weights), cells = weights.slice(prefix);
    this.place = boardPlace(store, prefix, 0, 0, width, height - 14);
    if (!current) context.globalAlpha = 0.6; // still of another step
    drawBoard(context, this.place, cells, weights.slice(0, prefix), scale);
    drawSymbols(context, this.place, store, cells, scale);
    ringCell(context, this.place, this.now.cell, ink.accent, 2.5);
    context.globalAlpha = 1;
    this.drawScale(context, width, height, weights);
  },

  drawScale(context, width, height, weights) {
    const most = Math.max(...weights.map(Math.abs)), wide = 70, left = (width - wide) / 2, differs = this.kind === "difference";
    for (let x = 0; x < wide; x++) {
      context.fillStyle = rgb(this.shade(x / (wide - 1)));
      context.fillRect(left + x, height - 9, 1.5, 7);
    }
    label(context, differs ? `−${small(most)}` : "0", left - 4, height - 5, { align: "right", size: 9.5 });
    label(context, small(most), left + wide + 4, height - 5, { size: 9.5 });
  },

  /** The colour at a share of the scale, from none to most, or from less to more. */
  shade(share) { return this.kind === "difference" ? diverging(2 * share - 1) : cividis(Math.sqrt(share)); },

  tell(store) {
    if (!views.shows("solve")) return;
    const { now } = this, weights = this.weights();
    const heads = now?.kind === "attention" ? now.exact.length : 0;
    if (now && heads !== this.heads) {
      this.heads = heads;
      $("reads-head").replaceChildren(...["mean", ...Array.from({ length: heads }, (_, n) => `${n}`)].map((value) => make("option", { value, text: value })));
      if (Number(this.head) >= heads) this.head = "mean";
      $("reads-head").value = this.head;
    }
    hide($("reads-heads"), now?.kind === "mixer");
    hide($("reads-empty"), Boolean(weights) && store.frame.index > 0);
    say($("reads-empty"), !lookable(store) ? NOT_LOOKABLE : picked.cell === null ? "Choose a cell of the board." : store.frame.index === 0 ? "Step on: nothing has been applied yet."
      : now && !weights ? "No basis was in force: inputs were kept exact." : this.asker.failed ? "Nothing can be shown at this step." : "Computing …");
    say($("reads-title"), picked.cell === null ? "Reads from" : `${cellName(store, picked.cell)} reads from`);
    say($("reads-step"), now ? `${now.kind} · t ${now.step}` : "");
    const moved = now?.moved && (heads && this.head !== "mean" ? now.moved[Number(this.head)] : now.moved.reduce((a, b) => a + b, 0) / now.moved.length);
    say($("reads-note"), !now || !weights ? "" : moved === null ? "no basis in force: nothing to compare with" : `compressed, ${small(moved)} of it lies elsewhere`);
    mark($("reads-plot"), "aria-label", weights ? this.words(store, weights) : "Where the cell reads from: nothing yet");
  },

  words(store, weights) {
    const { prefix, cell, kind, step } = this.now;
    const order = weights.map((_, i) => i).sort((a, b) => Math.abs(weights[b]) - Math.abs(weights[a])).slice(0, 5);
    const name = (i) => (i < prefix ? `prefix ${i + 1}` : cellName(store, i - prefix));
    return `Cell ${cellName(store, cell)} at step ${step}, layer ${this.layer}, ${kind}, ${this.kind}: ${order.map((i) => `${name(i)} ${percent(weights[i])}`).join(", ")}`;
  },

  hover(event) {
    const under = underPoint(this.place, event.offsetX, event.offsetY);
    if (!under || !this.now) { tip.hide(); return; }
    const { prefix } = this.now, at = under.cell === undefined ? under.prefix : prefix + under.cell;
    const lines = [{ name: under.cell === undefined ? `prefix token ${under.prefix + 1}` : cellName(player.store, under.cell), value: this.head === "mean" && this.heads ? "mean of the heads" : "" }];
    for (const kind of ["exact", "compressed", "difference"]) {
      const weights = this.weights(kind);
      if (weights) lines.push({ name: kind, value: percent(weights[at], 2), strong: kind === this.kind });
    }
    tip.show(lines, event.clientX, event.clientY);
  },
};

parts.push(readsView);
