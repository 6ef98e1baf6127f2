// The page as a whole: draws what the player brings, listens to controls and keys, keeps the address, starts everything.

const IDS = [
  "play", "pause", "step", "back", "restart", "timeline", "board", "site-map", "model", "puzzle", "rank", "min-fidelity", "patience",
  "speed", "fidelity-panel", "basis-panel", "memory-panel", "events-panel", "share-link", "status", "measure", "growth", "copy-python",
];

let asked = false; // a drawing is due with the next picture

function drawAll() {
  const { store } = player;
  if (!store) return;
  // Canvases first: to draw text on one, the browser needs all styles, which each write to the page makes stale.
  const compressing = views.shows("compress");
  if (compressing) {
    fidelityPlot.draw(store);
    // Of the tabs only what is seen.
    if (tabs.shows("tab-memory")) memory.paint(store);
    if (tabs.shows("tab-halting")) halting.paint(store);
    if (tabs.shows("tab-latents")) latents.paint(store);
    if (tabs.shows("tab-spectrum")) spectrum.paint(store);
    basis.paint(store);
  }
  timeline.draw(store);
  for (const part of parts) part.draw?.(store);
  fidelityPlot.tell(store);
  timeline.tell(store);
  (watched.on(store) ? watched : board).draw(store);
  recursion.draw(store);
  headline.draw(store);
  events.draw(store);
  memory.draw(store);
  halting.tell(store);
  latents.tell(store);
  spectrum.tell(store);
  basis.tell(store);
  tuning.tell(store);
  for (const part of parts) part.tell?.(store);
  drawStatus();
  syncControls();
  keepAddress(!player.playing);
  player.drawn += 1;
}

/** Draw with the next picture, once, however often it is asked for. */
function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; drawAll(); player.drawn -= 1; });
}

function currentState() {
  const { store } = player;
  if (player.failure || store?.state === "error") return "error";
  if (player.playing) return "playing";
  return store?.state === "done" ? "done" : "paused";
}

function drawStatus() {
  const node = $("status");
  const { store } = player;
  const state = currentState();
  mark(node, "data-state", state);
  $("deck").classList.toggle("running", state === "playing"); // not on the root: that would restyle the whole page
  const words = { paused: "paused", playing: "playing", done: "end of run", error: "stopped" };
  // A step that is not computed yet is travelled to, picture by picture.
  const { target } = player;
  const stopped = state === "error" || !store ? "" : travel.says(store);
  say($("status-pill"), player.loading ? "loading" : target !== null ? `going to t ${target}` : stopped || words[state]);
  mark($("status-pill"), "class", player.loading ? "loading" : stopped ? "stopped" : state);
  mark($("page"), "data-shows", player.expired ? "expired" : player.loading ? "loading" : state === "error" ? "error" : "run");
  mark(node, "aria-live", state === "playing" ? "off" : "polite");
  if (!store) return;
  const { frame } = store;
  mark(node, "data-step", `${frame.index}`);
  mark(node, "data-saving", frame.history.saving.toFixed(4));
  mark(node, "data-resets", `${frame.resets}`);
  mark(node, "data-solved", frame.solved === null ? "unknown" : `${frame.solved}`);
  const address = watched.on(store) ? ` · ${watched.address(frame)}` : frame.index ? ` · s ${frame.s} · h ${frame.h} · l ${frame.l}` : "";
  const solved = frame.solved ? " · solved" : "";
  say($("status-text"), player.failure ?? store.problem ?? `t = ${frame.index}${address}${solved}`);
}

// A run is opened: make everything that depends on model and puzzle.
function built(store, opened) {
  const kept = store.sites.findIndex((site) => site.name === selectedName);
  store.selected = kept >= 0 ? kept : store.sites.length ? store.sites.reduce((best, site, i) => (site.dim > store.sites[best].dim ? i : best), 0) : null;
  store.ledger = ledger;
  choices = opened.puzzles;
  const failing = difficulty === FAILS && choices.some(([, id, of]) => of === FAILS && id === store.puzzle.id);
  if (!failing) difficulty = store.puzzle.difficulty || difficulty;
  $("evaluate")?.setAttribute("href", watched.on(store) ? "evaluation" : `evaluation?model=${encodeURIComponent(store.model.name)}`);
  watched.build(store);
  board.build(store);
  recursion.build(store);
  memory.build(store);
  tuning.build(store);
  for (const part of parts) part.build?.(store, opened);
  for (const id of ["difficulty", "new-puzzle"]) $(id).toggleAttribute("data-off", !opened.generates);
  if (watched.on(store)) { watched.about(store); return; }
  const { model } = opened;
  say($("about"), `${model.device} · ${model.dtype}`);
  explain($("about"), () => `Where the model runs, and its number format. ${compact(model.parameters)} weights, `
    + `${model.H_cycles} H and ${model.L_cycles} L cycles, trained for ${model.halt_max_steps} supervision steps.`);
}

