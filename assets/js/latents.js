// The path of the two latent states, in a plane that the weights fix, coloured from early (pale) to late (strong).

const SHADES = 24; // of time, along the path

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
    const { path } = store, now = path.findIndex(([t]) => t === store.frame.index), places = path.map(([, place]) => place);
    const past = places.slice(0, now + 1), future = places.slice(now), start = places[0], here = places[now];
    for (const [state, colour, dot, wide] of [[2, ink.amber, disc, 1.1], [0, ink.accent, square, 1.8]]) {
      const at = (place) => [x(place[state]), y(place[state + 1])];
      this.path(context, future, at, colour, () => 0.13, 1);
      this.path(context, past, at, colour, (share) => 0.25 + 0.75 * share * share, wide);
      dot(context, ...at(start), 2.5, ink.muted);
      dot(context, ...at(here), 6, ink.card);
      dot(context, ...at(here), 4.5, colour);
    }
  },

  /** A path through places in a few shades; `alpha` of a share of the way. */
  path(context, places, at, colour, alpha, width) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.lineJoin = "round";
    const steps = places.length - 1, count = Math.min(SHADES, steps);
    for (let n = 0; n < count; n++) {
      const first = Math.round((steps * n) / count), last = Math.round((steps * (n + 1)) / count);
      context.globalAlpha = alpha((n + 1) / count);
      context.beginPath();
      context.moveTo(...at(places[first]));
      for (let t = first + 1; t <= last; t++) context.lineTo(...at(places[t]));
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
      const { x, y } = this.place;
      let best = null, least = 144;
      store.latent.each(0, store.rows, (t, [hx, hy, lx, ly]) => {
        for (const [px, py, name] of [[hx, hy, "z_H"], [lx, ly, "z_L"]]) {
          const far = (x(px) - event.offsetX) ** 2 + (y(py) - event.offsetY) ** 2;
          if (far < least) { least = far; best = { t, name, at: [px, py] }; }
        }
      });
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
