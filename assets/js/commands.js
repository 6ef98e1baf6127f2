// Everything that can be done by a key: one list, from which come the keys, the palette and the help.

const commands = {
  all: [],
  byKey: new Map(),
  byId: new Map(),

  /**
   * id, title; keys as KeyboardEvent.key, lower-case letters, with "Shift+" where one is held (not for signs such as "?" or ">");
   * run(key); when(store): whether it can be done now, absent: always; group: heading in the help; quiet: not in the palette.
   */
  add(command) {
    this.all.push(command);
    this.byId.set(command.id, command);
    for (const key of command.keys ?? []) {
      if (this.byKey.has(key)) throw new Error(`two commands have the key ${key}`);
      this.byKey.set(key, command);
    }
  },

  can(command) { return !command.when || Boolean(player.store && command.when(player.store)); },

  run(id) {
    const command = this.byId.get(id);
    if (command && this.can(command)) command.run();
  },

  /** The command of a key event, where it can be done now. */
  of(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return null;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const sign = event.key.length === 1 && event.key.toLowerCase() === event.key.toUpperCase(); // Shift is part of a sign
    const command = this.byKey.get(event.shiftKey && !sign ? `Shift+${key}` : key);
    return command && this.can(command) ? command : null;
  },

  /** A key as people read it. */
  shown(key) {
    const names = { ArrowRight: "→", ArrowLeft: "←", ArrowUp: "↑", ArrowDown: "↓", " ": "Space", Escape: "Esc" };
    return key.split("+").map((part) => names[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" ");
  },

  tellHelp(list) {
    const groups = new Map();
    for (const command of this.all) {
      if (!command.keys?.length) continue;
      const group = command.group ?? "More";
      groups.set(group, [...(groups.get(group) ?? []), command]);
    }
    for (const [group, some] of groups) {
      const section = make("section", {}, list);
      make("h3", { text: group }, section);
      const terms = make("dl", {}, section);
      for (const command of some) {
        const keys = make("dt", {}, terms);
        for (const key of command.shownKeys ?? command.keys.map((one) => this.shown(one))) make("kbd", { text: key }, keys);
        make("dd", { text: command.title }, terms);
      }
    }
  },
};

// What each area adds to the page: wire once, build for each run opened, draw canvases, tell texts. All may be missing.
const parts = [];
