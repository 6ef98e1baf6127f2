// Going to a step by its number: a small dialog over the timeline, opened by a key or by the step's own text.

const goTo = {
  wire() {
    const dialog = make("dialog", { id: "goto", "aria-labelledby": "goto-label" }, document.body);
    const form = make("form", { method: "dialog" }, dialog);
    make("label", { text: "Go to step", for: "goto-step", id: "goto-label" }, form);
    this.field = make("input", { type: "number", id: "goto-step", min: "0", step: "1", required: "", autocomplete: "off" }, form);
    this.most = make("span", { cls: "num" }, form);
    make("button", { type: "submit", text: "Go" }, form);
    form.addEventListener("submit", () => { if (player.store) player.seek(Math.round(Number(this.field.value))); });
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // beside it
    this.dialog = dialog;
    const opener = $("status-text");
    opener.addEventListener("click", () => this.open());
  },

  /** The last step one may go to: of the trained depth, of what is recorded beyond it, or without bound where the run goes on. */
  get last() {
    const { store } = player;
    return store.options?.beyond ? store.farthest : Math.max(store.length, store.head);
  },

  open() {
    const { store } = player;
    if (!store || this.dialog.open) return;
    player.pause();
    this.field.max = `${this.last}`;
    this.field.value = `${store.frame.index}`;
    say(this.most, store.options?.beyond ? "and on" : `of ${this.last}`);
    this.dialog.showModal();
    this.field.select();
  },
};
