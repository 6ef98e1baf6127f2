// The spectrum waterfall of the selected site: a column per step, a row per component, its share of energy as colour.

const LEAST_SHARE = 1e-4; // and less: the darkest
const GREATEST_SHARES = [0.1, 0.2, 0.5, 1]; // the brightest, by what a site shows
const MOST_COLUMNS = 512; // of the kept picture; a longer run shares them, and of its older steps at least as many are held
const SHOWN_COMPONENTS = 64; // what a run keeps of each step

const shareColour = (share, high) => cividis(Math.log(Math.max(share, LEAST_SHARE) / LEAST_SHARE) / Math.log(high / LEAST_SHARE));

const spectrum = {
  place: null,
  kept: null, // the picture so far, so that a new step costs one column

  high: (spectra) => GREATEST_SHARES.find((share) => spectra.greatest <= share) ?? 1,

  picture(store) {
    const { spectra, span } = store;
    const columns = Math.min(span + 1, MOST_COLUMNS);
    const high = this.high(spectra);
    if (this.kept?.spectra !== spectra || this.kept.columns !== columns || this.kept.span !== span || this.kept.high !== high) {
      const canvas = this.kept?.canvas ?? document.createElement("canvas");
      canvas.width = columns;
      canvas.height = SHOWN_COMPONENTS;
      const context = canvas.getContext("2d");
      context.clearRect(0, 0, columns, SHOWN_COMPONENTS);
      this.kept = { canvas, context, spectra, columns, span, high, painted: 0, strip: context.createImageData(1, SHOWN_COMPONENTS) };
    }
    const { kept } = this;
    if (spectra.cut !== undefined && spectra.cut < kept.painted) {
      // What was recorded beyond is gone.
      const from = Math.floor((spectra.cut * (columns - 1)) / span);
      kept.context.clearRect(from, 0, columns - from, SHOWN_COMPONENTS);
      kept.painted = Math.min(kept.painted, Math.floor((from * span) / (columns - 1)));
    }
    spectra.cut = undefined;
    spectra.rows.each(kept.painted, spectra.rows.length, (t, shares) => {
      if (!shares) return;
      const { data } = kept.strip;
      data.fill(0);
      shares.forEach((share, n) => {
        const [r, g, b] = shareColour(share, high);
        data.set([r, g, b, 255], 4 * n);
      });
      kept.context.putImageData(kept.strip, Math.floor((t * (columns - 1)) / span), 0);
    });
    kept.painted = spectra.rows.length;
    return kept.canvas;
  },

  paint(store) {
    const made = surface($("spectrum-plot"));
    if (!made) return;
    const { context, width, height } = made;
    const left = 20, right = 4, top = 10, bottom = 16;
    this.place = { left, right, width, top, bottom, height };
    const x = (t) => left + (t / store.span) * (width - left - right);
    const { spectra } = store;
    const most = Math.max(1, spectra.most);
    const tall = height - top - bottom;
    const there = spectra.site === store.sites[store.selected ?? 0]?.name && spectra.most > 0;
    context.strokeStyle = ink.line;
    context.strokeRect(left + 0.5, top + 0.5, width - left - right - 1, tall - 1);
    hide($("spectrum-empty"), there);
    if (there) {
      const canvas = this.picture(store);
      context.imageSmoothingEnabled = false;
      const wide = (canvas.width / (canvas.width - 1)) * (width - left - right);
      context.save();
      context.beginPath();
      context.rect(left, top, width - left - right, tall);
      context.clip();
      context.drawImage(canvas, 0, 0, canvas.width, most, left, top, wide, tall);
      const now = x(store.frame.index + 1);
      if (store.rows - 1 > store.frame.index) {
        context.globalAlpha = 0.62; // the recorded future is faint
        context.fillStyle = ink.card;
        context.fillRect(now, top, width, tall);
        context.globalAlpha = 1;
      }
      context.restore();
      label(context, "1", left - 5, top + 5, { align: "right", size: 9.5 });
      label(context, `${most}`, left - 5, height - bottom - 5, { align: "right", size: 9.5 });
    }
    for (const [kind, above, colour] of [["grew", 4, ink.amber], ["reset", 0, ink.red]]) {
      marksAt(context, store.siteMarks[store.selected ?? 0]?.[kind] ?? [], x, store.rows, (at) =>
        upright(context, Math.round(at) + 0.5, above, top - 1, { colour, width: 1.6 }));
    }
    stepTicks(context, store, x, width, height - 6, { top, wanted: 4, size: 9.5 });
    cursorLine(context, x(store.frame.index), top - 2, height - bottom);
    hoverLine(context, this, x, top, height - bottom);
  },

  tell(store) {
    const { spectra } = store;
    const shares = spectra.rows.at(store.frame.index);
    const site = store.sites[store.selected ?? 0];
    const rank = store.frame.sites[site.name]?.rank ?? 0;
    say($("spectrum-note"), rank > SHOWN_COMPONENTS ? `${SHOWN_COMPONENTS} of ${rank}` : "");
    say($("spectrum-high"), `${this.high(spectra)}`);
    mark($("spectrum-plot"), "aria-label", shares
      ? `Spectrum of ${site.label} at step ${store.frame.index}: the first of ${shares.length} components holds ${percent(shares[0])} of the energy`
      : `Spectrum of ${site.label}: no basis at this step`);
  },

  drawScale() {
    const made = surface($("spectrum-scale"));
    if (!made) return;
    const { context, width, height } = made;
    for (let x = 0; x < width; x++) {
      context.fillStyle = rgb(cividis(x / (width - 1)));
      context.fillRect(x, 0, 1.5, height);
    }
  },

  wire() {
    wirePlot(this, $("spectrum-plot"), (store, t, event) => {
      const { rows } = store.spectra, shares = rows.at(rows.stepBefore(t));
      if (!shares) return null;
      const { top, bottom, height } = this.place;
      const n = Math.floor(((event.offsetY - top) / (height - top - bottom)) * store.spectra.most);
      if (n < 0 || n >= shares.length) return [{ name: "components", value: `${shares.length}` }];
      return [{ name: "component", value: `${n + 1} of ${shares.length}` }, { colour: rgb(shareColour(shares[n], this.high(store.spectra))), name: "share of energy", value: small(shares[n]) }];
    }, (store, t) => ({ name: "step", value: `${store.spectra.rows.stepBefore(t)}` })); // of older steps not all are held
  },
};

const small = (share) => (share >= 0.001 ? percent(share, 2) : share > 0 ? share.toExponential(1) : "0");
