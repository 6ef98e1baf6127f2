// Moving in time by more than single steps, and what is kept for it: the small buttons beside the transport, their menu, their keys.
// What a reply tells of breakpoints, watches and bookmarks is taken in here; the panels beside this file draw it.

const HITS_HELD = 500; // the newest; the server has more

const travel = {
  /** What a request says the page has already. */
  known(store) {
    const marks = store.debug;
    return marks ? { marks_known: marks.version, hits_since: marks.told, curves_since: watches.known(store) } : {};
  },

  take(store, reply) {
    const told = reply.travel;
    if (!told) return;
    const marks = (store.debug ??= { version: 0, breakpoints: [], watches: [], bookmarks: [], counts: {}, hits: [], told: 0, total: 0 });
    this.takeMarks(store, told);
    Object.assign(marks, { counts: told.counts, stopped: told.stopped, at: reply.frame.index, now: told.now, kept: told.kept, total: told.hits.total });
    if (told.hits.start >= marks.told) {
      for (const [step, name, message] of told.hits.rows) marks.hits.push({ step, name, message });
      marks.told = told.hits.start + told.hits.rows.length;
      if (marks.hits.length > HITS_HELD) marks.hits.splice(0, marks.hits.length - HITS_HELD);
    }
    watches.take(store, told.curves, reply.epoch);
  },

  /** Breakpoints, watches and bookmarks, where a reply holds them. */
  takeMarks(store, told) {
    if (told.version === undefined) return;
    const { version, breakpoints: stops, watches: followed, bookmarks: places } = told;
    Object.assign(store.debug, { version, breakpoints: stops, watches: followed, bookmarks: places });
    watches.match(store);
  },

  /** Ask for a change of the marks, and show what came of it; null where it was refused. */
  async change(name, values) {
    const reply = await inquire(name, values);
    const { store } = player;
    if (!reply?.travel || !store?.debug) return reply;
    store.debug.counts = reply.counts;
    store.link = reply.link;
    this.takeMarks(store, reply.travel);
    redraw();
    player.look();
    return reply;
  },

  /** The breakpoints that stopped at the step shown. */
  stops(store) {
    const marks = store.debug;
    return !marks?.stopped?.length || marks.at !== store.frame.index || player.playing ? [] : marks.stopped.map(([name]) => name);
  },

  /** What it stopped at, in words; "" where it did not. */
  says(store) {
    const names = this.stops(store).map((name) => (name === "until" ? "an event" : name.length > 22 ? `${name.slice(0, 21)}…` : name));
    return names.length ? `stopped at ${names.slice(0, 2).join(", ")}${names.length > 2 ? ` and ${names.length - 2} more` : ""}` : "";
  },

  wire() {
    const cycles = (store) => !watched.on(store);
    const moves = [
      ["over-cycle", "over: on to the end of the H cycle", ["Shift+ArrowRight"], { name: "over", size: "cycle" }],
      ["back-cycle", "back to the end of the H cycle before", ["Shift+ArrowLeft"], { name: "back", size: "cycle" }],
      ["over-supervision", "over: on to the end of the supervision step", [">"], { name: "over", size: "supervision" }],
      ["back-supervision", "back to the end of the supervision step before", ["<"], { name: "back", size: "supervision" }],
      ["out", "out: on to the end of what is under way", ["o"], { name: "out" }],
      ["run-to-next-stop", "on to the next stop or event", ["n"], { name: "run" }],
      ["run-back", "back to the last stop or event", ["p"], { name: "run_back" }],
    ];
    for (const [id, title, keys, how] of moves) commands.add({ id, title, keys, group: "Moving", run: () => player.go(how) });
    commands.add({ id: "into", title: "into the step: what each site reads and returns", keys: ["i"], group: "Moving", when: cycles, run: () => inside.toggle() });
    const list = $("travel-moves");
    for (const id of [...moves.map(([name]) => name), "into"]) {
      const command = commands.byId.get(id);
      const item = make("button", { type: "button", role: "menuitem", "data-move": id }, list);
      make("span", { text: command.title }, item);
      for (const key of command.keys) make("kbd", { text: commands.shown(key) }, item);
      item.addEventListener("click", () => { commands.run(id); if (id === "into") $("travel-menu").hidePopover(); });
    }
    $("run-back").addEventListener("click", () => commands.run("run-back"));
    $("run-on").addEventListener("click", () => commands.run("run-to-next-stop"));
    $("into").addEventListener("click", () => commands.run("into"));
    const menu = $("travel-menu");
    document.body.append(menu); // above everything, wherever Gradio clips
    menu.addEventListener("toggle", () => {
      if (!menu.matches(":popover-open")) return;
      const box = $("travel-open").getBoundingClientRect();
      menu.style.left = `${Math.max(8, Math.min(box.left, innerWidth - menu.offsetWidth - 8))}px`;
      menu.style.top = `${Math.max(8, box.top - menu.offsetHeight - 6)}px`;
      this.tell(player.store);
    });
    $("history-budget").addEventListener("change", (event) => {
      const budget = Math.round(Number(event.target.value));
      if (budget >= 1 && budget <= 1024) player.tune({ history: budget });
      else this.tell(player.store);
    });
  },

  build(store) { for (const id of ["into"]) $(id).toggleAttribute("data-off", watched.on(store)); },

  tell(store) {
    mark($("status"), "data-stopped", this.stops(store).join(" "));
    if (!store?.debug || !$("travel-menu").matches(":popover-open")) return;
    const { kept } = store.debug, field = $("history-budget");
    if (document.activeElement !== field) field.value = `${store.options.history ?? ""}`;
    field.disabled = !kept;
    say($("kept-coefficients"), kept ? bytes(kept.coefficients) : NONE);
    say($("kept-bases"), kept ? bytes(kept.bases) : NONE);
    say($("kept-keyframes"), kept ? `${bytes(kept.keyframes)} · ${kept.count}${kept.thinned ? `, ${kept.thinned} thinned` : ""}` : NONE);
    say($("kept-replay"), kept ? `${kept.replay} steps` : NONE);
    say($("kept-from"), kept ? `t ${kept.from}${kept.from > 1 ? ", earlier dropped" : ""}` : NONE);
    say($("kept-said"), !kept ? "the activations are with the process that was watched" : kept.said ? `last: ${kept.said}` : `${bytes(kept.total)} of ${bytes(kept.budget)}: nothing had to go so far`);
  },

  /** On the timeline: where breakpoints counted, and from which step on activations are held. */
  mark(context, store, { x, head, height }) {
    const marks = store.debug;
    if (!marks) return;
    const now = store.frame.index;
    const steps = [...new Set(marks.hits.map(({ step }) => step))].sort((a, b) => a - b);
    const logged = new Set(marks.hits.filter(({ message }) => message).map(({ step }) => step));
    marksAt(context, steps, x, now, (at) => disc(context, at, head + 1, 3, ink.red));
    for (const step of logged) disc(context, x(step), head + 1, 1.3, ink.card);
    if (marks.kept?.from > 1) {
      rule(context, height - 2, x(0), x(marks.kept.from), { colour: ink.amber, dash: [2, 2] });
      if (x(marks.kept.from) - x(0) > 130) label(context, "activations dropped", x(0) + 4, height - 9, { size: 9.5, colour: ink.amber });
    }
  },
};

parts.push(travel);
timeline.extras.push((context, store, place) => travel.mark(context, store, place));
