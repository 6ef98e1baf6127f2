// Curves over steps, drawn raw: one point per step, or where many steps share a pixel, the span from their lowest to highest.

const CROWDED = 2; // steps per pixel from which on spans are drawn

const stepsPerPixel = (from, to, x) => (to - from) / Math.max(1, x(to) - x(from));

/** What a column holds of [from, to), gathered by the pixel it falls on: visit(pixel, lowest, highest). */
function byPixel(column, from, to, x, visit) {
  let pixel = null, low = Infinity, high = -Infinity;
  column.extremes(from, to, (first, last, least, most) => {
    const at = Math.round(x(Math.max(from, first)));
    if (at !== pixel) {
      if (pixel !== null) visit(pixel, low, high);
      pixel = at;
      low = Infinity;
      high = -Infinity;
    }
    low = Math.min(low, least);
    high = Math.max(high, most);
  });
  if (pixel !== null) visit(pixel, low, high);
}

/** Draw a column of numbers as a line; `x` and `y` map a step and a value to pixels. */
function curve(context, column, from, to, x, y, colour, width, alpha = 1) {
  if (to <= from) return;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.globalAlpha = alpha;
  context.lineJoin = "round";
  context.beginPath();
  if (stepsPerPixel(from, to, x) <= CROWDED) {
    let next = null; // the step that goes on with the line: where one has no figure, the line is broken
    column.extremes(from, to, (first, last, low, high) => {
      if (first === next) context.lineTo(x(first), y(low)); else context.moveTo(x(first), y(low));
      if (last > first) context.lineTo(x(last), y(high));
      next = last + 1;
    });
  } else {
    let open = false;
    byPixel(column, from, to, x, (pixel, low, high) => {
      if (open) context.lineTo(pixel, y(low)); else context.moveTo(pixel, y(low));
      context.lineTo(pixel, y(high));
      open = true;
    });
  }
  context.stroke();
  context.globalAlpha = 1;
}

/** Values that stay until they change: ranks. Steps without a basis are left out. */
function staircase(context, column, from, to, x, y, colour, width, alpha) {
  if (stepsPerPixel(from, to, x) > CROWDED) { curve(context, column, from, to, x, y, colour, width, alpha); return; }
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.globalAlpha = alpha;
  context.beginPath();
  let before = null, next = null;
  column.extremes(from, to, (first, last, low, high) => {
    if (!high) { before = null; return; }
    if (before === null || first !== next) context.moveTo(x(first), y(low));
    else { context.lineTo(x(first), y(before)); context.lineTo(x(first), y(low)); }
    context.lineTo(x(last), y(high));
    before = high;
    next = last + 1;
  });
  context.stroke();
  context.globalAlpha = 1;
}

/** Values that exist at some steps only: joined, with a dot each where there is room. */
function points(context, column, from, to, x, y, colour, width, alpha) {
  if (stepsPerPixel(from, to, x) > CROWDED) { curve(context, column, from, to, x, y, colour, width, alpha); return; }
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = width;
  context.globalAlpha = alpha;
  let open = false;
  context.beginPath();
  column.extremes(from, to, (first, last, low, high) => {
    if (open) context.lineTo(x(first), y(low)); else context.moveTo(x(first), y(low));
    if (last > first) context.lineTo(x(last), y(high));
    open = true;
  });
  context.stroke();
  if ((x(to) - x(from)) / Math.max(1, to - from) > 0.4) {
    column.extremes(from, to, (first, last, low) => {
      context.beginPath();
      context.arc(x(first), y(low), width * 0.9, 0, 7);
      context.fill();
    });
  }
  context.globalAlpha = 1;
}

/** Recorded steps up to the cursor in full strength, the recorded future faint. */
function pastAndFuture(store, draw) {
  const now = store.frame.index + 1;
  if (store.rows > now) draw(Math.max(1, now - 1), store.rows, 0.25);
  draw(1, Math.min(now, store.rows), 1);
}

