// What the page no longer holds of a run as it was, asked of the server piece by piece: for exports, and for looking closely.

/** What the server has for a still store; throws an error that says why where it has it no more. */
async function askAgain(shot, wanted) {
  if (player.store.run !== shot.run) throw new Error("this run has been closed for another one");
  const known = { run: shot.run, at: shot.frame.index, since: shot.rows, epoch: shot.epoch, steps: 0 };
  const notes = watched.on(shot) ? { notes_since: shot.notesKnown } : {};
  const reply = await fromServer(() => player.server.advance_run({ ...known, ...notes, ...wanted }));
  if (reply.error) throw new Error(reply.error);
  return reply;
}

const ELSE_NOW = "the run was changed since: refresh, and try again";

/**
 * Hand the steps [from, to) to `use(part)` in pieces, ascending; a part is a store that holds its steps as they are, with the spectra
 * of `site` where one is named.
 */
async function olderSteps(shot, from, to, use, site = "") {
  const notes = { rows: [], known: 0 }; // noted values come in their own pieces, ascending by step
  for (let t = from; t < to;) {
    const reply = await askAgain(shot, { since: t, ...(site ? { site, spectra_since: t } : {}) });
    if (reply.start !== t || !reply.rows.length) throw new Error(ELSE_NOW);
    const part = shot.part(t, reply.rows.slice(0, to - t));
    if (site) part.spectra = { ...noSpectra(site), rows: new Samples(Infinity, 0, t) };
    if (site) part.takeSpectra(reply.spectra);
    if (watched.on(shot)) watched.addNotes(part, (await notesBefore(shot, notes, part.rows)).filter(([, step]) => step >= t));
    for (const { column } of part.notes.values()) while (column.length < part.rows) column.push(null);
    await use(part);
    t = part.rows;
  }
}

/** The noted values of the steps before `end` that were not handed out yet. */
async function notesBefore(shot, notes, end) {
  while (notes.known < shot.notesKnown && !(notes.rows.at(-1)?.[1] >= end)) {
    const reply = await askAgain(shot, { notes_since: notes.known });
    if (!reply.notes.rows.length) throw new Error(ELSE_NOW);
    notes.rows.push(...reply.notes.rows);
    notes.known += reply.notes.rows.length;
  }
  const count = notes.rows.findIndex(([, step]) => step >= end);
  return notes.rows.splice(0, count < 0 ? notes.rows.length : count);
}

/** Fill a still store with the spectra of another site. */
async function otherSpectra(shot, site) {
  const filling = Object.assign(Object.create(shot), { spectra: noSpectra(site) });
  while (filling.spectra.rows.length < shot.rows) {
    const { spectra } = await askAgain(shot, { site, spectra_since: filling.spectra.rows.length });
    if (spectra.start !== filling.spectra.rows.length || !spectra.rows.length) throw new Error(ELSE_NOW);
    filling.takeSpectra({ ...spectra, rows: spectra.rows.slice(0, shot.rows - spectra.start) });
  }
  shot.spectra = filling.spectra;
}
