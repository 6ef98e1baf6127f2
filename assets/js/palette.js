// The command palette: every command by a few letters of its name.

const palette = {
  wire() {
    const dialog = make("dialog", { id: "palette", "aria-label": "Commands" }, document.body);
    this.field = make("input", { type: "text", id: "palette-field", placeholder: "What do you want to do?", autocomplete: "off", spellcheck: "false", role: "combobox", "aria-expanded": "true", "aria-controls": "palette-list", "aria-label": "Command" }, dialog);
    this.list = make("ul", { id: "palette-list", role: "listbox", "aria-label": "Commands" }, dialog);
    this.none = make("p", { cls: "note", text: "no command is called so", hidden: "" }, dialog);
    this.dialog = dialog;
    this.field.addEventListener("input", () => this.fill());
    this.field.addEventListener("keydown", (event) => this.key(event));
    this.list.addEventListener("click", (event) => {
      const item = event.target.closest("li");
      if (item) this.choose(item.dataset.id);
    });
    this.list.addEventListener("pointermove", (event) => {
      const item = event.target.closest("li");
      if (item && item !== this.chosen) this.mark(item);
    });
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    commands.add({ id: "palette", title: "find a command", keys: ["/"], group: "More", quiet: true, run: () => this.open() });
  },

  open() {
    if (this.dialog.open) return;
    this.field.value = "";
    this.fill();
    this.dialog.showModal();
    this.field.focus();
  },

  /** Commands whose titles hold all the words typed, those that begin with them first. */
  found() {
    const words = this.field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const some = commands.all.filter((command) => !command.quiet && commands.can(command));
    const rank = (title) => (title.startsWith(words[0]) ? 0 : title.includes(` ${words[0]}`) ? 1 : 2);
    const fits = some.filter(({ title }) => words.every((word) => title.toLowerCase().includes(word)));
    return words.length ? fits.map((one, i) => [rank(one.title.toLowerCase()), i, one]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, , one]) => one) : fits;
  },

  fill() {
    this.list.replaceChildren();
    this.chosen = null;
    for (const command of this.found()) {
      const item = make("li", { role: "option", id: `palette-${command.id}`, "data-id": command.id, "aria-selected": "false" }, this.list);
      make("span", { text: command.title }, item);
      const keys = make("span", { cls: "keys-of" }, item);
      for (const key of command.shownKeys ?? (command.keys ?? []).map((one) => commands.shown(one))) make("kbd", { text: key }, keys);
    }
    hide(this.none, this.list.childElementCount > 0);
    if (this.list.firstElementChild) this.mark(this.list.firstElementChild);
    else this.field.removeAttribute("aria-activedescendant");
  },

  mark(item) {
    this.chosen?.setAttribute("aria-selected", "false");
    this.chosen = item;
    item.setAttribute("aria-selected", "true");
    item.scrollIntoView({ block: "nearest" });
    this.field.setAttribute("aria-activedescendant", item.id);
  },

  key(event) {
    const all = [...this.list.children];
    const here = all.indexOf(this.chosen);
    const to = { ArrowDown: here + 1, ArrowUp: here - 1 + all.length, Home: 0, End: all.length - 1 }[event.key];
    if (event.key === "Enter" && this.chosen) { event.preventDefault(); this.choose(this.chosen.dataset.id); return; }
    if (to === undefined || !all.length || (["Home", "End"].includes(event.key) && this.field.value)) return;
    event.preventDefault();
    this.mark(all[to % all.length]);
  },

  choose(id) {
    this.dialog.close();
    commands.run(id);
  },
};
