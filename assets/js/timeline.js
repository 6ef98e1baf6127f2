// One timeline for everything: lanes over all steps of the run, and a cursor to drag.

const LANES = ["answer changes", "resets, growth", "q_halt", "residual, log"];

const timeline = {
  place: null,
  extras: [], // what other parts draw on it, under the cursor: extra(context, store, { x, head, height })
  draw(store) {
    const made = surface($("timeline-plot"));
    if (!made) return;
    const { context, width, height } = made;
    const narrow = width < 520;
    const left = narrow ? 62 : 106, right = 14, head = 18;
    const x = (t) => left + (t / store.span) * (width - left - right);
    this.place = { left, right, width };
    const lane = (height - head - 2) / LANES.length;
    const top = (n) => head + n * lane;
    const base = (n) => top(n) + lane - 5;
    const now = store.frame.index;
    const per = store.model.H_cycles * (store.model.L_cycles + 1);

    context.lineWidth = 1;
    const supervisions = Math.round(store.span / per);
    const every = Math.max(1, Math.ceil(supervisions / Math.max(1, (width - left) / (supervisions > 99 ? 44 : supervisions > 40 ? 34 : 26))));
    const current = store.frame.s, names = []; // [text, place, whether it is where we are]
    if (watched.on(store)) stepTicks(context, store, x, width, 9, { wanted: 8, size: 9.5 }); // forwards may differ in length
    for (let s = 0; s <= supervisions; s++) {
      if (watched.on(store) || s % every && s !== supervisions) continue;
      context.strokeStyle = ink.line;
      context.beginPath();
      context.moveTo(Math.round(x(s * per)) + 0.5, 4);
      context.lineTo(Math.round(x(s * per)) + 0.5, height);
      context.stroke();
      if (s < supervisions && (s + every <= supervisions || s === 0)) {
        const middle = x((s + Math.min(every, supervisions - s) / 2) * per);
        names.push([`s${s + 1}`, middle, current - 1 >= s && current - 1 < s + every]);
      }
    }
    this.nameSupervisions(context, names, x(now), width);
    const lanes = watched.on(store) ? watched.names(store, narrow) : narrow ? ["changes", "resets", "q_halt", "residual"] : LANES;
    lanes.forEach((name, n) => label(context, name, 2, top(n) + lane / 2, { size: 11 }));
    context.strokeStyle = ink.line;
    for (let n = 0; n < LANES.length; n++) {
      context.beginPath();
      context.moveTo(left, Math.round(base(n)) + 0.5);
      context.lineTo(width - right, Math.round(base(n)) + 0.5);
      context.stroke();
    }

    // answer changes: bars, the highest of the steps that share a pixel
    const room = lane - 8;
    const wide = Math.max(1, x(1) - x(0) - 1);
    context.fillStyle = ink.changes;
    const bar = (at, most) => {
      if (!most) return;
      const tall = Math.max(1.5, (most / store.maxChanged) * room);
      context.globalAlpha = at > x(now) + 0.5 ? 0.3 : 1;
      context.fillRect(at - wide, base(0) - tall, wide, tall);
    };
    if (wide > 1) store.changed.extremes(1, store.rows, (t, last, low, most) => bar(x(t), most));
    else byPixel(store.changed, 1, store.rows, x, (at, low, most) => bar(at, most));
    context.globalAlpha = 1;

    for (const [kind, draw] of Object.entries(EVENT_MARKS)) marksAt(context, store.marks[kind], x, now, (at) => draw(context, at, top(1) + lane / 2 - 1));
    if (store.span > store.length) {
      upright(context, Math.round(x(store.length)) + 0.5, 4, height, { colour: ink.muted, dash: [2, 3], width: 1.3 });
      const room = x(store.length) - left > 76;
      label(context, "trained depth", x(store.length) + (room ? -5 : 5), height - 5, { align: room ? "right" : "left", size: 9.5 });
    }

    if (watched.on(store)) watched.lanes(context, store, x, base, room);
    const half = base(2) - 0.5 * room;
    context.strokeStyle = watched.on(store) ? "transparent" : ink.line;
    context.setLineDash([2, 4]);
    context.beginPath();
    context.moveTo(left, half);
    context.lineTo(width - right, half);
    context.stroke();
    context.setLineDash([]);
    pastAndFuture(store, (from, to, alpha) =>
      curve(context, store.halt, from, to, x, (value) => base(2) - value * room, ink.green, 1.6, alpha));
    // Residuals fall by orders of magnitude: the lane is logarithmic, from the smallest seen to the largest.
    const least = Math.log(store.minResidual), span = Math.log(store.maxResidual) - least || 1;
    const tall = (value) => (value > 0 ? 0.08 + (0.92 * (Math.log(value) - least)) / span : 0);
    pastAndFuture(store, (from, to, alpha) =>
      curve(context, store.residual, from, to, x, (value) => base(3) - tall(value) * room, ink.muted, 1.3, alpha));

    for (const extra of this.extras) extra(context, store, { x, head, height });

    // the cursor
    cursorLine(context, x(now), 2, height);
    context.fillStyle = ink.accent;
    triangle(context, x(now), 6, 6, ink.accent);
  },

  /** The supervision steps' names along the top: the one we are in beside the cursor, of the others those that neither it nor the cursor touches. */
  nameSupervisions(context, names, cursor, width) {
    context.font = `600 10.5px ${ink.font}`;
    const head = 8, taken = [[cursor, head]]; // places and half widths: the cursor's head first
    for (const [text, middle, here] of names.sort((one, other) => other[2] - one[2])) {
      const wide = context.measureText(text).width / 2, near = wide + head;
      let place = middle;
      if (here && Math.abs(middle - cursor) < near) {
        const left = cursor - near, right = cursor + near;
        place = middle < cursor || right + wide > width ? left : right;
      }
      if (taken.some(([other, by]) => Math.abs(place - other) < by + wide)) continue;
      taken.push([place, wide + 1]);
      label(context, text, place, 9, { align: "center", colour: here ? ink.accent : ink.muted, weight: here ? 600 : 400 });
    }
  },

  tell(store) {
    const node = $("timeline"), now = store.frame.index;
    mark(node, "aria-valuemax", store.span);
    mark(node, "aria-valuenow", now);
    mark(node, "aria-valuetext", `step ${now} of ${store.span}`);
  },

  wire(node, getStore, seek) {
    const stepAt = (event) => {
      const { left, right, width } = this.place;
      const box = node.getBoundingClientRect();
      const share = (event.clientX - box.left - left) / (width - left - right);
      return Math.round(Math.min(1, Math.max(0, share)) * getStore().span);
    };
    let dragging = false;
    node.addEventListener("pointerdown", (event) => {
      if (!getStore() || !this.place || event.button !== 0) return;
      dragging = true;
      node.setPointerCapture(event.pointerId);
      seek(stepAt(event));
    });
    node.addEventListener("pointermove", (event) => { if (dragging) seek(stepAt(event)); });
    for (const name of ["pointerup", "pointercancel"]) node.addEventListener(name, () => { dragging = false; });
  },
};

// In this order, so that a reset lies on top of the growth of another site.
const EVENT_MARKS = {
  policy: (context, x, y) => { context.fillStyle = ink.accent; context.fillRect(x - 1.5, y - 5, 3, 10); },
  grew: (context, x, y) => triangle(context, x, y, 4.5, ink.amber, true),
  reset: (context, x, y) => triangle(context, x, y, 5.5, ink.red),
  solved: (context, x, y) => disc(context, x, y, 4, ink.green),
};
