// The lowest and highest of a column over blocks of steps, kept beside it: drawing ten thousand steps costs no more than a thousand.

const BLOCK = 8;
const LEVELS = 4; // blocks of 8, 64, 512 and 4,096 steps
const pyramids = new WeakMap();

/** The blocks of a column, completed for what it grew by since they were last asked for. */
function pyramid(column) {
  let levels = pyramids.get(column);
  if (!levels) pyramids.set(column, (levels = Array.from({ length: LEVELS }, () => ({ low: [], high: [] }))));
  levels.forEach(({ low, high }, level) => {
    const whole = Math.floor(column.length / BLOCK ** (level + 1));
    const below = level ? levels[level - 1] : null;
    for (let block = low.length; block < whole; block++) {
      let least = Infinity, most = -Infinity;
      for (let part = block * BLOCK; part < (block + 1) * BLOCK; part++) {
        const a = below ? below.low[part] : column[part], b = below ? below.high[part] : column[part];
        if (!below && !Number.isFinite(a)) continue;
        if (a < least) least = a;
        if (b > most) most = b;
      }
      low.push(least);
      high.push(most);
    }
  });
  return levels;
}

/** Forget a column from step `from` on. */
function cutColumn(column, from) {
  if (column.length > from) column.length = from;
  pyramids.get(column)?.forEach(({ low, high }, level) => {
    const whole = Math.floor(from / BLOCK ** (level + 1));
    if (low.length > whole) low.length = high.length = whole;
  });
}

/** Visit [from, to) in pieces of at most `most` steps: visit(first step, lowest, highest); pieces without a figure are left out. */
function extremes(column, from, to, most, visit) {
  const levels = most >= BLOCK ? pyramid(column) : null;
  let t = from;
  while (t < to) {
    let level = levels ? LEVELS - 1 : -1;
    for (; level >= 0; level--) {
      const size = BLOCK ** (level + 1);
      if (size <= most && t % size === 0 && t + size <= to && t / size < levels[level].low.length) break;
    }
    if (level < 0) {
      const value = column[t];
      if (Number.isFinite(value)) visit(t, value, value);
      t += 1;
    } else {
      const size = BLOCK ** (level + 1), block = t / size;
      if (levels[level].low[block] <= levels[level].high[block]) visit(t, levels[level].low[block], levels[level].high[block]);
      t += size;
    }
  }
}

/** The newest figure of a column at or before step `now`, not older than `reach` steps; null where there is none. */
function latest(column, now, reach) {
  for (let t = Math.min(now, column.length - 1); t >= 0 && t > now - reach; t--) {
    if (Number.isFinite(column[t])) return column[t];
  }
  return null;
}
