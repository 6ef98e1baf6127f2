// The puzzle dialog: type, paste, upload or browse a puzzle, edit its cells, see what is wrong with it, and open a run on it.

const READ_MS = 220; // after the last key, before the server is asked
const MAX_FILE = 8 * 1024 * 1024;

/** What the server says to a question about puzzles; null with the reason said at `where`. */
async function askPuzzles(ask, values, where) {
  const reply = await fromServer(() => server.ask_puzzles({ ask, ...values }));
  if (where) say(where, reply.error ?? "");
  if (!reply.error) return reply;
  if (!where) notify(reply.error, { lasting: true });
  return null;
}

const ownPuzzle = {
  puzzle: null, // the reply shown: what is drawn, what is wrong with it, its id for a link
  cells: [],
  selected: 0,
  brush: null,
  asked: 0,
  opened: null, // id of the puzzle the page had when the dialog was opened last

  wire() {
    const board = $("mine-board");
    board.addEventListener("pointerdown", (event) => { board.setPointerCapture(event.pointerId); this.point(event); });
    board.addEventListener("pointermove", (event) => { if (event.buttons && this.brush !== null) this.point(event); });
    board.addEventListener("keydown", (event) => this.key(event));
    $("mine-palette").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.take(Number(button.dataset.value));
    });
    for (const id of ["mine-rows", "mine-columns"]) $(id).addEventListener("change", () => this.resize());
    $("mine-open").addEventListener("click", () => this.open());
  },

  /** Show what the server read. */
  show(reply, { keep = false } = {}) {
    this.puzzle = reply;
    if (!keep) { this.cells = reply.cells.slice(); this.selected = Math.max(0, this.cells.findIndex((value) => value === 0)); this.brush = null; }
    if (reply.palette) arcColours.list = reply.palette;
    const { domain, height, width } = reply;
    const kind = { sudoku: "Sudoku", maze: "maze", arc: "ARC grid" }[domain];
    say($("mine-title"), `${kind} ${height}×${width}${reply.task ? ` · ${reply.task.split("|||")[0]}` : reply.id ? ` · ${reply.id}` : ""}`);
    hide($("mine-size"), domain !== "arc");
    if (domain === "arc") { $("mine-rows").value = height; $("mine-columns").value = width; }
    this.buildPalette();
    this.tell();
    this.draw();
  },

  tell() {
    const reply = this.puzzle;
    const shows = reply.demonstrations?.length;
    say($("mine-says"), [reply.says ?? "", shows ? `${shows} demonstrations` : "", reply.image ?? ""].filter(Boolean).join(" · "));
    $("mine-issues").replaceChildren(...(reply.issues ?? []).slice(0, 6).map(([row, column, words]) => make("li", { text: `row ${row + 1}, column ${column + 1}: ${words}` })));
    demonstrations.fill($("mine-demonstrations"), reply.demonstrations ?? [], 40);
    say($("mine-misfit"), reply.misfit ?? "");
    const now = player.store?.model.name ?? "";
    const models = reply.misfit ? reply.takers : [now];
    $("mine-model").replaceChildren(...models.map((name) => make("option", { text: name, value: name })));
    hide($("mine-model-line"), !reply.misfit || !models.length);
    $("mine-open").disabled = !models.length || !reply.puzzle;
  },

  buildPalette() {
    const { domain, symbols } = this.puzzle;
    const names = { maze: ["wall #", "open", "start S", "goal G"], arc: arcColours.list.map(([name]) => name) }[domain] ?? symbols.map((sign) => sign || "blank");
    const bar = $("mine-palette");
    const wanted = `${domain}-${symbols.length}`;
    if (bar.dataset.of !== wanted) {
      bar.dataset.of = wanted;
      bar.replaceChildren(...names.map((name, value) => {
        const button = make("button", { type: "button", "data-value": value, title: name, "aria-label": name, "aria-pressed": "false" });
        if (domain === "sudoku") button.textContent = symbols[value] || "·";
        else make("i", { style: `background:${cellColour(domain, value) ?? "var(--card)"}` }, button);
        return button;
      }));
    }
    for (const button of bar.children) mark(button, "aria-pressed", Number(button.dataset.value) === this.brush);
  },

  draw() {
    if (!this.puzzle || !$("puzzles").open) return;
    const box = $("mine-board").parentElement;
    const issues = new Set((this.puzzle.issues ?? []).map(([row, column]) => row * this.puzzle.width + column));
    this.side = drawCells($("mine-board"), { ...this.puzzle, cells: this.cells }, box.clientWidth, { selected: this.selected, issues, most: box.clientHeight || box.clientWidth });
    const { width } = this.puzzle, value = this.cells[this.selected];
    mark($("mine-board"), "aria-label", `Board, row ${Math.floor(this.selected / width) + 1}, column ${(this.selected % width) + 1}: ${this.puzzle.symbols[value] || "blank"}. Arrows move, digits and letters set, Backspace clears.`);
  },

  point(event) {
    if (!this.puzzle) return;
    const box = $("mine-board").getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / this.side), row = Math.floor((event.clientY - box.top) / this.side);
    if (column < 0 || row < 0 || column >= this.puzzle.width || row >= this.puzzle.height) return;
    this.selected = row * this.puzzle.width + column;
    if (this.brush !== null) this.set(this.brush);
    else this.draw();
  },

  /** A value was chosen: Sudoku sets it where the mark is; a maze or a grid is painted with it from now on. */
  take(value) {
    if (this.puzzle.domain === "sudoku") { this.set(value); $("mine-board").focus(); return; }
    this.brush = this.brush === value ? null : value;
    this.buildPalette();
  },

  key(event) {
    if (!this.puzzle || event.ctrlKey || event.metaKey || event.altKey) return;
    const { width, height, domain, symbols } = this.puzzle;
    const row = Math.floor(this.selected / width), column = this.selected % width;
    const to = { ArrowRight: [row, column + 1], ArrowLeft: [row, column - 1], ArrowUp: [row - 1, column], ArrowDown: [row + 1, column] }[event.key];
    if (to) {
      event.preventDefault();
      this.selected = Math.min(height - 1, Math.max(0, to[0])) * width + Math.min(width - 1, Math.max(0, to[1]));
      this.draw();
      return;
    }
    const blank = domain === "maze" ? 1 : 0;
    let value = ["Backspace", "Delete", " ", "."].includes(event.key) || (event.key === "0" && domain === "sudoku") ? blank : -1;
    if (value < 0 && domain === "maze") value = ["#", " ", "s", "g"].indexOf(event.key.toLowerCase());
    if (value < 0 && domain !== "maze" && event.key.length === 1) value = symbols.indexOf(event.key.toUpperCase());
    if (value < 0 || (domain === "arc" && value > 9)) return;
    event.preventDefault();
    this.set(value);
  },

  set(value) {
    if (this.cells[this.selected] === value) { this.draw(); return; }
    // A maze has one start and one goal: a new one takes the place of the old one.
    if (this.puzzle.domain === "maze" && (value === 2 || value === 3)) this.cells = this.cells.map((old) => (old === value ? 1 : old));
    this.cells[this.selected] = value;
    this.changed();
  },

  resize() {
    const { width, height } = this.puzzle;
    const side = (id, old) => { const value = Number($(id).value); return Number.isInteger(value) && value >= 1 && value <= 30 ? value : old; };
    const rows = side("mine-rows", height), columns = side("mine-columns", width);
    this.cells = Array.from({ length: rows * columns }, (_, i) => {
      const row = Math.floor(i / columns), column = i % columns;
      return row < height && column < width ? this.cells[row * width + column] : 0;
    });
    this.selected = 0;
    this.puzzle = { ...this.puzzle, height: rows, width: columns };
    this.changed();
  },

  /** What the puzzle's line says beside its cells; an answer no longer holds once they are edited. */
  extras() {
    if (!this.puzzle.puzzle?.startsWith("cells:")) return this.puzzle.task ? [`t:${encodeURIComponent(this.puzzle.task)}`] : [];
    const line = this.puzzle.puzzle.slice(6);
    return line.split("~").slice(3).filter((part) => !part.startsWith("a:") && !part.startsWith("n:"));
  },

  changed() {
    this.draw();
    $("mine-open").disabled = true;
    const asked = ++this.asked;
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      const { domain, height, width } = this.puzzle;
      const line = lineOfCells(domain, height, width, this.cells, this.extras());
      const reply = await askPuzzles("read", { line, model: player.store?.model.name ?? "" }, $("mine-misfit"));
      if (asked !== this.asked || !reply) return;
      this.show(reply, { keep: true });
      typedPuzzle.told(reply, this.cells);
    }, READ_MS);
  },

  /** The puzzle that is open on the page. */
  async now() {
    const { store } = player;
    if (!store || watched.on(store)) return;
    const { puzzle } = store;
    let line = puzzle.id.startsWith("cells:") ? puzzle.id.slice(6) : "";
    if (!line) {
      const inside = puzzle.domain === "arc" ? arcGrid(puzzle) : puzzle;
      const extras = puzzle.task ? [`t:${encodeURIComponent(puzzle.task)}`] : [];
      line = lineOfCells(puzzle.domain, inside.height, inside.width, inside.cells, extras);
    }
    const asked = ++this.asked;
    const reply = await askPuzzles("read", { line, model: store.model.name }, $("typed-problem"));
    if (!reply || asked !== this.asked) return;
    // As long as it is not changed it is the puzzle of its set, whose answer is known.
    this.show(puzzle.id.startsWith("cells:") ? reply : { ...reply, id: puzzle.id, puzzle: puzzle.id, says: reply.says === "no answer is known" ? "" : reply.says });
    typedPuzzle.told(reply, this.cells);
  },

  open() {
    const { puzzle } = this;
    if (!puzzle?.puzzle || $("mine-open").disabled) return;
    $("puzzles").close();
    openWith({ model: puzzle.misfit ? $("mine-model").value : player.store?.model.name, puzzle: puzzle.puzzle });
  },
};

