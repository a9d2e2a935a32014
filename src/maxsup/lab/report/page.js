(() => {
  "use strict";
  const root = document.documentElement;

  // The theme: the reader's system decides until the button is used. Storage can be forbidden for local files.
  const themes = ["auto", "light", "dark"];
  const stored = () => { try { return localStorage.getItem("maxsup-theme"); } catch { return null; } };
  const store = (theme) => { try { localStorage.setItem("maxsup-theme", theme); } catch { /* this page only */ } };
  const button = document.getElementById("theme");
  const show = (theme) => {
    root.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  show(themes.includes(stored()) ? stored() : "auto");
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
    show(next);
    store(next);
  });

  // Sorting: numbers by data-value, words by text; rows without a value stay last in both directions.
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        const words = head.classList.contains("text");
        const key = (row) => {
          const { value } = row.cells[column].dataset;
          if (words) return row.cells[column].textContent.trim();
          return value === undefined ? null : Number(value);
        };
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b), sign)));
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      });
    });
  }

  // On paper nothing can be opened.
  const closed = () => [...document.querySelectorAll("details:not([open])")];
  let opened = [];
  addEventListener("beforeprint", () => { opened = closed(); for (const one of opened) one.open = true; });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
})();
