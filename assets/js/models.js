// Opening a model of one's own: looked up on the Hub and fetched, or sent as a file; what a file does not tell is asked for.

const FOLLOW_MS = 300;

const models = {
  pinned: "", // what was looked up
  token: "", // of the file that waits for answers
  stop: null, // ends what is under way

  wire() {
    this.dialog = document.body.appendChild($("models")); // above everything, whatever Gradio wraps it in
    $("open-model").addEventListener("click", () => this.open());
    $("models-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    this.dialog.addEventListener("close", () => this.stop?.());
    const submit = (id, work) => $(id).addEventListener("submit", (event) => { event.preventDefault(); this.during(work); });
    submit("models-hub", () => this.look());
    submit("models-file", () => this.send());
    submit("models-needs", () => this.answer());
    $("models-fetch").addEventListener("click", () => this.during(() => this.fetch()));
    $("models-stop").addEventListener("click", () => this.stop?.());
    $("models-reference").addEventListener("input", () => hide($("models-found"), true));
    $("models-files").addEventListener("change", () => { $("models-file").querySelector("button").disabled = !$("models-files").files.length; });
    commands.add({ id: "open-model", title: "open a model of your own: Hub or file", keys: ["u"], group: "More", run: () => this.open() });
  },

  open() {
    if (this.dialog.open) return;
    player.pause();
    this.clear();
    hide($("models-needs"), true);
    this.dialog.showModal();
    $("models-reference").focus();
  },

  clear() { hide($("models-problem"), true); hide($("models-progress"), true); },
  fail(text) { say($("models-problem"), text); hide($("models-problem"), false); },

  /** One thing at a time; its buttons rest meanwhile. */
  async during(work) {
    if (this.busy) return;
    this.busy = true;
    this.clear();
    this.dialog.classList.add("busy");
    try { await work(); } finally {
      this.busy = false;
      this.stop = null;
      this.dialog.classList.remove("busy");
      hide($("models-progress"), true);
    }
  },

  async ask(name, values) {
    const reply = await fromServer(() => server.bring_model({ ...values, name }));
    if (!reply.error) return reply;
    this.fail(reply.error);
    return null;
  },

  progress(done, total, words) {
    hide($("models-progress"), false);
    const share = total > 0 ? Math.min(1, done / total) : 0;
    dress($("models-progress").querySelector("i"), "width", `${(100 * share).toFixed(1)}%`);
    mark($("models-progress").querySelector(".bar"), "aria-valuenow", Math.round(100 * share));
    say($("models-doing"), total > 0 ? `${words} ${bytes(done)} of ${bytes(total)}` : words);
  },

  async look() {
    this.progress(0, 0, "asking the Hub …");
    const found = await this.ask("look", { reference: $("models-reference").value });
    hide($("models-found"), !found);
    if (!found) return;
    this.pinned = found.pinned;
    const beside = found.beside.length ? ` with ${found.beside.join(", ")}` : "";
    const need = found.missing ? `${found.missing} to download` : "already in the cache";
    say($("models-what"), `${found.file}, ${found.size}${beside} · commit ${found.commit.slice(0, 10)} · ${need}${found.offline ? " · the Hub cannot be reached" : ""}`);
    say($("models-fetch"), found.missing ? "Download and open" : "Open");
  },

  async fetch() {
    const started = await this.ask("fetch", { pinned: this.pinned });
    if (!started) return;
    let stop = false;
    this.stop = () => { stop = true; };
    this.progress(0, 0, "starting …");
    for (;;) {
      const job = await this.ask("follow", { job: started.job, stop });
      if (!job) return;
      if (job.state === "error") { this.fail(job.problem); return; }
      if (job.state === "stopped") { this.fail("stopped: what has come is kept, and the next download goes on from there"); return; }
      if (job.state === "done") { this.taken(job.result); return; }
      this.progress(job.done, job.total, job.total && job.done >= job.total ? "opening" : "fetching");
      await new Promise((later) => setTimeout(later, FOLLOW_MS));
    }
  },

  async send() {
    const files = [...$("models-files").files];
    const paths = await this.upload(files);
    if (!paths) return;
    this.progress(1, 1, "opening");
    this.taken(await this.ask("sent", { paths }));
  },

  /** Where the server has put the files; null where it did not take them. */
  upload(files) {
    const config = window.gradio_config ?? {}, body = new FormData();
    for (const file of files) body.append("files", file);
    return new Promise((done) => {
      const request = new XMLHttpRequest();
      this.stop = () => request.abort();
      request.upload.addEventListener("progress", (event) => this.progress(event.loaded, event.total, "sending"));
      request.addEventListener("loadend", () => {
        let paths = null;
        try { paths = request.status === 200 ? JSON.parse(request.responseText) : null; } catch { paths = null; }
        if (!Array.isArray(paths)) this.fail(request.status === 413 ? "the file is larger than this studio takes: name it with --checkpoint instead" : request.status ? "the file was not taken: it may be too large" : "sending was stopped");
        done(Array.isArray(paths) ? paths.map(String) : null);
      });
      request.open("POST", `${config.root ?? ""}${config.api_prefix ?? ""}/upload`);
      request.send(body);
    });
  },

  /** A model is offered, or its file does not tell everything. */
  taken(result) {
    if (!result) return;
    if (result.problem) { this.token = result.token; this.fail(result.problem); return; }
    if (result.needs) { this.asks(result); return; }
    this.dialog.close();
    hide($("models-needs"), true);
    openWith({ model: result.name, puzzle: null });
    const { facts } = result;
    const warned = result.warnings.length ? ` Note: ${result.warnings.join(" · ")}` : "";
    notify(`${result.name}: ${facts.format}, width ${facts.width}, ${facts.cycles}, ${compact(facts.parameters)} weights.${warned}`, { lasting: warned !== "" });
  },

  /** A model named at the start leaves questions open. */
  question(reply) {
    this.open();
    this.asks(reply);
    if (reply.needs.some((need) => need.name === "task")) this.fail(reply.error); // an ARC model: it says what its tasks are
  },

  asks({ needs, token, file }) {
    this.token = token;
    say($("models-asks"), `${file} does not tell ${needs.length === 1 ? "this" : "these"}; the values of the official code are filled in.`);
    const fields = $("models-fields");
    fields.replaceChildren();
    for (const need of needs) {
      const id = `need-${need.name}`;
      make("label", { for: id, text: need.name }, fields);
      const field = make(need.choices.length ? "select" : "input", { id, name: need.name, required: "", autocomplete: "off" }, fields);
      if (need.choices.length) for (const choice of need.choices) make("option", { text: `${choice}`, value: `${choice}` }, field);
      else field.type = "text";
      if (need.proposed !== null) field.value = `${need.proposed}`;
      make("span", { text: need.why }, fields);
    }
    hide($("models-needs"), false);
    fields.querySelector("input, select")?.focus();
  },

  async answer() {
    const assume = Object.fromEntries([...$("models-fields").querySelectorAll("input, select")].map((field) => [field.name, field.value]));
    this.progress(1, 1, "opening");
    this.taken(await this.ask("answer", { token: this.token, assume }));
  },
};
parts.push(models);
