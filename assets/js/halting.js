// Halting: the model's own probability that it may stop, beside how much of the answer is right.

const halting = {
  place: null,
  paint(store) {
    const made = surface($("halting-plot"));
    if (!made) return;
    const { context, width, height } = made;
    const left = 26, right = 8, top = 8, bottom = 18;
    this.place = { left, right, width };
    const x = (t) => left + (t / store.span) * (width - left - right);
    const y = (value) => top + (1 - value) * (height - top - bottom);
    const supervisions = store.supervisionAt(store.span).s, every = Math.max(1, Math.ceil(supervisions / ((width - left) / 12)));
    for (let s = 1; s <= supervisions + 1; s += every) upright(context, Math.round(x(Math.min(store.span, store.beginOf(s)))) + 0.5, top, height - bottom);
    for (const value of [0, 0.5, 1]) {
      rule(context, y(value), left, width - right, value === 0.5 ? { colour: ink.muted, dash: [4, 3] } : {});
      label(context, value === 0.5 ? ".5" : `${value}`, left - 5, y(value), { align: "right", size: 9.5 });
    }
    stepTicks(context, store, x, width, height - 7, { top, wanted: 4, size: 9.5 });
    const total = Math.max(1, store.frame.total);
    pastAndFuture(store, (from, to, alpha) => {
      curve(context, store.right, from, to, x, (value) => y(value / total), ink.changes, 1.2, alpha);
      if (store.frame.batch > 1) {
        context.setLineDash([2, 2]);
        curve(context, store.batchRight, from, to, x, y, ink.changes, 1, alpha);
        context.setLineDash([]);
      }
      curve(context, store.halt, from, to, x, y, ink.green, 2, alpha);
    });
    marksAt(context, store.marks.solved, x, store.frame.index, (at) => disc(context, at, y(1), 3.5, ink.green));
    cursorLine(context, x(store.frame.index), top, height - bottom);
    hoverLine(context, this, x, top, height - bottom);
  },

  tell(store) {
    const { frame } = store;
    const answered = hasAnswer(frame);
    const chance = answered ? frame.halt_probability : NaN;
    say($("halting-now"), fixed(chance, 3));
    say($("halting-says"), !answered ? "no answer yet" : chance > 0.5 ? "it would stop here" : "it goes on");
    $("halting-says").classList.toggle("green", answered && chance > 0.5);
    say($("halting-right"), `${frame.right} of ${frame.total}`);
    const several = frame.batch > 1;
    hide($("halting-batch"), !several);
    if (several) {
      say($("halting-solved"), `${frame.batch_solved} of ${frame.batch}`);
      say($("halting-share"), percent(frame.batch_right, 0));
    }
    mark($("halting-plot"), "aria-label", answered
      ? `Halting probability ${fixed(chance, 3)} at step ${frame.index}, ${frame.right} of ${frame.total} cells right`
      : "Halting probability over time: no answer yet");
  },

  wire() {
    const count = (column, t) => spanText(column.span(t), (value) => `${value}`);
    wirePlot(this, $("halting-plot"), (store, t) => [
      { colour: ink.green, name: "halting probability", value: spanText(store.halt.span(t), (value) => fixed(value, 3)) },
      ...(store.right.span(t) ? [{ colour: ink.changes, name: "right cells", value: `${count(store.right, t)} of ${store.frame.total}` }] : []),
      ...(store.frame.batch > 1 ? [{ name: "solved of the batch", value: `${count(store.batchSolved, t)} of ${store.frame.batch}` }] : []),
    ]);
  },
};

/** The answer is read from z_H. Until its first update that is the start state, the same for every puzzle: no answer yet. */
const hasAnswer = (frame) => frame.s > 1 || frame.h > 1 || frame.l === "H";
