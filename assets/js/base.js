// What every part of the page uses: elements, numbers as text, colours, canvases, the tooltip. Nothing here knows of runs.

const $ = (id) => document.getElementById(id);

/** An element with attributes, classes and text; `text` is never parsed as HTML. */
function make(tag, { cls = "", text = null, ...attributes } = {}, parent = null) {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  if (text !== null) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (parent) parent.append(node);
  return node;
}

/** Set text only where it differs, so that a frame without news costs nothing. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set a style only where it differs: unchanged ones would still make the browser compute styles again. */
function dress(node, property, value) {
  const worn = (node.worn ??= {});
  if (worn[property] === value) return;
  worn[property] = value;
  node.style.setProperty(property, value);
}

/** Set an attribute only where it differs. */
function mark(node, name, value) {
  const text = String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Hide or show only where that differs. */
function hide(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

/** What the server gives to a question, or { error } in words where it gives nothing; never throws. */
async function fromServer(ask) {
  try {
    const reply = await ask();
    if (reply && typeof reply === "object") return reply;
  } catch { /* said below */ }
  return { error: "the studio does not answer: is it still running?" };
}

const NONE = "–";
const fixed = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : NONE);
/** A fidelity: four digits, and never rounded up to a 1 that it is not. */
const fidelityText = (value) => (!Number.isFinite(value) ? NONE : value === 1 ? "1.0000" : (Math.floor(1e4 * value) / 1e4).toFixed(4));
const percent = (value, digits = 1) => (Number.isFinite(value) ? `${(100 * value).toFixed(digits)} %` : NONE);

function bytes(value) {
  if (!Number.isFinite(value)) return NONE;
  if (value >= 1e9) return `${(value / 1e9).toFixed(2)} GB`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)} MB`;
  if (value >= 1e3) return `${(value / 1e3).toFixed(1)} kB`;
  return `${value} B`;
}

// Cividis, ten stops of the published map: one scale for fidelity everywhere, readable with any colour vision.
const CIVIDIS = [
  [0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115],
  [138, 134, 120], [165, 156, 116], [195, 179, 105], [225, 204, 85], [254, 232, 56],
];

function cividis(share) {
  const place = Math.min(1, Math.max(0, share)) * (CIVIDIS.length - 1);
  const low = Math.min(CIVIDIS.length - 2, Math.floor(place));
  const part = place - low;
  return CIVIDIS[low].map((value, i) => Math.round(value + part * (CIVIDIS[low + 1][i] - value)));
}

const rgb = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
/** Black or white, whichever reads better on a colour. */
const inkOn = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b > 128 ? "#131a22" : "#f4f7fa");

const SITE_COLOURS = [
  "#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2", "#d9b428", "#9c755f", "#e15759",
  "#2f9bd8", "#c46210", "#8cb33d", "#d37295", "#499894", "#a0821c", "#79706e", "#8661c1",
];
const siteColour = (position) => SITE_COLOURS[position % SITE_COLOURS.length];

/** The style sheet's colours by short name, read again when the theme changes. */
const ink = {};
function readInk() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["text", "muted", "line", "card", "sunken", "accent", "amber", "red", "green", "changes"]) {
    ink[name] = style.getPropertyValue(`--${name}`).trim();
  }
  ink.font = style.getPropertyValue("--sans").trim() || "sans-serif";
}

// Sizes of canvases, told by the browser when they change: asking for them while drawing would force a layout each time.
const sizes = new WeakMap();
const onResize = []; // what a page wants done then
const sizeWatch = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) sizes.set(target, [Math.round(contentRect.width), Math.round(contentRect.height)]);
  for (const draw of onResize) draw();
});

/**
 * A canvas's context scaled to device pixels, cleared, with its size in CSS pixels; null while it is not laid out.
 */
function surface(canvas) {
  if (!sizes.has(canvas)) {
    sizes.set(canvas, [canvas.clientWidth, canvas.clientHeight]);
    sizeWatch.observe(canvas);
  }
  const [width, height] = sizes.get(canvas);
  if (!width || !height) return null;
  const ratio = window.devicePixelRatio || 1;
  const w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Small text on a canvas. */
function label(context, text, x, y, { size = 10.5, colour = ink.muted, align = "left", weight = 400 } = {}) {
  context.font = `${weight} ${size}px ${ink.font}`;
  context.fillStyle = colour;
  context.textAlign = align;
  context.textBaseline = "middle";
  context.fillText(text, x, y);
}

function triangle(context, x, y, size, colour, up = false) {
  const d = up ? -1 : 1;
  context.beginPath();
  context.moveTo(x - size, y - d * size * 0.8);
  context.lineTo(x + size, y - d * size * 0.8);
  context.lineTo(x, y + d * size * 0.9);
  context.closePath();
  context.fillStyle = colour;
  context.fill();
}

/** A round step for axis ticks: 1, 2, 3 or 5 times a power of ten. */
function tickStep(range, wanted) {
  const raw = range / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(Math.max(raw, 1e-9)));
  return [1, 2, 3, 5, 10].map((m) => m * power).find((step) => step >= raw) ?? raw;
}

// One tooltip for the page. What an element says is in data-tip; plots call `tip.show` themselves.
const tip = {
  node: null,
  owner: null,
  show(lines, x, y) {
    const node = this.node;
    node.replaceChildren();
    for (const line of Array.isArray(lines) ? lines : [lines]) {
      const row = make("div", {}, node);
      if (typeof line === "string") { row.textContent = line; continue; }
      row.className = "line";
      if (line.colour) make("i", { style: `background:${line.colour}` }, row);
      make("span", { text: line.name, cls: line.strong ? "strong" : "" }, row);
      make("b", { text: line.value, cls: "num" }, row);
    }
    node.hidden = false;
    const box = node.getBoundingClientRect();
    const left = Math.min(x + 12, innerWidth - box.width - 8);
    const below = y + 16 + box.height < innerHeight;
    node.style.left = `${Math.max(8, left)}px`;
    node.style.top = `${Math.max(8, below ? y + 16 : y - box.height - 10)}px`;
  },
  hide() { this.owner = null; if (this.node) this.node.hidden = true; },
};

/** Give an element an explanation that is put into words when somebody asks for it. */
function explain(node, words) {
  if (!node.words) node.setAttribute("data-tip", "");
  node.words = words;
}

const explanation = (node) => (node.words ? node.words() : node.dataset.tip);

/** What every page of forms begins with: colours, and the tooltip above everything. */
function beginPage() {
  readInk();
  tip.node = $("tip");
  document.body.append(tip.node);
  wireTips(document);
}

function wireTips(root) {
  const find = (event) => (event.target instanceof Element ? event.target.closest("[data-tip]") : null);
  root.addEventListener("pointerover", (event) => {
    const owner = find(event);
    if (owner === tip.owner) return;
    clearTimeout(tip.timer);
    tip.hide();
    if (!owner || event.pointerType === "touch") return;
    tip.owner = owner;
    const { clientX, clientY } = event;
    tip.timer = setTimeout(() => { if (tip.owner === owner) tip.show(explanation(owner), clientX, clientY); }, 350);
  });
  root.addEventListener("pointerdown", () => { clearTimeout(tip.timer); tip.hide(); });
  root.addEventListener("focusin", (event) => {
    const owner = find(event);
    if (!owner || !owner.matches(":focus-visible")) return;
    const box = owner.getBoundingClientRect();
    tip.owner = owner;
    tip.show(explanation(owner), box.left, box.bottom - 8);
  });
  root.addEventListener("focusout", () => tip.hide());
}

/** The style sheet is there from the first byte, but Gradio's come after it: of equal rules the last one counts. */
function styleLast() {
  const style = $("studio-style");
  if (style) document.head.append(style);
}

/** Light or dark, turned over and remembered; `apply` draws the page anew. */
function turnTheme(apply) {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try { localStorage.setItem("laser-studio-theme", next); } catch { /* not remembered then */ }
  apply();
}

/** Where nothing was chosen here, the theme is the system's, also when that changes. */
function followSystem(apply) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => {
    let chosen = null;
    try { chosen = localStorage.getItem("laser-studio-theme"); } catch { /* follow */ }
    if (!chosen) document.documentElement.dataset.theme = event.matches ? "dark" : "light";
    setTimeout(apply); // after Gradio's own listener
  });
}