const compact = (count) => (count >= 1e6 ? `${(count / 1e6).toFixed(1)} M` : `${Math.round(count / 1e3)} k`);

let selectedName = null;
let ledger = "history";
let choices = [];
let difficulty = "medium";
const FAILS = "fails"; // in the place of a difficulty: puzzles the model is known to fail

/** The puzzles of a difficulty as the control wants them; all where the set knows none. */
const choicesOf = (wanted) => {
  const some = choices.filter(([, , of]) => of === wanted || of === "");
  return (some.length ? some : choices).map(([label, id]) => [label, id]);
};

function select(position) {
  player.store.selected = position;
  selectedName = player.store.sites[position].name;
  redraw();
  player.look();
}

/** Choose another kind of fidelity for map and plot. */
function showKind(kind) {
  kindShown = kind;
  redraw();
}

// Gradio's controls show what the run really uses. They are told only where they differ from what they show.

let shown = null;

function syncControls() {
  const { store } = player;
  if (player.wish.tune || player.wish.open !== null) return; // the user is ahead of this reply
  const now = JSON.stringify([store.model.name, store.puzzle.id, difficulty, store.settings]);
  if (now === shown) return;
  shown = now;
  trigger("sync");
}

function controls() {
  const { store } = player;
  if (watched.on(store)) return watched.controls(store);
  const { rank, min_fidelity, patience, refresh, measure, growth } = store.settings;
  const update = (value) => ({ __type__: "update", value });
  return [
    { ...update(store.model.name), ...modelChoices(store.model) }, update(difficulty), { ...update(store.puzzle.id), choices: choicesOf(difficulty) }, update(rank), update(min_fidelity), update(patience), update(refresh),
    update(measure), update(growth),
  ];
}

/** A model of a training run is offered from when it is opened; the control was made before. */
function modelChoices({ name, label: shown }) {
  const control = window.gradio_config?.components?.find((component) => component.props?.elem_id === "model");
  const known = control?.props.choices ?? [];
  return known.some(([, value]) => value === name) ? {} : { choices: [...known, [shown, name]] };
}

/** A control was used. */
function on(name, value) {
  const { store } = player;
  switch (name) {
    case "play": return player.play();
    case "pause": return player.pause();
    case "step": return player.stepOn();
    case "back": return player.back();
    case "restart": return player.restart();
    case "share": return share();
    case "python": return copyPython();
    case "help": return help();
    case "theme": return turnTheme(applyTheme);
    case "speed": player.setSpeed(Number(value)); return sayExtras();
    case "difficulty": {
      if (value === FAILS && !choices.some(([, , of]) => of === FAILS)) {
        notify("no puzzle is known that this model fails: its evaluation finds them");
        shown = null; // the control goes back to what is open
        return syncControls();
      }
      const first = choicesOf(value).find(([, id]) => !id.startsWith("cells:") && (value === FAILS || !id.startsWith("generated:")));
      difficulty = value;
      return first && openWith({ puzzle: first[1] });
    }
    case "generate": if (difficulty === FAILS) difficulty = store?.puzzle.difficulty || "medium";
      return openWith({ puzzle: `generated:${difficulty}:${crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000}` });
    case "model": return value && value !== store?.model.name ? openWith({ model: value, puzzle: null }) : undefined;
    case "puzzle": return value && value !== store?.puzzle.id ? openWith({ puzzle: value }) : undefined;
    case "rank": case "min-fidelity": case "patience": case "refresh": case "measure": case "growth":
      if (value !== null && value !== "") tune(name.replace("-", "_"), value);
      return undefined;
    default: return undefined;
  }
}

function tune(name, value) {
  const { store } = player;
  if (!store) return;
  const wanted = typeof store.settings[name] === "number" ? Number(value) : value;
  shown = JSON.stringify([store.model.name, store.puzzle.id, difficulty, { ...store.settings, ...player.wish.tune, [name]: wanted }]);
  player.tune({ [name]: wanted });
  sayExtras();
}

