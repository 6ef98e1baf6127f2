// The data of a plot as a table, and tables as CSV. A table is { columns, rows }, or of steps { columns, from, lines(part, t) }, where a
// part is a store that holds step t as it is: a long run's table is written piece by piece.

/** Supervision step, H cycle and L cycle of a step; the z_H update is "H", step 0 has none. */
function addressOf(store, t) {
  if (!(t > 0) || !store.model.H_cycles) return [null, null, null];
  const { s, begins } = store.supervisionAt(t), cycles = store.cyclesOf(s);
  let place = t - begins, h = 0;
  while (place > cycles[h] + 1) place -= cycles[h++] + 1;
  return [s, h + 1, place > cycles[h] ? "H" : place];
}

/** A line per step; `named` are a column's name and how to find it in a part. */
const stepTable = (named) => ({
  columns: ["step", "s", "h", "l", ...named.map(([name]) => name)],
  from: 1,
  lines: (part, t) => [[t, ...addressOf(part, t), ...named.map(([, find]) => find(part)?.at(t))]],
});

const siteTable = (store, name, unit) => stepTable(store.sites.map((site, i) => [`${site.name} ${unit}`, (part) => part[name][i]]));

/** All sites at all steps, one line each. */
const everything = (store) => ({
  columns: ["step", "s", "h", "l", "site", "fidelity (share of energy)", "centred (share of energy without the mean)", "functional (exp(-KL in nats per cell))", "rank (directions)", "action", "turn (degrees)"],
  from: 1,
  lines: (part, t) => store.sites.map((site, i) => [
    t, ...addressOf(part, t), site.name, ...["fidelity", "centred", "functional", "rank"].map((name) => part[name][i].at(t)), ACTIONS[part.action[i].at(t)], part.turn[i].at(t),
  ]),
});

const csvField = (value) => {
  if (value === null || value === undefined) return "";
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

/** RFC 4180: CRLF, quotes where needed; numbers with all their digits, nothing where there is no figure. */
const csvLines = (lines) => new Blob([lines.map((line) => `${line.map(csvField).join(",")}\r\n`).join("")]);

/** A table of a still store as the parts of a file; `tell(share)` hears how much is done while older steps are fetched. */
async function csvParts(shot, table, tell) {
  const parts = [csvLines([table.columns])];
  if (table.rows) return [...parts, csvLines(table.rows)];
  const write = (part, from, to) => {
    const lines = [];
    for (let t = from; t < to; t++) lines.push(...table.lines(part, t));
    parts.push(csvLines(lines));
  };
  await olderSteps(shot, table.from, shot.whole, (part) => { write(part, part.start, part.rows); tell(part.rows / shot.rows); }, table.site);
  write(shot, Math.max(table.from, shot.whole), shot.rows);
  return parts;
}
