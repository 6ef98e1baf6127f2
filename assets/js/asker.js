// Asking again as the page moves on: one question at a time, the latest wish wins, and while playing a rest after each answer.

const REST_MS = 300; // between an answer and the next question while the run plays: its steps come first

class Asker {
  static busy = false; // a question of any kind is under way
  static resting = false;
  static turn = []; // those that want to ask, the one that asked last at the end

  /** wanted(store): the inquiry's values, null where nothing is to be asked; take(reply, values): the answer, null where there is none. */
  constructor(name, { wanted, take }) {
    Object.assign(this, { name, wanted, take, known: "", failed: false });
    Asker.turn.push(this);
  }

  /** What it would ask now, where that is something else than what is known; null otherwise. */
  question(store) {
    const values = this.wanted(store);
    if (!values) return null;
    const key = JSON.stringify([store.run, store.epoch, store.frame.index, values]);
    return key === this.known ? null : { values, key };
  }

  forget() { this.known = ""; }

  /** Let the next one ask, where nothing is under way. */
  static consider(store) {
    if (this.busy || this.resting || document.hidden) return;
    for (const asker of this.turn) {
      const question = asker.question(store);
      if (!question) continue;
      this.turn = [...this.turn.filter((other) => other !== asker), asker];
      this.ask(asker, store, question);
      return;
    }
  }

  static async ask(asker, store, { values, key }) {
    this.busy = true;
    const reply = await inquire(asker.name, values, { quiet: true });
    this.busy = false;
    if (player.store === store) { // else another run was opened meanwhile
      asker.known = key; // what could not be answered is not asked for again
      asker.failed = reply === null;
      asker.take(reply, values);
      if (player.playing) { // the next picture, which comes anyway, shows it
        this.resting = true;
        setTimeout(() => { this.resting = false; if (!player.playing) redraw(); }, REST_MS);
        return;
      }
    }
    redraw();
  }
}

// Of a run that was recorded elsewhere only frames are here.
const NOT_LOOKABLE = "This run was recorded elsewhere: its model is not here to be looked into.";
const lookable = (store) => !watched.on(store);

parts.push({ tell(store) { Asker.consider(store); } });
