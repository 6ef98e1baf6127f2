// The theme before anything is painted: what was chosen here last, else what the system prefers.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("laser-studio-theme"); } catch { /* storage may be forbidden: follow the system */ }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
