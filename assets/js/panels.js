// Headline figures, events, memory by site and the basis panel.

const headline = {
  draw(store) {
    const { frame } = store;
    const ran = frame.index > 0;
    say($("tile-saving"), ran ? percent(frame.history.saving) : NONE);
    say($("tile-fidelity"), ran ? fidelityText(frame.mean_fidelity) : NONE);
    say($("tile-resets"), `${frame.resets}`);
    say($("tile-cost"), store.cost === null ? NONE : `+${Math.round(100 * store.cost)} %`);
    $("tile-saving").classList.toggle("negative", ran && frame.history.saving < 0);
  },
};

/** A fidelity in few characters: .972 */
const brief = (value) => (value >= 1 ? "1" : fixed(value, 3).replace(/^0/, ""));

const MOST_EVENTS = 300; // rows in the list; older ones stay in the timeline

const events = {
  store: null,
  draw(store) {
    const list = $("events-list");
    if (store !== this.store || store.cuts !== this.cuts) {
      this.store = store;
      this.cuts = store.cuts;
      this.listed = 0;
      this.cursor = -1;
      list.replaceChildren();
    }
    const now = store.frame.index;
    if (store.events.length > this.listed) {
      const fresh = store.events.slice(Math.max(this.listed, store.events.length - MOST_EVENTS)).reverse();
      this.listed = store.events.length;
      list.prepend(...fresh.map((event) => this.row(store, event)));
      while (list.childElementCount > MOST_EVENTS) list.lastElementChild.remove();
      this.cursor = -1;
    }
    $("events-empty").hidden = this.listed > 0;
    if (now !== this.cursor) {
      this.cursor = now;
      for (const node of list.children) node.classList.toggle("future", node.step > now);
    }
  },
  row(store, event) {
    const item = make("li", { "data-kind": event.kind });
    item.step = event.step;
    const button = make("button", { type: "button" }, item);
    make("i", { cls: `dot ${event.kind.replace(" ", "-")}` }, button);
    make("span", { cls: "when num", text: `t ${event.step}` }, button);
    const site = store.sites[store.position.get(event.site) ?? -1];
    const parts = [];
    if (site) parts.push(site.label);
    parts.push(event.kind === "reset" ? event.text.replace(/^reset/, "RESET") : event.text);
    const figures = [];
    if (Number.isFinite(event.before) && event.kind !== "started") {
      figures.push(`F ${brief(event.before)}${Number.isFinite(event.after) ? `→${brief(event.after)}` : ""}`);
    }
    if (Number.isFinite(event.seconds)) figures.push(`${fixed(1000 * event.seconds, event.seconds < 0.01 ? 1 : 0)} ms`);
    make("span", { cls: "what", text: parts.join(" · ") }, button);
    make("span", { cls: "figures num", text: figures.join(" · ") }, button);
    explain(button, () => `step ${event.step}: ${[...parts, ...figures].join(" · ")}`);
    button.addEventListener("click", () => player.seek(event.step));
    return item;
  },
};

const memory = {
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
      const retained = store.frame.sites[site.name]?.retained;
      explain(row, () => {
        if (!line) return `${site.label}: nothing has run yet`;
        const what = store.ledger === "history"
          ? `; what is stored keeps ${fidelityText(retained)} of the energy`
          : "; one training step with these bases";
        return `${site.label}: full ${bytes(line.full)}, stored ${bytes(line.stored)}, bases ${bytes(line.basis)}, `
          + `net saving ${percent(line.saving)}${what}`;
      });
    });
    const total = store.frame[store.ledger];
    const ran = store.frame.index > 0;
    say($("memory-full"), ran ? bytes(total.full) : NONE);
    say($("memory-kept"), ran ? bytes(total.stored + total.basis) : NONE);
    say($("memory-basis"), ran ? bytes(total.basis) : NONE);
    const even = store.frame.break_even;
    const text = store.ledger === "training"
      ? `of all saved bytes ${ran ? percent(store.frame.training_all?.saving) : NONE}`
      : even === null ? (ran ? "no break-even yet" : "break-even –") : `break-even at t ${even}`;
    say($("memory-even"), text);
  },
};