/** The grid of an ARC board: the box around its colours. */
function arcGrid({ width, cells }) {
  const used = cells.flatMap((value, i) => (value < 10 ? [i] : []));
  const rows = used.map((i) => Math.floor(i / width)), columns = used.map((i) => i % width);
  const [top, left] = [Math.min(...rows), Math.min(...columns)];
  const h = Math.max(...rows) - top + 1, w = Math.max(...columns) - left + 1;
  return { height: h, width: w, cells: Array.from({ length: h * w }, (_, i) => cells[(top + Math.floor(i / w)) * width + left + (i % w)]) };
}

const typedPuzzle = {
  wire() {
    $("typed-text").addEventListener("input", () => this.later());
    $("typed-text").addEventListener("paste", () => this.later());
    $("typed-kind").addEventListener("change", () => this.read());
    $("typed-now").addEventListener("click", () => ownPuzzle.now());
    $("typed-blank").addEventListener("click", () => this.blank());
  },
  later() { clearTimeout(this.timer); this.timer = setTimeout(() => this.read(), READ_MS); },
  async read() {
    clearTimeout(this.timer);
    const text = $("typed-text").value;
    if (!text.trim()) { say($("typed-problem"), ""); return; }
    const asked = ++ownPuzzle.asked;
    const reply = await askPuzzles("read", { text: text.slice(0, 1_000_001), kind: $("typed-kind").value, model: player.store?.model.name ?? "" }, $("typed-problem"));
    if (asked !== ownPuzzle.asked) return;
    $("mine-open").disabled = true;
    if (reply) ownPuzzle.show(reply);
  },
  /** The text follows the board that is edited. */
  told({ domain, symbols, width }, cells) {
    const signs = domain === "maze" ? ["#", " ", "S", "G", "o"] : symbols.map((sign) => sign || ".");
    const rows = [];
    for (let start = 0; start < cells.length; start += width) rows.push(cells.slice(start, start + width).map((value) => signs[value] ?? "?").join(""));
    $("typed-text").value = rows.join("\n");
    $("typed-kind").value = domain === "arc" ? "arc" : "";
    say($("typed-problem"), "");
  },
  async blank() {
    const { store } = player;
    if (!store) return;
    const { domain, width } = store.puzzle;
    const side = domain === "arc" ? Math.min(3, width) : width;
    let cells = Array.from({ length: side * side }, () => 0);
    if (domain === "maze") {
      cells = cells.map((_, i) => ([0, side - 1].includes(i % side) || [0, side - 1].includes(Math.floor(i / side)) ? 0 : 1));
      cells[side + 1] = 2;
      cells[(side - 2) * side + side - 2] = 3;
    }
    const extras = store.puzzle.task ? [`t:${encodeURIComponent(store.puzzle.task)}`] : [];
    const reply = await askPuzzles("read", { line: lineOfCells(domain, side, side, cells, extras), model: store.model.name }, $("typed-problem"));
    if (!reply) return;
    ownPuzzle.show(reply);
    typedPuzzle.told(reply, ownPuzzle.cells);
    $("mine-board").focus();
  },
};