/** A new run with the settings and options as they are now. */
function openWith({ model = player.store?.model.name, puzzle = player.store?.puzzle.id, batch = null }) {
  const query = new URLSearchParams();
  if (model) query.set("model", model);
  if (puzzle?.startsWith("cells:")) query.set("cells", puzzle.slice(6));
  else if (puzzle) query.set("puzzle", puzzle);
  const kept = watched.on(player.store) ? null : player.store; // what a recording was made with is nothing to a model's run
  const { sites = {}, ...settings } = kept?.settings ?? {};
  for (const [name, value] of Object.entries(settings)) query.set(name, name === "rank" ? `${value}%` : `${value}`);
  if (model === player.store?.model.name) {
    // Another model has other sites.
    for (const [name, own] of Object.entries(sites)) {
      const parts = [name.replace(/[%~:]/g, (sign) => encodeURIComponent(sign).replace("~", "%7E"))];
      if (own.rank !== undefined) parts.push(`rank=${own.rank}%`);
      if (own.min_fidelity !== undefined) parts.push(`eps=${own.min_fidelity}`);
      if (own.enabled === false) parts.push("off");
      query.append("site", parts.join("~"));
    }
  }
  const options = { ...kept?.options, ...(batch ? { batch } : {}) };
  for (const [name, value] of Object.entries(options)) {
    if (name === "batch" ? Number(value) > 1 : value) query.set(name, name === "batch" ? `${value}` : "1");
  }
  player.open(`?${query}`);
}

/** What Gradio's sliders do not say themselves. */
function sayExtras() {
  $("speed").dataset.says = player.speed >= player.fastest ? "as fast as it goes" : `${player.speed} step${player.speed === 1 ? "" : "s"}/s`;
}

// The address is the link: it always names the step shown.

let addressTimer = null;
let addressed = 0;

function keepAddress(now) {
  clearTimeout(addressTimer);
  const wait = now ? 120 : 1000;
  const write = () => {
    if (!player.store) return;
    addressed = performance.now();
    const theme = new URLSearchParams(location.search).get("__theme");
    const address = `?${player.store.link}${theme ? `&__theme=${encodeURIComponent(theme)}` : ""}`;
    if (address !== location.search) history.replaceState(history.state, "", address);
  };
  if (performance.now() - addressed > wait) write();
  else addressTimer = setTimeout(write, wait);
}

async function share() {
  const { store, target } = player;
  if (!store) return;
  const query = new URLSearchParams(store.link), step = target === null ? store.frame.index : Math.min(target, goTo.last);
  query.set("step", step); // on the way to a step, that one is meant
  const link = `${location.origin}${location.pathname}?${query}`;
  const copied = await copy(link);
  notify(copied ? `link to step ${step} copied` : `this browser does not allow copying: ${link}`);
}

/** The present policy and view as a Python script. */
async function copyPython() {
  const { store } = player;
  if (!store) return;
  const reply = await fromServer(() => server.python_run({ run: store.run, at: store.frame.index }));
  if (reply.error) { notify(reply.error, { lasting: true }); return; }
  const lines = reply.python.trimEnd().split("\n").length;
  const copied = await copy(reply.python);
  notify(copied ? `${lines} lines of Python copied: this run up to step ${store.frame.index}` : "this browser does not allow copying");
}

/** Copy a text; whether that worked. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without a secure origin there is no clipboard: copy the old way.
    const field = make("textarea", { "aria-hidden": "true" }, document.body);
    field.value = text;
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  }
}

let noticeTimer = null;

/** A quiet line; `lasting` ones stay until something else happens. */
function notify(text, { reload = false, lasting = false } = {}) {
  const node = $("notice");
  clearTimeout(noticeTimer);
  node.replaceChildren();
  make("span", { text }, node);
  node.classList.toggle("problem", lasting);
  if (reload) make("button", { type: "button", text: "Reload" }, node).addEventListener("click", () => location.reload());
  make("button", { type: "button", text: "×", "aria-label": "Dismiss" }, node).addEventListener("click", () => { node.hidden = true; });
  node.hidden = false;
  if (!lasting) noticeTimer = setTimeout(() => { node.hidden = true; }, 7000);
}

function switchScale() {
  scaleKind = scaleKind === "nines" ? "linear" : "nines";
  say($("scale-kind"), scaleKind === "nines" ? "scale: nines" : "scale: linear");
  redraw();
}

function help() { const dialog = $("help"); if (dialog.open) dialog.close(); else dialog.showModal(); }

function applyTheme() {
  const dark = document.documentElement.dataset.theme === "dark";
  document.body.classList.toggle("dark", dark);
  readInk();
  recursion.drawScale();
  spectrum.drawScale();
  redraw();
  if (zoom.dialog?.open) zoom.show(); // its plot has the colours of the theme it was drawn in
}

