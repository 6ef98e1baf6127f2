// Every plot once more for the large view: as a Plotly figure, from the very columns that the small plot draws, and as a table.

/** A value at hand: neither absent nor null. */
const known = (value) => value !== null && value !== undefined;
const filled = (column) => Boolean(column) && column.filled;
const anyFilled = (columns) => columns.some(filled);
/** Names are shown as they are: Plotly reads some HTML in its texts. */
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");
const chosenSite = (store) => store.selected ?? 0;
/** Steps a plot spans: the trained length, or what was recorded where that is more. */
const spanOf = (store) => Math.max(store.span ?? store.length, store.rows - 1, 1);

/**
 * A column as points of a line: a step as it is, a block of steps as its lowest and highest at its two ends. `value` gives what is
 * shown of a figure (null: nothing), `place` where it lies on the axis; `says` has, for each point, what hovering tells of its block.
 */
function lineOf(store, column, { value = (figure) => figure, place = (figure) => figure } = {}) {
  const line = { x: [], y: [], customdata: [], says: [] };
  const add = (t, figure, says) => {
    const shown = known(figure) ? value(figure) : null;
    line.x.push(t);
    line.y.push(known(shown) ? place(shown) : null);
    line.customdata.push(shown);
    line.says.push(says);
  };
  for (let t = 1; t < store.rows;) {
    const { from, to } = column.block(t), span = column.span(t);
    if (from === to) add(t, span?.low, "");
    else if (span) { add(from, span.low, ` lowest of ${from} to ${to}`); add(to, span.high, ` highest of ${from} to ${to}`); }
    t = to + 1;
  }
  return line;
}

/** How a line's points say their value, the block they stand for beside it. */
const hoverOf = ({ says }, text) => (says.some(Boolean) ? says.map((block) => text + block) : text);

// Layouts

const axis = (title, more = {}) => ({
  title: { text: title, font: { size: 12.5, color: ink.muted }, standoff: 8 },
  gridcolor: ink.line, linecolor: ink.line, zerolinecolor: ink.line, tickcolor: ink.line,
  tickfont: { size: 12, color: ink.muted }, automargin: true, ...more,
});

const OVER_TIME = "recursion step t";
const overTime = (store, more = {}) => axis(OVER_TIME, { range: [0, spanOf(store) + 0.5], hoverformat: "d", unifiedhovertitle: { text: "step %{x}" }, ...more });

const verticalAt = (t) => ({ type: "line", x0: t, x1: t, yref: "paper", y0: 0, y1: 1, line: { color: ink.accent, width: 1.5 } });

/** Where there is no room for all sites' values at once, a point says its own. */
const closeUp = () => innerWidth < 700;

function layoutOf(store, x, y, more = {}) {
  return {
    paper_bgcolor: ink.card, plot_bgcolor: ink.card,
    font: { family: ink.font, size: 12.5, color: ink.text },
    margin: { l: 62, r: 18, t: 38, b: 46 }, // above: the library's buttons
    hovermode: closeUp() ? "closest" : "x unified",
    hoverlabel: { bgcolor: ink.card, bordercolor: ink.line, font: { family: ink.font, size: 12, color: ink.text }, namelength: -1 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 }, itemwidth: 30 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: ink.muted, activecolor: ink.accent },
    dragmode: "zoom",
    xaxis: x, yaxis: y, ...more,
  };
}

const overSteps = (store, y, more = {}) => layoutOf(store, overTime(store), y, { shapes: [verticalAt(store.frame.index)], ...more });

/** One line per site; the selected one is drawn strong. `text` says how a value is shown on hovering. */
function siteLines(store, columns, text, { mode = "lines", shape = "linear", place, value, gaps = false } = {}) {
  const chosen = chosenSite(store);
  return store.sites.map((site, i) => {
    const line = lineOf(store, columns[i], { place, value }), { x, y, customdata } = line;
    return {
      type: "scatter", mode, name: plain(site.label), x, y, customdata,
      connectgaps: gaps, line: { color: site.colour, width: i === chosen ? 2.6 : 1.4, shape }, marker: { color: site.colour, size: i === chosen ? 6 : 4 },
      hovertemplate: hoverOf(line, `${closeUp() ? "step %{x}: " : ""}%{customdata${text}}`),
    };
  });
}

