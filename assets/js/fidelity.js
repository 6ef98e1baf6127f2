// Fidelity by site over time, in the kind that is chosen, and the line of all measures below it.

const fidelityPlot = {
  place: null,
  draw(store) {
    const made = surface($("fidelity-plot"));
    if (!made) return;
    const { context, width, height } = made;
    const left = 40, right = 12, top = 12, bottom = 20;
    const x = (t) => left + (t / store.span) * (width - left - right);
    const floor = store.floor;
    const y = (value) => top + (1 - Math.max(0, store.scaled(value))) * (height - top - bottom);
    this.place = { left, right, width };

    let above = -Infinity;
    for (const value of fidelityTicks(floor).reverse()) {
      rule(context, y(value), left, width - right);
      if (y(value) - above < 10) continue; // no room for its number
      above = y(value);
      label(context, value === 1 && scaleKind === "nines" ? "1" : `${Number(value.toFixed(4))}`, left - 6, y(value), { align: "right" });
    }
    stepTicks(context, store, x, width, height - 8, { top, wanted: Math.max(2, width / 110) });

    const line = kindShown === "functional" ? points : curve;
    for (const i of drawingOrder(store)) {
      const chosen = store.selected === i;
      const strength = store.selected === null || chosen ? 1 : 0.55;
      pastAndFuture(store, (from, to, alpha) =>
        line(context, store.kinds[kindShown][i], from, to, x, y, store.sites[i].colour, chosen ? 2.2 : 1.15, alpha * strength));
    }
    // The threshold belongs to the kind that the rule reads; the selected site may have one of its own.
    if (kindShown === store.measure) {
      const own = store.selected === null ? store.settings.min_fidelity : store.setting(store.selected, "min_fidelity");
      this.threshold(context, y, own, left, width - right, top, own >= floor);
    }
    const now = store.frame.index;
    marksAt(context, store.marks.grew, x, now, (at) => triangle(context, at, top - 5, 3.2, ink.amber, true));
    marksAt(context, store.marks.reset, x, now, (at) => triangle(context, at, top - 5, 4, ink.red));
    cursorLine(context, x(now), top - 2, height - bottom);
    hoverLine(context, this, x, top, height - bottom);
  },

  threshold(context, y, epsilon, left, right, top, visible) {
    if (!visible) return;
    rule(context, y(epsilon), left, right, { colour: ink.amber, dash: [5, 4] });
    const text = `ε = ${epsilon.toFixed(3)}`;
    context.font = `600 10.5px ${ink.font}`;
    const wide = context.measureText(text).width;
    const at = y(epsilon) - 9 > top ? y(epsilon) - 8 : y(epsilon) + 9;
    context.fillStyle = ink.card;
    context.globalAlpha = 0.8;
    context.fillRect(right - wide - 4, at - 6, wide + 4, 12);
    context.globalAlpha = 1;
    label(context, text, right, at, { align: "right", colour: ink.amber, weight: 600 });
  },

  tell(store) {
    const asked = kindShown !== "functional" || measured(store);
    hide($("fidelity-empty"), store.rows > 1 && asked);
    say($("fidelity-empty"), asked ? "Press Play: one line per site" : "The functional fidelity is not measured: switch it on below");
    for (const input of this.inputs) {
      if (input.checked !== (input.value === kindShown)) input.checked = input.value === kindShown;
      input.parentElement.classList.toggle("triggers", input.value === store.measure);
    }
    const mean = store.frame.mean_fidelity;
    mark(
      $("fidelity-plot"),
      "aria-label",
      mean === null
        ? "Fidelity by site: nothing has run yet"
        : `${kindShown} fidelity of ${store.sites.length} sites up to step ${store.frame.index}, mean energy fidelity ${fidelityText(mean)}`,
    );
    this.measures(store);
  },

  /** All measures in one line: energy and centred as means over the sites, the rest with all sites compressed at once. */
  measures(store) {
    const { frame } = store;
    const sites = Object.values(frame.sites);
    const centred = sites.length ? sites.reduce((sum, site) => sum + (site.centred ?? NaN), 0) / sites.length : NaN;
    const text = (id, value, shown) => say($(id), Number.isFinite(value) ? shown(value) : NONE);
    text("m-energy", sites.length ? frame.mean_fidelity : NaN, brief);
    text("m-centred", centred, brief);
    const functional = measured(store);
    hide($("ask-functional"), functional);
    for (const node of this.functional) hide(node, !functional);
    if (functional) {
      const newest = store.newestOf("functional");
      text("m-functional", newest?.functional, brief);
      text("m-flips", newest?.flips, (value) => `${value}`);
      text("m-kl", newest?.kl, (value) => (value < 1e-4 && value > 0 ? "<.0001" : brief4(value)));
    }
    const gradient = store.options.gradient === true;
    hide($("ask-gradient"), gradient);
    for (const node of this.gradient) hide(node, !gradient);
    if (gradient) text("m-gradient", store.newestOf("gradient")?.gradient, brief);
  },

  /** The kinds that a tooltip has room for: of a block of steps, with its lowest and highest, one. */
  kindsAt: (store, t) => (store.residual.holds(t) ? FIDELITIES.filter((kind) => kind !== "functional" || measured(store)) : [kindShown]),

  lines(store, t) {
    const shown = this.kindsAt(store, t);
    return store.sites.map((site, i) => ({
      colour: site.colour,
      name: site.label,
      value: shown.map((kind) => {
        const column = store.kinds[kind][i];
        return spanText(kind === "functional" ? column.latest(t, store.cycle) : column.span(t), kind === kindShown ? fidelityText : brief);
      }).join("  "),
      strong: store.selected === i,
    }));
  },

  wire() {
    this.inputs = document.querySelectorAll("#kinds input");
    this.functional = document.querySelectorAll("#measures .functional");
    this.gradient = document.querySelectorAll("#measures .gradient");
    wirePlot(this, $("fidelity-plot"), (store, t) => [
      { name: "", value: this.kindsAt(store, t).join("  ") }, ...this.lines(store, t),
    ]);
  },
};

/** Whether the functional figures are being measured: asked for, or needed by the rule. */
const measured = (store) => store.options.functional === true || store.measure === "functional";

/** A fidelity in few characters: .972 */
const brief = (value) => (value === null || value === undefined ? NONE : value >= 1 ? "1" : fixed(value >= 0.9995 ? Math.floor(1e4 * value) / 1e4 : value, value >= 0.9995 ? 4 : 3).replace(/^0/, ""));
const brief4 = (value) => fixed(value, value < 0.1 ? 4 : 3).replace(/^0\./, ".");

function fidelityTicks(floor) {
  if (scaleKind === "nines") return [floor, 0.9, 0.97, 0.99, 0.999, 1].filter((value, n) => n === 0 || value > floor + 0.05 || value > 0.9);
  const step = floor >= 0.8 ? 0.05 : floor >= 0.6 ? 0.1 : 0.2;
  return Array.from({ length: Math.round((1 - floor) / step) + 1 }, (_, n) => 1 - n * step).reverse();
}
