// The batch page: choose puzzles, run them, and read the table row by row while it fills.

const FOLLOW_MS = 400; // between looks at a job
const ROWS_SHOWN = 400; // in the table at once; sorting, filters and the CSV work on all
const COLUMNS_OF_ROWS = [
  // key, title, what it says, whether larger comes first when it is sorted by
  ["id", "puzzle", "", false], ["split", "split", "", false], ["difficulty", "difficulty", "", false], ["rating", "rating", "The source's own number.", false],
  ["outcome", "outcome", "", false],
  ["steps", "steps", "Recursion steps until the answer was right for good.", false],
  ["supervision", "s", "The same in supervision steps.", false],
  ["halts", "halts", "The first supervision step at whose end q_halt is above 0.", false],
  ["right", "right cells", "Of the cells that were not given, at the end.", true],
  ["fidelity", "fidelity", "Energy kept, mean over steps and sites.", false], ["resets", "resets", "SVD resets of all sites.", true],
  ["seconds", "seconds", "", true],
];
const NUMBERS = new Set(["rating", "steps", "supervision", "halts", "right", "fidelity", "resets", "seconds"]);

const batch = {
  server: null,
  model: "",
  rows: [],
  job: null,
  asked: 0,
  sorted: null, // [key, down]; null: as they were run

  async start(server) {
    this.server = server;
    beginPage();
    for (const [key, title, words] of COLUMNS_OF_ROWS) {
      const head = make("th", { scope: "col", cls: `of-${key}${NUMBERS.has(key) ? " number" : ""}` }, $("batch-heads"));
      const button = make("button", { type: "button", text: title, "data-key": key }, head);
      if (words) button.setAttribute("data-tip", words);
    }
    $("batch-heads").addEventListener("click", (event) => { const key = event.target.closest("button")?.dataset.key; if (key) this.sort(key); });
    $("batch-model").addEventListener("change", () => this.choose($("batch-model").value, ""));
    $("batch-source").addEventListener("change", () => this.choose(this.model, $("batch-source").value));
    $("batch-run").addEventListener("click", () => this.run());
    $("batch-stop").addEventListener("click", () => this.stop());
    $("batch-save").addEventListener("click", () => this.save());
    $("batch-find").addEventListener("input", () => this.tell());
    for (const input of document.querySelectorAll("#batch-outcomes input")) input.addEventListener("change", () => this.tell());
    $("batch-theme").addEventListener("click", () => turnTheme(() => this.applyTheme()));
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select")) return;
      if (event.key.toLowerCase() === "d") turnTheme(() => this.applyTheme());
    });
    followSystem(() => this.applyTheme());
    this.applyTheme();
    const query = new URLSearchParams(location.search);
    if (/^\d{1,5}$/.test(query.get("count") ?? "")) $("batch-count").value = query.get("count");
    if (query.get("tracker") === "0") $("batch-tracker").checked = false;
    await this.choose(query.get("model") ?? "", query.get("source") ?? "");
  },

  async ask(ask, values) {
    const reply = await fromServer(() => this.server.ask_batch({ ask, ...values }));
    if (reply.error) { this.problem(reply.error); return null; }
    return reply;
  },

  /** Another model, or other puzzles: what there is to choose from. */
  async choose(model, source) {
    const asked = ++this.asked;
    this.problem("");
    let reply = await this.ask("opening", { model, source });
    if (!reply && (model || source) && asked === this.asked) { // a link may name what is not here
      const said = $("batch-problem").textContent;
      reply = await this.ask("opening", {});
      this.problem(said);
    }
    if (!reply || asked !== this.asked) return;
    this.model = reply.model;
    this.fill("batch-model", reply.models, reply.model);
    this.fill("batch-source", reply.sources, reply.source);
    this.fill("batch-split", [["", "all splits"], ...reply.splits.filter(Boolean).map((one) => [one, one])], "");
    this.fill("batch-band", [["", "all difficulties"], ...reply.bands.map((one) => [one, one])], "");
    hide($("batch-split"), reply.splits.filter(Boolean).length === 0);
    hide($("batch-band"), reply.bands.length === 0);
    $("batch-source").setAttribute("data-tip", `${reply.title}: ${reply.count.toLocaleString("en")} puzzles`);
    for (const link of document.querySelectorAll("[data-debugger]")) link.href = `./?model=${encodeURIComponent(reply.model)}`;
    document.querySelector("[data-evaluation]").href = `evaluation?model=${encodeURIComponent(reply.model)}`;
    this.keepAddress();
    if (reply.job && !this.job) { this.rows = []; this.follow(reply.job); } else this.tell();
  },

  fill(id, choices, chosen) {
    $(id).replaceChildren(...choices.map(([value, text]) => make("option", { value, text })));
    $(id).value = chosen;
  },

  keepAddress() {
    const query = new URLSearchParams({ model: this.model, source: $("batch-source").value, count: $("batch-count").value, tracker: $("batch-tracker").checked ? "1" : "0" });
    history.replaceState(history.state, "", `${location.pathname}?${query}`);
  },

  async run() {
    const count = $("batch-count");
    if (!count.checkValidity()) { count.reportValidity(); return; }
    this.problem("");
    this.keepAddress();
    const reply = await this.ask("start", {
      model: this.model, source: $("batch-source").value, split: $("batch-split").value, band: $("batch-band").value,
      count: Number(count.value), fails: $("batch-fails").checked, tracker: $("batch-tracker").checked,
    });
    if (!reply) return;
    this.rows = [];
    this.ranOn = this.model;
    this.follow(reply.job);
  },

  async stop() {
    if (!this.job) return;
    $("batch-stop").disabled = true;
    await this.ask("follow", { job: this.job, since: this.rows.length, stop: true });
  },

  async follow(job) {
    this.job = job;
    hide($("batch-stop"), false);
    $("batch-stop").disabled = false;
    hide($("batch-run"), true);
    let reply = null;
    for (;;) {
      reply = await this.ask("follow", { job, since: this.rows.length });
      if (!reply || this.job !== job) break;
      this.ranOn = reply.model;
      this.rows.push(...reply.rows);
      this.progress(reply);
      this.tell();
      if (reply.state !== "running" && this.rows.length >= reply.done) break;
      if (reply.state === "running") await new Promise((after) => { setTimeout(after, FOLLOW_MS); });
    }
    if (this.job !== job) return;
    this.job = null;
    hide($("batch-stop"), true);
    hide($("batch-run"), false);
    if (reply?.state === "error") this.problem(reply.problem);
    if (reply?.state === "stopped") this.problem(`stopped after ${reply.done} of ${reply.total} puzzles`, false);
    this.tell();
  },

  progress({ state, done, total, left, seconds }) {
    const bar = $("batch-progress"), share = total ? done / total : 0;
    bar.querySelector("i").style.width = `${100 * share}%`;
    const time = Number.isFinite(left) ? ` · ${left >= 90 ? `${Math.round(left / 60)} min` : `${Math.max(1, Math.round(left))} s`} left` : state === "running" ? " · the first one is under way" : ` · ${seconds.toFixed(1)} s`;
    say(bar.querySelector("span"), `${done} of ${total}${time}`);
    mark(bar, "aria-valuenow", Math.round(100 * share));
  },

  problem(text, bad = true) {
    const node = $("batch-problem");
    say(node, text);
    node.classList.toggle("bad", bad);
    hide(node, !text);
  },

  sort(key) {
    const down = COLUMNS_OF_ROWS.find(([one]) => one === key)[3];
    const [now, turned] = this.sorted ?? [];
    this.sorted = now !== key ? [key, down] : turned === down ? [key, !down] : null; // a third click: as they were run
    this.tell();
  },

  /** The rows that the filters leave, in order; rows without a figure come last either way. */
  shown() {
    const outcome = document.querySelector("#batch-outcomes input:checked").value, text = $("batch-find").value.toLowerCase();
    const rows = this.rows.filter((row) => (!outcome || row.outcome === outcome || (outcome === "wrong" && row.outcome === "unknown")) && (!text || row.id.toLowerCase().includes(text)));
    if (!this.sorted) return rows;
    const [key, down] = this.sorted;
    const order = (a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
    return rows.slice().sort((a, b) => {
      const [x, y] = [a[key], b[key]];
      if (x === null || x === "" || y === null || y === "") return (x === null || x === "") - (y === null || y === "");
      return down ? order(y, x) : order(x, y);
    });
  },

  /** Columns that no row has a figure for are not shown: few sources have splits or ratings. */
  tellColumns() {
    for (const key of ["split", "difficulty", "rating", "fidelity", "resets"]) {
      const used = this.rows.some((row) => row[key] !== null && row[key] !== "");
      $("batch-page").classList.toggle(`no-${key}`, !used);
    }
  },

  tell() {
    const { rows } = this;
    this.tellColumns();
    mark($("batch-page"), "data-state", rows.length || this.job ? "rows" : "empty");
    $("batch-save").disabled = !rows.length;
    for (const button of $("batch-heads").querySelectorAll("button")) {
      const [key, down] = this.sorted ?? [];
      mark(button.parentElement, "aria-sort", button.dataset.key !== key ? "none" : down ? "descending" : "ascending");
    }
    this.tellHead();
    const shown = this.shown(), body = $("batch-rows");
    const wanted = shown.slice(0, ROWS_SHOWN);
    // Rows do not change once they are there: those that stand where they should are left alone.
    wanted.forEach((row, place) => {
      const there = body.children[place];
      if (there?.row === row) return;
      const made = this.row(row);
      if (there) there.replaceWith(made);
      else body.append(made);
    });
    while (body.children.length > wanted.length) body.lastElementChild.remove();
    say($("batch-more"), shown.length > wanted.length ? `${wanted.length} of ${shown.length.toLocaleString("en")} rows are shown: sort, filter, or save all as CSV` : rows.length && !shown.length ? "no row is left by these filters" : "");
  },

  row(row) {
    const node = make("tr", { cls: row.outcome.replace(" ", "-") });
    node.row = row;
    for (const [key] of COLUMNS_OF_ROWS) {
      const cell = make("td", { cls: `of-${key}${NUMBERS.has(key) ? " number" : ""}` }, node);
      if (key === "id" && row.puzzle) {
        const query = new URLSearchParams({ model: this.ranOn ?? this.model });
        if (row.puzzle.startsWith("cells:")) query.set("cells", row.puzzle.slice(6));
        else query.set("puzzle", row.puzzle);
        make("a", { text: row.id, href: `./?${query}`, "data-tip": "Open in the debugger." }, cell);
      } else if (key === "outcome") {
        make("span", { cls: `pill ${row.outcome.replace(" ", "-")}`, text: row.outcome }, cell);
        if (row.problem) make("small", { text: row.problem, "data-tip": row.problem }, cell);
      } else {
        cell.textContent = key === "right" ? (row.total ? `${row.right} / ${row.total}` : NONE) : key === "fidelity" ? fidelityText(row.fidelity ?? NaN) : key === "seconds" ? fixed(row.seconds ?? NaN, 2) : row[key] ?? NONE;
      }
    }
    return node;
  },

  tellHead() {
    const ran = this.rows.filter((row) => row.outcome === "solved" || row.outcome === "wrong");
    const solved = ran.filter((row) => row.outcome === "solved");
    say($("batch-solved"), ran.length ? percent(solved.length / ran.length) : NONE);
    say($("batch-solved-of"), ran.length ? `${solved.length} of ${ran.length}` : "");
    const steps = solved.map((row) => row.steps).sort((a, b) => a - b);
    say($("batch-steps"), steps.length ? `${steps[Math.floor((steps.length - 1) / 2)]}` : NONE);
    const mean = (name) => { const some = this.rows.map((row) => row[name]).filter((value) => value !== null); return some.length ? some.reduce((sum, value) => sum + value, 0) / some.length : NaN; };
    say($("batch-fidelity"), fidelityText(mean("fidelity")));
    say($("batch-resets"), fixed(mean("resets"), 1));
  },

  /** All rows with all their figures, as `python -m laser_studio solve --csv` writes them. */
  save() {
    const columns = Object.keys(this.rows[0]).filter((name) => name !== "puzzle");
    const table = csvLines([columns, ...this.rows.map((row) => columns.map((name) => row[name]))]);
    download(`laser-studio_${(this.ranOn ?? this.model).replace(/[^\w.+-]+/g, "-")}_batch.csv`, "text/csv", [table]);
  },

  applyTheme() {
    document.body.classList.toggle("dark", document.documentElement.dataset.theme === "dark");
    readInk();
  },
};

window.laserStudio = { ready: true, batch };
styleLast();
batch.start(server);
