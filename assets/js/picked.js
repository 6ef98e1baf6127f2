// The cell of the board that is looked into: chosen by a click, or by keys while the board has the focus.

const picked = {
  cell: null,
  cleared: false, // by the user, so that none is chosen in their stead
  wire() {
    const node = $("board");
    node.tabIndex = 0;
    mark(node, "role", "application");
    mark(node, "aria-roledescription", "board");
    node.addEventListener("click", (event) => {
      const cell = board.cells.indexOf(event.target instanceof Element ? event.target.closest(".cell") : null);
      if (cell >= 0) this.choose(cell === this.cell ? null : cell);
    });
    node.addEventListener("keydown", (event) => {
      const { store } = player;
      if (!store || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
      const { width, height } = store.puzzle;
      const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (by) {
        const at = this.cell ?? 0, row = Math.floor(at / width) + by[0], column = (at % width) + by[1];
        if (this.cell === null) this.choose(0);
        else if (row >= 0 && row < height && column >= 0 && column < width) this.choose(row * width + column);
      } else if (event.key === "Enter") {
        this.choose(this.cell ?? 0);
        views.show("solve");
      } else if (event.key === "Escape" && this.cell !== null) {
        this.choose(null);
      } else {
        return;
      }
      event.preventDefault();
      event.stopPropagation(); // elsewhere arrows move in time
    });
    commands.add({ id: "pick-cell", title: "choose a cell of the board to look into (then arrows, Enter)", group: "Looking",
      when: (store) => !watched.on(store), run: () => { node.focus(); if (this.cell === null) this.choose(0); } });
  },
  build(store) {
    if (this.cell !== null && this.cell >= store.puzzle.cells.length) this.cell = null;
    this.ring();
  },
  choose(cell) {
    this.cell = cell;
    this.cleared = cell === null;
    this.ring();
    redraw();
  },
  ring() {
    board.cells.forEach((node, i) => node.classList.toggle("picked", i === this.cell));
    const { store } = player;
    const name = this.cell === null || !store ? "" : cellName(store, this.cell);
    mark($("board"), "data-picked", name);
    mark($("board"), "aria-description", name ? `cell ${name} is looked into; arrows move, Enter shows it, Escape chooses none` : "arrows choose a cell to look into");
  },
};

parts.push(picked);
