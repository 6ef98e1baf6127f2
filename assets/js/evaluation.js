// The evaluation page: asks for a model's report, starts and follows new evaluations, and draws what they found.

const FOLLOW_MS = 400; // between looks at a job
const ARM_LOOKS = [ // exact activations first; colours of Okabe and Ito's set, each with a dash of its own
  { colour: null, dash: "solid", symbol: "circle" }, { colour: "#e69f00", dash: "dash", symbol: "square" },
  { colour: "#cc79a7", dash: "dot", symbol: "diamond" }, { colour: "#009e73", dash: "dashdot", symbol: "triangle-up" },
  { colour: "#d55e00", dash: "longdash", symbol: "x" }, { colour: "#56b4e9", dash: "longdashdot", symbol: "star" },
];
const armColour = (place) => ARM_LOOKS[place % ARM_LOOKS.length].colour ?? ink.accent;
const armName = (arm) => (arm.rank ? `rank ${arm.rank}` : "exact activations");
const GROUP_COLOURS = { easy: "#56b4e9", medium: "#e69f00", hard: "#d55e00" };
const rounded = (share) => (share === 1 || share === 0 ? `${100 * share} %` : percent(share));

const evaluation = {
  server: null,
  model: "",
  found: null, // the report shown
  job: null, // of the evaluation that is followed
  asked: 0, // counts requests, so that a late answer to an early one is dropped

  async start(server) {
    this.server = server;
    beginPage();
    $("eval-model").addEventListener("change", () => this.choose($("eval-model").value));
    $("eval-run").addEventListener("click", () => this.run());
    $("eval-stop").addEventListener("click", () => this.stop());
    $("eval-theme").addEventListener("click", () => turnTheme(() => this.applyTheme()));
    $("eval-save").addEventListener("click", () => this.save());
    for (const id of ["eval-each", "eval-ranks"]) $(id).addEventListener("keydown", (event) => { if (event.key === "Enter") this.run(); });
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select")) return;
      if (event.key.toLowerCase() === "d") turnTheme(() => this.applyTheme());
    });
    $("failures-filter").addEventListener("change", () => this.tellFailures());
    followSystem(() => this.applyTheme());
    const query = new URLSearchParams(location.search);
    if (/^\d{1,4}$/.test(query.get("each") ?? "")) $("eval-each").value = query.get("each");
    if (query.has("ranks")) $("eval-ranks").value = query.get("ranks").slice(0, 80);
    this.applyTheme();
    await this.choose(query.get("model") ?? "");
  },

  /** Ask the server; problems are said on the page, and give null. */
  async ask(name, data) {
    const reply = await fromServer(() => this.server[name](data));
    if (reply.error) { this.problem(reply.error); return null; }
    return reply;
  },

  async choose(name) {
    const asked = ++this.asked;
    this.state("loading");
    this.problem("");
    let reply = await this.ask("report_of", { model: name });
    if (!reply && name && asked === this.asked) { // a link may name a model that is not offered here
      const said = $("eval-problem").textContent;
      reply = await this.ask("report_of", { model: "" });
      this.problem(said);
    }
    if (asked !== this.asked) return;
    if (!reply) { this.state("empty"); return; }
    this.model = reply.model;
    const choice = $("eval-model");
    choice.replaceChildren(...reply.models.map(([value, text]) => make("option", { value, text })));
    choice.value = reply.model;
    $("eval-run").disabled = !reply.generates;
    for (const link of document.querySelectorAll("[data-debugger]")) link.setAttribute("href", `./?model=${encodeURIComponent(reply.model)}`);
    this.keepAddress();
    this.job = reply.job;
    this.show(reply.found);
    if (reply.job) this.follow(reply.job, asked);
  },

  keepAddress() {
    const query = new URLSearchParams({ model: this.model, each: $("eval-each").value, ranks: $("eval-ranks").value });
    history.replaceState(history.state, "", `${location.pathname}?${query}`); // a query alone would be one of the page's base, the debugger
  },

  async run() {
    const each = $("eval-each");
    if (!each.checkValidity()) { each.reportValidity(); return; }
    const asked = ++this.asked;
    this.problem("");
    const reply = await this.ask("evaluate_model", { model: this.model, each: Number(each.value), ranks: $("eval-ranks").value });
    if (!reply || asked !== this.asked) return;
    this.job = reply.job;
    this.keepAddress();
    this.follow(reply.job, asked);
  },

  async stop() {
    if (!this.job) return;
    $("eval-stop").disabled = true;
    await this.ask("follow_job", { job: this.job, stop: true });
  },

  async follow(job, asked) {
    this.progress(0, 0, null);
    hide($("eval-stop"), false);
    $("eval-stop").disabled = false;
    hide($("eval-run"), true);
    let reply = null;
    while (asked === this.asked) {
      reply = await this.ask("follow_job", { job });
      if (!reply || reply.state !== "running") break;
      this.progress(reply.done, reply.total, reply.left);
      await new Promise((after) => { setTimeout(after, FOLLOW_MS); });
    }
    if (asked !== this.asked) return;
    this.job = null;
    hide($("eval-stop"), true);
    hide($("eval-run"), false);
    hide($("eval-progress"), true);
    if (reply?.state === "done") this.show(reply.found);
    if (reply?.state === "error") this.problem(reply.problem);
    if (reply?.state === "stopped") this.problem("stopped: the report shown is the one from before", false);
  },

  progress(done, total, left) {
    const bar = $("eval-progress");
    hide(bar, false);
    const share = total ? done / total : 0;
    bar.querySelector("i").style.width = `${100 * share}%`;
    const time = Number.isFinite(left) ? ` · ${left >= 90 ? `${Math.round(left / 60)} min` : `${Math.max(1, Math.round(left))} s`} left` : "";
    say(bar.querySelector("span"), total ? `${done} of ${total} runs${time}` : "making puzzles …");
    mark(bar, "aria-valuenow", Math.round(100 * share));
  },

  problem(text, bad = true) {
    const node = $("eval-problem");
    say(node, text);
    node.classList.toggle("bad", bad);
    hide(node, !text);
  },

  state(name) { mark($("evaluation"), "data-state", name); },

  // Drawing

  show(found) {
    this.found = found;
    $("eval-save").disabled = !found;
    this.state(found ? "report" : "empty");
    if (!found) return;
    this.tellHead();
    this.tellCosts();
    this.tellFailures();
    this.draw();
  },

  tellHead() {
    const { found } = this;
    const count = found.groups.reduce((sum, group) => sum + group.puzzles, 0);
    say($("eval-exact"), rounded(found.overall[0]));
    say($("eval-count"), `of ${count.toLocaleString("en")} held-out puzzles`);
    say($("eval-ece"), fixed(found.halting.error, 3));
    say($("eval-steps"), fixed(found.halting.steps, 2));
    say($("eval-halted"), `${rounded(found.halting.exact)} exact when it stops there`);
    say($("eval-wrong"), `${found.failures.length}`);
    const worst = found.arms.length > 1 ? found.arms.length - 1 : 0;
    say($("eval-cost"), worst ? `${rounded(found.overall[worst])}` : NONE);
    say($("eval-cost-of"), worst ? `exact at ${armName(found.arms[worst])}` : "no rank was asked for");
    say($("eval-when"), `${found.task} · measured ${found.measured} · ${found.device}`);
    explain($("eval-when"), () => [found.command, `seeds ${found.groups[0].first_seed} to ${found.groups[0].first_seed + found.groups[0].puzzles - 1} of each difficulty`]);
  },

  tellCosts() {
    const { found } = this, body = $("cost-rows");
    const head = $("cost-head");
    head.replaceChildren(make("th", { text: "activations", scope: "col" }), ...found.groups.map((group) => make("th", { text: group.difficulty, scope: "col" })),
      make("th", { text: "changed", scope: "col", "data-tip": "Puzzles whose last answer is not the one of exact activations." }),
      make("th", { text: "energy", scope: "col", "data-tip": "Energy the bases in force kept, mean over sites and windows after the first." }));
    body.replaceChildren();
    for (const [place, arm] of found.arms.entries()) {
      const row = make("tr", {}, body);
      const name = make("th", { scope: "row" }, row);
      make("i", { style: `background:${armColour(place)}` }, name);
      name.append(armName(arm));
      for (const [group, curve] of arm.exact.entries()) {
        const cell = make("td", { text: rounded(curve.at(-1)) }, row);
        const [low, high] = found.bands[place][group].at(-1);
        explain(cell, () => `${armName(arm)}, ${found.groups[group].difficulty}: ${percent(curve.at(-1))} of ${found.groups[group].puzzles}, 95 % interval ${percent(low)} to ${percent(high)}`);
      }
      const count = found.groups.reduce((sum, group) => sum + group.puzzles, 0);
      const changed = arm.changed.reduce((sum, share, group) => sum + share * found.groups[group].puzzles, 0) / count;
      make("td", { text: arm.rank ? rounded(changed) : NONE }, row);
      make("td", { text: arm.energy === null ? NONE : fidelityText(arm.energy) }, row);
    }
  },

  tellFailures() {
    const { found } = this, wanted = $("failures-filter").value;
    const rows = found.failures.filter((one) => !wanted || one.difficulty === wanted);
    const body = $("failure-rows");
    body.replaceChildren(...rows.slice(0, 500).map((one) => {
      const row = make("tr");
      const address = `./?${new URLSearchParams({ model: this.model, puzzle: one.puzzle })}`;
      const [, difficulty, seed] = one.puzzle.split(":");
      make("a", { href: address, text: `${difficulty} #${seed}`, "data-tip": "Open in the debugger" }, make("td", {}, row));
      make("td", { text: `${one.wrong}` }, row);
      make("td", { text: percent(one.confidence, 0) }, row);
      make("td", { text: one.was_right ? "yes" : "no" }, row);
      return row;
    }));
    const count = found.failures.length;
    say($("failures-note"), count === 0 ? "Every answer was right at the last step." : rows.length ? "" : `None of the ${count} is of this difficulty.`);
    hide($("failures-table"), rows.length === 0);
  },

  async draw() {
    let library = null;
    try {
      library = await loadPlotly();
    } catch {
      this.problem("the plotting library could not be fetched from the studio: is it still running? The tables work without it.");
      return;
    }
    if (!this.found) return;
    const options = { displayModeBar: false, responsive: true, displaylogo: false, plotlyServerURL: "" };
    for (const [id, figure] of [["accuracy-plot", this.accuracy()], ["calibration-plot", this.calibration()], ["steps-plot", this.steps()]]) {
      const node = $(id);
      await library.react(node, figure.data, { ...this.layout(), ...figure.layout, autosize: true, height: node.clientHeight }, options);
      mark(node, "aria-label", figure.says);
    }
    mark($("evaluation"), "data-drawn", ++this.drawn);
  },
  drawn: 0,

  layout() {
    return {
      paper_bgcolor: ink.card, plot_bgcolor: ink.card, font: { family: ink.font, size: 11.5, color: ink.text }, margin: { l: 46, r: 10, t: 8, b: 38 },
      hoverlabel: { bgcolor: ink.card, bordercolor: ink.line, font: { family: ink.font, size: 11.5, color: ink.text }, namelength: -1 }, hovermode: "x unified",
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } },
    };
  },

  axis(title, more = {}) {
    return {
      title: { text: title, font: { size: 11.5, color: ink.muted }, standoff: 6 }, gridcolor: ink.line, zerolinecolor: ink.line, linecolor: ink.line, tickfont: { color: ink.muted, size: 10.5 },
      fixedrange: true, ...more,
    };
  },

  /** Exact accuracy against supervision step: a field per difficulty, a line per arm, the 95 % interval of the first. */
  accuracy() {
    const { found } = this, count = found.groups.length, data = [], layout = { margin: { l: 46, r: 10, t: 46, b: 38 }, annotations: [] };
    const steps = Array.from({ length: found.supervision_steps }, (_, step) => step + 1);
    for (const [group, { difficulty, puzzles }] of found.groups.entries()) {
      const suffix = group ? `${group + 1}` : "", axes = { xaxis: `x${suffix}`, yaxis: `y${suffix}` };
      const band = found.bands[0][group];
      data.push({ ...axes, x: [...steps, ...steps.toReversed()], y: [...band.map(([low]) => low), ...band.map(([, high]) => high).toReversed()], mode: "lines", fill: "toself", fillcolor: ink.accent, opacity: 0.14, line: { width: 0 }, hoverinfo: "skip", showlegend: false });
      for (const [place, arm] of found.arms.entries()) {
        const { dash, symbol } = ARM_LOOKS[place % ARM_LOOKS.length];
        data.push({ ...axes, x: steps, y: arm.exact[group], mode: "lines+markers", name: armName(arm), legendgroup: arm.rank, showlegend: group === 0, line: { color: armColour(place), dash, width: place ? 1.6 : 2.4 }, marker: { color: armColour(place), symbol, size: 5 }, hovertemplate: "%{y:.1%}" });
      }
      const gap = 0.035, width = (1 - gap * (count - 1)) / count, left = group * (width + gap);
      layout[`xaxis${suffix}`] = this.axis("supervision step", { domain: [left, left + width], anchor: `y${suffix}`, dtick: Math.ceil(steps.length / 8), hoverformat: "d", unifiedhovertitle: { text: `${difficulty}, supervision step %{x}` } });
      layout[`yaxis${suffix}`] = this.axis(group ? "" : "exact", { anchor: `x${suffix}`, range: [-0.03, 1.03], tickformat: ".0%", showticklabels: group === 0 });
      layout.annotations.push({ text: `<b>${difficulty}</b> · ${puzzles}`, x: left + width / 2, y: 1.01, xref: "paper", yref: "paper", xanchor: "center", yanchor: "bottom", showarrow: false, font: { size: 11.5 } });
    }
    layout.legend = { orientation: "h", x: 0, y: 1.1, yanchor: "bottom", font: { size: 11 } };
    const says = found.groups.map(({ difficulty }, group) => `${difficulty} ${percent(found.arms[0].exact[group].at(-1))}`).join(", ");
    return { data, layout, says: `Exact accuracy after the last supervision step: ${says}` };
  },

  /** Share that is right against the probability the model gave: on the diagonal it knows. */
  calibration() {
    const bins = this.found.halting.bins.filter(({ count }) => count > 0), most = Math.max(...bins.map(({ count }) => count));
    const size = bins.map(({ count }) => 7 + 17 * Math.sqrt(count / most));
    const hover = bins.map(({ low, high, count, predicted, right }) => `${count} answers between ${percent(low, 0)} and ${percent(high, 0)}:<br>said ${percent(predicted)}, right ${percent(right)}`);
    const data = [
      { x: [0, 1], y: [0, 1], mode: "lines", line: { color: ink.muted, dash: "dot", width: 1.2 }, hoverinfo: "skip", showlegend: false },
      { x: bins.map(({ predicted }) => predicted), y: bins.map(({ right }) => right), mode: "lines+markers", line: { color: ink.accent, width: 1.4 }, marker: { color: ink.accent, size, opacity: 0.75, line: { color: ink.card, width: 1 } }, hovertext: hover, hoverinfo: "text", showlegend: false },
    ];
    const layout = { hovermode: "closest", xaxis: this.axis("probability of being right that q_halt says", { range: [-0.05, 1.05], tickformat: ".0%" }), yaxis: this.axis("right", { range: [-0.07, 1.07], tickformat: ".0%" }) };
    return { data, layout, says: `Calibration of q_halt: expected error ${fixed(this.found.halting.error, 3)}` };
  },

  /** At which supervision step the answer is right for good. */
  steps() {
    const { found } = this, labels = [...Array.from({ length: found.supervision_steps }, (_, step) => `${step + 1}`), "never"];
    const data = found.groups.map(({ difficulty }, group) => ({ type: "bar", name: difficulty, x: labels, y: found.solved_at[group], marker: { color: GROUP_COLOURS[difficulty] }, hovertemplate: "%{y}" }));
    const layout = { barmode: "stack", bargap: 0.25, margin: { l: 46, r: 10, t: 30, b: 38 }, legend: { ...this.layout().legend, traceorder: "normal" }, xaxis: this.axis("right for good from supervision step", { type: "category", showgrid: false }), yaxis: this.axis("puzzles") };
    return { data, layout, says: `Puzzles by the step from which their answer stays right: ${labels.map((label, step) => `${label}: ${found.solved_at.reduce((sum, counts) => sum + counts[step], 0)}`).join(", ")}` };
  },

  save() {
    const { found } = this;
    if (!found) return;
    const { overall, bands, ...report } = found; // as `python -m laser_studio report` writes it
    download(`laser-studio_${this.model.replace(/[^\w.+-]+/g, "-")}_evaluation.json`, "application/json", [JSON.stringify(report, null, 1)]);
  },

  // Theme

  applyTheme() {
    document.body.classList.toggle("dark", document.documentElement.dataset.theme === "dark");
    readInk();
    if (this.found) { this.tellCosts(); this.draw(); }
  },
};

window.laserStudio = { ready: true, evaluation };
styleLast();
evaluation.start(server);
