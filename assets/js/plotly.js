// The plotting library, fetched from the studio when first needed, and files for the user to keep. Used by every page.

const PLOTLY_FILE = "studio/plotly.min.js";

/** plotly.js, fetched from the studio when first needed; a failed attempt may be repeated. */
function loadPlotly() {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  loadPlotly.pending ??= new Promise((resolve, reject) => {
    const root = (window.gradio_config?.root ?? "").replace(/\/$/, "");
    const node = make("script", { src: `${root}/${PLOTLY_FILE}` });
    node.addEventListener("load", () => (window.Plotly ? resolve(window.Plotly) : reject(new Error("no plotting library in what came"))));
    node.addEventListener("error", () => reject(new Error("no answer")));
    document.head.append(node);
  }).catch((failure) => { loadPlotly.pending = null; throw failure; });
  return loadPlotly.pending;
}

/** A file for the user to keep. */
function download(name, type, parts) {
  const link = make("a", { href: URL.createObjectURL(new Blob(parts, { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