const puzzleFiles = {
  wire() {
    const drop = $("file-drop"), input = $("file-input");
    input.addEventListener("change", () => { if (input.files.length) this.send(input.files[0]); input.value = ""; });
    for (const name of ["dragover", "dragleave", "drop"]) {
      drop.addEventListener(name, (event) => {
        event.preventDefault();
        drop.classList.toggle("over", name === "dragover");
        if (name === "drop" && event.dataTransfer.files.length) this.send(event.dataTransfer.files[0]);
      });
    }
  },
  async send(file) {
    const problem = $("file-problem");
    if (file.size > MAX_FILE) { say(problem, `${file.name} has ${bytes(file.size)}: at most 8 MiB are taken. Start the studio with --puzzles PATH for larger ones.`); return; }
    say(problem, `sending ${file.name} …`);
    const data = await new Promise((done) => {
      const reader = new FileReader();
      reader.onload = () => done(String(reader.result).split(",")[1] ?? "");
      reader.onerror = () => done(null);
      reader.readAsDataURL(file);
    });
    if (data === null) { say(problem, `${file.name} cannot be read by this browser`); return; }
    const reply = await askPuzzles("upload", { name: file.name.slice(0, 300), data, kind: $("typed-kind").value, model: player.store?.model.name ?? "" }, problem);
    if (!reply) return;
    puzzleBrowser.uploads.push([reply.source, reply.title]);
    puzzleTabs.show("tab-browse");
    await puzzleBrowser.open(reply.source);
  },
};

