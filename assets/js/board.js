// The board: one element per cell, made once per puzzle and then only touched where something changed.

const board = {
  cells: [],
  build(store) {
    const { height, width, blocks, given, symbols, cells, domain } = store.puzzle;
    const node = $("board");
    node.replaceChildren();
    node.className = domain;
    node.style.setProperty("--w", width);
    node.style.setProperty("--h", height);
    this.cells = cells.map((value, i) => {
      const cell = make("div", { cls: "cell" }, node);
      if (given[i]) cell.classList.add("given");
      if (domain === "sudoku") make("span", { text: given[i] ? symbols[value] : "" }, cell);
      return cell;
    });
    this.window = null;
    if (blocks) node.append(boxLines(height, width, blocks));
    for (const [row, column, message] of store.puzzle.issues) {
      const cell = this.cells[row * width + column];
      cell?.classList.add("issue");
      cell?.setAttribute("data-tip", message);
    }
  },
  draw(store) {
    const { frame, puzzle } = store;
    const changed = new Set(frame.changed), wrong = new Set(frame.wrong ?? []);
    const recent = new Set(store.update?.cells ?? []); // by the last z_H update: the answer rests during the L cycles after it
    const sudoku = puzzle.domain === "sudoku";
    const answered = hasAnswer(frame);
    this.cells.forEach((cell, i) => {
      const given = puzzle.given[i];
      const value = frame.answer[i];
      const blank = !given && (!answered || value < 0 || (sudoku && value === 0));
      if (sudoku) say(cell.firstChild, given ? puzzle.symbols[puzzle.cells[i]] : blank ? "" : puzzle.symbols[value] ?? "?");
      else if (puzzle.domain === "arc") arcCell(cell, answered ? value : puzzle.cells[i], puzzle.palette);
      else cell.dataset.kind = MAZE_KINDS[given || !answered ? puzzle.cells[i] : value] ?? "unknown";
      dress(cell, "--p", given || !answered ? (puzzle.domain === "arc" ? "1" : "0") : frame.confidence[i].toFixed(2));
      cell.classList.toggle("changed", changed.has(i));
      cell.classList.toggle("recent", recent.has(i) && !changed.has(i));
      cell.classList.toggle("wrong", answered && wrong.has(i) && !blank);
    });
    if (puzzle.domain === "arc") this.fit(puzzle, answered ? frame.answer : puzzle.cells);
    say($("board-step"), frame.index > store.length ? `step ${frame.index} · ${frame.index - store.length} past ${store.length}` : `step ${frame.index} / ${store.length}`);
    say($("board-batch"), frame.batch > 1 ? `${frame.batch_solved} of ${frame.batch} solved ·` : "");
    const score = `${frame.right} of ${frame.total} right`;
    say($("board-right"), !answered ? `${frame.total} cells to fill` : frame.solved ? `solved · ${score}` : score);
    $("board-right").classList.toggle("green", frame.solved === true);
    const stops = answered && frame.q_halt > 0;
    say($("board-halt"), answered ? `q_halt ${fixed(frame.q_halt, 2)} · ${stops ? "would stop" : "goes on"}` : "no answer before the first z_H");
    $("board-halt").classList.toggle("green", stops);
    const known = frame.solved === null ? "" : frame.solved ? ", solved" : ", not solved";
    mark(
      $("board"),
      "aria-label",
      `${puzzle.domain} ${puzzle.height} by ${puzzle.width} at step ${frame.index}: ${frame.right} of ${frame.total} cells right${known}, `
        + `${changed.size} changed`,
    );
  },

  /** Show of an ARC board what is used of it: up to the end markers of the input and of the answer, rather than 30 × 30 cells. */
  fit({ width, cells }, answer) {
    let rows = 1, columns = 1;
    for (const values of [cells, answer]) {
      values.forEach((value, i) => {
        if (value < 0 || value > 10) return;
        rows = Math.max(rows, Math.floor(i / width) + 1);
        columns = Math.max(columns, (i % width) + 1);
      });
    }
    const wanted = `${rows} ${columns}`;
    if (wanted === this.window) return;
    this.window = wanted;
    $("board").style.setProperty("--w", columns);
    $("board").style.setProperty("--h", rows);
    this.cells.forEach((cell, i) => hide(cell, i % width >= columns || Math.floor(i / width) >= rows));
  },
};

/** One cell of an ARC board: a colour, the end marker (10), or outside the grid (11). */
function arcCell(cell, value, palette) {
  dress(cell, "--fill", palette[value]?.[1] ?? "var(--card)");
  cell.classList.toggle("end", value === 10);
}

/** The lines between boxes, drawn over the cells. */
function boxLines(height, width, [rows, columns]) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "boxes");
  const line = (x1, y1, x2, y2) => {
    const node = document.createElementNS(svg.namespaceURI, "line");
    Object.entries({ x1, y1, x2, y2 }).forEach(([name, value]) => node.setAttribute(name, value));
    svg.append(node);
  };
  for (let r = rows; r < height; r += rows) line(0, r, width, r);
  for (let c = columns; c < width; c += columns) line(c, 0, c, height);
  return svg;
}

const MAZE_KINDS = ["wall", "open", "start", "goal", "path"];