const TRANSPORT = new Set(["play", "pause", "step", "back", "restart"]);

function wireKeys() {
  const handled = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return null;
    const target = event.target instanceof Element ? event.target : document.body;
    const field = target.closest("input, textarea, select, [contenteditable]");
    const slider = field?.matches("input[type=range]");
    if (field && !slider) return null;
    if (event.key === " ") {
      const button = target.closest("button, a, summary, [role=option]");
      return button && !TRANSPORT.has(button.id) ? null : () => player.toggle();
    }
    if (slider && event.key.startsWith("Arrow")) return null;
    const command = commands.of(event);
    return command && (() => command.run(event.key));
  };
  document.addEventListener("keydown", (event) => {
    const action = handled(event);
    if (!action) return;
    event.preventDefault();
    if (event.key !== " " || !event.repeat) action();
  });
  // A focused button would be pressed a second time when the space bar is let go.
  document.addEventListener("keyup", (event) => { if (event.key === " " && handled(event)) event.preventDefault(); });
}

/** What the page itself can do; its parts add theirs. */
function addCommands() {
  const some = (store) => store.sites.length > 0;
  const there = (title, id, keys, run, more = {}) => commands.add({ title, id, keys, run, group: "Moving", ...more });
  there("play or pause", "toggle", [" "], () => player.toggle());
  there("one recursion step on", "step", ["ArrowRight"], () => player.stepOn());
  there("one recursion step back", "back", ["ArrowLeft"], () => player.back());
  there("go to a step by its number", "goto", ["g"], () => goTo.open());
  there("restart, with the settings as they are now", "restart", ["r"], () => player.restart());
  const looks = (title, id, keys, run, more = {}) => commands.add({ title, id, keys, run, group: "Looking", ...more });
  looks("select a site", "site", [..."123456789"], (key) => { if (Number(key) <= player.store.sites.length) select(Number(key) - 1); },
    { when: some, quiet: true, shownKeys: ["1", "–", "9"] });
  const turn = (by) => { const { store } = player, count = store.sites.length; select(((store.selected ?? 0) + count + by) % count); };
  looks("the site before", "site-before", ["["], () => turn(-1), { when: some });
  looks("the next site", "site-next", ["]"], () => turn(1), { when: some });
  looks("next kind of fidelity: energy, centred, functional", "fidelity-kind", ["f"], () => {
    const kinds = watched.on(player.store) ? FIDELITIES.slice(0, 2) : FIDELITIES;
    showKind(kinds[(kinds.indexOf(kindShown) + 1) % kinds.length]);
  }, { when: some });
  looks("memory, halting, latents", "memory-tab", ["m"], () => tabs.next($("memory-tabs")), { when: (store) => !watched.on(store) });
  looks("spectrum, angles, rank of the basis", "basis-tab", ["j"], () => tabs.next($("basis-tabs")));
  looks("events, breakpoints, watches, branches, findings", "log-tab", ["l"], () => tabs.next($("log-tabs")));
  looks("dark or light", "theme", ["d"], () => turnTheme(applyTheme));
  const more = (title, id, run, others = {}) => commands.add({ title, id, run, group: "More", ...others });
  more("keys, and how to read the screen", "help", help, { keys: ["?"] });
  more("copy this run as a Python script", "python", copyPython);
  more("copy a link to this step", "share", share);
  more("generate a new puzzle", "generate", () => on("generate"), { when: () => !$("new-puzzle").hasAttribute("data-off") });
  more("settings of the tracker back to the defaults", "defaults", () => $("defaults").click());
}

// A reload keeps the run. Its id is kept only while no page uses it, so that a tab that is doubled gets a run of its own.
const LEFT = "laser-studio-left";

function leave() {
  try {
    sessionStorage.setItem(LEFT, JSON.stringify({ run: player.store.run, at: player.store.frame.index, address: location.search, site: selectedName, kind: kindShown }));
  } catch { /* a new run then */ }
}

/** The run this tab had before it was reloaded, where the address still says the same; "" where there is none. */
function comeBack() {
  try {
    const left = JSON.parse(sessionStorage.getItem(LEFT) ?? "null");
    sessionStorage.removeItem(LEFT);
    if (!left || left.address !== location.search) return "";
    selectedName = left.site;
    if (FIDELITIES.includes(left.kind)) kindShown = left.kind;
    return String(left.run);
  } catch {
    return "";
  }
}

