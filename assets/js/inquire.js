// Asking about the run beside moving through it; the run and the step shown go with every question.

/** The answer, or null where there is none: a notice then says why, unless `quiet`. */
async function inquire(name, values = {}, { quiet = false } = {}) {
  const { store } = player;
  if (!store || player.expired) return null;
  const reply = await fromServer(() => server.inquire_run({ run: store.run, at: store.frame.index, ...values, name }));
  if (!reply.error) return reply;
  if (reply.expired) player.expired = true;
  if (!quiet || reply.expired) notify(reply.error, { lasting: true, reload: Boolean(reply.expired) });
  return null;
}
