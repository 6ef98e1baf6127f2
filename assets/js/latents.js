// The path of the two latent states, in a plane that the weights fix, coloured from early (pale) to late (strong).

const SHADES = 24; // of time, along the path
const MOST_SEGMENTS = 4_000; // per state; a longer path is drawn through every n-th step, the newest part whole

const latents = {
  place: null,
  paint(store) {
    const made = surface($("latent-plot"));
    if (!made) return;
    const { context, width, height } = made;
    if (!store.box) {
      label(context, "the path starts with the first step", width / 2, height / 2, { align: "center" });
      this.place = null;
      return;
    }
    const left = 8, right = 8, top = 8, bottom = 8;
    const [x0, y0, x1, y1] = store.box;
    // One scale for both axes: angles and distances are true.
    const scale = Math.min((width - left - right) / (x1 - x0 || 1), (height - top - bottom) / (y1 - y0 || 1));
    const x = (value) => width / 2 + (value - (x0 + x1) / 2) * scale;
    const y = (value) => height / 2 - (value - (y0 + y1) / 2) * scale;
    this.place = { x, y };
    if (x0 < 0 && x1 > 0) upright(context, Math.round(x(0)) + 0.5, 0, height);
    if (y0 < 0 && y1 > 0) rule(context, y(0), 0, width);
    const { Hx, Hy, Lx, Ly } = store.latent;
    const now = Math.min(store.frame.index, store.rows - 1);
    for (const [xs, ys, colour, dot, wide] of [[Lx, Ly, ink.amber, disc, 1.1], [Hx, Hy, ink.accent, square, 1.8]]) {
      if (store.rows - 1 > now) this.path(context, xs, ys, now, store.rows - 1, x, y, colour, () => 0.13, 1);
      this.path(context, xs, ys, 0, now, x, y, colour, (share) => 0.25 + 0.75 * share * share, wide);
      dot(context, x(xs[0]), y(ys[0]), 2.5, ink.muted);
      context.strokeStyle = ink.card;
      dot(context, x(xs[now]), y(ys[now]), 6, ink.card);
      dot(context, x(xs[now]), y(ys[now]), 4.5, colour);
    }
  },

  /** The path from step `from` to `to` in a few shades; `alpha` of a share of the way. */
  path(context, xs, ys, from, to, x, y, colour, alpha, width) {
    const stride = Math.max(1, Math.ceil((to - from) / MOST_SEGMENTS));
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.lineJoin = "round";
    const count = Math.max(1, Math.min(SHADES, Math.ceil((to - from) / stride)));
    for (let n = 0; n < count; n++) {
      const first = from + Math.round(((to - from) * n) / count), last = from + Math.round(((to - from) * (n + 1)) / count);
      context.globalAlpha = alpha((n + 1) / count);
      context.beginPath();
      context.moveTo(x(xs[first]), y(ys[first]));
      for (let t = first + 1; t <= last; t += stride) context.lineTo(x(xs[t]), y(ys[t]));
      context.lineTo(x(xs[last]), y(ys[last]));
      context.stroke();
    }
    context.globalAlpha = 1;
  },

  tell(store) {
    const at = store.frame.latent;
    mark($("latent-plot"), "aria-label", store.box && at
      ? `Path of the states at step ${store.frame.index}: z_H at ${fixed(at[0], 2)}, ${fixed(at[1], 2)}; z_L at ${fixed(at[2], 2)}, ${fixed(at[3], 2)}`
      : "Path of the states: nothing has run yet");
  },

  wire() {
    const canvas = $("latent-plot");
    const nearest = (event) => {
      const { store } = player;
      if (!store?.box || !this.place) return null;
      const { Hx, Hy, Lx, Ly } = store.latent, { x, y } = this.place;
      let best = null, least = 144;
      const stride = Math.max(1, Math.ceil(store.rows / MOST_SEGMENTS));
      for (let t = 0; t < store.rows; t += stride) {
        for (const [xs, ys, name] of [[Hx, Hy, "z_H"], [Lx, Ly, "z_L"]]) {
          const far = (x(xs[t]) - event.offsetX) ** 2 + (y(ys[t]) - event.offsetY) ** 2;
          if (far < least) { least = far; best = { t, name, at: [xs[t], ys[t]] }; }
        }
      }
      return best;
    };
    canvas.addEventListener("pointermove", (event) => {
      const found = nearest(event);
      if (!found) { tip.hide(); return; }
      tip.show([{ name: "step", value: `${found.t}` }, { name: found.name, value: found.at.map((value) => fixed(value, 3)).join(", ") }], event.clientX, event.clientY);
    });
    canvas.addEventListener("pointerleave", () => tip.hide());
    canvas.addEventListener("click", (event) => { const found = nearest(event); if (found) player.seek(found.t); });
  },
};

function square(context, x, y, half, colour) {
  context.fillStyle = colour;
  context.fillRect(x - half * 0.9, y - half * 0.9, half * 1.8, half * 1.8);
}

function disc(context, x, y, radius, colour) {
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.fillStyle = colour;
  context.fill();
}