/** Tell the server that this page goes away; its run is freed soon after, unless the page comes back. */
function wireGoodbye() {
  const config = window.gradio_config ?? {};
  const hub = config.components?.find((component) => component.props?.elem_id === "hub");
  addEventListener("pagehide", () => {
    if (!player.store || !hub) return;
    player.halt();
    leave();
    const body = JSON.stringify({ data: { run: player.store.run }, component_id: hub.id, fn_name: "leave_run", session_hash: "closing" });
    const url = `${config.root ?? ""}${config.api_prefix ?? ""}/component_server`;
    navigator.sendBeacon(url, new Blob([body], { type: "application/json" }));
    player.expired = true;
  });
  addEventListener("pageshow", (event) => { if (event.persisted) player.open(location.search, comeBack()); });
}

const TIPS = {
  rank: "Directions kept at every site, as a share of its width D. Acts from the next refresh, and takes sites that have grown back to it.",
  "min-fidelity": "ε: a window whose fidelity, of the kind the rule reads, is lower than this is a miss.",
  patience: "p: after this many misses in a row the basis is reset by SVD.",
  growth: "Directions added at a miss: the leading ones of what the basis leaves over.",
  measure: "The fidelity that the rule reads: of all energy, with the mean removed, or of the model's answer (measured, so it costs time).",
  refresh: "When a window ends and the basis is refreshed: at every step, H cycle or supervision step.",
  speed: "Steps per second while playing; at the right end as fast as it goes.",
  play: "Play (Space)",
  pause: "Pause (Space)",
  step: "One recursion step (→)",
  back: "One step back (←)",
  restart: "Restart with the settings as they are now (R)",
  "copy-python": "Copy this policy and view as a Python script that runs without the studio.",
  "share-link": "Copy a link that opens this view, paused at this step.",
  model: "Shipped models, and those named at the start.",
  puzzle: "Held-out puzzles: the model was never trained on them.",
  difficulty: "Which puzzles are offered, and how hard a new one is.",
  "new-puzzle": "Generate a held-out puzzle with exactly one solution.",
  theme: "Light or dark (D)",
  keys: "Keys and how to read the screen (?); / finds any command.",
  ledger: "history: what time travel really holds. training: what one training step would hold of the linear inputs with these bases.",
};

function start() {
  styleLast();
  onResize.push(() => { recursion.drawScale(); spectrum.drawScale(); redraw(); });
  tip.node = $("tip");
  player.server = server;
  // Above everything, whatever Gradio wraps them in.
  document.body.append($("tip"), $("notice"), $("help"));
  for (const [id, text] of Object.entries(TIPS)) $(id)?.setAttribute("data-tip", text);
  for (const id of TRANSPORT) $(id).setAttribute("aria-keyshortcuts", { play: "Space", pause: "Space", step: "ArrowRight", back: "ArrowLeft", restart: "R" }[id]);
  wireTips(document);
  addCommands();
  wireKeys();
  wireGoodbye();
  followSystem(applyTheme);
  $("scale-kind").addEventListener("click", switchScale);
  for (const input of document.querySelectorAll("#kinds input")) input.addEventListener("change", () => showKind(input.value));
  for (const input of document.querySelectorAll("#ledger input")) {
    input.addEventListener("change", () => { ledger = input.value; if (player.store) { player.store.ledger = ledger; redraw(); } });
  }
  tabs.wire(() => { redraw(); player.look(); });
  for (const panel of [fidelityPlot, memory, halting, latents, spectrum, basis, tuning, watched]) panel.wire();
  goTo.wire();
  views.wire();
  palette.wire();
  for (const part of parts) part.wire?.();
  commands.tellHelp($("help-keys"));
  timeline.wire($("timeline"), () => player.store, (step) => player.seek(step));
  const range = document.querySelector("#speed input[type=range]");
  if (range) { player.speed = Number(range.value); player.fastest = Number(range.max); }
  sayExtras();
  applyTheme();
  player.open(location.search, comeBack());
}

if (window.laserStudio) {
  window.laserStudio.mounts += 1; // must not happen; a test counts
} else {
  window.laserStudio = {
    mounts: 1,
    on,
    controls,
    get drawn() { return player.drawn; },
    get held() { return player.store?.held ?? 0; },
    get ready() { return Boolean(player.store) && !player.loading; },
  };
  // Gradio mounts components one after the other: start when all are there.
  const wait = () => (IDS.every((id) => $(id)) ? start() : requestAnimationFrame(wait));
  wait();
}
