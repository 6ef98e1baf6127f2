// The training page as a whole: sets a run up, starts and steers it, asks how it stands, and draws what comes back.

const TICK_MS = 500; // between two looks at a run that is trained
const REST_TICKS = 4; // a look in so many ticks while nothing is trained, or nobody sees the page
const PAGE_KEY = "laser-studio-train-page"; // the secret by which a run knows its page
const LAST_KEY = "laser-studio-train-run"; // the run this browser trained last
const LIVE_STATES = new Set(["starting", "running", "pausing", "paused", "stopping"]);
const TRAIN_SLIDERS = ["rank", "min_fidelity", "patience", "growth"];
const TRAIN_PLAN = ["keeps", "budget", "mode", "storage", "products", "on_miss"]; // choices, one each
const TRAIN_AMOUNTS = ["cosine", "share", "recheck"]; // numbers of a budget
const PILLS = {
  none: "ready", starting: "starting", running: "training", pausing: "pausing", paused: "paused", stopping: "saving", resting: "at rest", done: "complete",
  error: "stopped",
};

const training = {
  server: null,
  page: "",
  offered: null, // what can be trained, and the runs that are kept
  run: null, // the run shown; null while one is set up
  live: null, // name of the run that has a process, whoever's it is
  own: false,
  busy: false, // whether that run is at work: one that is paused makes room for another
  version: -1, // of the list of runs
  looking: false, // a look is on its way
  lost: false, // the studio did not answer the last look
  ticks: 0,
  acting: "", // a command that has been given and not shown its effect yet
  built: "", // sites the rows are made for

  async start(server) {
    this.server = server;
    beginPage();
    this.page = remembered(PAGE_KEY) ?? "";
    if (this.page.length < 16) { this.page = crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint32Array(4))].join("-"); remember(PAGE_KEY, this.page); }
    this.wire();
    followSystem(() => this.applyTheme());
    this.applyTheme();
    onResize.push(redraw);
    await this.list();
    if (this.offered) this.choose(this.firstRun());
    heartbeat(() => this.tick());
    mark($("train-page"), "data-ready", "true");
  },

  wire() {
    const click = (id, work) => $(id).addEventListener("click", work);
    click("train-start", () => this.begin());
    for (const name of ["pause", "resume", "stop"]) click(`train-${name}`, () => this.command(name));
    click("train-new", () => this.choose(null));
    click("train-debug", () => this.openModel());
    click("train-save", () => download(`laser-studio_${this.run.name}.csv`, "text/csv", [this.run.csv()]));
    click("train-theme", () => turnTheme(() => this.applyTheme()));
    click("loss-scale", () => {
      trainPlots.logarithmic = !trainPlots.logarithmic;
      say($("loss-scale"), trainPlots.logarithmic ? "scale: log" : "scale: linear");
      redraw();
    });
    for (const name of TRAIN_PLAN) slider(name).addEventListener("change", () => this.tell());
    for (const name of TRAIN_SLIDERS) {
      const range = slider(name), number = numberOf(name);
      range.addEventListener("input", () => { number.value = range.value; this.tuneSoon(); });
      number.addEventListener("change", () => { if (!number.checkValidity() || number.value === "") number.value = range.value; range.value = number.value; this.tuneSoon(); });
    }
    document.addEventListener("keydown", (event) => this.key(event));
    const shown = () => this.run;
    trainPlots.wire("loss-plot", shown, (run, step) => [...sideLines("loss", (value) => fixed(value, 4))(run, step), ...sideLines("mean", (value) => fixed(value, 4), ", mean of 20")(run, step), ...secondsLines(run, step)]);
    trainPlots.wire("exact-plot", shown, (run, step) => {
      const lines = ["laser", "plain"].map((side) => {
        const known = run.track(`exact.${side}`).latest(step);
        return { colour: ink[SIDE_INK[side]], name: `${SIDE_NAME[side]}, validation`, value: known ? `${percent(known.high)} (step ${Math.min(known.step, run.done)})` : NONE };
      });
      return [...lines, ...["laser", "plain"].map((side) => ({ colour: ink[SIDE_INK[side]], name: `${SIDE_NAME[side]}, training`, value: spanOf(run.track(`train.${side}`).span(step), percent) }))];
    });
    const ofSites = (kind, text) => (run, step) => [
      ...trainPlots.based(run).map((site) => ({ colour: site.colour, name: site.label, value: spanOf(run.track(`${kind}:${site.name}`).span(step), (value) => text(value, site)), strong: site.name === trainPlots.selected })),
      ...run.happened(step).map(([what, site, count]) => `${labelOf(run, site)}: ${what === "grow" ? "grew" : "reset by SVD"}${count > 1 ? ` ${count} times` : ""}`),
    ];
    trainPlots.wire("fidelity-plot", shown, ofSites("fidelity", fidelityText));
    trainPlots.wire("rank-plot", shown, ofSites("rank", (value, site) => (value ? `${value} of ${site.dim}` : "whole")));
    trainPlots.wire("bytes-plot", shown, (run, step) => {
      const site = trainPlots.selected;
      const names = site === null ? [["full", "bytes.full", ink.muted], ["kept", "bytes.saved", ink.green]] : [["full", `full:${site}`, ink.muted], ["kept", `kept:${site}`, ink.green]];
      return [site === null ? "all saved for backward" : labelOf(run, site), ...names.map(([name, track, colour]) => ({ colour, name, value: spanOf(run.track(track).span(step), bytes) }))];
    });
  },

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select")) return;
    const { run } = this;
    if (event.key === " " && !event.target.closest?.("button, a")) {
      const name = run && ["running", "paused", "resting", "error"].includes(run.state) ? (run.state === "running" ? "pause" : "resume") : null;
      if (name && !$(`train-${name}`).hidden && !$(`train-${name}`).disabled) { event.preventDefault(); this.command(name); }
    } else if (event.key.toLowerCase() === "d") turnTheme(() => this.applyTheme());
    else if (/^[1-9]$/.test(event.key) && run?.sites[Number(event.key) - 1]) this.select(run.sites[Number(event.key) - 1].name);
  },

  // Asking

  /** Ask the server; problems are said on the page, and give null. */
  async ask(name, data) {
    let reply = null;
    try {
      reply = await this.server[name]({ page: this.page, ...data });
    } catch {
      this.problem("the studio does not answer: is it still running? What was trained is saved at least every half minute");
      this.lost = true;
      return null;
    }
    if (this.lost) { this.lost = false; this.problem(""); }
    if (reply.error) { this.problem(reply.error); return reply.expired ? reply : null; }
    return reply;
  },

  async list() {
    const reply = await this.ask("train_open", {});
    if (!reply || reply.error) { if (!this.offered) this.show("lost"); return; }
    const first = !this.offered;
    this.offered = reply;
    this.version = reply.version;
    [this.live, this.own, this.busy] = [reply.live, reply.own, reply.busy];
    if (first) {
      for (const [id, names] of [["train-task", reply.tasks], ["train-variant", reply.variants]]) $(id).replaceChildren(...names.map((name) => make("option", { value: name, text: name })));
    }
    this.tellList();
  },

  /** The run a fresh page opens on: the one in the address, the one that is trained, or the one this browser trained last. */
  firstRun() {
    const { runs, live } = this.offered, names = runs.map(({ run }) => run);
    const asked = new URLSearchParams(location.search).get("run");
    return [asked, live, remembered(LAST_KEY)].find((name) => name && names.includes(name)) ?? null;
  },

  /** Show a run, or with null the setting up of one. */
  choose(name) {
    this.problem("");
    trainPlots.selected = null;
    this.run = name ? new TrainedRun(name) : null;
    this.built = "";
    // With its path: alone, a query would be one of the page's base, which is the debugger.
    history.replaceState(history.state, "", `${location.pathname}${name ? `?run=${encodeURIComponent(name)}` : ""}`);
    if (name) { this.show("loading"); this.look(); return; }
    for (const [key, { default: value }] of Object.entries(this.offered.controls)) this.slide(key, value);
    this.tell();
  },

  async tick() {
    this.ticks += 1;
    const working = this.own || (this.run && LIVE_STATES.has(this.run.state));
    if ((document.hidden || !working) && this.ticks % REST_TICKS) return;
    await this.look();
  },

  /** Ask how things stand: every look of its page keeps a run alive. */
  async look() {
    if (this.looking) return;
    this.looking = true;
    try {
      const { run } = this;
      // While another run is looked at, the own one must not be thought left alone: any look of this page counts for it.
      const reply = await this.ask("train_follow", run ? { run: run.name, ...run.lacks } : {});
      if (!reply || run !== this.run) return;
      if (reply.error) { this.choose(null); this.problem(reply.error); await this.list(); return; }
      [this.live, this.own, this.busy] = [reply.live, reply.own, reply.busy];
      const before = run?.state;
      if (run && !run.take(reply)) return;
      if (run && before !== run.state) this.acting = "";
      if (run && reply.refused) this.problem(reply.refused);
      if (reply.version !== this.version) await this.list();
      this.tell();
    } finally {
      this.looking = false;
    }
    if (this.again) { this.again = false; this.look(); }
  },

  /** A look at once, or right after the one that is on its way. */
  lookNow() { if (this.looking) this.again = true; else this.look(); },
  again: false,

  // Doing

  /** How activations are to be kept. What has no say keeps its place on the page, and is sent as it stands. */
  plan() {
    const chosen = Object.fromEntries(TRAIN_PLAN.map((name) => [name, slider(name).value]));
    return { ...chosen, ...Object.fromEntries(TRAIN_AMOUNTS.map((name) => [name, Number(slider(name).value)])) };
  },

  /** The first number of the budget that cannot be, in words; "" where all can. */
  unfit() {
    if (slider("keeps").value !== "budget") return "";
    const asked = TRAIN_AMOUNTS.filter((name) => name === "recheck" || (name === "cosine") === (slider("budget").value === "cosine"));
    const wrong = asked.map(slider).find((field) => field.value === "" || !field.checkValidity());
    wrong?.focus();
    return wrong ? `${{ cosine: "a budget's cosine", share: "a budget's share of plain autograd's bytes", recheck: "the distance between two measurings" }[wrong.id.slice(6)]} lies between ${wrong.min} and ${wrong.max}${wrong.id === "train-share" ? " %" : ""}: nothing was started` : "";
  },

  settings() { return Object.fromEntries(TRAIN_SLIDERS.map((name) => [name, Number(slider(name).value)])); },

  async begin() {
    if (this.acting) return;
    this.problem(this.unfit());
    if (!$("train-problem").hidden) return;
    this.acting = "start";
    this.tell();
    const reply = await this.ask("train_start", { task: $("train-task").value, variant: $("train-variant").value, plan: this.plan(), laser: this.settings() });
    this.acting = "";
    if (!reply || reply.error) { this.tell(); return; }
    remember(LAST_KEY, reply.run);
    this.own = true;
    await this.list();
    this.choose(reply.run);
  },

  async command(name) {
    if (this.acting || !this.run) return;
    this.acting = name;
    this.problem("");
    this.tell();
    const reply = await this.ask("train_command", { run: this.run.name, name });
    if (!reply || reply.error) this.acting = "";
    else if (name === "resume") { remember(LAST_KEY, this.run.name); this.own = true; }
    this.lookNow();
  },

  async remove(name) {
    const reply = await this.ask("train_command", { run: name, name: "delete" });
    if (!reply || reply.error) return;
    if (this.run?.name === name) this.choose(null);
    await this.list();
    this.tell();
  },

  /** The newest position of the sliders counts; one request at a time. */
  async tuneSoon() {
    this.moved = true;
    if (this.tuning || !this.steers()) return;
    this.tuning = true;
    while (this.moved) {
      this.moved = false;
      this.problem("");
      await this.ask("train_tune", { run: this.run.name, laser: this.settings() });
    }
    this.tuning = false;
    this.lookNow();
  },
  moved: false,
  tuning: false,

  /** Whether the sliders steer a run that has a process. */
  steers() { return Boolean(this.run && this.run.own && this.run.name === this.live && ["running", "pausing", "paused"].includes(this.run.state)); },

  async openModel() {
    const chosen = $("train-moment").value, side = $("train-which").value;
    const kept = this.run.models.find(([, step, of]) => `${step}` === chosen && of === side);
    const tab = window.open("about:blank", "_blank"); // at once, while the click counts; the address comes when the model is written
    $("train-debug").disabled = true;
    const reply = kept ? { model: kept[0] } : await this.ask("train_model", { run: this.run.name, side });
    $("train-debug").disabled = false;
    if (!reply?.model) { tab?.close(); return; }
    const address = new URL(`./?model=${encodeURIComponent(reply.model)}`, document.baseURI).href;
    if (tab) tab.location.replace(address); else location.assign(address);
  },

  select(name) { trainPlots.selected = trainPlots.selected === name ? null : name; this.tellSites(); redraw(); },

  // Telling

  problem(text) { say($("train-problem"), text); hide($("train-problem"), !text); },

  show(state) { mark($("train-page"), "data-state", state); },

  tell() {
    const { run } = this, state = run?.state ?? "none";
    this.show(run ? (run.done ? "run" : state === "none" ? "loading" : "begun") : "empty");
    mark($("train-page"), "data-run", state);
    mark($("train-page"), "data-step", run?.done ?? 0);
    const others = this.live !== null && !this.own, live = LIVE_STATES.has(state);
    const steerable = live && run.own;
    const pill = $("train-pill");
    say(pill, PILLS[state] ?? state);
    mark(pill, "class", { running: "playing", starting: "playing", done: "done", error: "error" }[state] ?? "");
    say($("train-name"), run?.name ?? "new");
    const about = this.offered?.runs.find((one) => one.run === run?.name);
    if (about?.task) { $("train-task").value = about.task; $("train-variant").value = about.variant; this.showPlan(about.laser); }
    for (const id of ["train-task", "train-variant"]) $(id).disabled = Boolean(run);
    const keeps = this.tellPlan(Boolean(run));
    if (run?.laser && !this.moved && !this.tuning) {
      for (const name of TRAIN_SLIDERS) if (document.activeElement !== numberOf(name)) this.slide(name, name === "rank" ? parseFloat(run.laser.rank) : run.laser[name]);
    }
    for (const name of TRAIN_SLIDERS) for (const node of [slider(name), numberOf(name)]) node.disabled = keeps !== "bases" || (Boolean(run) && !this.steers());

    const full = this.offered && this.offered.runs.length >= this.offered.most;
    hide($("train-start"), Boolean(run));
    $("train-start").disabled = Boolean(this.acting) || !this.offered || this.busy || full;
    say($("train-start"), this.acting === "start" ? "Starting …" : "Start");
    hide($("train-pause"), !["running", "pausing", "starting"].includes(state) || !steerable);
    $("train-pause").disabled = state !== "running" || Boolean(this.acting);
    say($("train-pause"), state === "pausing" ? "Pausing …" : "Pause");
    const resumable = ["paused", "resting", "error", "stopping"].includes(state);
    hide($("train-resume"), !resumable);
    $("train-resume").disabled = state === "stopping" || Boolean(this.acting) || (this.busy && this.live !== run?.name);
    say($("train-resume"), this.acting === "resume" ? "Resuming …" : state === "stopping" ? "Saving …" : "Resume");
    hide($("train-stop"), !steerable || state === "stopping");
    $("train-stop").disabled = Boolean(this.acting);
    hide($("train-new"), !run || (live && state !== "paused"));
    const elsewhere = this.busy && this.live !== run?.name;
    say($("train-note"), others && live ? "Another page trains this: you may look, and steer it once it is paused."
      : elsewhere ? `${this.live} is being trained ${this.own ? "by this page" : "by another page"}; one run is trained at a time.`
        : full && !run ? `${this.offered.most} runs are kept, and no more: delete one below.`
          : live && run.done ? (keeps === "bases" ? "Sliders act on the next step." : "How activations are kept stays to the run's end.") : state === "done" ? "Complete. The models it keeps open in the debugger." : run && !live ? (keeps === "bases" ? "At rest on disk. Resume it, and the sliders act on the next step." : "At rest on disk. Resumed, it goes on to the same curve.")
            : "Both sides start from the same weights and see the same puzzles in the same order.");
    this.tellProgress(run, state);
    this.tellHead(run);
    this.tellModels(run);
    this.tellSites();
    this.tellChoice(run);
    if (run?.problem) this.problem(run.problem);
    $("train-save").disabled = !run?.done;
    this.markList();
    redraw();
  },

  /** Put what a run was started with into the controls. */
  showPlan(laser) {
    const [kind, amount] = (laser.budget ?? "").split("=");
    const shown = { ...laser, keeps: laser.budget ? "budget" : laser.blocks ? "blocks" : laser.whole ? "whole" : "bases", budget: kind || null, [kind === "bytes" ? "share" : "cosine"]: amount ? parseFloat(amount) : null };
    for (const name of [...TRAIN_PLAN, ...TRAIN_AMOUNTS]) if (shown[name] !== undefined && shown[name] !== null) slider(name).value = `${shown[name]}`;
  },

  /** Which controls have a say, and why the others have none. Returns what is kept. */
  tellPlan(fixed) {
    const keeps = slider("keeps").value, found = keeps === "budget";
    const idle = { keeps: false, mode: WITHOUT_BASES.includes(keeps), storage: found, products: !found && slider("storage").value === "exact", on_miss: keeps !== "bases" };
    for (const name of [...TRAIN_PLAN, ...TRAIN_AMOUNTS]) slider(name).disabled = fixed || Boolean(idle[name]);
    if (WITHOUT_BASES.includes(keeps)) slider("mode").value = "block";
    hide($("train-budgets"), !found);
    const bytes = slider("budget").value === "bytes";
    hide(slider("cosine").parentNode, bytes);
    hide(slider("share").parentNode, !bytes);
    hide($("train-idle"), keeps === "bases");
    say($("train-idle"), found ? "The budget finds rank and storage of each site: these do not count." : keeps === "bases" ? "" : "Without bases there is no rule: these do not count.");
    return keeps;
  },

  /** What the budget led to, and when it was measured. */
  tellChoice(run) {
    const line = $("train-choice"), budget = run?.laser?.budget;
    hide(line, !budget || !run.done);
    if (!budget || !run.done) return;
    const { choice, checks } = run, after = checks.map(([step]) => (step - 1).toLocaleString("en"));
    const held = choice && (choice.reached ? "held" : "not reached, nearest");
    const times = after.length > 4 ? `${after[0]} … ${after.slice(-2).join(", ")}` : after.join(", ");
    say(line, choice ? `${choice.asked}: ${held}, cosine ${fixed(choice.mean, 4)} (worst ${fixed(choice.worst, 4)}) · measured after step ${times}`
      : "The budget is measured after step 3; until then places are kept whole, in full.");
    explain(line, () => checks.map(([step, check]) => {
      const led = check.choice ? `${check.choice.options ? "chosen" : ""}: cosine ${fixed(check.choice.mean, 4)}, ${bytes(check.choice.saved)} of ${bytes(check.choice.full)} saved` : `${fixed(check.cosine, 4)}, kept as it was`;
      return `after step ${(step - 1).toLocaleString("en")}, in ${duration(check.seconds)}, ${led}`;
    }));
  },

  tellProgress(run, state) {
    const bar = $("train-progress");
    hide(bar, !run);
    if (!run) return;
    const share = run.steps ? run.done / run.steps : 0;
    bar.classList.toggle("waiting", state === "starting" && !run.done);
    dress(bar.firstElementChild, "width", `${(100 * share).toFixed(2)}%`);
    mark(bar, "aria-valuenow", Math.round(100 * share));
    const left = Number.isFinite(run.left) ? ` · ${duration(run.left)} left` : "";
    const steps = run.steps ? `step ${run.done.toLocaleString("en")} of ${run.steps.toLocaleString("en")}` : "";
    say(bar.querySelector("span"), run.text || (steps ? `${steps}${left}` : "no step yet"));
    mark(bar, "aria-valuetext", `${steps}${left}`);
  },

  tellHead(run) {
    const figure = (name) => run?.track(name).newest ?? null;
    const text = (id, value, shown) => say($(id), value === null || !Number.isFinite(value) ? NONE : shown(value));
    for (const side of ["laser", "plain"]) {
      text(`loss-${side}`, figure(`loss.${side}`), (value) => fixed(value, 3));
      text(`exact-${side}`, figure(`exact.${side}`), percent);
      text(`tile-${side}`, figure(`exact.${side}`), (value) => percent(value, 0));
    }
    const full = figure("bytes.full"), kept = figure("bytes.saved");
    const gone = full ? 1 - kept / full : null;
    text("tile-gone", gone, percent);
    text("bytes-gone", gone, percent);
    text("bytes-full", full, bytes);
    text("bytes-kept", kept, bytes);
    const seconds = run ? ["laser", "plain"].map((side) => recentMean(run, `seconds.${side}`)) : [null, null];
    text("tile-time", seconds[1] ? seconds[0] / seconds[1] : null, (value) => `${fixed(value, 2)} ×`);
    say($("tile-resets"), run?.done ? `${run.count("reset")}` : NONE);
    say($("tile-growth"), run?.done ? `${run.count("grow")}` : NONE);
    const rate = (what) => fixed(figure(`per thousand.${what}`), 0);
    say($("tile-rates"), figure("per thousand.misses") === null ? "" : `per 1,000 steps\n${rate("resets")} · ${rate("growths")} · ${rate("misses")} misses`);
    const epsilon = run?.laser?.min_fidelity, none = Boolean(run?.done) && !trainPlots.based(run).length;
    say($("sites-now"), run?.done && !none && ruled(run) ? `ε ${fixed(epsilon, 3)} · ${run.count("reset")} resets` : "");
    hide($("sites-none"), !none);
    for (const id of ["rank-lane", "rank-box"]) hide($(id), none);
    say($("sites-none"), none ? (run.laser.budget && !run.choice ? "Nothing is projected until the budget is measured." : "No bases: every place is kept whole, so there is no fidelity and no rank.") : "");
  },

  tellModels(run) {
    hide($("train-open"), !run?.done);
    if (!run) return;
    const live = run.name === this.live && run.own;
    const steps = [...new Set(run.models.map(([, step]) => step))].sort((a, b) => b - a);
    const options = [...(live || !steps.length ? [["now", "now"]] : []), ...steps.map((step) => [`${step}`, `step ${step}`])];
    const known = JSON.stringify(options), choice = $("train-moment");
    if (choice.known === known) return;
    choice.known = known;
    const chosen = choice.value;
    choice.replaceChildren(...options.map(([value, text]) => make("option", { value, text })));
    if (options.some(([value]) => value === chosen)) choice.value = chosen;
  },

  /** A row per site: how much is kept of how much, on one scale. */
  tellSites() {
    const { run } = this, box = $("train-sites");
    const sites = run?.sites ?? [];
    const known = JSON.stringify(sites.map(({ name }) => name));
    if (this.built !== known) {
      this.built = known;
      box.replaceChildren();
      this.rows = sites.map((site, i) => {
        const row = make("button", { cls: "memory-row", type: "button", "aria-pressed": "false" }, box);
        make("span", { cls: "name", text: site.label }, row);
        const how = make("span", { cls: "how num" }, row);
        const full = make("i", { cls: "full" }, make("span", { cls: "bar" }, row));
        const all = make("i", { cls: "basis" }, full), kept = make("i", { cls: "kept" }, full);
        all.style.background = kept.style.background = site.dim ? siteColour(i) : "var(--muted)";
        const value = make("b", { cls: "num", text: NONE }, row);
        row.addEventListener("click", () => this.select(site.name));
        return { row, how, full, all, kept, value };
      });
    }
    if (!run) return;
    const at = (kind, name) => run.track(`${kind}:${name}`).newest ?? 0;
    const widest = Math.max(1, ...sites.map(({ name }) => Math.max(at("full", name), at("kept", name))));
    sites.forEach((site, i) => {
      const { row, how, full, all, kept, value } = this.rows[i];
      const whole = at("full", site.name), stored = at("stored", site.name), beside = at("beside", site.name);
      const length = Math.max(whole, stored + beside, 1);
      dress(full, "transform", `scaleX(${(length / widest).toFixed(4)})`);
      dress(kept, "transform", `scaleX(${(stored / length).toFixed(4)})`);
      dress(all, "transform", `scaleX(${((stored + beside) / length).toFixed(4)})`);
      say(how, keptAs(run, site, whole, stored));
      say(value, `${bytes(whole)} → ${bytes(stored + beside)}`);
      row.classList.toggle("selected", trainPlots.selected === site.name);
      mark(row, "aria-pressed", String(trainPlots.selected === site.name));
      explain(row, () => siteWords(run, site, whole, stored, beside));
    });
    say($("bytes-of"), trainPlots.selected === null ? "full → stored, one step" : `curve: ${labelOf(run, trainPlots.selected)}`);
  },

  tellList() {
    const { runs, most } = this.offered, list = $("train-list");
    list.replaceChildren(...runs.map((one) => {
      const item = make("li", { "data-run": one.run });
      const show = make("button", { type: "button", cls: "show" }, item);
      make("b", { text: one.run }, show);
      const exact = one.exact?.laser;
      const stands = one.problem ?? (one.steps ? standing(one.step, one.steps, exact) : "no step yet");
      make("span", { cls: "num", text: stands }, show);
      explain(show, () => [`started ${one.created ?? NONE}`, one.steps && one.step >= one.steps ? "complete" : "can be resumed", ...(Number.isFinite(exact) ? [`exact on validation puzzles: ${percent(exact)} with LASER, ${percent(one.exact.plain)} without`] : [])]);
      show.addEventListener("click", () => this.choose(one.run));
      const away = make("button", { type: "button", cls: "away", text: "×", "aria-label": `Delete ${one.run}`, "data-tip": "Delete this run with its checkpoint and models." }, item);
      away.addEventListener("click", () => { if (away.classList.contains("sure")) { this.remove(one.run); return; } away.classList.add("sure"); say(away, "delete?"); });
      away.addEventListener("blur", () => { away.classList.remove("sure"); say(away, "×"); });
      return item;
    }));
    hide($("train-list-empty"), runs.length > 0);
    say($("train-count"), runs.length ? `${runs.length} of ${most}` : "");
    this.markList();
  },

  markList() {
    for (const item of $("train-list").children) {
      const name = item.dataset.run;
      item.classList.toggle("shown", name === this.run?.name);
      item.classList.toggle("live", name === this.live);
      item.lastElementChild.disabled = name === this.live;
      mark(item.firstElementChild, "aria-current", String(name === this.run?.name));
      const { run } = this;
      if (name === run?.name && run.done && run.steps) say(item.querySelector(".show span"), standing(run.done, run.steps, run.track("exact.laser").newest));
    }
  },

  slide(name, value) {
    for (const node of [slider(name), numberOf(name)]) if (Number(node.value) !== value) node.value = `${value}`;
  },

  applyTheme() {
    document.body.classList.toggle("dark", document.documentElement.dataset.theme === "dark");
    readInk();
    redraw();
  },
};

