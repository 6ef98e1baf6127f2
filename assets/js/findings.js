// What the detectors found, as a list: each with its step, one sentence and the figures it rests on.

const FINDING_SIGNS = {
  "fixed point": "◎", "wrong fixed point": "⊗", oscillation: "∿", "no fixed point": "≈", "critical step": "◆", "rotation burst": "↻", "frequent resets": "⟲",
};

const findings = {
  asker: null,
  found: [],
  wire() {
    this.promise = $("findings-empty").textContent; // as the page says before anything has run
    this.asker = new Asker("deeper.findings", {
      wanted: (store) => (tabs.shows("tab-findings") && store.reply?.findings?.count && store.reply.findings.version !== this.version ? {} : null),
      take: (reply) => {
        if (!reply) return;
        this.version = reply.version;
        this.list(player.store, reply);
      },
    });
  },
  build() {
    this.version = -1;
    this.found = [];
    this.cursor = -1;
    this.asker.forget();
    $("findings-list").replaceChildren();
  },
  tell(store) {
    const told = store.reply?.findings;
    const count = told?.count ?? 0;
    say($("tab-findings"), count ? `Findings ${count}` : "Findings");
    hide($("findings-empty"), count > 0);
    say($("findings-empty"), lookable(store) ? this.promise : "Nothing is looked for in a run that was recorded elsewhere.");
    if (!count && this.found.length) this.build();
    if (store.frame.index === this.cursor) return;
    this.cursor = store.frame.index;
    for (const node of $("findings-list").children) node.classList.toggle("future", node.step > this.cursor);
  },
  /** One row for each, those that are there already kept, so that a row under the pointer stays. */
  list(store, reply) {
    const list = $("findings-list");
    this.found = reply.findings;
    const kept = new Map([...list.children].map((node) => [node.key, node]));
    const rows = this.found.map((finding) => {
      const key = `${finding.kind} ${finding.step} ${finding.sites}`;
      const row = kept.get(key) ?? this.row(key);
      this.fill(row, store, finding);
      return row;
    });
    if (rows.length !== list.children.length || rows.some((row, i) => list.children[i] !== row)) list.replaceChildren(...rows);
    this.cursor = -1;
    const all = reply.count.toLocaleString("en");
    say($("findings-count"), rows.length < reply.count ? `newest ${rows.length} of ${all}` : `${all} · click to jump`);
  },
  row(key) {
    const item = make("li");
    item.key = key;
    const button = make("button", { type: "button" }, item);
    make("i", { cls: "sign", "aria-hidden": "true" }, button);
    make("span", { cls: "when num" }, button);
    make("span", { cls: "what" }, button);
    button.addEventListener("click", () => player.seek(item.step));
    return item;
  },
  fill(item, store, finding) {
    const button = item.firstChild, [sign, when, what] = button.children;
    const [first, last] = finding.span;
    item.step = finding.step;
    mark(item, "data-kind", finding.kind);
    mark(item, "data-left", "left at step" in finding.measured); // a fixed point that did not last
    say(sign, FINDING_SIGNS[finding.kind] ?? "•");
    say(when, `t ${finding.step}`);
    let text = finding.text;
    for (const name of finding.sites) text = text.replaceAll(name, store.sites[store.position.get(name) ?? -1]?.label ?? name);
    say(what, last > first && finding.kind !== "no fixed point" ? `${text} · steps ${first} to ${last}` : text);
    explain(button, () => [
      `step ${finding.step}: ${finding.text}`,
      ...Object.entries(finding.measured).map(([name, value]) => ({ name, value: `${value}` })),
      ...(finding.cells.length ? [{ name: "cells", value: finding.cells.slice(0, 12).map((cell) => cellName(store, cell)).join(", ") + (finding.cells.length > 12 ? " …" : "") }] : []),
    ]);
  },
};

/** A cell as people count: row and column from 1. */
const cellName = (store, cell) => `r${Math.floor(cell / store.puzzle.width) + 1}c${(cell % store.puzzle.width) + 1}`;

parts.push(findings);