// Fidelity: on the scale that map and small plot use

function fidelityAxis(store, title, columns) {
  const low = Math.min(store.settings.min_fidelity, ...columns.map((column) => column.least));
  const floor = [0.8, 0.6, 0.4, 0.2].find((value) => low >= value) ?? 0;
  if (scaleKind !== "nines") return axis(title, { range: [floor - 0.01, 1.01] });
  const values = [0, 0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.997, 0.998, 0.999, 0.9995, 0.9998];
  const places = values.map(onScale);
  return axis(title, {
    range: [onScale(floor) - 0.05, MOST_NINES + 0.08], tickmode: "array",
    tickvals: [...places, MOST_NINES], ticktext: [...values.map(String), "0.9999 to 1"],
  });
}

/** The threshold belongs to the fidelity that the rule reads; the selected site may have one of its own. */
function thresholds(store, kind = null) {
  if (kind !== null && kind !== (store.settings.measure ?? "energy")) return { shapes: [], annotations: [] };
  const own = store.settings.sites?.[store.sites[chosenSite(store)]?.name]?.min_fidelity;
  const lines = [[store.settings.min_fidelity, ink.amber, "ε"]];
  if (known(own)) lines.push([own, store.sites[chosenSite(store)].colour, `ε of ${plain(store.sites[chosenSite(store)].label)}`]);
  return {
    shapes: lines.map(([value, color]) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: onScale(value), y1: onScale(value), line: { color, width: 1.4, dash: "dash" },
    })),
    annotations: lines.map(([value, color, name]) => ({
      xref: "paper", x: 1, xanchor: "right", y: onScale(value), yanchor: "bottom", showarrow: false, text: `${name} = ${value}`,
      font: { size: 12, color }, bgcolor: ink.card, opacity: 0.9,
    })),
  };
}

/** Resets and growth where they happened: on their site's line. */
function eventMarks(store, columns) {
  const kinds = [["reset", "reset", ink.red, "triangle-down"], ["grew", "growth", ink.amber, "triangle-up"]];
  return kinds.flatMap(([kind, name, color, symbol]) => {
    const marks = store.sites.flatMap((site, i) => [...store.siteMarks[i][kind]].map((step) => ({ step, site, span: columns[i].span(step) }))).filter(({ span }) => span);
    if (!marks.length) return [];
    const told = new Map(store.events.filter((event) => event.kind === kind).map((event) => [`${event.step} ${event.site}`, event])); // of old marks only the step is held
    return [{
      type: "scatter", mode: "markers", name, x: marks.map(({ step }) => step), y: marks.map(({ span }) => onScale(span.low)),
      text: marks.map(({ step, site }) => {
        const { text = name, before, after } = told.get(`${step} ${site.name}`) ?? {};
        const window = known(before) && known(after) ? ` · window F ${fidelityText(before)} → ${fidelityText(after)}` : "";
        return plain(`t ${step} · ${site.label}: ${text}${window}`);
      }),
      marker: { color, symbol, size: 9, line: { color: ink.card, width: 1 } }, hovertemplate: "%{text}<extra></extra>",
    }];
  });
}

const fidelityEntry = (column, title, meaning, unit) => ({
  title, group: "Fidelity", card: "fidelity-panel", scaled: true,
  kind: column === "fidelity" ? "energy" : column, // as the page's script and the rule name it
  has: (store) => anyFilled(store[column]),
  figure(store) {
    const { shapes, annotations } = thresholds(store, this.kind);
    const gaps = column === "functional"; // exists at the ends of windows only
    const lines = siteLines(store, store[column], ":.5f", { place: onScale, gaps, mode: gaps ? "lines+markers" : "lines" });
    return {
      data: [...lines, ...eventMarks(store, store[column])],
      layout: overSteps(store, fidelityAxis(store, meaning, store[column]), { shapes: [...shapes, verticalAt(store.frame.index)], annotations }),
    };
  },
  table: (store) => siteTable(store, column, unit),
});

const COMPARED = [["fidelity", "energy", "solid"], ["centred", "centred", "dash"], ["functional", "functional", "dot"], ["best", "best energy of this rank", "dashdot"]];