/** Positions of sites with the selected one last, so that it lies on top. */
function drawingOrder(store) {
  const order = store.sites.map((_, i) => i).filter((i) => i !== store.selected);
  return store.selected === null ? order : [...order, store.selected];
}

/** Draw a mark at each of `steps`; of those that share a pixel only one. */
function marksAt(context, steps, x, now, draw) {
  let pixel = null;
  for (const step of steps) {
    const at = Math.round(x(step));
    if (at === pixel) continue;
    pixel = at;
    context.globalAlpha = step > now ? 0.3 : 1;
    draw(x(step));
  }
  context.globalAlpha = 1;
}

/** A line across, by its height. */
function rule(context, y, from, to, { colour = ink.line, dash = null } = {}) {
  context.strokeStyle = colour;
  context.lineWidth = 1;
  if (dash) context.setLineDash(dash);
  context.beginPath();
  context.moveTo(from, Math.round(y) + 0.5);
  context.lineTo(to, Math.round(y) + 0.5);
  context.stroke();
  if (dash) context.setLineDash([]);
}

/** A line from top to bottom, by its place. */
function upright(context, x, top, bottom, { colour = ink.line, dash = null, width = 1 } = {}) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  if (dash) context.setLineDash(dash);
  context.beginPath();
  context.moveTo(x, top);
  context.lineTo(x, bottom);
  context.stroke();
  if (dash) context.setLineDash([]);
}

function cursorLine(context, x, top, bottom) { upright(context, x, top, bottom, { colour: ink.accent, width: 1.5 }); }

/** Step numbers along the bottom; past the trained depth a dashed line says where it ends. */
function stepTicks(context, store, x, width, y, { top = 0, wanted = 5, size = 10.5 } = {}) {
  const ticks = tickStep(store.span, wanted);
  context.font = `400 ${size}px ${ink.font}`;
  const wide = context.measureText(`${store.span}`).width / 2;
  for (let t = 0; t <= store.span; t += ticks) label(context, `${t}`, Math.min(x(t), width - wide), y, { align: "center", size });
  if (store.span > store.length) upright(context, Math.round(x(store.length)) + 0.5, top, y - 8, { colour: ink.muted, dash: [1, 3] });
}

/** The first line of a tooltip about step t: where the page holds it only within a block of steps, that block. */
function stepLine(store, t) {
  const { from, to } = store.block(t);
  return from === to ? { name: "step", value: `${t}` } : { name: "steps, lowest to highest", value: `${from} to ${to}` };
}

/**
 * Let a plot say its values where the pointer is, and go to the step that is clicked. `plot.place` holds left, right and width of
 * what was drawn; `lines(store, step)` are the tooltip's lines, null where there is nothing to say; `heading` is the one above them.
 */
function wirePlot(plot, canvas, lines, heading = stepLine) {
  const stepAt = (event) => {
    const { store } = player;
    if (!store || !plot.place) return null;
    const { left, right, width } = plot.place;
    const t = Math.round(((event.offsetX - left) / (width - left - right)) * store.span);
    return t >= 0 && t <= store.span ? t : null;
  };
  plot.hover = null;
  canvas.addEventListener("pointermove", (event) => {
    const t = stepAt(event);
    const told = t !== null && t >= 1 && t < player.store.rows ? lines(player.store, t, event) : null;
    const before = plot.hover;
    plot.hover = told ? t : null;
    if (before !== plot.hover) redraw();
    if (told) tip.show([heading(player.store, t), ...told], event.clientX, event.clientY); else tip.hide();
  });
  canvas.addEventListener("pointerleave", () => { plot.hover = null; tip.hide(); redraw(); });
  canvas.addEventListener("click", (event) => { const t = stepAt(event); if (t !== null) player.seek(t); });
}

function hoverLine(context, plot, x, top, bottom) {
  if (plot.hover !== null && plot.hover !== undefined) upright(context, x(plot.hover), top, bottom, { colour: ink.muted, dash: [2, 3] });
}
