"use strict";
// A table that is wider than its place becomes cards, at any width; columns of dashes alone go.
(() => {
  const tables = [...document.querySelectorAll("main table:not(#texts)")];
  for (const table of tables) {
    table.setAttribute("role", "table");
    const heads = [...table.querySelectorAll("thead th")];
    for (const row of table.rows) row.setAttribute("role", "row");
    for (const head of heads) head.setAttribute("role", "columnheader");
    const rows = [...table.querySelectorAll("tbody tr")];
    rows.forEach((row) => [...row.cells].forEach((cell, i) => {
      cell.setAttribute("role", "cell");
      if (heads[i]) cell.dataset.label = heads[i].textContent;
    }));
    heads.forEach((head, i) => {
      const empty = rows.every((row) => row.cells.length === heads.length && ["", "-"].includes(row.cells[i].textContent.trim()));
      if (rows.length && empty) for (const cell of [head, ...rows.map((row) => row.cells[i])]) cell.hidden = true;
    });
  }
  function fit() {
    for (const table of tables) {
      table.classList.remove("cards");
      if (table.parentElement.clientWidth && table.scrollWidth > table.parentElement.clientWidth) table.classList.add("cards");
    }
  }
  addEventListener("resize", fit);
  for (const fold of document.querySelectorAll("details")) fold.addEventListener("toggle", fit);
  // A link to a place inside of a fold opens it.
  function unfold() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = target && (target.closest("details") || target.querySelector("details"));
    if (fold) { fold.open = true; target.scrollIntoView(); }
  }
  addEventListener("hashchange", unfold);
  unfold();
  fit();
})();
