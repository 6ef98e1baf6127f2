// Headline figures and the list of events.

const headline = {
  draw(store) {
    const { frame } = store;
    const ran = frame.index > 0;
    say($("tile-saving"), ran ? percent(frame.history.saving) : NONE);
    say($("tile-fidelity"), ran ? fidelityText(frame.mean_fidelity) : NONE);
    say($("tile-resets"), `${frame.resets}`);
    say($("tile-cost"), store.cost === null ? NONE : `+${Math.round(100 * store.cost)} %`);
    $("tile-saving").classList.toggle("negative", ran && frame.history.saving < 0);
  },
};

const MOST_EVENTS = 300; // rows in the list; older ones stay on the timeline

const events = {
  store: null,
  draw(store) {
    const list = $("events-list");
    if (store !== this.store || store.cuts !== this.cuts) {
      this.store = store;
      this.cuts = store.cuts;
      this.listed = 0;
      this.cursor = -1;
      list.replaceChildren();
    }
    const now = store.frame.index;
    if (store.eventsTold > this.listed) {
      const fresh = store.events.slice(-Math.min(store.eventsTold - this.listed, MOST_EVENTS)).reverse();
      this.listed = store.eventsTold;
      list.prepend(...fresh.map((event) => this.row(store, event)));
      while (list.childElementCount > MOST_EVENTS) list.lastElementChild.remove();
      this.cursor = -1;
    }
    hide($("events-empty"), this.listed > 0);
    const all = store.eventCount.toLocaleString("en"), shown = list.childElementCount;
    say($("events-count"), shown < store.eventCount ? `newest ${shown} of ${all}` : shown ? `${all} · click to jump` : "click to jump");
    if (now !== this.cursor) {
      this.cursor = now;
      for (const node of list.children) node.classList.toggle("future", node.step > now);
    }
  },
  row(store, event) {
    const item = make("li", { "data-kind": event.kind });
    item.step = event.step;
    const button = make("button", { type: "button" }, item);
    make("i", { cls: `dot ${event.kind.replace(" ", "-")}` }, button);
    make("span", { cls: "when num", text: `t ${event.step}` }, button);
    const site = store.sites[store.position.get(event.site) ?? -1];
    const parts = [];
    if (site) parts.push(site.label);
    parts.push(event.kind === "reset" ? event.text.replace(/^reset by SVD/, "RESET") : event.text);
    const figures = [];
    if (Number.isFinite(event.before) && event.kind !== "started") {
      figures.push(`F ${brief(event.before)}${Number.isFinite(event.after) ? `→${brief(event.after)}` : ""}`);
    }
    if (Number.isFinite(event.seconds)) figures.push(`${fixed(1000 * event.seconds, event.seconds < 0.01 ? 1 : 0)} ms`);
    make("span", { cls: "what", text: parts.join(" · ") }, button);
    make("span", { cls: "figures num", text: figures.join(" · ") }, button);
    explain(button, () => `step ${event.step}: ${[...parts, ...figures].join(" · ")}`);
    button.addEventListener("click", () => player.seek(event.step));
    return item;
  },
};
