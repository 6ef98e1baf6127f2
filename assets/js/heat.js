// What the chosen cell reads, over the board itself: the weights of the card "reads from" as colours of the board's cells, with a scale.

const STOPS = 13; // of the scale's gradient

const heat = {
  on: false, // wanted; shown where a cell is chosen and something is known of it
  shown: [], // what the cells are coloured for

  wire() {
    $("board-reads").addEventListener("click", () => this.toggle());
    commands.add({ id: "reads-over-board", title: "what the chosen cell reads, over the board", group: "Looking", when: (store) => !watched.on(store) && picked.cell !== null, run: () => this.toggle() });
  },

  build() { this.shown = []; },

  toggle() { this.on = !this.on; redraw(); },

  /** The weights to show, all tokens; null where there are none. */
  weights(store) { return this.on && picked.cell !== null && store.frame.index > 0 ? readsView.weights() : null; },

  draw(store) {
    const weights = this.weights(store), now = weights && readsView.now;
    const things = [now, readsView.kind, readsView.head, ink.card, board.cells];
    if (things.every((thing, i) => thing === this.shown[i])) return;
    this.shown = things;
    const node = $("board");
    node.classList.toggle("heat", Boolean(weights));
    if (!weights) return;
    const colour = readsView.colour(weights);
    board.cells.forEach((cell, i) => {
      const shade = colour(weights[now.prefix + i] ?? 0);
      dress(cell, "--heat", rgb(shade));
      dress(cell, "--on", inkOn(shade));
    });
    dress($("heat-scale"), "background", `linear-gradient(90deg, ${Array.from({ length: STOPS }, (_, n) => rgb(readsView.shade(n / (STOPS - 1)))).join(", ")})`);
  },

  tell(store) {
    const button = $("board-reads"), weights = this.weights(store);
    hide(button, picked.cell === null || !lookable(store));
    mark(button, "aria-pressed", String(this.on));
    hide($("board-confidence"), Boolean(weights));
    hide($("heat-legend"), !weights);
    $("board").classList.toggle("stale", Boolean(weights) && readsView.now.step !== store.frame.index);
    mark($("board"), "data-reads", weights ? `${cellName(store, picked.cell)} ${readsView.now.step}` : "");
    if (!weights) return;
    const most = Math.max(...weights.map(Math.abs)), { prefix, kind } = readsView.now;
    say($("heat-from"), readsView.kind === "difference" ? `−${percent(most)}` : "0");
    say($("heat-to"), percent(most));
    const aside = weights.slice(0, prefix).reduce((sum, weight) => sum + weight, 0);
    explain($("heat-legend"), () => [`${cellName(store, picked.cell)} reads from: ${kind}, ${readsView.kind}, layer ${readsView.layer}${kind === "attention" ? `, ${readsView.head === "mean" ? "mean of the heads" : `head ${readsView.head}`}` : ""}`,
      ...(prefix ? [`${percent(aside)} on prefix tokens, which are no cells`] : []), "others are chosen in the layout solve"]);
  },
};

parts.push(heat);
