// Runs in the page's head, before Gradio and before anything is painted.
(() => {
  // The theme: what was chosen here last, else what the system prefers.
  let chosen = null;
  try { chosen = localStorage.getItem("laser-studio-theme"); } catch { /* storage may be forbidden: follow the system */ }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";

  // Gradio 6.31's start animation asks for the next animation frame for ever, even after it has left the page, so the browser
  // would prepare 60 pictures a second of a page at rest. Once our page stands, that one chain of requests is not continued.
  const next = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (callback) =>
    window.laserStudio?.ready && new Error().stack.includes("statustracker") ? 0 : next(callback);
})();
