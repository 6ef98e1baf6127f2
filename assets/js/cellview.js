// The chosen cell over time: the probability of every token, update by update, and what its latents did below.

const MOVED = 3; // place of a cell's figures: norm, x, y, how far it moved

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
      $(id).addEventListener("click", (event) => {
        const t = this.stepAt(event.offsetX, id === "cell-plot" ? this.place : this.lane);
        if (t !== null) player.seek(t);
      });
    }
    onResize.push(() => this.drawScale());
  },
  build() { this.found = null; this.asker.forget(); },

  /** What is known of the chosen cell; null while it is of another. */
  get now() { return this.found && this.found.cell === picked.cell && this.found.steps.length ? this.found : null; },

  x(t) { const { left, right, first, last } = this.place; return left + ((t - first) / Math.max(1, last - first)) * (right - left); },

  /** The step at a place of the heat map, or of the lane below. */
  stepAt(x, within = this.place) {
    if (!this.place || !within || !this.now) return null;
    const { first, last } = this.place, { left, right } = within;
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
    const { context, width, height } = made, { labels, first, last } = found;
    const left = 38, right = width - 6, top = 2, bottom = height - 14, rows = labels.length;
    this.place = { left, right, top, bottom, first, last: Math.max(last, first + 1), rows };
    const tall = (bottom - top) / rows;
    context.drawImage(this.picture(found, width, height, tall), 0, 0, width, height);
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

  /** The heat map and its labels, drawn once for what is known: with each step only the cursor moves. */
  picture(found, width, height, tall) {
    const canvas = (this.kept ??= document.createElement("canvas")), ratio = window.devicePixelRatio || 1;
    if (showsAlready(canvas, found, width, height)) return canvas;
    Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    const context = canvas.getContext("2d"), { labels, steps, values, last } = found, { left, top } = this.place;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    values.forEach((row, i) => {
      const from = this.x(steps[i]), to = i + 1 < steps.length ? this.x(steps[i + 1]) : Math.max(this.x(last), from + 3);
      row.forEach((share, n) => {
        context.fillStyle = share === null ? ink.sunken : rgb(cividis(share));
        context.fillRect(from, top + n * tall, Math.max(0.7, to - from - (to - from > 24 ? 1 : 0)), tall - (tall > 5 ? 1 : 0));
      });
    });
    labels.forEach((text, n) => label(context, text, left - 6, top + (n + 0.5) * tall, { align: "right", size: Math.min(10.5, tall - 1.5) }));
    return canvas;
  },

  /** The shown step, where it lies in what is drawn. */
  cursor(context, store, top, bottom) {
    const t = store.frame.index;
    if (t < this.place.first || t > this.place.last) return;
    context.fillStyle = ink.accent;
    context.fillRect(Math.round(this.x(t)) - 1, top, 2, bottom - top);
  },

  /** How far each update moved the cell's vectors and, beside it, where they went in the head's plane. */
  drawLatents({ context, width, height }, store) {
    const { states } = this.now, side = height, right = width - side - 8, top = 4, bottom = height - 3;
    const { left, right: end } = this.place, x = (t) => left + ((this.x(t) - left) / (end - left)) * (right - left);
    const kinds = [["z_L", ink.amber, 1.1], ["z_H", ink.accent, 1.8]];
    const most = Math.max(...kinds.flatMap(([name]) => states[name].values.map((one) => one[MOVED])).filter(Number.isFinite), 1e-9);
    const y = (value) => bottom - (value / most) * (bottom - top);
    rule(context, bottom, left, right);
    label(context, fixed(most, most < 1 ? 2 : 1), left - 6, top + 4, { align: "right", size: 9.5 });
    label(context, "0", left - 6, bottom - 3, { align: "right", size: 9.5 });
    for (const [name, colour, wide] of kinds) {
      const { steps, values } = states[name];
      context.strokeStyle = colour;
      context.lineWidth = wide;
      context.lineJoin = "round";
      context.beginPath();
      values.forEach((one, i) => { if (Number.isFinite(one[MOVED])) context.lineTo(x(steps[i]), y(one[MOVED])); });
      context.stroke();
    }
    const now = store.frame.index;
    if (now >= this.place.first && now <= this.place.last) cursorLine(context, Math.round(x(now)), top, bottom);
    this.lane = { left, right };
    this.drawPath(context, right + 8, 0, side, kinds, now);
  },

  drawPath(context, x0, y0, side, kinds, now) {
    const { states } = this.now;
    context.strokeStyle = ink.line;
    context.lineWidth = 1;
    context.strokeRect(x0 + 0.5, y0 + 0.5, side - 1, side - 1);
    const places = kinds.flatMap(([name]) => states[name].values).filter((one) => Number.isFinite(one[1]) && Number.isFinite(one[2]));
    if (!places.length) return;
    const xs = places.map((one) => one[1]), ys = places.map((one) => one[2]);
    const [a, b, c, d] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const scale = (side - 14) / Math.max(b - a, d - c, 1e-9); // one for both axes
    const at = ([, x, y]) => [x0 + side / 2 + (x - (a + b) / 2) * scale, y0 + side / 2 - (y - (c + d) / 2) * scale];
    for (const [name, colour, wide] of kinds) {
      const { steps, values } = states[name], past = values.slice(0, steps.filter((t) => t <= now).length);
      if (!past.length) continue;
      latents.path(context, past, at, colour, (share) => 0.25 + 0.75 * share * share, wide);
      disc(context, ...at(past[0]), 1.8, ink.muted);
      (name === "z_H" ? square : disc)(context, ...at(past.at(-1)), 3.5, colour);
    }
  },

  tell(store) {
    if (!views.shows("solve")) return;
    if (picked.cell === null && !picked.cleared) {
      const free = store.puzzle.given.findIndex((given) => !given);
      if (free >= 0) picked.choose(free);
    }
    const { cell } = picked, found = this.now;
    hide($("cell-empty"), cell !== null && found !== null);
    say($("cell-empty"), cell === null && lookable(store) ? "Click a cell of the board: how sure the model was of each token, update by update, and what its latents did." : lookable(store) ? "Step on: the first answer comes with the first update of z_H." : NOT_LOOKABLE);
    say($("cell-title"), cell === null ? "Cell" : `Cell ${cellName(store, cell)}${store.puzzle.given[cell] ? " · given" : ""}`);
    const place = found ? this.updateBefore(store.frame.index) : -1;
    const row = place >= 0 ? found.values[place] : null;
    const best = row ? row.reduce((best, share, n) => (share > row[best] ? n : best), 0) : null;
    const latent = (name) => { const all = found?.states[name], i = all ? all.steps.findLastIndex((t) => t <= store.frame.index) : -1; return i < 0 ? NONE : small(all.values[i][MOVED]); };
    say($("cell-says"), row ? `${found.labels[best]} ${percent(row[best])} · moved: z_H ${latent("z_H")}, z_L ${latent("z_L")}` : cell === null ? "choose a cell of the board" : "no answer yet");
    mark($("cell-plot"), "aria-label", row
      ? `Token probabilities of cell ${cellName(store, cell)} at step ${found.steps[place]}: ${row.map((share, n) => `${found.labels[n]} ${percent(share)}`).join(", ")}`
      : "Token probabilities over time: nothing yet");
    mark($("cell-latents"), "aria-label", row ? `How far the last updates moved the cell's latents, of their norm, at step ${store.frame.index}: z_H ${latent("z_H")}, z_L ${latent("z_L")}` : "The cell's latents: nothing yet");
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
    const t = this.stepAt(event.offsetX, this.lane);
    if (t === null) { tip.hide(); return; }
    const lines = [{ name: "step", value: `${t}` }];
    for (const name of ["z_H", "z_L"]) {
      const { steps, values } = this.now.states[name], i = steps.findLastIndex((step) => step <= t);
      if (i >= 0) lines.push({ name: `${name}, step ${steps[i]}: moved, of its norm`, value: percent(values[i][MOVED], 2), strong: true }, { name: "norm", value: fixed(values[i][0], 3) }, { name: "in the head's plane", value: values[i].slice(1, 3).map((one) => fixed(one, 3)).join(", ") });
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
