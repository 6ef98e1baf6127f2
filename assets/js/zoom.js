// The large view of a plot: a dialog with the plot in Plotly, and its export. It shows the run as it was when the dialog was
// opened or refreshed: a picture that one zooms into must not move away, whatever the run behind it does.

const EXPORT_SIZE = { width: 1200, height: 680 }; // CSS pixels; PNG has twice as many each way
const CLOSE = 1_000; // steps in view from which on older ones are fetched as they are; fewer than a reply holds

/** The cards whose plots can be opened, and what their buttons call them. */
const CARDS = { "fidelity-panel": "fidelity", "memory-panel": "memory", "basis-panel": "basis", deck: "timeline" };

const zoom = {
  dialog: null,
  shot: null, // the store as it was
  id: null, // of the plot shown
  view: 0, // a new number forgets how far one had zoomed in

  // Buttons in the cards' heads

  wire() {
    for (const [id, name] of Object.entries(CARDS)) {
      const card = document.getElementById(id);
      const head = card?.querySelector("header") ?? card?.querySelector("#transport");
      if (!head) continue;
      const words = `Open ${name} large`;
      const button = make("button", { cls: "zoom-open quiet", type: "button", text: "⤢", "aria-label": words, "aria-haspopup": "dialog" }, head);
      button.dataset.tip = `${words}: zoom, values on hovering, export as PNG, SVG or CSV`;
      button.addEventListener("click", () => this.open(this.seenIn(id)));
    }
  },

  /** The plot that a card shows now: by its open tab, or by the kind of fidelity chosen; else its first. */
  seenIn(card) {
    const plots = Object.entries(ZOOM).filter(([, entry]) => entry.card === card);
    const open = plots.find(([, { tab }]) => tab && document.getElementById(tab)?.getAttribute("aria-selected") === "true");
    const kind = plots.find(([, entry]) => entry.kind && entry.kind === kindShown);
    return (open ?? kind ?? plots[0])[0];
  },

  // The dialog

  build() {
    const dialog = make("dialog", { id: "zoom", "aria-labelledby": "zoom-title" });
    const head = make("header", {}, dialog);
    const says = make("div", { cls: "says" }, head);
    this.title = make("h2", { id: "zoom-title" }, says);
    this.about = make("p", { cls: "num", id: "zoom-about" }, says);
    const close = make("button", { type: "button", cls: "close", text: "×", "aria-label": "Close" }, head);
    close.addEventListener("click", () => dialog.close());

    const tools = make("div", { cls: "tools" }, dialog);
    this.choice = make("select", { "aria-label": "Plot", id: "zoom-plot", autofocus: "" }, tools);
    this.choice.addEventListener("change", () => { this.id = this.choice.value; this.view += 1; this.show(); });
    this.site = make("select", { "aria-label": "Site", id: "zoom-site", "data-tip": "The site selected, here and on the page." }, tools);
    this.site.addEventListener("change", () => this.chooseSite(Number(this.site.value)));
    const tool = (name, text, tip, act) => {
      const button = make("button", { type: "button", text, "data-tip": tip, "data-act": name }, tools);
      button.addEventListener("click", act);
      return button;
    };
    this.again = tool("refresh", "Refresh", "Show the run as it is now.", () => this.refresh());
    tool("reset", "Reset view", "Undo zooming and panning.", () => { this.view += 1; this.show(); });
    this.scale = tool("scale", "", "How fidelities are spread over the axis: by their nines, or evenly.", () => { switchScale(); this.view += 1; this.show(); });
    make("span", { cls: "gap" }, tools);
    this.pictures = [
      tool("png", "PNG", "This view as a picture of 2400 × 1360 pixels.", () => this.picture("png")),
      tool("svg", "SVG", "This view as vectors.", () => this.picture("svg")),
    ];
    tool("csv", "CSV", "The data of this plot, all digits.", () => this.data());
    tool("all", "All data", "One CSV of all sites at all steps: fidelities, rank, action, turn.", () => this.allData());

    this.plot = make("div", { cls: "chart", role: "img" }, dialog);
    this.message = make("div", { cls: "message", role: "status" }, dialog);
    // Keys belong to the dialog while it is open: none of them may step the run behind it.
    dialog.addEventListener("keydown", (event) => { if (event.key !== "Escape") event.stopPropagation(); });
    dialog.addEventListener("keyup", (event) => event.stopPropagation());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // beside it
    dialog.addEventListener("close", () => this.closed());
    document.body.append(dialog);
    this.dialog = dialog;
  },

  open(id) {
    if (!player.store) return;
    if (!this.dialog) this.build();
    this.shot = player.store.still();
    this.id = id;
    this.view += 1;
    // What is modal lies above everything else: tooltips and notices go with it.
    this.dialog.append(tip.node, $("notice"));
    tip.hide();
    this.dialog.showModal();
    this.show();
    this.watch();
  },

  chooseSite(position) {
    if (player.store.run === this.shot.run) select(position);
    this.shot.selected = position;
    this.show();
  },

  closed() {
    clearTimeout(this.timer);
    tip.hide();
    document.body.append(tip.node, $("notice"));
    if (window.Plotly) window.Plotly.purge(this.plot);
    this.shot = this.drawn = null;
  },

  refresh() {
    this.shot = player.store.still();
    this.show();
    this.compare();
  },

  /** Say, twice a second at most, how far the run has gone on. */
  watch() {
    clearTimeout(this.timer);
    this.compare();
    this.timer = setTimeout(() => this.watch(), 500);
  },
  compare() {
    const { store } = player, { shot } = this;
    const same = store.run === shot.run && store.epoch === shot.epoch && store.rows === shot.rows && store.frame.index === shot.frame.index;
    const when = `picture of step ${shot.frame.index}`;
    say(this.again, same ? "Refresh" : `Refresh (t ${store.frame.index})`);
    this.again.classList.toggle("fresh", !same);
    const site = ZOOM[this.id].ofSite ? ` · ${shot.sites[chosenSite(shot)].label}` : "";
    const now = this.doing ? ` · ${this.doing}` : same ? "" : `, the run is at ${store.frame.index}`;
    say(this.about, `${[shot.model.name, shot.puzzle.id].filter(Boolean).join(" · ")}${site} · ${when}${now}${this.older()}`);
  },

  /** How the older steps of a long run are shown. */
  older() {
    const { shot } = this, { ofStep = false, samples } = ZOOM[this.id];
    if (ofStep) return "";
    if (samples) {
      const { stride, first } = samples(shot);
      return stride > 1 ? ` · before step ${first} one of ${stride} steps is shown` : "";
    }
    const { from, to } = shot.block(1);
    return from < to ? ` · before step ${shot.whole} the lowest and highest of every ${to + 1 - from} steps: zoom in for each` : "";
  },

  /** What there is to show, by group. */
  list() {
    const groups = new Map();
    for (const [id, entry] of Object.entries(ZOOM)) {
      if (entry.has(this.shot) || id === this.id) groups.set(entry.group, [...(groups.get(entry.group) ?? []), [id, entry.title]]);
    }
    this.choice.replaceChildren();
    for (const [name, entries] of groups) {
      const group = make("optgroup", { label: name }, this.choice);
      for (const [id, title] of entries) make("option", { value: id, text: title }, group);
    }
    this.choice.value = this.id;
    this.site.replaceChildren(...this.shot.sites.map(({ label }, i) => make("option", { value: i, text: label })));
    this.site.value = `${chosenSite(this.shot)}`;
    hide(this.site, this.shot.sites.length < 2);
  },

  async show() {
    const entry = ZOOM[this.id], { shot } = this;
    this.list();
    say(this.title, entry.title);
    this.compare();
    this.scale.hidden = !entry.scaled;
    say(this.scale, `scale: ${scaleKind}`);
    const ready = entry.has(shot);
    this.allow(false);
    this.dialog.dataset.state = "loading";
    if (!ready) {
      if (window.Plotly) window.Plotly.purge(this.plot);
      return this.tell("empty", shot.frame.index > 0
        ? "Nothing of this kind was measured in this run: close this, switch the measure on, and go on."
        : "Nothing recorded yet: close this, press Play or Step, and open it again.");
    }
    if (!window.Plotly) this.tell("loading", "Loading the plotting library from the studio …");
    let library = null;
    try {
      library = await loadPlotly();
    } catch {
      if (shot !== this.shot) return undefined;
      return this.tell("error", "The plotting library could not be fetched from the studio. Is it still running? The CSV exports work without it.", true);
    }
    if (entry.fetch) this.tell("loading", "Fetching what is shown from the studio …");
    try {
      await entry.fetch?.(shot);
    } catch (failure) {
      if (shot !== this.shot) return undefined;
      return this.tell("error", failure.message, true);
    }
    if (shot !== this.shot || entry !== ZOOM[this.id]) return undefined; // closed or changed meanwhile
    const { data, layout } = entry.figure(shot);
    for (const trace of data) if (trace.mode === "lines" && trace.x.length < 2) trace.mode = "lines+markers"; // one step is a point
    const other = entry !== this.drawn;
    if (other) library.purge(this.plot); // nothing of another plot may stay: no hover box, no axis
    this.drawn = entry;
    try {
      await library.react(this.plot, data, { ...layout, height: this.plot.clientHeight, autosize: true, uirevision: this.view }, {
        displaylogo: false, scrollZoom: true, responsive: true, displayModeBar: true,
        // By name, because the library's own choice holds a button that would send the plot to its maker.
        modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]], plotlyServerURL: "",
      });
    } catch (failure) {
      return this.tell("error", `The plot could not be drawn: ${failure.message}`);
    }
    if (other) this.plot.on("plotly_relayout", () => this.lookCloser());
    mark(this.plot, "aria-label", `${entry.title}, up to step ${shot.rows - 1}; the values are in the CSV export`);
    this.tell("ready", "");
    this.allow(true);
    return undefined;
  },

  /** Where one has zoomed in on steps that are held in blocks: fetch and draw them as they are. */
  async lookCloser() {
    const { shot } = this, { title, range = [0, Infinity] } = this.plot.layout?.xaxis ?? {};
    if (!shot || title?.text !== OVER_TIME || range[1] - range[0] > CLOSE) return;
    const first = Math.max(1, Math.floor(range[0])), last = Math.min(shot.whole - 1, Math.ceil(range[1]));
    if (first > last) return;
    const { from } = shot.block(first), to = shot.block(last).to + 1, { detail } = shot.residual; // whole blocks
    if (detail && detail.start <= from && detail.length >= to) return;
    try {
      await olderSteps(shot, from, to, (part) => shot.lookAt(part));
    } catch (failure) {
      notify(`these steps could not be fetched: ${failure.message}`);
      return;
    }
    if (shot === this.shot) this.show();
  },

  tell(state, text, retry = false) {
    this.dialog.dataset.state = state;
    this.message.replaceChildren();
    this.message.hidden = !text;
    if (!text) return;
    make("p", { text }, this.message);
    if (retry) make("button", { type: "button", text: "Try again" }, this.message).addEventListener("click", () => this.show());
  },

  allow(pictures) { for (const button of this.pictures) button.disabled = !pictures; },

  // Export

  /** Such as laser-studio_sudoku-6x6_medium-0001_fidelity_t74.csv */
  fileName(what) {
    const { model, puzzle, frame } = this.shot;
    return ["laser-studio", model.name, puzzle.id, what, `t${frame.index}`].filter(Boolean).map((part) => part.replace(/[^\w.+-]+/g, "-")).join("_");
  },

  async picture(format) {
    const entry = ZOOM[this.id], { layout, data } = this.plot;
    const caption = `<b>${plain(entry.title)}</b><br><span style="font-size:14px">${plain(this.about.textContent)}</span>`;
    const bigger = (part) => (part ? { ...part, tickfont: { ...part.tickfont, size: 15 }, title: { ...part.title, font: { ...part.title?.font, size: 16 } } } : part);
    const axes = Object.fromEntries(Object.entries(layout).filter(([name]) => /^[xy]axis\d*$/.test(name)).map(([name, part]) => [name, bigger(part)]));
    const whole = {
      ...layout, ...axes, ...EXPORT_SIZE, autosize: false, font: { ...layout.font, size: 15 }, legend: { ...layout.legend, font: { size: 15 } },
      title: { text: caption, x: 0.012, xanchor: "left", y: 0.95, yanchor: "top", font: { size: 20, color: ink.text } }, margin: { l: 80, r: 30, t: data.length > 1 ? 124 : 100, b: 64 },
    };
    this.allow(false);
    try {
      await window.Plotly.downloadImage({ data, layout: whole }, { format, ...EXPORT_SIZE, scale: format === "png" ? 2 : 1, filename: this.fileName(this.id) });
    } catch (failure) {
      notify(`the picture could not be made: ${failure.message ?? failure}`);
    } finally {
      this.allow(true);
    }
  },

  async data() {
    const entry = ZOOM[this.id], { shot } = this;
    if (!entry.has(shot)) return notify("nothing recorded yet: there is no data to export");
    return this.save(this.id, async () => {
      await entry.fetch?.(shot);
      return entry.table(shot);
    });
  },

  allData() { return this.save("all", () => everything(this.shot)); },

  /** A table as a CSV file. Of a long run the older steps are fetched for it, which may take a while. */
  async save(what, make) {
    const { shot } = this, name = `${this.fileName(what)}.csv`;
    const tell = (share) => {
      this.doing = share < 1 ? `fetching the older steps: ${Math.round(100 * share)} %` : "";
      if (this.shot) this.compare();
    };
    try {
      download(name, "text/csv;charset=utf-8", await csvParts(shot, await make(), tell));
    } catch (failure) {
      notify(`the data could not be exported: ${failure.message}`, { lasting: true });
    } finally {
      tell(1);
    }
  },

  /** Put the buttons in once the page has started. */
  start() {
    if (window.laserStudio?.ready) this.wire(); else requestAnimationFrame(() => this.start());
  },
};

requestAnimationFrame(() => zoom.start());
