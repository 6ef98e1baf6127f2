// Cards with tabs: one panel seen, the others in the page all the same. What is open is remembered.

const tabs = {
  open: {}, // by the id of the tab list
  wire(changed) {
    for (const list of document.querySelectorAll('.tabs[role="tablist"]')) {
      const all = [...list.children];
      let kept = null;
      try { kept = localStorage.getItem(`laser-studio-${list.id}`); } catch { /* the first one then */ }
      this.show(list, all.find((tab) => tab.id === kept) ?? all[0]);
      list.addEventListener("click", (event) => {
        const tab = event.target.closest('[role="tab"]');
        if (tab) { this.show(list, tab); this.keep(list, tab); changed(); }
      });
      list.addEventListener("keydown", (event) => {
        const here = all.indexOf(document.activeElement);
        const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: all.length - 1 }[event.key];
        if (to === undefined || here < 0) return;
        event.preventDefault();
        event.stopPropagation();
        all.at(to % all.length).focus();
        all.at(to % all.length).click();
      });
    }
  },
  show(list, chosen) {
    this.open[list.id] = chosen.id;
    for (const tab of list.children) {
      const here = tab === chosen;
      tab.setAttribute("aria-selected", `${here}`);
      tab.tabIndex = here ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !here;
    }
  },
  keep(list, tab) { try { localStorage.setItem(`laser-studio-${list.id}`, tab.id); } catch { /* not remembered then */ } },
  /** Open the next one of a list. */
  next(list) {
    const all = [...list.children];
    all[(all.findIndex((tab) => tab.id === this.open[list.id]) + 1) % all.length].click();
  },
  shows(tab) { return Object.values(this.open).includes(tab); },
};
