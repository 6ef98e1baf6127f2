// Bookmarks: places in time with a name and a note, as a list and as flags on the timeline.

const bookmarks = {
  shown: "",
  flagged: "",

  wire() {
    $("bookmark-here").addEventListener("click", () => this.add());
    commands.add({ id: "bookmark", title: "bookmark this step", keys: ["k"], group: "Stopping", run: () => this.add() });
    this.flags = make("div", { id: "timeline-flags" }, $("timeline"));
  },

  build() { this.shown = this.flagged = ""; },

  /** Mark the step shown; its note can then be written. */
  async add() {
    const reply = await travel.change("bookmarks.add");
    if (!reply) return;
    if (!tabs.shows("tab-watches")) $("tab-watches").click();
    this.tell(player.store);
    $("bookmark-list").querySelector(`[data-name="${CSS.escape(reply.added)}"] .note-field`)?.focus();
  },

  /** The list; of the watches' tab. */
  tell(store) {
    if (!store.debug || !tabs.shows("tab-watches")) return;
    const made = JSON.stringify(store.debug.bookmarks);
    if (made !== this.shown) {
      this.shown = made;
      $("bookmark-list").replaceChildren(...store.debug.bookmarks.map((mark_) => this.row(mark_)));
    }
    for (const node of $("bookmark-list").children) node.classList.toggle("here", node.step === store.frame.index);
  },

  row({ step, name, note }) {
    const item = make("li", { "data-name": name });
    item.step = step;
    const go = make("button", { type: "button", cls: "when num", text: `t ${step}`, "aria-label": `Go to ${name}, step ${step}` }, item);
    go.addEventListener("click", () => player.seek(step));
    const change = (field, key, before) => {
      field.addEventListener("change", () => travel.change("bookmarks.change", { which: name, [key]: field.value.trim() }).then((reply) => { if (!reply) field.value = before; }));
      field.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === "Escape") field.blur(); });
    };
    const title = make("input", { type: "text", cls: "name-field", maxlength: 60, "aria-label": "Name" }, item);
    title.value = name;
    change(title, "label", name);
    const said = make("input", { type: "text", cls: "note-field", maxlength: 300, placeholder: "note", "aria-label": "Note" }, item);
    said.value = note;
    change(said, "note", note);
    const away = make("button", { type: "button", cls: "away", text: "✕", "aria-label": `Remove ${name}` }, item);
    away.addEventListener("click", () => travel.change("bookmarks.remove", { which: name }));
    return item;
  },

  /** Flags on the timeline, moved only where something has changed. */
  draw(store) {
    if (!store.debug || !timeline.place) return;
    const { left, right, width } = timeline.place;
    const made = JSON.stringify([store.debug.bookmarks, store.span, width]);
    if (made === this.flagged) return;
    this.flagged = made;
    this.flags.replaceChildren(...store.debug.bookmarks.filter(({ step }) => step <= store.span).map(({ step, name, note }) => {
      const flag = make("button", { type: "button", tabindex: -1, "aria-label": `Bookmark ${name}, step ${step}` });
      flag.style.left = `${left + (step / store.span) * (width - left - right)}px`;
      explain(flag, () => `${name} · step ${step}${note ? ` · ${note}` : ""}`);
      flag.addEventListener("pointerdown", (event) => event.stopPropagation());
      flag.addEventListener("click", () => player.seek(step));
      return flag;
    }));
  },
};

parts.push(bookmarks);
