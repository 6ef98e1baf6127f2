// Asking again as the page moves on: one question of a kind in flight, the latest wish wins, and while playing a rest in between.

const REST_MS = 350; // between an answer and the next question while the run plays

class Asker {
  /** wanted(store): the inquiry's values, null where nothing is to be asked; take(reply, values): the answer; shows(): is it seen. */
  constructor(name, { wanted, take }) {
    Object.assign(this, { name, wanted, take, busy: false, resting: false, known: "" });
  }

  /** Ask where something else is wanted than what is known. */
  consider(store) {
    if (this.busy || this.resting || document.hidden) return;
    const values = this.wanted(store);
    if (!values) return;
    const key = JSON.stringify([store.run, store.epoch, store.frame.index, values]);
    if (key === this.known) return;
    this.ask(store, values, key);
  }

  async ask(store, values, key) {
    this.busy = true;
    const reply = await inquire(this.name, values, { quiet: true });
    this.busy = false;
    if (player.store !== store) { this.known = ""; redraw(); return; } // another run was opened meanwhile
    this.known = key; // an answer that is none is not asked for again
    this.take(reply, values);
    if (player.playing) {
      this.resting = true;
      setTimeout(() => { this.resting = false; redraw(); }, REST_MS);
    }
    redraw();
  }

  forget() { this.known = ""; }
}