/** The largest figure of some columns, for an axis that begins at 0. */
const mostOf = (columns) => Math.max(0, ...columns.map((column) => column.most));

// Lanes: several quantities above one another, over the same steps

/** The lanes that have figures; `of` names the column, or `find` finds it in a store; `unit` heads it in the table, else `name` does. */
const lanesOf = (store, list) => list.map((lane) => ({ find: (part) => part[lane.of], ...lane })).filter(({ find }) => filled(find(store)));

const laneTable = (list) => stepTable(list.map(({ name, unit = name, find }) => [unit, find]));

/** A column as bars: of a block of steps the highest. */
function barsOf(store, column) {
  const { x, y, says } = lineOf(store, column);
  const highest = (_, n) => !says[n] || says[n].startsWith(" highest");
  return { x: x.filter(highest), y: y.filter(highest), customdata: y.filter(highest), says: says.filter(highest) };
}

function lanes(store, list) {
  const gap = 0.07, tall = (1 - gap * (list.length - 1)) / list.length;
  const layout = layoutOf(store, overTime(store, { anchor: `y${list.length > 1 ? list.length : ""}` }), null, { shapes: [verticalAt(store.frame.index)], showlegend: false });
  delete layout.yaxis;
  const data = list.map(({ name, find, color, text, bars = false, log = false, dots = false, zero = bars, range }, n) => {
    const suffix = n ? `${n + 1}` : "", top = 1 - n * (tall + gap);
    layout[`yaxis${suffix}`] = axis(name, { domain: [Math.max(0, top - tall), top], type: log ? "log" : "linear", ...(log ? { dtick: "D2" } : { nticks: 5 }), ...(range ? { range } : zero ? { rangemode: "tozero" } : {}) });
    const line = bars ? barsOf(store, find(store)) : lineOf(store, find(store)), { x, y, customdata } = line;
    const trace = { name, x, y, customdata, xaxis: "x", yaxis: `y${suffix}`, hovertemplate: hoverOf(line, `%{customdata${text}}`) };
    return bars
      ? { ...trace, type: "bar", marker: { color } }
      : { ...trace, type: "scatter", mode: dots ? "lines+markers" : "lines", connectgaps: dots, line: { color, width: 1.8 }, marker: { color, size: 4 } };
  });
  return { data, layout };
}

/** Whether more than one puzzle is run. */
const several = (store) => (store.frame.batch ?? 1) > 1;

const LEDGERS = ["history", "training"];
const BYTES_TEXT = ":.4s}B"; // Plotly writes 12.3k: with B a size