const basis = {
  tell(store) {
    const site = store.sites[store.selected ?? 0];
    const data = store.frame.sites[site.name];
    const turn = store.turns[site.name];
    say($("basis-title"), `Basis · ${site.label}`);
    say($("basis-rank"), data?.rank ? `rank ${data.rank} of ${site.dim}` : `rank – of ${site.dim}`);
    say($("basis-turn"), turn ? `${fixed(turn.angles[0], 1)}°` : NONE);
    say($("basis-step"), turn ? `t ${turn.step}` : "");
    const latest = store.events.findLast((event) => event.site === site.name && event.step <= store.frame.index);
    const state = data && data.state !== "tracking" ? ` · ${data.state}` : "";
    say($("basis-cause"), latest ? `t ${latest.step} · ${latest.text}${state}` : "no basis yet: the first window is kept exact");
    const angles = turn ? `${turn.angles.length} principal angles of ${site.label}, largest ${fixed(turn.angles[0], 1)} degrees` : "No angles yet";
    mark($("angle-plot"), "aria-label", angles);
  },

  paint(store) {
    const site = store.sites[store.selected ?? 0];
    this.lines(store, $("rank-plot"), store.rank, Math.max(8, store.maxRank), (value) => `${value}`, true);
    this.lines(store, $("turn-plot"), store.turn, Math.max(5, store.maxTurn), (value) => `${Math.round(value)}°`, false);
    this.spectrum(store.turns[site.name], site.colour);
  },

  lines(store, canvas, columns, most, text, stepped) {
    const made = surface(canvas);
    if (!made) return;
    const { context, width, height } = made;
    const left = 28, top = 5, bottom = 5;
    const x = (t) => left + (t / store.length) * (width - left - 3);
    const y = (value) => top + (1 - value / (most * 1.04)) * (height - top - bottom);
    context.strokeStyle = ink.line;
    context.lineWidth = 1;
    for (const value of [0, most]) {
      context.beginPath();
      context.moveTo(left, Math.round(y(value)) + 0.5);
      context.lineTo(width, Math.round(y(value)) + 0.5);
      context.stroke();
      label(context, text(value), left - 5, y(value), { align: "right", size: 9.5 });
    }
    for (const i of drawingOrder(store)) {
      const chosen = (store.selected ?? 0) === i;
      pastAndFuture(store, (from, to, alpha) => {
        const strength = alpha * (chosen ? 1 : 0.5);
        if (stepped) staircase(context, columns[i], from, to, x, y, store.sites[i].colour, chosen ? 2 : 1.1, strength);
        else points(context, columns[i], from, to, x, y, store.sites[i].colour, chosen ? 2 : 1, strength);
      });
    }
    cursorLine(context, x(store.frame.index), top, height - bottom);
  },

  spectrum(turn, colour) {
    const made = surface($("angle-plot"));
    if (!made) return;
    const { context, width, height } = made;
    const left = 28, top = 5, bottom = 4;
    const angles = turn?.angles ?? [];
    const most = Math.max(5, angles[0] ?? 0);
    const y = (value) => top + (1 - value / (most * 1.04)) * (height - top - bottom);
    context.strokeStyle = ink.line;
    context.lineWidth = 1;
    for (const value of [0, most]) {
      context.beginPath();
      context.moveTo(left, Math.round(y(value)) + 0.5);
      context.lineTo(width, Math.round(y(value)) + 0.5);
      context.stroke();
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
  },
};

/** Values that stay until they change: ranks. Steps without a basis are left out. */
function staircase(context, column, from, to, x, y, colour, width, alpha) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.globalAlpha = alpha;
  context.beginPath();
  let before = null;
  for (let t = from; t < to; t++) {
    const value = column[t];
    if (!value) { before = null; continue; }
    if (before === null) context.moveTo(x(t), y(value));
    else if (value !== before || t === to - 1) { context.lineTo(x(t), y(before)); context.lineTo(x(t), y(value)); }
    before = value;
  }
  context.stroke();
  context.globalAlpha = 1;
}

/** Values that exist at some steps only: joined, with a dot each where there is room. */
function points(context, column, from, to, x, y, colour, width, alpha) {
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = width;
  context.globalAlpha = alpha;
  const dots = (x(to) - x(from)) / Math.max(1, to - from) > 0.4;
  let open = false;
  context.beginPath();
  for (let t = from; t < to; t++) {
    const value = column[t];
    if (value === null || value === undefined) continue;
    if (open) context.lineTo(x(t), y(value)); else context.moveTo(x(t), y(value));
    open = true;
  }
  context.stroke();
  if (dots) {
    for (let t = from; t < to; t++) {
      const value = column[t];
      if (value === null || value === undefined) continue;
      context.beginPath();
      context.arc(x(t), y(value), width * 0.9, 0, 7);
      context.fill();
    }
  }
  context.globalAlpha = 1;
}
