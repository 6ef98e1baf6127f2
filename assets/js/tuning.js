// What the page's own controls change: presets, the settings of one site, measures, the batch and the depth of a run.

const CUSTOM = "custom";

const tuning = {
  build(store) {
    const select = $("preset");
    select.replaceChildren();
    make("option", { value: "default", text: "default" }, select);
    for (const [name, preset] of Object.entries(store.presets)) make("option", { value: name, text: name, title: preset.help }, select);
    make("option", { value: CUSTOM, text: CUSTOM, hidden: "", disabled: "" }, select);
  },

  /** The settings of a name; null where there is none. */
  settingsOf(store, name) { return name === "default" ? store.defaults : store.presets[name]?.settings ?? null; },

  /** The name whose settings are in force. */
  presetOf(store) {
    if (this.known === store.settings) return this.name; // the very reply
    this.known = store.settings;
    this.name = this.findPreset(store);
    return this.name;
  },

  findPreset(store) {
    const plain = (settings) => JSON.stringify(Object.entries({ ...settings, sites: settings.sites ?? {} }).sort());
    const now = plain(store.settings);
    return ["default", ...Object.keys(store.presets)].find((name) => {
      const settings = this.settingsOf(store, name);
      return settings && plain(settings) === now;
    }) ?? CUSTOM;
  },

  tell(store) {
    if (watched.on(store)) { watched.tellSettings(store); return; }
    if (player.wish.tune) return; // the user is ahead of this reply
    const preset = this.presetOf(store);
    if ($("preset").value !== preset) $("preset").value = preset;
    explain($("preset").parentElement, () => {
      const help = store.presets[preset]?.help ?? (preset === CUSTOM ? "Settings of your own." : "The settings this page starts with.");
      return `${preset}: ${help} Presets act from the step shown on and take single sites' settings away.`;
    });
    const usual = preset === "default" || !store.defaults;
    if ($("defaults").disabled !== usual) $("defaults").disabled = usual;
    say($("rank-note"), this.rankNote(store));
    const { options } = store;
    for (const name of ["functional", "gradient", "best", "beyond"]) {
      const box = $(`option-${name}`);
      if (box.checked !== (options[name] === true)) box.checked = options[name] === true;
    }
    const batch = $("batch");
    if (document.activeElement !== batch) {
      const now = `${options.batch ?? 1}`;
      if (![...batch.options].some((option) => option.value === now)) make("option", { value: now, text: now }, batch);
      batch.value = now;
    }
    this.tellSite(store);
  },

  /** What the rank slider means now that sites may have grown. */
  rankNote(store) {
    const ranks = [], grown = [];
    store.sites.forEach((site, i) => {
      const rank = store.frame.sites[site.name]?.rank ?? 0;
      if (!rank) return;
      ranks.push(rank);
      if (rank !== Math.max(1, Math.round((store.setting(i, "rank") / 100) * site.dim))) grown.push(rank);
    });
    if (!ranks.length) return "the first bases come with the first refresh";
    const least = Math.min(...ranks), most = Math.max(...ranks);
    const range = least === most ? `k ${least}` : `k ${least}–${most}`;
    return grown.length ? `sites now at ${range}; moving it takes all back to that rank` : `sites at ${range}, none has grown`;
  },

  tellSite(store) {
    const site = store.sites[store.selected ?? 0];
    const own = store.settings.sites?.[site.name] ?? {};
    const other = this.formOf !== site.name;
    this.formOf = site.name;
    const fill = (node, value, usual) => {
      const text = `${value ?? ""}`;
      if (node.value !== text && (other || document.activeElement !== node)) node.value = text; // not under somebody's typing
      mark(node, "placeholder", usual);
    };
    say($("override-title"), site.label);
    fill($("site-rank"), own.rank, store.settings.rank);
    fill($("site-epsilon"), own.min_fidelity, store.settings.min_fidelity);
    const tracked = own.enabled !== false, plain = Object.keys(own).length === 0;
    if ($("site-tracked").checked !== tracked) $("site-tracked").checked = tracked;
    if ($("site-reset").disabled !== plain) $("site-reset").disabled = plain;
  },

  /** Send what the form says of the selected site. */
  sendSite() {
    const { store } = player;
    if (!store) return;
    const own = {};
    for (const [name, node, low, high] of [["rank", $("site-rank"), 1, 100], ["min_fidelity", $("site-epsilon"), 0.5, 1]]) {
      if (node.value === "") continue;
      const value = Number(node.value);
      if (Number.isFinite(value)) own[name] = Math.min(high, Math.max(low, value));
    }
    if (!$("site-tracked").checked) own.enabled = false;
    this.changeSite(Object.keys(own).length ? own : null);
  },

  changeSite(own) {
    const { store } = player;
    player.tune({ sites: { [store.sites[store.selected ?? 0].name]: own } });
  },

  apply(name) {
    const { store } = player;
    const settings = store && this.settingsOf(store, name);
    if (!settings) return;
    const { sites, ...plain } = settings;
    player.tune({ ...plain, sites: null });
    if (Object.keys(sites ?? {}).length) player.tune({ sites });
  },

  wire() {
    $("preset").addEventListener("change", (event) => this.apply(event.target.value));
    $("defaults").addEventListener("click", () => this.apply("default"));
    for (const name of ["functional", "gradient", "best", "beyond"]) {
      $(`option-${name}`).addEventListener("change", (event) => player.tune({ [name]: event.target.checked }));
    }
    for (const name of ["functional", "gradient", "best"]) $(`ask-${name}`).addEventListener("click", () => player.tune({ [name]: true }));
    $("batch").addEventListener("change", (event) => openWith({ batch: event.target.value }));
    const form = $("override");
    form.addEventListener("submit", (event) => { event.preventDefault(); this.sendSite(); });
    for (const id of ["site-rank", "site-epsilon", "site-tracked"]) $(id).addEventListener("change", () => this.sendSite());
    $("site-reset").addEventListener("click", () => { for (const id of ["site-rank", "site-epsilon"]) $(id).value = ""; this.changeSite(null); });
    this.wireMore();
  },

  /** The popover with what is seldom changed. */
  wireMore() {
    const button = $("more-open"), panel = $("more");
    const show = (open) => {
      panel.classList.toggle("open", open);
      button.setAttribute("aria-expanded", `${open}`);
    };
    button.addEventListener("click", () => {
      show(!panel.classList.contains("open"));
      if (panel.classList.contains("open")) panel.querySelector("input")?.focus();
    });
    document.addEventListener("pointerdown", (event) => { if (!panel.contains(event.target) && !button.contains(event.target)) show(false); });
    panel.addEventListener("keydown", (event) => { if (event.key === "Escape") { show(false); button.focus(); } });
  },
};
