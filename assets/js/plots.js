// Curves over steps, drawn raw: one point per step, or where many steps share a pixel, the span from their lowest to highest.

/** Draw a column of numbers as a line; `x` and `y` map a step and a value to pixels. */
function curve(context, column, from, to, x, y, colour, width, alpha = 1) {
  if (to <= from) return;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.globalAlpha = alpha;
  context.lineJoin = "round";
  context.beginPath();
  const perPixel = (to - from) / Math.max(1, x(to) - x(from));
  let open = false;
  if (perPixel <= 2) {
    for (let t = from; t < to; t++) {
      const value = column[t];
      if (value === null || value === undefined || !Number.isFinite(value)) { open = false; continue; }
      if (open) context.lineTo(x(t), y(value)); else context.moveTo(x(t), y(value));
      open = true;
    }
  } else {
    let pixel = null, low = Infinity, high = -Infinity;
    const flush = () => {
      if (pixel === null || low > high) return;
      if (open) context.lineTo(pixel, y(low)); else context.moveTo(pixel, y(low));
      context.lineTo(pixel, y(high));
      open = true;
    };
    for (let t = from; t < to; t++) {
      const value = column[t];
      if (value === null || value === undefined || !Number.isFinite(value)) continue;
      const at = Math.round(x(t));
      if (at !== pixel) { flush(); pixel = at; low = Infinity; high = -Infinity; }
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    flush();
  }
  context.stroke();
  context.globalAlpha = 1;
}

/** Recorded steps up to the cursor in full strength, the recorded future faint. */
function pastAndFuture(store, draw) {
  const now = store.frame.index + 1;
  if (store.rows > now) draw(Math.max(1, now - 1), store.rows, 0.25);
  draw(1, Math.min(now, store.rows), 1);
}

/** Positions of sites with the selected one last, so that it lies on top. */
function drawingOrder(store) {
  const order = store.sites.map((_, i) => i).filter((i) => i !== store.selected);
  return store.selected === null ? order : [...order, store.selected];
}

const fidelityPlot = {
  hover: null,
  place: null,
  draw(store) {
    const made = surface($("fidelity-plot"));
    if (!made) return;
    const { context, width, height } = made;
    const left = 40, right = 12, top = 12, bottom = 20;
    const x = (t) => left + (t / store.length) * (width - left - right);
    const floor = store.floor;
    const y = (value) => top + (1 - store.scaled(value)) * (height - top - bottom);
    this.place = { left, right, width, x };

    context.lineWidth = 1;
    for (const value of fidelityTicks(floor)) {
      context.strokeStyle = ink.line;
      context.beginPath();
      context.moveTo(left, Math.round(y(value)) + 0.5);
      context.lineTo(width - right, Math.round(y(value)) + 0.5);
      context.stroke();
      label(context, value === 1 && scaleKind === "nines" ? "1" : `${Number(value.toFixed(4))}`, left - 6, y(value), { align: "right" });
    }
    const ticks = tickStep(store.length, Math.max(2, width / 110));
    for (let t = 0; t <= store.length; t += ticks) label(context, `${t}`, x(t), height - 8, { align: "center" });

    for (const i of drawingOrder(store)) {
      const chosen = store.selected === i;
      const strength = store.selected === null || chosen ? 1 : 0.55;
      pastAndFuture(store, (from, to, alpha) =>
        curve(context, store.fidelity[i], from, to, x, y, store.sites[i].colour, chosen ? 2.2 : 1.15, alpha * strength));
    }

    const epsilon = store.settings.min_fidelity;
    if (epsilon >= floor) {
      context.strokeStyle = ink.amber;
      context.lineWidth = 1.2;
      context.setLineDash([5, 4]);
      context.beginPath();
      context.moveTo(left, y(epsilon));
      context.lineTo(width - right, y(epsilon));
      context.stroke();
      context.setLineDash([]);
      const text = `ε = ${epsilon.toFixed(3)}`;
      context.font = `600 10.5px ${ink.font}`;
      const wide = context.measureText(text).width;
      const above = y(epsilon) - 9 > top ? y(epsilon) - 8 : y(epsilon) + 9;
      context.fillStyle = ink.card;
      context.globalAlpha = 0.8;
      context.fillRect(width - right - wide - 4, above - 6, wide + 4, 12);
      context.globalAlpha = 1;
      label(context, text, width - right, above, { align: "right", colour: ink.amber, weight: 600 });
    }

    const now = store.frame.index;
    for (const event of store.events) {
      if (event.kind !== "reset" && event.kind !== "grew") continue;
      context.globalAlpha = event.step > now ? 0.3 : 1;
      if (event.kind === "reset") triangle(context, x(event.step), top - 5, 4, ink.red);
      else triangle(context, x(event.step), top - 5, 3.2, ink.amber, true);
      context.globalAlpha = 1;
    }
    cursorLine(context, x(now), top - 2, height - bottom);
    if (this.hover !== null) {
      context.strokeStyle = ink.muted;
      context.setLineDash([2, 3]);
      context.beginPath();
      context.moveTo(x(this.hover), top);
      context.lineTo(x(this.hover), height - bottom);
      context.stroke();
      context.setLineDash([]);
    }
  },

  tell(store) {
    $("fidelity-empty").hidden = store.rows > 1;
    const mean = store.frame.mean_fidelity;
    mark(
      $("fidelity-plot"),
      "aria-label",
      mean === null ? "Fidelity by site: nothing has run yet" : `Fidelity of ${store.sites.length} sites up to step ${store.frame.index}, mean ${fidelityText(mean)}`,
    );
  },

  wire(canvas, getStore, redraw, seek) {
    const stepAt = (event) => {
      const store = getStore();
      if (!store || !this.place) return null;
      const { left, right, width } = this.place;
      const share = (event.offsetX - left) / (width - left - right);
      const t = Math.round(share * store.length);
      return t >= 0 && t <= store.length ? t : null;
    };
    canvas.addEventListener("pointermove", (event) => {
      const store = getStore();
      const t = stepAt(event);
      this.hover = t !== null && t >= 1 && t < store.rows ? t : null;
      redraw();
      if (this.hover === null) { tip.hide(); return; }
      const lines = store.sites.map((site, i) => ({
        colour: site.colour, name: site.label, value: fidelityText(store.fidelity[i][t]), strong: store.selected === i,
      }));
      tip.show([{ name: "step", value: `${t}` }, ...lines], event.clientX, event.clientY);
    });
    canvas.addEventListener("pointerleave", () => { this.hover = null; tip.hide(); redraw(); });
    canvas.addEventListener("click", (event) => { const t = stepAt(event); if (t !== null) seek(t); });
  },
};

function fidelityTicks(floor) {
  if (scaleKind === "nines") return [floor, 0.9, 0.97, 0.99, 0.999, 1].filter((value, n) => n === 0 || value > floor + 0.05 || value > 0.9);
  const step = floor >= 0.8 ? 0.05 : floor >= 0.6 ? 0.1 : 0.2;
  return Array.from({ length: Math.round((1 - floor) / step) + 1 }, (_, n) => 1 - n * step);
}

function cursorLine(context, x, top, bottom) {
  context.strokeStyle = ink.accent;
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(x, top);
  context.lineTo(x, bottom);
  context.stroke();
}