const IN_BITS = { exact: "", int8: " · 8 bits", int4: " · 4 bits" };
const slider = (name) => $(`train-${name.replace("_", "-")}`);
const WITHOUT_BASES = ["whole", "blocks"]; // ways of keeping activations
/** Whether rank, ε, patience and growth have a say in a run. */
const ruled = (run) => !run.laser?.budget && !run.laser?.whole;
const numberOf = (name) => $(`train-${name.replace("_", "-")}-number`);
const labelOf = (run, name) => run.sites.find((site) => site.name === name)?.label ?? name;

/** How a site's input is kept in the newest step. */
function keptAs(run, site, whole, stored) {
  if (!site.dim) return "rebuilt";
  const option = run.choice?.options[site.name], rank = option && option.rank === null ? null : run.track(`rank:${site.name}`).newest;
  const bits = IN_BITS[option?.storage ?? run.laser?.storage] ?? "";
  if (rank) return `rank ${rank}${bits}`;
  if (option?.storage === "recomputed" || (run.laser?.blocks && whole && !stored)) return "made again";
  return stored === whole || rank === 0 || !bits || (run.laser?.budget && !run.choice) ? "in full" : `whole${bits}`;
}

function optionWords({ rank, storage }) {
  if (storage === "recomputed") return "made again in backward";
  return `${rank === null ? "no basis" : `rank ${rank} of the width`}${IN_BITS[storage] || " · in full"}`;
}

