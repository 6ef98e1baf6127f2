// Branches: the list of this page's runs, and the form that makes another one from the step shown.

const branches = {
  cell: null, // clicked last on the board, for edits
  rows: new Map(), // of the list, by the run's id

  /** What the newest reply tells of them; null where nothing was branched yet. */
  of(store) { return store.reply?.branches ?? null; },
  possible(store) { return Boolean(store) && !watched.on(store); },

  wire() {
    $("branch-new").addEventListener("click", () => this.show(true));
    $("branch-cancel").addEventListener("click", () => this.show(false));
    for (const id of ["branch-kind", "branch-change"]) $(id).addEventListener("change", () => this.dressForm());
    $("branch-form").addEventListener("submit", (event) => { event.preventDefault(); this.make(); });
    $("branch-form").addEventListener("keydown", (event) => { if (event.key === "Escape") this.show(false); });
    $("board").addEventListener("click", (event) => {
      const cell = event.target instanceof Element ? event.target.closest(".cell") : null;
      if (cell && player.store) this.choose(board.cells.indexOf(cell));
    });
    const when = (store) => this.possible(store);
    commands.add({ id: "branch-new", title: "new branch here: change something and go on", keys: ["Shift+b"], group: "Branching", when, run: () => {
      $("tab-branches").click();
      this.show(true);
    } });
    commands.add({ id: "branch-list", title: "branches of this run", group: "Branching", run: () => $("tab-branches").click() });
  },

  build(store) {
    const here = this.of(store)?.list.find((one) => one.id === store.run);
    for (const cell of here?.edited ?? []) board.cells[cell]?.classList.add("edited");
    $("branch-new").disabled = !this.possible(store);
    const sites = store.sites.map((site) => [site.name, site.label]);
    fillSelect($("branch-where"), [["", "every site"], ...sites]);
    fillSelect($("branch-site"), sites);
    const { symbols = [], domain } = store.puzzle;
    const names = domain === "maze" ? ["wall", "open", "start", "goal", "path"] : symbols.map((sign, value) => sign || (value ? `${value}` : "blank"));
    fillSelect($("branch-value"), names.map((name, value) => [`${value}`, name]));
    this.cell = null;
    this.show(false);
  },

  // The form

  show(open) {
    const { store } = player;
    hide($("branch-form"), !open);
    for (const id of ["branch-top", "branch-list", "branch-empty"]) hide($(id), open);
    this.told = "";
    if (!open || !store) { if (store) this.tell(store); return; }
    const site = store.sites[store.selected ?? 0];
    if (site) {
      $("branch-where").value = site.name;
      $("branch-site").value = site.name;
      $("branch-rank").value = "";
      $("branch-rank").placeholder = `${store.frame.sites[site.name]?.rank || "all"}`;
    }
    if (this.cell !== null) this.choose(this.cell);
    $("branch-title").value = "";
    this.dressForm();
    this.tell(store);
    $("branch-kind").focus();
  },

  dressForm() {
    const kind = $("branch-kind").value;
    for (const line of document.querySelectorAll("#branch-form [data-kind]")) hide(line, line.dataset.kind !== kind);
    hide($("branch-time"), kind !== "reconstruct" && kind !== "scale");
    const zero = $("branch-change").value === "zero";
    for (const id of ["branch-size", "branch-seed"]) hide($(id).parentElement, zero);
    say($("branch-says"), {
      reconstruct: "The layer computes on XQQᵀ in place of X; the tracker still sees X. Does the answer flip, and when?",
      scale: "The layer reads X + (factor − 1)·Xqqᵀ, with q as it is here. 0 takes the direction away.",
      state: "Once, before the next net application.",
      edit: "The model reads the other token from the next application on; its states stay.",
      cycles: "The order of net applications changes; states carry on.",
    }[kind]);
  },

  /** A cell of the board for the edit: its place, and another value than it holds. */
  choose(cell) {
    const { store } = player;
    if (cell < 0 || !store || watched.on(store)) return;
    this.cell = cell;
    const { width, cells } = store.puzzle;
    $("branch-row").value = Math.floor(cell / width) + 1;
    $("branch-column").value = (cell % width) + 1;
    $("branch-value").value = cells[cell] ? "0" : "1";
    if (!$("branch-form").hidden && $("branch-kind").value !== "edit") { $("branch-kind").value = "edit"; this.dressForm(); }
  },

  /** What the form asks for, as the server reads it. */
  get asked() {
    const number = (id) => ($(id).value === "" ? null : Number($(id).value));
    const kind = $("branch-kind").value;
    switch (kind) {
      case "reconstruct": return { kind, sites: $("branch-where").value ? [$("branch-where").value] : [], rank: number("branch-rank"), basis: $("branch-basis").value, steps: number("branch-steps") };
      case "scale": return { kind, site: $("branch-site").value, index: number("branch-index") ?? 0, factor: number("branch-factor") ?? 0, steps: number("branch-steps") };
      case "state": return { kind, state: $("branch-state").value, change: $("branch-change").value, size: number("branch-size") ?? 0, seed: number("branch-seed") ?? 0 };
      case "edit": return { kind, row: number("branch-row") ?? 0, column: number("branch-column") ?? 0, value: Number($("branch-value").value) };
      default: return { kind: "cycles", level: $("branch-level").value, change: number("branch-cycles") ?? 0, every: $("branch-every").value === "1" };
    }
  },

  async make() {
    player.pause();
    $("branch-make").disabled = true;
    const reply = await inquire("branches.add", { what: [this.asked], title: $("branch-title").value.trim() });
    $("branch-make").disabled = false;
    if (!reply) return;
    this.show(false);
    this.open(reply.made);
  },

  // The list

  open(id) { if (id !== player.store?.run) player.open("", id); },

  async ask(name, values) {
    const reply = await inquire(name, values);
    if (!reply || !player.store) return;
    player.store.reply = { ...player.store.reply, branches: reply.branches };
    redraw();
  },

  rename(one) {
    const { name } = this.rows.get(one.id);
    const field = make("input", { type: "text", maxlength: "40", cls: "branch-rename", "aria-label": "Name of the branch" });
    field.value = one.name;
    name.replaceWith(field);
    field.focus();
    field.select();
    let done = false;
    const end = (keep) => {
      if (done) return;
      done = true;
      field.replaceWith(name);
      const title = field.value.trim();
      if (keep && title && title !== one.name) this.ask("branches.rename", { branch: one.id, title });
    };
    field.addEventListener("keydown", (event) => { if (event.key === "Enter") end(true); if (event.key === "Escape") end(false); event.stopPropagation(); });
    field.addEventListener("blur", () => end(true));
  },

  tell(store) {
    const formed = !$("branch-form").hidden;
    say($("branch-new"), `new branch at t ${store.frame.index}`);
    say($("branch-make"), `branch at t ${store.frame.index}`);
    if (formed || !tabs.shows("tab-branches")) return;
    const told = this.of(store), list = told && told.list.length > 1 ? told.list : [];
    hide($("branch-empty"), list.length > 0);
    hide($("branch-list"), !list.length);
    say($("branch-count"), list.length ? `${list.length - 1} of ${told.most}` : "");
    const shown = JSON.stringify([store.run, list]);
    if (shown === this.told) return;
    this.told = shown;
    const node = $("branch-list");
    for (const [id, row] of this.rows) if (!list.some((one) => one.id === id)) { row.node.remove(); this.rows.delete(id); }
    for (const one of list) {
      const row = this.rows.get(one.id) ?? this.addRow(node, one);
      row.one = one;
      row.node.classList.toggle("here", one.id === store.run);
      mark(row.node, "aria-current", one.id === store.run);
      say(row.name, one.name);
      say(row.what, one.text.at(-1) ?? "as the page opened it");
      explain(row.node, () => [one.text.join("; then ") || "The run that the branches were made from.", this.parted(one)].filter(Boolean));
      say(row.news, [this.parted(one), one.solved === null ? "" : one.solved ? `solved at t ${one.head}` : `not solved at t ${one.head}`].filter(Boolean).join(" · "));
      row.news.classList.toggle("green", one.solved === true);
      hide(row.compare, one.id === store.run);
      hide(row.remove, one.id === store.run || one.parent === null);
    }
  },

  /** Where a branch parts from the run it was made from. */
  parted(one) {
    if (!one.parted) return "";
    const { model, answer, checked } = one.parted;
    if (model === null) return checked > one.at ? `same as ${one.parent} up to t ${checked}` : "";
    return `parts from ${one.parent} at t ${model}${answer === null ? ", same answer" : `, answer at t ${answer}`}`;
  },

  addRow(list, one) {
    const node = make("li", {}, list);
    make("i", { cls: "dot", style: `background:${siteColour(one.colour)}` }, node);
    const name = make("button", { type: "button", cls: "branch-name" }, node);
    const tools = make("span", { cls: "branch-tools" }, node);
    const tool = (text, tip, run) => {
      const button = make("button", { type: "button", cls: "quiet", text, "data-tip": tip, "aria-label": tip }, tools);
      button.addEventListener("click", (event) => { event.stopPropagation(); run(); });
      return button;
    };
    const row = { node, name, one };
    row.compare = tool("compare", "Show it beside this run.", () => comparing.with(`branch:${one.id}`));
    tool("✎", "Rename.", () => this.rename(row.one));
    row.remove = tool("×", "Delete, and free what it holds.", () => this.ask("branches.delete", { branch: one.id }));
    row.what = make("span", { cls: "branch-what" }, node);
    row.news = make("span", { cls: "branch-news num" }, node);
    name.addEventListener("click", () => this.open(one.id));
    this.rows.set(one.id, row);
    return row;
  },
};

function fillSelect(select, choices) {
  const kept = select.value;
  select.replaceChildren(...choices.map(([value, text]) => make("option", { value, text })));
  if (choices.some(([value]) => value === kept)) select.value = kept;
}

parts.push(branches);