const puzzleBrowser = {
  uploads: [], // [source, title] of this page
  page: 0,
  asked: 0,
  model: null,
  wire() {
    $("browse-source").addEventListener("change", () => this.open($("browse-source").value));
    for (const id of ["browse-split", "browse-band", "browse-fails"]) $(id).addEventListener("change", () => { this.page = 0; this.load(); });
    $("browse-find").addEventListener("input", () => { clearTimeout(this.timer); this.timer = setTimeout(() => { this.page = 0; this.load(); }, READ_MS); });
    $("browse-back").addEventListener("click", () => { this.page -= 1; this.load(); });
    $("browse-on").addEventListener("click", () => { this.page += 1; this.load(); });
    $("browse-list").addEventListener("click", (event) => this.choose(event.target.closest("button")));
    $("browse-list").addEventListener("dblclick", () => ownPuzzle.open());
  },
  async begin() {
    const model = player.store?.model.name ?? "";
    if (this.model === model && $("browse-source").options.length) { if (!$("browse-list").childElementCount) this.load(); return; }
    await this.open($("browse-source").value);
  },
  /** Show a source; the list of them belongs to the model. */
  async open(source) {
    const model = player.store?.model.name ?? "";
    const reply = await askPuzzles("sources", { model }, $("browse-problem"));
    if (!reply) return;
    this.model = model;
    arcColours.list = reply.palette;
    const all = [...this.uploads, ...reply.sources];
    $("browse-source").replaceChildren(...all.map(([value, text]) => make("option", { value, text })));
    $("browse-source").value = all.some(([value]) => value === source) ? source : all[0][0];
    for (const id of ["browse-split", "browse-band"]) $(id).value = "";
    $("browse-find").value = "";
    this.page = 0;
    await this.load();
  },
  async load() {
    const asked = ++this.asked, wanted = { source: $("browse-source").value, model: this.model ?? "", split: $("browse-split").value, band: $("browse-band").value };
    mark($("browse-list"), "aria-busy", "true");
    const reply = await askPuzzles("browse", { ...wanted, find: $("browse-find").value, fails: $("browse-fails").checked, page: Math.max(0, this.page) }, $("browse-problem"));
    if (asked !== this.asked) return;
    mark($("browse-list"), "aria-busy", "false");
    if (!reply) { $("browse-list").replaceChildren(); say($("browse-count"), ""); return; }
    this.page = reply.page;
    this.fill($("browse-split"), "all splits", reply.splits.filter(Boolean), wanted.split);
    this.fill($("browse-band"), "all difficulties", reply.bands, wanted.band);
    const solved = reply.ran - reply.failed;
    const seen = reply.ran ? ` · ${reply.failed} known to fail${solved ? `, ${solved} solved` : ""}` : $("browse-fails").checked ? " · none was run yet: the batch page runs them" : "";
    say($("browse-count"), `${reply.found.toLocaleString("en")} of ${reply.count.toLocaleString("en")}${seen}`);
    say($("browse-page"), `page ${reply.page + 1} of ${reply.pages.toLocaleString("en")}`);
    $("browse-back").disabled = reply.page === 0;
    $("browse-on").disabled = reply.page + 1 >= reply.pages;
    $("puzzles-batch").href = `batch?${new URLSearchParams({ model: wanted.model, source: wanted.source })}`;
    this.items = reply.items;
    $("browse-list").replaceChildren(...reply.items.map((item, i) => this.item(item, i)));
  },
  fill(select, none, values, chosen) {
    const options = ["", ...values];
    if ([...select.options].map(({ value }) => value).join("\n") !== options.join("\n")) {
      select.replaceChildren(...options.map((value) => make("option", { value, text: value || none })));
    }
    select.value = options.includes(chosen) ? chosen : "";
    hide(select, !values.length);
  },
  item(item, place) {
    const button = make("button", { type: "button", role: "option", "data-place": place, "aria-selected": "false", cls: item.problem ? "bad" : item.misfit ? "misfit" : "" });
    const frame = make("span", { cls: "thumb" }, button);
    if (item.cells) drawCells(make("canvas", { "aria-hidden": "true" }, frame), item, 76, { most: 76 });
    else make("span", { cls: "note", text: "?" }, frame);
    const words = [item.band || (item.rating ?? ""), item.solved === true ? "solved" : item.solved === false ? "fails" : ""].filter((one) => one !== "");
    make("b", { text: item.id.replace(/^(train|test)\//, "").replace(/^generated:(\w+):/, "$1 #") }, button);
    make("small", { text: words.join(" · ") }, button);
    if (item.problem || item.misfit) button.setAttribute("data-tip", item.problem ?? item.misfit);
    return button;
  },
  async choose(button) {
    if (!button) return;
    const item = this.items[Number(button.dataset.place)];
    for (const other of $("browse-list").children) mark(other, "aria-selected", other === button);
    if (item.problem) { say($("browse-problem"), item.problem); return; }
    say($("browse-problem"), "");
    const asked = ++ownPuzzle.asked;
    ownPuzzle.show({ ...item, issues: [], says: item.solved === false ? "the model fails it" : item.solved ? "the model solves it" : "", label: item.id });
    if (!item.puzzle.startsWith("cells:")) return;
    const reply = await askPuzzles("read", { line: item.puzzle.slice(6), model: this.model ?? "" }, $("browse-problem"));
    if (reply && asked === ownPuzzle.asked) { ownPuzzle.show({ ...reply, id: item.id }); typedPuzzle.told(reply, ownPuzzle.cells); }
  },
};

const puzzleTabs = {
  open: "tab-typed",
  wire() {
    for (const tab of $("puzzles-tabs").children) tab.addEventListener("click", () => this.show(tab.id));
    this.show(this.open);
  },
  show(id) {
    this.open = id;
    for (const tab of $("puzzles-tabs").children) {
      mark(tab, "aria-selected", tab.id === id);
      hide(document.getElementById(tab.getAttribute("aria-controls")), tab.id !== id);
    }
    if (id === "tab-browse" && $("puzzles").open) puzzleBrowser.begin();
  },
};

/** The demonstrations of an ARC task under the board. */
const demonstrations = {
  build(puzzle) {
    const some = puzzle.demonstrations ?? [];
    hide($("demonstrations"), puzzle.domain !== "arc");
    if (puzzle.domain !== "arc") return;
    arcColours.list = puzzle.palette;
    say($("demonstrations-says"), [puzzle.task ? `task ${puzzle.task.split("|||")[0]}` : "no task is told", puzzle.image, `${some.length} demonstrations`].filter(Boolean).join(" · "));
    this.pairs = some;
    this.draw();
  },
  draw() {
    this.fill($("demonstrations-list"), this.pairs ?? [], 52);
  },
  fill(list, pairs, size) {
    if (list.pairs === pairs && list.theme === document.documentElement.dataset.theme) return;
    Object.assign(list, { pairs, theme: document.documentElement.dataset.theme });
    list.replaceChildren(...pairs.map((pair, i) => {
      const node = make("div", { role: "listitem", "aria-label": `demonstration ${i + 1}: ${pair[0][0]}×${pair[0][1]} to ${pair[1][0]}×${pair[1][1]}` });
      for (const [side, [height, width, cells]] of pair.entries()) {
        if (side) make("span", { text: "→", "aria-hidden": "true" }, node);
        drawCells(make("canvas", {}, node), { domain: "arc", height, width, cells }, size * 1.25, { most: size });
      }
      return node;
    }));
  },
};

parts.push({
  wire() {
    document.body.append($("puzzles"));
    for (const part of [ownPuzzle, typedPuzzle, puzzleFiles, puzzleBrowser, puzzleTabs]) part.wire();
    const open = () => this.open();
    $("own-puzzle").addEventListener("click", open);
    $("own-puzzle").setAttribute("data-tip", "A puzzle of your own: type, paste, upload, browse or edit one (E)");
    $("own-puzzle").setAttribute("aria-label", "A puzzle of your own");
    $("puzzles-close").addEventListener("click", () => $("puzzles").close());
    $("puzzles").addEventListener("click", (event) => { if (event.target === $("puzzles")) $("puzzles").close(); });
    new ResizeObserver(() => ownPuzzle.draw()).observe($("mine-board").parentElement);
    commands.add({ id: "puzzle-open", title: "a puzzle of your own: type, paste, upload, puzzleBrowser, edit", keys: ["e"], group: "More", when: (store) => !watched.on(store), run: open });
    const toBatch = () => { location.href = `batch?${new URLSearchParams({ model: player.store.model.name })}`; };
    commands.add({ id: "batch-open", title: "many puzzles at once: the batch page", when: (store) => !watched.on(store), run: toBatch });
    onResize.push(() => { if ($("puzzles").open) ownPuzzle.draw(); });
  },
  open() {
    const { store } = player;
    if (!store || watched.on(store) || $("puzzles").open) return;
    $("puzzles").showModal();
    if (ownPuzzle.opened !== store.puzzle.id) { ownPuzzle.opened = store.puzzle.id; ownPuzzle.now(); } else ownPuzzle.draw();
    if (puzzleTabs.open === "tab-browse") puzzleBrowser.begin();
    else if (puzzleTabs.open === "tab-typed") $("typed-text").focus();
  },
  build(store) {
    demonstrations.build(store.puzzle);
    $("own-puzzle").toggleAttribute("data-off", watched.on(store));
  },
});
