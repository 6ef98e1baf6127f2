// Where in the recursion we are: the H/L cycle as a track of dots, and the net as a map of its sites.

const MOST_DOTS = 120; // per supervision step; a longer cycle is drawn as a bar that fills

const recursion = {
  build(store) {
    this.buildTrack(store, store.cyclesOf(1));

    const map = $("site-map");
    map.replaceChildren();
    this.sites = [];
    const layers = [...new Set(store.sites.map((site) => site.layer))];
    $("recursion-card").style.setProperty("--layers", Math.min(layers.length, watched.on(store) ? 4 : Infinity));
    for (const layer of layers) {
      const row = make("div", { cls: "net-layer" }, map);
      make("span", { cls: "name", text: watched.on(store) ? (layer ? "" : "sites") : `layer ${layer}` }, row);
      store.sites.forEach((site, i) => {
        if (site.layer !== layer) return;
        const node = make("button", { cls: "site", type: "button", "data-site": site.name }, row);
        make("b", { text: site.short }, node);
        const value = make("span", { cls: "num value" }, node);
        const rank = make("span", { cls: "num" }, node);
        node.addEventListener("click", () => select(i));
        this.sites[i] = { node, value, rank };
      });
    }
  },

  /** The track of a supervision step of such H cycles; most runs have the same all along. */
  buildTrack(store, cycles) {
    this.shape = `${cycles}`;
    const track = $("track");
    track.replaceChildren();
    this.cycles = [];
    const steps = cycles.reduce((sum, updates) => sum + updates + 1, 0), dots = steps <= MOST_DOTS;
    track.classList.toggle("bars", !dots);
    if (!dots) {
      this.fill = make("i", {}, make("div", { cls: "long" }, track));
    } else {
      cycles.forEach((updates, i) => {
        const cycle = make("div", { cls: "cycle" }, track);
        make("span", { cls: "name", text: watched.on(store) ? "forward" : `H${i + 1}` }, cycle);
        const row = make("div", { cls: "dots" }, cycle);
        const marks = [];
        for (let l = 1; l <= updates + 1; l++) marks.push(make("i", { cls: l > updates ? "last" : "" }, row));
        make("span", { cls: "zl", text: watched.on(store) ? "its steps" : "z_L" }, cycle);
        make("span", { cls: "zh", text: watched.on(store) ? "" : "z_H" }, cycle);
        this.cycles.push({ node: cycle, marks });
      });
    }
  },

  draw(store) {
    const { frame, model, settings } = store;
    const { s, h, l } = frame;
    const cycles = store.cyclesOf(s), before = cycles.slice(0, Math.max(0, h - 1)).reduce((sum, updates) => sum + updates + 1, 0);
    if (this.shape !== `${cycles}`) this.buildTrack(store, cycles);
    const spot = s === 0 ? 0 : before + (l === "H" ? cycles[h - 1] + 1 : l);
    if (this.cycles.length) {
      let first = 1;
      this.cycles.forEach(({ node, marks }, cycle) => {
        node.classList.toggle("now", spot > 0 && cycle + 1 === h);
        const begins = first;
        first += marks.length;
        marks.forEach((mark, m) => {
          const here = begins + m;
          mark.classList.toggle("done", here <= spot);
          mark.classList.toggle("now", here === spot);
        });
      });
    } else {
      dress(this.fill, "width", `${(100 * spot) / cycles.reduce((sum, updates) => sum + updates + 1, 0)}%`);
    }
    const address = watched.on(store) ? watched.address(frame) : s === 0
      ? `before the first of ${model.halt_max_steps} supervision steps`
      : `supervision ${s} ${s > model.halt_max_steps ? `past ${model.halt_max_steps}` : `of ${model.halt_max_steps}`} · H ${h} of ${cycles.length} · ${l === "H" ? "z_H" : `L ${l} of ${cycles[h - 1]}`}`;
    say($("address"), address);
    mark($("track"), "aria-label", `Recursion track: ${address}`);

    store.sites.forEach((site, i) => {
      const { node, value, rank } = this.sites[i];
      const data = frame.sites[site.name];
      node.classList.toggle("selected", store.selected === i);
      node.classList.toggle("empty", !data);
      if (!data) {
        dress(node, "--fill", "var(--sunken)");
        dress(node, "--on", "var(--muted)");
        const off = settings.sites?.[site.name]?.enabled === false;
        say(value, off ? "off" : NONE);
        say(rank, `of D ${site.dim}`);
        node.classList.remove("low", "saturated");
        mark(node, "aria-pressed", store.selected === i);
        explain(node, () => `${site.name}: inputs of width ${site.dim}. ${off ? "This site is not tracked." : "Nothing has run yet."}`);
        return;
      }
      const fidelity = store.fidelityOf(i, kindShown);
      if (fidelity === null) {
        dress(node, "--fill", "var(--sunken)");
        dress(node, "--on", "var(--text)");
      }
      const colour = cividis(store.scaled(fidelity ?? 1));
      if (fidelity !== null) {
        dress(node, "--fill", rgb(colour));
        dress(node, "--on", inkOn(colour));
      }
      node.classList.toggle("low", kindShown === store.measure && fidelity !== null && fidelity < store.setting(i, "min_fidelity"));
      mark(node, "aria-pressed", store.selected === i);
      node.classList.toggle("saturated", data.state === "saturated");
      say(value, !data.rank ? "exact" : fidelityText(fidelity));
      say(rank, data.rank ? `k ${data.rank}` : `D ${site.dim}`);
      explain(node, () => {
        const cause = data.cause ? `. ${data.cause}` : "";
        const kinds = FIDELITIES.map((kind) => [kind, store.fidelityOf(i, kind)]).filter(([, value]) => value !== null);
        return `${site.name}: ${kinds.map(([kind, value]) => `${kind} ${fidelityText(value)}`).join(", ")}, rank ${data.rank} of ${site.dim}, ${data.state}${cause}.`;
      });
    });
    say($("scale-name"), kindShown === "energy" ? "site colour: fidelity" : `site colour: ${kindShown} fidelity`);
    say($("scale-low"), fixed(store.floor, 2));
    say($("scale-high"), scaleKind === "nines" ? "0.9999" : "1.00");
  },

  /** The legend's colour scale; drawn once per theme and size. */
  drawScale() {
    const made = surface($("scale"));
    if (!made) return;
    const { context, width, height } = made;
    for (let x = 0; x < width; x++) {
      context.fillStyle = rgb(cividis(x / (width - 1)));
      context.fillRect(x, 0, 1.5, height);
    }
  },
};
