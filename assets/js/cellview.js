// The chosen cell over time: the probability of every token, update by update, and the norms of its latents below.

const cellView = {
  asker: null,
  found: null,
  place: null,
  wire() {
    this.asker = new Asker("deeper.cell", {
      wanted: (store) => (views.shows("solve") && picked.cell !== null && store.head > 0 ? { cell: picked.cell } : null),
      take: (reply) => { this.found = reply; },
    });
    $("cell-plot").addEventListener("pointermove", (event) => this.hover(event));
    $("cell-latents").addEventListener("pointermove", (event) => this.hoverLatents(event));
    for (const id of ["cell-plot", "cell-latents"]) {
      $(id).addEventListener("pointerleave", () => tip.hide());
      $(id).addEventListener("click", (event) => { const t = this.stepAt(event.offsetX); if (t !== null) player.seek(t); });
    }
    onResize.push(() => this.drawScale());
  },
  build() { this.found = null; this.asker.forget(); },

  /** What is known of the chosen cell; null while it is of another. */
  get now() { return this.found && this.found.cell === picked.cell && this.found.steps.length ? this.found : null; },

  x(t) { const { left, right, first, last } = this.place; return left + ((t - first) / Math.max(1, last - first)) * (right - left); },

  stepAt(x) {
    if (!this.place || !this.now) return null;
    const { left, right, first, last } = this.place;
    return Math.round(first + Math.min(1, Math.max(0, (x - left) / (right - left))) * (last - first));
  },

  /** Place of the last update at or before a step. */
  updateBefore(t) {
    const { steps } = this.now;
    let place = -1;
    while (place + 1 < steps.length && steps[place + 1] <= t) place += 1;
    return place;
  },

  draw(store) {
    if (!views.shows("solve")) return;
    const made = surface($("cell-plot")), lane = surface($("cell-latents"));
    const found = this.now;
    if (!made || !found) { this.place = null; return; }
    const { context, width, height } = made, { labels, steps, values, first, last } = found;
    const left = 38, right = width - 6, top = 2, bottom = height - 14, rows = labels.length;
    this.place = { left, right, top, bottom, first, last: Math.max(last, first + 1), rows };
    const tall = (bottom - top) / rows;
    values.forEach((row, i) => {
      const from = this.x(steps[i]), to = i + 1 < steps.length ? this.x(steps[i + 1]) : Math.max(this.x(last), from + 3);
      row.forEach((share, n) => {
        context.fillStyle = share === null ? ink.sunken : rgb(cividis(share));
        context.fillRect(from, top + n * tall, Math.max(0.7, to - from - (to - from > 4 ? 1 : 0)), tall - (tall > 5 ? 1 : 0));
      });
    });
    labels.forEach((text, n) => label(context, text, left - 6, top + (n + 0.5) * tall, { align: "right", size: Math.min(10.5, tall) }));
    if (last > store.frame.index) {
      context.globalAlpha = 0.55; // the recorded future is faint
      context.fillStyle = ink.card;
      context.fillRect(this.x(store.frame.index) + 1, top, right, bottom - top);
      context.globalAlpha = 1;
    }
    for (const [t, align] of [[first, "left"], [last, "right"]]) label(context, `${align === "left" ? "step " : ""}${t}`, this.x(t), height - 6, { align, size: 9.5 });
    this.cursor(context, store, top, bottom);
    if (lane) this.drawLatents(lane, store);
  },

  /** The shown step, where it lies in what is drawn. */
  cursor(context, store, top, bottom) {
    const t = store.frame.index;
    if (t < this.place.first || t > this.place.last) return;
    context.fillStyle = ink.accent;
    context.fillRect(Math.round(this.x(t)) - 1, top, 2, bottom - top);
  },

  drawLatents({ context, width, height }, store) {
    const { states } = this.now, top = 3, bottom = height - 3;
    const norms = [["z_H", ink.accent, 1.8], ["z_L", ink.amber, 1.1]].map(([name, ...style]) => [states[name].steps, states[name].values.map((one) => one[0]), ...style]);
    const highest = Math.max(...norms.flatMap(([, values]) => values).filter(Number.isFinite), 1e-9);
    const y = (value) => bottom - (value / highest) * (bottom - top);
    label(context, fixed(highest, highest < 10 ? 1 : 0), 32, top + 5, { align: "right", size: 9.5 });
    label(context, "0", 32, bottom - 4, { align: "right", size: 9.5 });
    for (const [steps, values, colour, wide] of norms) {
      context.strokeStyle = colour;
      context.lineWidth = wide;
      context.lineJoin = "round";
      context.beginPath();
      values.forEach((value, i) => { if (Number.isFinite(value)) context.lineTo(this.x(steps[i]), y(value)); });
      context.stroke();
    }
    this.cursor(context, store, top, bottom);
  },

  tell(store) {
    if (!views.shows("solve")) return;
    if (picked.cell === null && !picked.cleared) {
      const free = store.puzzle.given.findIndex((given) => !given);
      if (free >= 0) picked.choose(free);
    }
    this.asker.consider(store);
    const { cell } = picked, found = this.now;
    hide($("cell-empty"), cell !== null && found !== null);
    say($("cell-empty"), cell === null ? "Click a cell of the board: how sure the model was of each token, update by update, and what its latents did." : "Step on: the first answer comes with the first update of z_H.");
    say($("cell-title"), cell === null ? "Cell" : `Cell ${cellName(store, cell)}${store.puzzle.given[cell] ? " · given" : ""}`);
    const place = found ? this.updateBefore(store.frame.index) : -1;
    const row = place >= 0 ? found.values[place] : null;
    const best = row ? row.reduce((best, share, n) => (share > row[best] ? n : best), 0) : null;
    const latent = (name) => { const all = found?.states[name], i = all ? all.steps.findLastIndex((t) => t <= store.frame.index) : -1; return i < 0 ? NONE : fixed(all.values[i][0], 1); };
    say($("cell-says"), row ? `${found.labels[best]} ${percent(row[best])} · ‖z_H‖ ${latent("z_H")} · ‖z_L‖ ${latent("z_L")}` : cell === null ? "choose a cell of the board" : "no answer yet");
    mark($("cell-plot"), "aria-label", row
      ? `Token probabilities of cell ${cellName(store, cell)} at step ${found.steps[place]}: ${row.map((share, n) => `${found.labels[n]} ${percent(share)}`).join(", ")}`
      : "Token probabilities over time: nothing yet");
    mark($("cell-latents"), "aria-label", row ? `Norms of the cell's latents at step ${store.frame.index}: z_H ${latent("z_H")}, z_L ${latent("z_L")}` : "Norms of the cell's latents: nothing yet");
  },

  hover(event) {
    const t = this.stepAt(event.offsetX);
    const place = t === null ? -1 : this.updateBefore(t);
    if (place < 0) { tip.hide(); return; }
    const { labels, values, steps } = this.now, row = values[place];
    const order = row.map((_, n) => n).sort((a, b) => row[b] - row[a]);
    tip.show([{ name: "z_H updated at step", value: `${steps[place]}` },
      ...order.slice(0, 6).map((n) => ({ colour: rgb(cividis(row[n] ?? 0)), name: labels[n], value: percent(row[n], 2) }))], event.clientX, event.clientY);
  },

  hoverLatents(event) {
    const t = this.stepAt(event.offsetX);
    if (t === null) { tip.hide(); return; }
    const lines = [{ name: "step", value: `${t}` }];
    for (const name of ["z_H", "z_L"]) {
      const { steps, values } = this.now.states[name], i = steps.findLastIndex((step) => step <= t);
      if (i >= 0) lines.push({ name: `${name}, step ${steps[i]}: norm`, value: fixed(values[i][0], 3) }, { name: "in the head's plane", value: values[i].slice(1).map((one) => fixed(one, 3)).join(", ") });
    }
    tip.show(lines, event.clientX, event.clientY);
  },

  drawScale() {
    const made = surface($("cell-scale"));
    if (!made) return;
    for (let x = 0; x < made.width; x++) {
      made.context.fillStyle = rgb(cividis(x / (made.width - 1)));
      made.context.fillRect(x, 0, 1.5, made.height);
    }
  },
};

parts.push(cellView);