const ZOOM = {
  fidelity: fidelityEntry("fidelity", "Fidelity by site", "energy kept, share", "fidelity (share of energy)"),
  centred: fidelityEntry("centred", "Centred fidelity by site", "energy kept after the mean, share", "centred fidelity (share of energy without the mean)"),
  functional: fidelityEntry("functional", "Functional fidelity by site", "exp(−KL of the answer)", "functional fidelity (exp(-KL in nats per cell))"),
  kinds: {
    title: "All fidelities of the selected site", group: "Fidelity", card: "fidelity-panel", scaled: true, ofSite: true,
    has: (store) => COMPARED.slice(1).some(([name]) => filled(store[name][chosenSite(store)])),
    figure(store) {
      const i = chosenSite(store), colours = [store.sites[i].colour, ink.accent, ink.green, ink.muted];
      const shown = COMPARED.filter(([name]) => filled(store[name][i]));
      const data = COMPARED.flatMap(([name, text, dash], n) => {
        if (!filled(store[name][i])) return [];
        const line = lineOf(store, store[name][i], { place: onScale }), { x, y, customdata } = line, sparse = n > 1;
        return [{
          type: "scatter", mode: sparse ? "lines+markers" : "lines", name: text, x, y, customdata,
          connectgaps: sparse, line: { color: colours[n], width: n ? 1.8 : 2.6, dash }, marker: { color: colours[n], size: 5 },
          hovertemplate: hoverOf(line, "%{customdata:.5f}"),
        }];
      });
      const { shapes, annotations } = thresholds(store);
      return { data, layout: overSteps(store, fidelityAxis(store, "fidelity", shown.map(([name]) => store[name][i])), { shapes: [...shapes, verticalAt(store.frame.index)], annotations }) };
    },
    table(store) {
      const i = chosenSite(store);
      return stepTable(COMPARED.filter(([name]) => filled(store[name][i])).map(([name, text]) => [`${store.sites[i].name} ${text} (0 to 1)`, (part) => part[name][i]]));
    },
  },
  rank: {
    title: "Rank by site", group: "Basis", card: "basis-panel", tab: "tab-rank",
    has: (store) => anyFilled(store.rank),
    figure: (store) => ({
      data: siteLines(store, store.rank, "", { shape: "hv", value: (rank) => rank || null }),
      layout: overSteps(store, axis("rank, directions", { range: [0, 1.06 * Math.max(8, mostOf(store.rank))] })),
    }),
    table: (store) => siteTable(store, "rank", "rank (directions)"),
  },
  turn: {
    title: "Turn at each refresh", group: "Basis", card: "basis-panel", tab: "tab-angles",
    has: (store) => anyFilled(store.turn),
    figure: (store) => ({
      data: siteLines(store, store.turn, ":.2f}° at t %{x", { mode: "lines+markers", gaps: true }),
      layout: overSteps(store, axis("largest principal angle, degrees", { range: [0, 1.06 * Math.max(5, mostOf(store.turn))] })),
    }),
    table: (store) => siteTable(store, "turn", "largest principal angle (degrees)"),
  },
  angles: {
    title: "Principal angles of the last refresh", group: "Basis", card: "basis-panel", ofSite: true, ofStep: true,
    has: (store) => Boolean(store.turns[store.sites[chosenSite(store)].name]),
    series(store) {
      const { name, colour } = store.sites[chosenSite(store)];
      const series = [["to the basis before", store.turns[name], colour]];
      if (store.bestTurns[name]) series.push(["to the best basis", store.bestTurns[name], ink.amber]);
      return series;
    },
    figure(store) {
      const data = this.series(store).map(([name, { step, angles }, color], n) => ({
        name: `${name}, t ${step}`, x: angles.map((_, place) => place + 1), y: angles, hovertemplate: "%{y:.3f}°",
        ...(n ? { type: "scatter", mode: "lines+markers", line: { color, width: 1.6, dash: "dot" }, marker: { color, size: 4 } } : { type: "bar", marker: { color } }),
      }));
      return { data, layout: layoutOf(store, axis("principal angle, largest first", { unifiedhovertitle: { text: "angle %{x}" } }), axis("degrees", { rangemode: "tozero" }), { showlegend: true, bargap: 0.15 }) };
    },
    table(store) {
      const site = store.sites[chosenSite(store)].name;
      return {
        columns: ["site", "refresh_step", "angle", "compared", "degrees"],
        rows: this.series(store).flatMap(([name, { step, angles }]) => angles.map((angle, n) => [site, step, n + 1, name, angle])),
      };
    },
  },
  spectrum: {
    title: "Spectrum waterfall", group: "Basis", card: "basis-panel", tab: "tab-spectrum", ofSite: true, samples: (store) => store.spectra.rows,
    has: (store) => store.rank[chosenSite(store)].most > 0,
    /** The page holds the spectra of the site it shows, and only where it shows them. */
    async fetch(store) {
      const { name } = store.sites[chosenSite(store)];
      if (store.spectra.site !== name || store.spectra.rows.length < store.rows) await otherSpectra(store, name);
    },
    figure(store) {
      const x = [], rows = [];
      store.spectra.rows.each(1, store.rows, (t, shares) => { x.push(t); rows.push(shares); });
      const share = Array.from({ length: store.spectra.most }, (_, n) => rows.map((shares) => shares?.[n] ?? null));
      const LEAST = 1e-6; // what is less is drawn as this; hovering says the share itself
      const z = share.map((line) => line.map((value) => (known(value) ? Math.log10(Math.max(value, LEAST)) : null)));
      const low = Math.max(-6, Math.floor(z.reduce((least, line) => line.reduce((small, value) => (known(value) && value < small ? value : small), least), 0)));
      const ticks = Array.from({ length: 1 - low }, (_, n) => low + n);
      return {
        data: [{
          type: "heatmap", x, y: share.map((_, n) => n + 1), z, customdata: share, zmin: low, zmax: 0, hoverongaps: false,
          colorscale: CIVIDIS.map(([r, g, b], n) => [n / (CIVIDIS.length - 1), `rgb(${r},${g},${b})`]),
          colorbar: { title: { text: "share", side: "top", font: { size: 12 } }, thickness: 12, tickvals: ticks, ticktext: ticks.map((n) => `${Number((100 * 10 ** n).toPrecision(1))} %`), outlinewidth: 0 },
          hovertemplate: "step %{x} · component %{y}<br>%{customdata:.3~g} of the energy<extra></extra>",
        }],
        layout: layoutOf(store, overTime(store), axis("component, largest first", { autorange: "reversed", hoverformat: "d" }), { hovermode: "closest", shapes: [verticalAt(store.frame.index)] }),
      };
    },
    table(store) {
      const { site, rows, most } = store.spectra, names = Array.from({ length: most }, (_, n) => `component ${n + 1} (share of energy)`);
      return {
        columns: ["site", "step", "s", "h", "l", ...names], from: 1, site,
        lines(part, t) {
          const shares = part.spectra.rows.at(t) ?? rows.at(t) ?? []; // the page may still have what the server has let go
          return [[site, t, ...addressOf(part, t), ...names.map((_, n) => shares[n])]];
        },
      };
    },
  },
  memory: {
    title: "Memory by site", group: "Memory", card: "memory-panel", tab: "tab-memory", ofStep: true,
    has: (store) => store.frame.index > 0,
    figure(store) {
      const lines = store.sites.map((site) => store.frame.sites[site.name]?.[store.ledger] ?? {});
      const x = store.sites.map((site) => plain(site.label));
      const bar = (name, y, color, more) => ({ type: "bar", name, x, y, marker: { color }, customdata: y, hovertemplate: `%{customdata${BYTES_TEXT}`, ...more });
      return {
        data: [
          bar("full", lines.map((line) => line.full), ink.muted, { offsetgroup: "full", opacity: 0.5 }),
          bar("coefficients", lines.map((line) => line.stored), ink.accent, { offsetgroup: "kept" }),
          bar("bases", lines.map((line) => line.basis), ink.amber, { offsetgroup: "kept", base: lines.map((line) => line.stored) }),
        ],
        layout: layoutOf(store, axis("", { type: "category" }), axis(`bytes, ${store.ledger} ledger, at step ${store.frame.index}`, { rangemode: "tozero", tickformat: ".3~s", ticksuffix: "B" }), { barmode: "group", bargap: 0.3 }),
      };
    },
    table: (store) => ({
      columns: ["step", "site", "dim", "ledger", "full (bytes)", "stored (bytes)", "bases (bytes)", "net saving (share)"],
      rows: store.sites.flatMap(({ name, dim }) => LEDGERS.map((ledger) => {
        const line = store.frame.sites[name]?.[ledger] ?? {};
        return [store.frame.index, name, dim, ledger, line.full, line.stored, line.basis, line.saving];
      })),
    }),
  },
  kept: {
    title: "Memory over time", group: "Memory", card: "memory-panel",
    has: (store) => filled(store.kept) && filled(store.full),
    figure: (store) => ({
      data: [["full", store.full, ink.muted], ["kept", store.kept, ink.accent]].map(([name, column, color]) => {
        const line = lineOf(store, column);
        return { type: "scatter", mode: "lines", name, x: line.x, y: line.y, line: { color, width: 2.2 }, hovertemplate: hoverOf(line, `%{y${BYTES_TEXT}`) };
      }),
      layout: overSteps(store, axis("bytes, history ledger", { rangemode: "tozero", tickformat: ".3~s", ticksuffix: "B" })),
    }),
    table: () => stepTable([["full (bytes)", (part) => part.full], ["kept (bytes)", (part) => part.kept]]),
  },
  halting: {
    title: "Halting", group: "Recursion", card: "memory-panel", tab: "tab-halting",
    list: (store) => lanesOf(store, [
      { name: "halting probability, σ(q_halt)", unit: "halting probability (0 to 1)", of: "halt", color: ink.green, text: ":.5f", range: [-0.04, 1.04] },
      { name: "right cells", unit: "right cells", of: "right", color: ink.changes, text: ":d", zero: true },
      ...(several(store) ? [
        { name: "right cells, batch", unit: "right cells of the batch (share)", of: "batchRight", color: ink.muted, text: ":.4f", zero: true },
        { name: "solved, batch", unit: "solved puzzles of the batch", of: "batchSolved", color: ink.amber, text: ":d", zero: true },
      ] : []),
    ]),
    has(store) { return filled(store.halt); },
    figure(store) { return lanes(store, this.list(store)); },
    table(store) { return laneTable(this.list(store)); },
  },
  latents: {
    title: "Latent path", group: "Recursion", card: "memory-panel", tab: "tab-latents", samples: (store) => store.latent,
    has: (store) => store.box !== null,
    figure(store) {
      const { path: held } = store, steps = held.map(([t]) => t), now = store.frame.index;
      const last = Math.max(1, store.rows - 1);
      // From early (pale) to late (strong); the step shown is the large one.
      const path = (name, state, color, symbol) => {
        const place = { x: held.map(([, at]) => at[state]), y: held.map(([, at]) => at[state + 1]) };
        return [
          { type: "scatter", mode: "lines", ...place, line: { color, width: 1 }, opacity: 0.4, hoverinfo: "skip", showlegend: false },
          {
            type: "scatter", mode: "markers", name, ...place, customdata: steps,
            marker: { color, symbol, size: steps.map((t) => (t === now ? 14 : 6)), opacity: steps.map((t) => (t === now ? 1 : 0.2 + (0.8 * t) / last)), line: { color: ink.card, width: 0.5 } },
            hovertemplate: `${name} · step %{customdata}<br>%{x:.5g}, %{y:.5g}<extra></extra>`,
          },
        ];
      };
      return {
        data: [...path("z_L", 2, ink.amber, "circle"), ...path("z_H", 0, ink.accent, "square")],
        layout: layoutOf(store, axis("first singular direction of the output head"), axis("second singular direction", { scaleanchor: "x" }), { hovermode: "closest" }),
      };
    },
    table: () => ({
      columns: ["step", "s", "h", "l", ...["z_H x", "z_H y", "z_L x", "z_L y"].map((name) => `${name} (mean over cells)`)],
      from: 0,
      lines: (part, t) => [[t, ...addressOf(part, t), ...part.latent.at(t)]],
    }),
  },
  timeline: {
    title: "Timeline lanes", group: "Recursion", card: "deck",
    has: (store) => store.rows > 1,
    list: (store) => lanesOf(store, [
      ...[...(store.notes ?? [])].map(([name, { colour }]) => ({ name: plain(name), unit: name, find: (part) => part.notes.get(name)?.column, color: colour, text: ":.5g", dots: true })),
      { name: "cells changed", unit: "cells changed", of: "changed", color: ink.changes, text: ":d", bars: true },
      { name: "P(halt)", unit: "halting probability (0 to 1)", of: "halt", color: ink.green, text: ":.5f", range: [-0.04, 1.04] },
      { name: "residual", unit: "residual (Frobenius norm)", of: "residual", color: ink.muted, text: ":.5g", log: true },
    ]),
    figure(store) { return lanes(store, this.list(store)); },
    table(store) { return laneTable(this.list(store)); },
  },
  effect: {
    title: "What compression does to the answer", group: "Recursion", card: "fidelity-panel",
    list: (store) => lanesOf(store, [
      { name: "KL, nats per cell", of: "kl", color: ink.red, text: ":.5g", dots: true },
      { name: "cells flipped", of: "flips", color: ink.changes, text: ":d", bars: true },
      { name: "exp(−KL)", of: "functionalAll", color: ink.accent, text: ":.5f", dots: true },
      { name: "gradient cosine", of: "gradientAll", color: ink.green, text: ":.5f", dots: true },
    ]),
    has(store) { return this.list(store).length > 0; },
    figure(store) { return lanes(store, this.list(store)); },
    table(store) { return laneTable(this.list(store).map((lane) => ({ ...lane, unit: `all sites compressed: ${lane.name.replace("−", "-")}` }))); },
  },
};
