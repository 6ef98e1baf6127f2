// The watches tab: expressions followed over all recorded steps, each a curve with its value now. What is held of a curve is bounded.

const watches = {
  shown: "",

  // Values, which come with the replies

  /** The step from which values are wanted: where the shortest curve ends. */
  known(store) { return store.curves?.size ? Math.min(...[...store.curves.values()].map(({ column }) => column.length)) : store.rows; },

  /** A curve for each watch there is, and no others; of one that was taken away and added anew nothing is kept. */
  match(store) {
    const before = store.curves ?? new Map();
    store.curves = new Map(store.debug.watches.map((watch) => {
      const curve = before.get(watch.name);
      return [watch.name, curve?.expression === watch.expression ? curve : { expression: watch.expression, column: new Column() }];
    }));
  },

  take(store, told, epoch) {
    if (!store.curves) return;
    const other = store.curvesOf !== undefined && store.curvesOf !== epoch;
    store.curvesOf = epoch;
    for (const [name, { column }] of store.curves) {
      if (other && told.valid < column.length) column.cut(told.valid);
      (told.rows[name] ?? []).forEach((value, n) => { if (told.start + n === column.length) column.push(value); });
    }
  },

  /** Whether values are missing that the server has. */
  lacks(store) { return Boolean(store.curves?.size) && this.known(store) <= store.head; },

  /** Numbers held of all curves. */
  held(store) { return [...(store.curves?.values() ?? [])].reduce((sum, { column }) => sum + column.held, 0); },

  // The tab

  wire() {
    expressions.enliven($("watch-form"), $("watch-field"), $("watch-problem"), false, (expression) => travel.change("watches.add", { expression }));
    commands.add({ id: "add-watch", title: "add a watch", keys: ["w"], group: "Stopping", run: () => { $("tab-watches").click(); $("watch-field").focus(); } });
  },

  build() { this.shown = ""; },

  draw(store) {
    if (!store.debug || !tabs.shows("tab-watches")) return;
    this.make(store);
    for (const node of $("watch-list").children) this.plot(store, node);
  },

  make(store) {
    const made = JSON.stringify(store.debug.watches);
    if (made === this.shown) return;
    this.shown = made;
    $("watch-list").replaceChildren(...store.debug.watches.map((watch, n) => this.row(watch, siteColour(n))));
    hide($("watch-empty"), store.debug.watches.length > 0);
  },

  row(watch, colour) {
    const item = make("li", { "data-name": watch.name });
    Object.assign(item, { watch, colour });
    const head = make("span", { cls: "what", text: watch.name }, item);
    explain(head, () => watch.expression);
    item.canvas = make("canvas", { role: "img" }, item);
    const figures = make("span", { cls: "figures num" }, item);
    item.now = make("b", {}, figures);
    item.range = make("span", { cls: "range" }, figures);
    const away = make("button", { type: "button", cls: "away", text: "✕", "aria-label": `Remove ${watch.name}` }, item);
    away.addEventListener("click", () => travel.change("watches.remove", { which: watch.name }));
    wirePlot(item, item.canvas, (shown, t) => {
      const column = shown.curves?.get(watch.name)?.column;
      return column ? [{ colour, name: watch.name, value: spanText(column.span(t), (value) => this.text(value, watch)) }] : null;
    });
    return item;
  },

  text(value, watch) {
    if (!Number.isFinite(value)) return NONE;
    if (watch.condition) return value ? "yes" : "no";
    if (Number.isInteger(value) && Math.abs(value) < 1e6) return `${value}`;
    return Math.abs(value) >= 1e6 || Math.abs(value) < 1e-3 ? value.toExponential(2) : value.toPrecision(4);
  },

  plot(store, node) {
    const made = surface(node.canvas), column = store.curves.get(node.watch.name)?.column;
    if (!made || !column) return;
    const { context, width, height } = made;
    node.place = { left: 1, right: 1, width };
    const x = (t) => 1 + (t / store.span) * (width - 2);
    const { least, most } = column;
    node.extent = [least, most];
    const wide = most - least || 1;
    const y = (value) => height - 3 - ((value - least) / wide) * (height - 6);
    const now = store.frame.index + 1, end = Math.min(store.rows, column.length);
    if (end > now) curve(context, column, Math.max(0, now - 1), end, x, y, node.colour, 1.4, 0.3);
    curve(context, column, 0, Math.min(now, end), x, y, node.colour, 1.6, 1);
    cursorLine(context, x(store.frame.index), 0, height);
    hoverLine(context, node, x, 0, height);
  },

  tell(store) {
    const marks = store.debug;
    if (!marks || !tabs.shows("tab-watches")) return;
    this.make(store);
    for (const node of $("watch-list").children) {
      const { watch, extent } = node;
      const now = this.text(marks.now?.[watch.name], watch);
      say(node.now, now);
      say(node.range, extent && extent[0] <= extent[1] && !watch.condition ? `${this.text(extent[0], watch)} to ${this.text(extent[1], watch)}` : "");
      mark(node.canvas, "aria-label", `${watch.name} over time: ${now} now`);
    }
  },
};

parts.push(watches);
