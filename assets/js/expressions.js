// A field for an expression over frames: completion from the engine's own vocabulary, and what is wrong shown at its character.

const OFFERS = 9; // lines of the list
const CHECK_MS = 350; // after the last letter

const expressions = {
  list: null, // one for all fields
  field: null,

  wire() {
    this.list = make("ul", { id: "offers", role: "listbox", "aria-label": "What can be written", hidden: "" }, document.body);
    this.list.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the field keeps the focus
      const item = event.target.closest("li");
      if (item) this.accept(item);
    });
  },

  /** Make a form's input one; `condition`: it has to be one; `submit(text)` says whether it was taken. */
  enliven(form, input, problem, condition, submit) {
    const field = { input, problem, condition };
    input.addEventListener("focus", () => this.words());
    input.addEventListener("input", () => { this.offer(field); this.checkSoon(field); });
    input.addEventListener("click", () => this.offer(field));
    input.addEventListener("blur", () => this.close());
    input.addEventListener("keydown", (event) => this.key(field, event));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      this.close();
      clearTimeout(field.timer);
      const text = input.value.trim();
      if (!text) { input.focus(); return; }
      const reply = await submit(text);
      if (reply?.problem) { this.show(field, text, reply.problem); input.focus(); return; }
      if (!reply) return;
      input.value = "";
      this.show(field, "", null);
    });
    return field;
  },

  /** What can be written about this run, asked for once. */
  async words() {
    const { store } = player;
    if (!store || store.words) return;
    store.words = { words: [], sites: [] };
    store.words = (await inquire("travel.words", {}, { quiet: true })) ?? store.words;
  },

  // Completion

  /** What fits before the caret: [from, lines], each line text to insert, as it is written, what it is. */
  found(field, all) {
    const { words, sites } = player.store?.words ?? { words: [], sites: [] };
    const before = field.input.value.slice(0, field.input.selectionStart);
    const call = /([a-z_]+)\s*\(([^()]*)$/.exec(before);
    if (call && words.some(([form]) => form === `${call[1]}(site)`)) {
      const piece = /[^,\s]*$/.exec(call[2])[0];
      const some = sites.filter((name) => name.includes(piece) && name !== piece);
      return [before.length - piece.length, some.map((name) => [name, name, "site", "a site; * stands for any letters"])];
    }
    const word = /[A-Za-z_]*$/.exec(before)[0];
    if (!word && !all) return [before.length, []];
    const from = before.length - word.length, lower = word.toLowerCase();
    const some = words.filter(([form]) => form.toLowerCase().startsWith(lower) && form !== word);
    const others = word.length > 1 ? words.filter(([form, , meaning]) => !some.includes(form) && !form.toLowerCase().startsWith(lower) && `${form} ${meaning}`.toLowerCase().includes(lower)) : [];
    const lines = [...some, ...others].map(([form, kind, meaning]) => [form.replace(/\(.*$/, "(").replace(/^x /, " "), form, kind, meaning]);
    return [from, lines];
  },

  offer(field, all = false) {
    const [from, lines] = this.found(field, all);
    Object.assign(this, { field, from });
    this.list.replaceChildren();
    lines.slice(0, all ? 60 : OFFERS).forEach(([insert, form, kind, meaning], n) => {
      const item = make("li", { role: "option", id: `offer-${n}`, "aria-selected": "false", "data-insert": insert }, this.list);
      make("code", { text: form }, item);
      make("span", { text: kind === "site" ? meaning : `${kind}: ${meaning}` }, item);
    });
    if (!lines.length) { this.close(); return; }
    hide(this.list, false);
    mark(field.input, "aria-expanded", true);
    const box = field.input.getBoundingClientRect();
    this.list.style.left = `${Math.min(box.left, innerWidth - this.list.offsetWidth - 8)}px`;
    const above = box.top - this.list.offsetHeight - 4;
    this.list.style.top = `${above > 4 ? above : box.bottom + 4}px`;
  },

  key(field, event) {
    const open = !this.list.hidden, items = [...this.list.children];
    const here = items.findIndex((item) => item.getAttribute("aria-selected") === "true");
    if (event.key === "ArrowDown" || (event.key === "ArrowUp" && open)) {
      event.preventDefault();
      if (!open) { this.offer(field, true); return; }
      const to = event.key === "ArrowDown" ? (here + 1) % items.length : (here + items.length - (here < 0 ? 0 : 1)) % items.length;
      this.choose(items[to]);
    } else if (open && (event.key === "Tab" || (event.key === "Enter" && here >= 0))) {
      event.preventDefault();
      this.accept(items[Math.max(0, here)]);
    } else if (event.key === "Escape") {
      if (!open) { field.input.blur(); return; }
      event.stopPropagation();
      this.close();
    }
  },

  choose(item) {
    for (const other of this.list.children) mark(other, "aria-selected", other === item);
    mark(this.field.input, "aria-activedescendant", item.id);
    item.scrollIntoView({ block: "nearest" });
  },

  accept(item) {
    const { input } = this.field, { from } = this;
    input.setRangeText(item.dataset.insert, from, input.selectionStart, "end");
    input.focus();
    this.offer(this.field);
    this.checkSoon(this.field);
  },

  close() {
    if (this.list.hidden) return;
    hide(this.list, true);
    this.checkSoon(this.field);
    mark(this.field.input, "aria-expanded", false);
    this.field.input.removeAttribute("aria-activedescendant");
  },

  // What is wrong

  checkSoon(field) {
    clearTimeout(field.timer);
    const text = field.input.value;
    if (!text.trim()) { this.show(field, "", null); return; }
    field.timer = setTimeout(async () => {
      const reply = await inquire("travel.check", { expression: text, condition: field.condition }, { quiet: true });
      const typing = !this.list.hidden && this.field === field; // half a word is no mistake yet
      if (reply && field.input.value === text && !(typing && reply.problem)) this.show(field, text, reply.problem ?? null);
    }, CHECK_MS);
  },

  /** The cause, and the text with a caret below the character to blame. */
  show(field, text, problem) {
    hide(field.problem, !problem);
    mark(field.input, "aria-invalid", Boolean(problem));
    field.problem.replaceChildren();
    if (!problem) return;
    if (Number.isFinite(problem.position)) {
      const start = Math.max(0, problem.position - 28);
      const line = `${start ? "…" : ""}${text.slice(start, start + 56)}`;
      const width = Math.max(1, Math.min(problem.end, start + 56) - problem.position);
      make("code", { text: `${line}\n${" ".repeat(problem.position - start + (start ? 1 : 0))}${"^".repeat(width)}` }, field.problem);
    }
    make("span", { text: problem.cause }, field.problem);
  },
};

parts.push(expressions);
