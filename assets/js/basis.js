// The basis of the selected site: how far it turns, how far it is from the best one, its rank.

const basis = {
  turns: { place: null },
  ranks: { place: null },

  tell(store) {
    const site = store.sites[store.selected ?? 0];
    const data = store.frame.sites[site.name];
    const turn = store.turns[site.name], best = store.bestTurns[site.name];
    say($("basis-title"), `Basis · ${site.label}`);
    say($("basis-rank"), data?.rank ? `rank ${data.rank} of ${site.dim}` : `rank – of ${site.dim}`);
    say($("basis-turn"), turn ? `${fixed(turn.angles[0], 1)}°` : NONE);
    say($("basis-step"), turn ? `t ${turn.step}` : NONE);
    const cause = store.causes[site.name];
    const off = store.settings.sites?.[site.name]?.enabled === false;
    const state = data && data.state !== "tracking" ? ` · ${data.state}` : "";
    say($("basis-cause"), off ? "this site is not tracked" : cause ? `t ${cause.step} · ${cause.text}${state}` : "no basis yet: first window kept exact");
    this.tellGap(store, store.gaps[site.name], best);
    const angles = turn ? `${turn.angles.length} principal angles of ${site.label}, largest ${fixed(turn.angles[0], 1)} degrees` : "No angles yet";
    mark($("angle-plot"), "aria-label", best ? `${angles}; to the best basis ${fixed(best.angles[0], 1)} degrees` : angles);
    mark($("turn-plot"), "aria-label", turn ? `Largest principal angle by site over time; ${site.label} turned ${fixed(turn.angles[0], 1)} degrees at step ${turn.step}` : "Largest principal angle by site over time: no refresh yet");
    mark($("rank-plot"), "aria-label", data?.rank ? `Rank by site over time; ${site.label} has ${data.rank} of ${site.dim}` : "Rank by site over time: no basis yet");
  },

  /** How much less the basis in force kept of the window just closed than the best basis of its rank would have. */
  tellGap(store, measured, best) {
    const asked = store.options.best === true;
    hide($("ask-best"), asked);
    hide($("basis-gap"), !asked);
    hide($("best-key"), !best);
    if (!asked) return;
    let gap = null;
    if (store.measure === "energy" && measured && measured.step > store.frame.index - 2 * store.supervision) {
      gap = measured.best > 0 ? Math.max(0, 1 - measured.window / measured.best) : 0;
    }
    say($("basis-gap"), gap === null ? (store.measure === "energy" ? "next refresh" : "energy rule only") : percent(gap, gap < 0.001 ? 3 : 2));
  },

  paint(store) {
    if (tabs.shows("tab-rank")) this.lines(store, $("rank-plot"), this.ranks, store.rank, Math.max(8, store.maxRank), (value) => `${value}`, true);
    if (tabs.shows("tab-angles")) {
      this.lines(store, $("turn-plot"), this.turns, store.turn, Math.max(5, store.maxTurn), (value) => `${Math.round(value)}°`, false);
      const site = store.sites[store.selected ?? 0];
      this.angles(store.turns[site.name], store.bestTurns[site.name], site.colour);
    }
  },

  lines(store, canvas, plot, columns, most, text, stepped) {
    const made = surface(canvas);
    if (!made) return;
    const { context, width, height } = made;
    const left = 28, right = 3, top = 5, bottom = stepped ? 18 : 5;
    plot.place = { left, right, width };
    const x = (t) => left + (t / store.span) * (width - left - right);
    const y = (value) => top + (1 - value / (most * 1.04)) * (height - top - bottom);
    for (const value of stepped ? [0, most / 2, most] : [0, most]) {
      rule(context, y(value), left, width);
      label(context, text(Math.round(value)), left - 5, y(value), { align: "right", size: 9.5 });
    }
    if (stepped) stepTicks(context, store, x, width, height - 7, { top, wanted: 4, size: 9.5 });
    for (const i of drawingOrder(store)) {
      const chosen = (store.selected ?? 0) === i;
      pastAndFuture(store, (from, to, alpha) => {
        const strength = alpha * (chosen ? 1 : 0.5);
        if (stepped) staircase(context, columns[i], from, to, x, y, store.sites[i].colour, chosen ? 2 : 1.1, strength);
        else points(context, columns[i], from, to, x, y, store.sites[i].colour, chosen ? 2 : 1, strength);
      });
    }
    cursorLine(context, x(store.frame.index), top, height - bottom);
    hoverLine(context, plot, x, top, height - bottom);
  },

  /** Principal angles of the last refresh as bars; those to the best basis as a line over them. */
  angles(turn, best, colour) {
    const made = surface($("angle-plot"));
    if (!made) return;
    const { context, width, height } = made;
    const left = 28, top = 5, bottom = 4;
    const angles = turn?.angles ?? [], others = best?.angles ?? [];
    const most = Math.max(5, angles[0] ?? 0, others[0] ?? 0);
    const y = (value) => top + (1 - value / (most * 1.04)) * (height - top - bottom);
    for (const value of [0, most]) {
      rule(context, y(value), left, width);
      label(context, `${Math.round(value)}°`, left - 5, y(value), { align: "right", size: 9.5 });
    }
    if (!angles.length) {
      label(context, "appear with the second basis", left + (width - left) / 2, height / 2, { align: "center" });
      return;
    }
    const wide = (width - left - 3) / angles.length;
    context.fillStyle = colour;
    angles.forEach((angle, n) => {
      context.fillRect(left + n * wide, y(angle), Math.max(0.8, wide - (wide > 3 ? 1 : 0)), y(0) - y(angle));
    });
    if (!others.length) return;
    context.strokeStyle = ink.text;
    context.lineWidth = 1.4;
    context.setLineDash([3, 2]);
    context.beginPath();
    others.forEach((angle, n) => {
      const at = left + (n + 0.5) * ((width - left - 3) / others.length);
      if (n) context.lineTo(at, y(angle)); else context.moveTo(at, y(angle));
    });
    context.stroke();
    context.setLineDash([]);
  },

  wire() {
    const bySite = (columns, text) => (store, t) => store.sites.map((site, i) => ({
      colour: site.colour, name: site.label, value: text(columns(store)[i], t, store), strong: (store.selected ?? 0) === i,
    }));
    wirePlot(this.ranks, $("rank-plot"), bySite((store) => store.rank, (column, t) => spanText(column.span(t), (rank) => (rank ? `${rank}` : "exact"))));
    wirePlot(this.turns, $("turn-plot"), bySite((store) => store.turn, (column, t, store) =>
      spanText(column.latest(t, store.supervision), (turn) => `${fixed(turn, 1)}°`)));
    const canvas = $("angle-plot");
    canvas.addEventListener("pointermove", (event) => {
      const { store } = player;
      const name = store?.sites[store.selected ?? 0]?.name;
      const turn = store?.turns[name], best = store?.bestTurns[name];
      const n = turn ? Math.floor(((event.offsetX - 28) / (canvas.clientWidth - 31)) * turn.angles.length) : -1;
      if (n < 0 || n >= turn.angles.length) { tip.hide(); return; }
      const lines = [{ name: `angle ${n + 1} of ${turn.angles.length}`, value: `t ${turn.step}` }, { name: "to the basis before", value: `${fixed(turn.angles[n], 2)}°` }];
      if (best?.angles[n] !== undefined) lines.push({ name: "to the best basis", value: `${fixed(best.angles[n], 2)}°` });
      tip.show(lines, event.clientX, event.clientY);
    });
    canvas.addEventListener("pointerleave", () => tip.hide());
  },
};
