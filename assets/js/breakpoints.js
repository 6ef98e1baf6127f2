// The breakpoints tab: an expression is typed or built from a list; those there are, with their counts; where they stopped and what they logged.

// What can be built: its name, what has to be filled in (site, row, column or a number by its start), and the expression of it.
const BUILT = [
  ["a site's fidelity below", ["site", 0.95], (site, x) => `fidelity(${site}) < ${x}`],
  ["any fidelity below", [0.95], (x) => `fidelity < ${x}`],
  ["a site's rank above", ["site", 32], (site, k) => `rank(${site}) > ${k}`],
  ["a reset", [], () => "reset"],
  ["a growth", [], () => "grew"],
  ["the answer changes", [], () => "answer_changed"],
  ["a cell changes", ["row", "column"], (row, column) => `cell(${row}, ${column}) changed`],
  ["a cell's confidence below", ["row", "column", 0.5], (row, column, x) => `confidence(${row}, ${column}) < ${x}`],
  ["q_halt turns positive", [], () => "becomes(q_halt > 0)"],
  ["the residual below", [5], (x) => `residual < ${x}`],
  ["solved", [], () => "solved"],
  ["fewer cells right than before", [], () => "diverged"],
  ["not finite", [], () => "not_finite"],
  ["at s, h, l", ["s", "h", "l"], (s, h, l) => `s == ${s} & h == ${h} & l == ${l}`],
];