function siteWords(run, site, whole, stored, beside) {
  const rank = run.track(`rank:${site.name}`).newest, fidelity = run.track(`fidelity:${site.name}`).newest;
  if (!site.dim) return `${site.name}: ${bytes(whole)} in full; rebuilt in backward, nothing is stored of it`;
  const option = run.choice?.options[site.name];
  const how = keptAs(run, site, whole, stored);
  const basis = rank && option?.rank !== null ? `rank ${rank} of ${site.dim}, fidelity ${fidelityText(fidelity)}` : `width ${site.dim}, ${how === "made again" ? how : `kept ${how}`}`;
  const feeds = whole ? `${bytes(whole)} in full` : "the block's output, which plain autograd need not keep";
  const led = option ? `chosen by the budget: ${optionWords(option)}; ${option.with?.length ? `with ${option.with.map((name) => labelOf(run, name)).join(" and ")}, which read the same,` : "by itself"} it frees ${bytes(Math.max(0, option.freed))} and leaves a cosine of ${fixed(option.alone, 5)}`
    : ruled(run) ? `${run.count("grow", site.name)} times grown, ${run.count("reset", site.name)} resets` : null;
  return [`${site.name}: ${basis}`, `${feeds}; stored ${bytes(stored)}, beside it ${bytes(beside)}`, ...(led ? [led] : [])];
}

