// Asking about the run beside moving through it; the run and the step shown go with every question.

/** The answer, or null where there is none: a notice then says why, unless `quiet`. */
async function inquire(name, values = {}, { quiet = false } = {}) {
  const { store } = player;
  if (!store || player.expired) return null;
  let reply = null;
  try {
    reply = await server.inquire_run({ run: store.run, at: store.frame.index, ...values, name });
  } catch {
    reply = null;
  }
  if (reply && typeof reply === "object" && !reply.error) return reply;
  if (reply?.expired) player.expired = true;
  if (!quiet || reply?.expired) notify(reply?.error ?? "the studio does not answer: is it still running?", { lasting: true, reload: Boolean(reply?.expired) });
  return null;
}