const breakpoints = {
  shown: "", // what the lists were made of

  wire() {
    const form = $("breakpoint-form");
    this.field = expressions.enliven(form, $("breakpoint-field"), $("breakpoint-problem"), true, (expression) => this.add(expression));
    const kind = $("breakpoint-kind");
    make("option", { value: "", text: "or build one …" }, kind);
    BUILT.forEach(([title], n) => make("option", { value: n, text: title }, kind));
    kind.addEventListener("change", () => { this.askValues(); this.build_(); });
    $("breakpoint-more").addEventListener("click", (event) => {
      const options = $("breakpoint-options");
      hide(options, !options.hidden);
      mark(event.target, "aria-expanded", !options.hidden);
    });
    commands.add({ id: "add-breakpoint", title: "add a breakpoint", keys: ["b"], group: "Stopping", run: () => this.open() });
    commands.add({ id: "clear-breakpoints", title: "remove all breakpoints", when: (store) => store.debug?.breakpoints.length > 0, run: () => travel.change("breakpoints.clear") });
  },

  build(store) {
    this.shown = "";
    const kind = $("breakpoint-kind");
    for (const option of kind.options) option.hidden = watched.on(store) && ["the answer changes", "a cell changes", "a cell's confidence below", "q_halt turns positive", "solved", "fewer cells right than before", "at s, h, l"].includes(option.text);
    kind.value = "";
    this.askValues();
  },

  open() {
    $("tab-breakpoints").click();
    $("breakpoint-field").focus();
  },

  async add(expression) {
    const hits = $("breakpoint-hits").value.trim(), log = $("breakpoint-log").value;
    const reply = await travel.change("breakpoints.add", { expression, once: $("breakpoint-once").checked, ...(hits ? { hits } : {}), ...(log ? { log } : {}) });
    if (!reply?.added) return reply;
    for (const id of ["breakpoint-hits", "breakpoint-log"]) $(id).value = "";
    $("breakpoint-once").checked = false;
    $("breakpoint-kind").value = "";
    this.askValues();
    return reply;
  },

  // Building one

  askValues() {
    const place = $("breakpoint-values"), { store } = player;
    place.replaceChildren();
    const built = BUILT[$("breakpoint-kind").value === "" ? -1 : Number($("breakpoint-kind").value)];
    if (!built || !store) return;
    for (const what of built[1]) {
      if (what === "site") {
        const choice = make("select", { "aria-label": "site" }, place);
        for (const site of store.sites) make("option", { value: site.name, text: site.label }, choice);
        choice.value = store.sites[store.selected ?? 0]?.name ?? "";
        continue;
      }
      const named = typeof what === "string";
      const field = make("input", { type: "text", size: 3, "aria-label": named ? what : "value", title: named ? what : "value" }, place);
      field.value = named ? (what === "l" ? "H" : "1") : `${what}`;
    }
    for (const field of place.children) field.addEventListener("input", () => this.build_());
  },

  build_() {
    const built = BUILT[$("breakpoint-kind").value === "" ? -1 : Number($("breakpoint-kind").value)];
    if (!built) return;
    $("breakpoint-field").value = built[2](...[...$("breakpoint-values").children].map((field) => field.value.trim() || "?"));
    expressions.checkSoon(this.field);
  },

  // Those there are

  tell(store) {
    const marks = store.debug;
    if (!marks || !tabs.shows("tab-breakpoints")) return;
    const stops = travel.stops(store);
    const rows = marks.breakpoints.map((one) => [one, marks.counts[one.name] ?? 0, stops.includes(one.name)]);
    const made = JSON.stringify([rows.map(([one]) => one)]);
    if (made !== this.shown && !this.edited()) {
      this.shown = made;
      $("breakpoint-list").replaceChildren(...rows.map(([one]) => this.row(one)));
      hide($("breakpoint-empty"), rows.length > 0);
    }
    [...$("breakpoint-list").children].forEach((node, n) => {
      if (!rows[n]) return;
      const [one, count, here] = rows[n];
      say(node.count, one.hits === 1 ? `${count}×` : `${count} of ${one.hits}`);
      node.classList.toggle("here", here);
    });
    this.tellHits(store);
  },

  row(one) {
    const item = make("li", { "data-name": one.name });
    const on = make("input", { type: "checkbox", "aria-label": `${one.name} on` }, item);
    on.checked = one.enabled;
    on.addEventListener("change", () => travel.change("breakpoints.switch", { which: one.name, enabled: on.checked }));
    const title = make("input", { type: "text", cls: "name-field", maxlength: 60, spellcheck: "false", "aria-label": `Name of ${one.name}`, value: one.name }, item);
    title.addEventListener("change", async () => { const label = title.value.trim(); if (label === one.name || !(await travel.change("breakpoints.change", { which: one.name, label }))) title.value = one.name; else title.defaultValue = title.value; });
    title.addEventListener("keydown", (event) => { if (event.key === "Escape") title.value = one.name; if (event.key === "Enter" || event.key === "Escape") title.blur(); });
    this.expression(one, item);
    const kinds = [one.log && "log", one.once && "once"].filter(Boolean);
    if (kinds.length) explain(make("i", { text: kinds.join(", ") }, item), () => [...(one.log ? [`logs: ${one.log}`] : []), ...(one.once ? ["off once it has counted"] : [])]);
    item.count = make("span", { cls: "num count" }, item);
    explain(item.count, () => "How often it held while it was on.");
    const away = make("button", { type: "button", cls: "away", text: "✕", "aria-label": `Remove ${one.name}` }, item);
    away.addEventListener("click", () => travel.change("breakpoints.remove", { which: one.name }));
    item.classList.toggle("off", !one.enabled);
    return item;
  },

  /** The expression of one, edited where it stands: Enter or leaving the field keeps it, Escape leaves it as it was. */
  expression(one, item) {
    const form = make("form", { cls: "what", autocomplete: "off" }, item);
    const input = make("input", { type: "text", cls: "expression", maxlength: 1000, spellcheck: "false", role: "combobox", "aria-expanded": "false", "aria-controls": "offers", "aria-label": `Where ${one.name} stops`, value: one.expression }, form);
    const problem = make("p", { cls: "problem", role: "alert" }, form);
    hide(problem, true);
    const restore = () => { clearTimeout(field.timer); input.value = one.expression; expressions.show(field, "", null); };
    input.addEventListener("keydown", (event) => { if (event.key === "Escape" && expressions.list.hidden) restore(); });
    input.addEventListener("change", () => { if (!input.value.trim()) restore(); else form.requestSubmit(); });
    let sent = null; // Enter changes the field and submits the form: one of the two is enough
    const field = expressions.enliven(form, input, problem, true, async (expression) => {
      if (expression === one.expression || expression === sent) return null;
      sent = input.defaultValue = expression;
      const reply = await travel.change("breakpoints.change", { which: one.name, expression });
      sent = null;
      if (!reply?.travel) input.defaultValue = one.expression;
      return reply?.problem ? reply : null;
    });
  },

  /** Whether something in the list is being written just now, which a new list would take away. */
  edited() {
    const field = document.activeElement;
    return $("breakpoint-list").contains(field) && field.type === "text" && field.value !== field.defaultValue;
  },

  tellHits(store) {
    const { hits, total, told } = store.debug, list = $("hits-list");
    hide($("hits-head"), !hits.length);
    say($("hits-count"), total > hits.length ? `newest ${hits.length} of ${total}` : `${total}`);
    if (list.told !== told || list.store !== store) {
      const fresh = list.store === store ? hits.slice(-Math.min(hits.length, told - list.told)) : hits;
      if (list.store !== store) list.replaceChildren();
      list.prepend(...fresh.map((hit) => this.hitRow(hit)).reverse());
      while (list.childElementCount > HITS_HELD) list.lastElementChild.remove();
      Object.assign(list, { told, store });
    }
    if (list.at === store.frame.index) return;
    list.at = store.frame.index;
    for (const node of list.children) node.classList.toggle("here", node.step === store.frame.index);
  },

  hitRow({ step, name, message }) {
    const item = make("li");
    item.step = step;
    const button = make("button", { type: "button" }, item);
    make("span", { cls: "when num", text: `t ${step}` }, button);
    make("b", { text: name }, button);
    make("span", { cls: "what", text: message || "stopped" }, button);
    button.addEventListener("click", () => player.seek(step));
    return item;
  },
};

parts.push(breakpoints);