const standing = (step, steps, exact) => `${step.toLocaleString("en")} of ${steps.toLocaleString("en")} steps${exact === null || exact === undefined ? "" : ` · ${percent(exact, 0)} exact`}`;

const secondsLines = (run, step) => ["laser", "plain"].map((side) => ({ colour: ink[SIDE_INK[side]], name: `${SIDE_NAME[side]}, time of the step`, value: spanOf(run.track(`seconds.${side}`).span(step), (value) => `${fixed(value, 2)} s`) }));

/** Mean of the newest twenty figures. */
function recentMean(run, name) {
  const figures = run.track(name).low.slice(-20).filter((value) => value !== null);
  return figures.length ? figures.reduce((sum, value) => sum + value, 0) / figures.length : null;
}

function duration(seconds) {
  if (seconds >= 5400) return `${fixed(seconds / 3600, 1)} h`;
  return seconds >= 90 ? `${Math.round(seconds / 60)} min` : `${Math.max(1, Math.round(seconds))} s`;
}

function remembered(key) { try { return localStorage.getItem(key); } catch { return null; } }
function remember(key, value) { try { localStorage.setItem(key, value); } catch { /* then only while this page is open */ } }

let drawing = false; // a drawing is due with the next picture

/** Draw with the next picture, once, however often it is asked for. */
function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    if (!training.run?.done) return;
    trainPlots.draw(training.run);
    mark($("train-page"), "data-drawn", training.run.done);
  });
}

/** Call `work` again and again, also while the tab is hidden: there browsers slow a page's own timers down to one a minute. */
function heartbeat(work) {
  const slow = () => { work(); setTimeout(slow, TICK_MS); };
  try {
    const source = `const beat = () => { postMessage(0); setTimeout(beat, ${TICK_MS}); }; beat();`;
    const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    worker.onmessage = work;
    worker.onerror = () => { worker.onmessage = null; slow(); };
  } catch {
    slow();
  }
}

window.laserStudio = { ready: true, training };
styleLast();
training.start(server);
