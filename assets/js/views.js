// Layouts: what the right of the page is for. Remembered, and part of nothing else: a link shows what its reader prefers.

const VIEWS = ["solve", "compress", "compare"];

const views = {
  now: "compress",
  wire() {
    let kept = null;
    try { kept = localStorage.getItem("laser-studio-view"); } catch { /* the usual one then */ }
    for (const input of document.querySelectorAll("#views input")) input.addEventListener("change", () => this.show(input.value));
    this.show(VIEWS.includes(kept) ? kept : this.now, false);
    commands.add({ id: "view", title: "next layout: solve, compress, compare", keys: ["v"], group: "Looking", run: () => this.next() });
    for (const name of VIEWS) commands.add({ id: `view-${name}`, title: `layout: ${name}`, run: () => this.show(name) });
  },
  shows(name) { return this.now === name; },
  show(name, keep = true) {
    this.now = name;
    mark($("page"), "data-view", name);
    document.querySelector(`#views input[value=${name}]`).checked = true;
    for (const view of VIEWS) hide($(`view-${view}`), view !== name);
    if (!keep) return;
    try { localStorage.setItem("laser-studio-view", name); } catch { /* not remembered then */ }
    redraw();
    player.look();
  },
  next() { this.show(VIEWS[(VIEWS.indexOf(this.now) + 1) % VIEWS.length]); },
};
