// Small pictures of puzzles: Sudoku, mazes, ARC grids, from their cells. Thumbnails, demonstrations and the board that is edited.

const arcColours = { list: [] }; // ARC's ten colours as [name, colour], told by the server

/** The colour of a maze's or ARC's cell by its value; null for a blank one. */
function cellColour(domain, value) {
  if (domain === "maze") return { 0: ink.muted, 2: ink.green, 3: ink.amber, 4: ink.changes }[value] ?? null;
  if (domain === "arc") return arcColours.list[value]?.[1] ?? (value === 10 ? ink.line : null);
  return null;
}

/**
 * Draw cells on a canvas of `width` CSS pixels; the height follows. picture: { domain, height, width, cells, blocks, symbols }.
 * selected: index of a cell; issues: Set of indices.
 */
function drawCells(canvas, picture, width, { selected = null, issues = null, most = width } = {}) {
  const { domain, height: rows, width: columns, cells } = picture;
  const size = Math.max(1, Math.floor(Math.min(width / columns, most / rows) * 100) / 100);
  const w = Math.round(size * columns), h = Math.round(size * rows);
  const ratio = window.devicePixelRatio || 1;
  canvas.style.width = `${w}px`;
  canvas.style.height = `${h}px`;
  if (canvas.width !== Math.round(w * ratio)) canvas.width = Math.round(w * ratio);
  if (canvas.height !== Math.round(h * ratio)) canvas.height = Math.round(h * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = ink.card;
  context.fillRect(0, 0, w, h);
  const sudoku = domain === "sudoku";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.font = `600 ${Math.max(5, size * 0.56)}px ${ink.font}`;
  for (let i = 0; i < cells.length; i++) {
    const x = (i % columns) * size, y = Math.floor(i / columns) * size, value = cells[i];
    const colour = cellColour(domain, value);
    if (colour) { context.fillStyle = colour; context.fillRect(x, y, size + 0.3, size + 0.3); }
    if (sudoku && value) { context.fillStyle = issues?.has(i) ? ink.red : ink.text; context.fillText(picture.symbols?.[value] ?? value, x + size / 2, y + size / 2 + 0.5); }
    if (issues?.has(i)) { context.strokeStyle = ink.red; context.lineWidth = 1.5; context.strokeRect(x + 1.5, y + 1.5, size - 3, size - 3); }
  }
  const line = (x1, y1, x2, y2, strong) => {
    context.strokeStyle = strong ? ink.muted : ink.line;
    context.lineWidth = strong ? 1.2 : 0.6;
    context.beginPath();
    context.moveTo(x1, y1);
    context.lineTo(x2, y2);
    context.stroke();
  };
  const [boxRows, boxColumns] = picture.blocks ?? [rows, columns];
  if (sudoku || (domain === "arc" && size > 5)) {
    for (let row = 0; row <= rows; row++) line(0, row * size, w, row * size, sudoku && row % boxRows === 0);
    for (let column = 0; column <= columns; column++) line(column * size, 0, column * size, h, sudoku && column % boxColumns === 0);
  }
  if (selected !== null) {
    context.strokeStyle = ink.accent;
    context.lineWidth = 2.5;
    context.strokeRect((selected % columns) * size + 1.2, Math.floor(selected / columns) * size + 1.2, size - 2.4, size - 2.4);
  }
  return size;
}

/** Cells as links write them: a letter for each value, with how often it comes in a row. */
function lineOfCells(domain, height, width, cells, extras = []) {
  let runs = "";
  for (let start = 0, i = 1; i <= cells.length; i++) {
    if (i < cells.length && cells[i] === cells[start]) continue;
    runs += String.fromCharCode(97 + cells[start]) + (i - start > 1 ? i - start : "");
    start = i;
  }
  return [domain, `${height}x${width}`, runs, ...extras].join("~");
}
