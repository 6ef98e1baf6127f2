// A small board as a heat map: one value per cell, the prefix tokens as a strip above it.

/** Whether a canvas shows these very things already, in this theme and size; from now on it is taken to. */
function showsAlready(canvas, ...things) {
  const now = [...things, ink.card, window.devicePixelRatio, ...(sizes.get(canvas) ?? [])], before = canvas.shown;
  canvas.shown = now;
  return Boolean(before) && before.length === now.length && now.every((thing, i) => thing === before[i]);
}

const STRIP = 5, STRIP_GAP = 3;

/** Where such a map lies within a box: cells as squares, as large as they go, centred. */
function boardPlace(store, prefix, x, y, width, height) {
  const { height: rows, width: columns } = store.puzzle, above = prefix ? STRIP + STRIP_GAP : 0;
  const side = Math.max(1, Math.floor(Math.min(width / columns, (height - above) / rows)));
  const left = Math.round(x + (width - side * columns) / 2), top = Math.round(y + (height - above - side * rows) / 2) + above;
  return { left, top, side, rows, columns, prefix, strip: prefix ? top - above : null };
}

/** Draw it: `colour(value)` gives [r, g, b], null for a value that is none. */
function drawBoard(context, place, cells, prefix, colour) {
  const { left, top, side, columns } = place, gap = side > 6 ? 1 : 0;
  cells.forEach((value, i) => {
    const shade = colour(value);
    context.fillStyle = shade ? rgb(shade) : ink.sunken;
    context.fillRect(left + (i % columns) * side, top + Math.floor(i / columns) * side, side - gap, side - gap);
  });
  const wide = (side * columns) / Math.max(1, prefix.length);
  prefix.forEach((value, p) => {
    const shade = colour(value);
    context.fillStyle = shade ? rgb(shade) : ink.sunken;
    context.fillRect(left + p * wide, place.strip, Math.max(1, wide - 1), STRIP);
  });
}

/** What the cells of the puzzle show, small, so that one finds one's way. */
function drawSymbols(context, place, store, cells, colour) {
  const { left, top, side, columns } = place;
  if (side < 11) return;
  const { puzzle, frame } = store, maze = puzzle.domain === "maze", answered = hasAnswer(frame);
  cells.forEach((value, i) => {
    const shown = puzzle.given[i] || !answered ? puzzle.cells[i] : frame.answer[i];
    const text = maze ? { 0: "▪", 2: "S", 3: "G" }[puzzle.cells[i]] ?? (shown === 4 ? "•" : "") : shown > 0 ? puzzle.symbols[shown] ?? "?" : "";
    if (!text) return;
    const shade = colour(value);
    context.globalAlpha = puzzle.given[i] ? 0.9 : 0.65;
    label(context, text, left + (i % columns + 0.5) * side - 0.5, top + (Math.floor(i / columns) + 0.5) * side,
      { align: "center", size: Math.max(8, Math.round(side * 0.46)), weight: puzzle.given[i] ? 700 : 400, colour: shade ? inkOn(shade) : ink.muted });
  });
  context.globalAlpha = 1;
}

/** A ring around a cell. */
function ringCell(context, place, cell, colour, width = 2) {
  const { left, top, side, columns } = place;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.strokeRect(left + (cell % columns) * side, top + Math.floor(cell / columns) * side, side - 1, side - 1);
}

/** What lies under a point: {cell}, {prefix}, or null. */
function underPoint(place, x, y) {
  if (!place) return null;
  const { left, top, side, rows, columns } = place;
  const column = Math.floor((x - left) / side), row = Math.floor((y - top) / side);
  if (row >= 0 && row < rows && column >= 0 && column < columns) return { cell: row * columns + column };
  if (place.strip !== null && y >= place.strip - 2 && y < place.strip + STRIP + 2 && column >= 0 && column < columns) {
    return { prefix: Math.floor(((x - left) / (side * columns)) * place.prefix) };
  }
  return null;
}

/** Blue below zero, amber above, the card's own colour at it; `share` in [-1, 1]. */
function diverging(share) {
  const at = Math.min(1, Math.abs(share)) ** 0.7, dark = document.documentElement.dataset.theme === "dark";
  const [from, to] = [dark ? [34, 43, 53] : [238, 241, 245], share < 0 ? (dark ? [78, 161, 255] : [20, 100, 192]) : (dark ? [255, 177, 74] : [196, 98, 16])];
  return from.map((value, i) => Math.round(value + at * (to[i] - value)));
}
