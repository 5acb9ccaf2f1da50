// The page's own script: draws the charts, and makes tables of customers sort, filter, search, page and download.
// It stands in a function, because the library before it declares names of one letter.
(() => {
  "use strict";
  const { charts = {}, config = {}, words = {} } = JSON.parse(document.getElementById("data").textContent);

  for (const place of document.querySelectorAll("[data-chart]")) {
    // ast: expressions are interpreted, not evaluated, which the policy forbids; no default styles, for the same reason
    window.vegaEmbed(place, charts[place.dataset.chart], {
      config, ast: true, actions: false, renderer: "svg", defaultStyle: false, tooltip: { disableDefaultStyle: true },
    }).catch((error) => console.error(place.dataset.chart, error));
  }

  const contents = document.querySelector(".toc details");
  const wide = window.matchMedia("(min-width: 1100px)");
  const fold = () => { contents.open = wide.matches; };
  fold();
  wide.addEventListener("change", fold);
  contents.addEventListener("click", (event) => { if (event.target.closest("a") && !wide.matches) contents.open = false; });

  const value = (cell) => (cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v));
  const order = (one, other) => {
    if (typeof one === "number" && typeof other === "number") return (Number.isNaN(one) ? -Infinity : one) - (Number.isNaN(other) ? -Infinity : other);
    return String(one).localeCompare(String(other), document.documentElement.lang, { numeric: true });
  };

  // A spreadsheet takes a text that begins so for a formula.
  const csvCell = (cell) => {
    let text = cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v;
    if (cell.dataset.v === undefined && /^[=+\-@\t\r]/.test(text)) text = "'" + text;
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  const download = (heads, rows, name) => {
    const lines = [heads, ...rows.map((row) => Array.from(row.cells, csvCell))].map((cells) => cells.join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff" + lines.join("\r\n") + "\r\n"], { type: "text/csv;charset=utf-8" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const PAGE = window.innerWidth < 700 ? 10 : 25;
  for (const box of document.querySelectorAll("[data-table]")) {
    const table = box.querySelector("table");
    const body = table.tBodies[0];
    const heads = Array.from(table.tHead.rows[0].cells);
    const names = heads.map((head) => (head.dataset.name || head.textContent.trim()).replaceAll('"', ""));
    let rows = Array.from(body.rows);
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const search = box.querySelector("input[type=search]");
    const filters = Array.from(box.querySelectorAll("select"));
    const status = box.querySelector("[role=status]");
    const [back, next] = box.querySelectorAll(".pager button");
    let first = 0;
    let shown = rows;

    const show = () => {
      const wanted = search.value.trim().toLowerCase();
      shown = rows.filter((row) => texts.get(row).includes(wanted)
        && filters.every((filter) => !filter.value || row.cells[filter.dataset.column].textContent.trim() === filter.value));
      first = Math.min(first, Math.max(0, Math.floor((shown.length - 1) / PAGE) * PAGE));
      const visible = new Set(shown.slice(first, first + PAGE));
      for (const row of rows) row.hidden = !visible.has(row);
      const last = Math.min(first + PAGE, shown.length);
      status.textContent = shown.length
        ? words.shown.replace("{first}", first + 1).replace("{last}", last).replace("{n}", shown.length.toLocaleString("en"))
        : words.none;
      back.disabled = first === 0;
      next.disabled = last >= shown.length;
    };
    const sort = (column, down) => {
      rows = rows.map((row, place) => [value(row.cells[column]), place, row])
        .sort((one, other) => (down ? order(other[0], one[0]) : order(one[0], other[0])) || one[1] - other[1])
        .map(([, , row]) => row);
      body.append(...rows);
      heads.forEach((head, place) => {
        if (place === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      });
      first = 0;
      show();
    };
    heads.forEach((head, column) => {
      head.querySelector("button[data-sort]")?.addEventListener("click", () => {
        const sorted = head.getAttribute("aria-sort");
        sort(column, sorted ? sorted === "ascending" : rows[0]?.cells[column].dataset.v !== undefined);
      });
    });
    search.addEventListener("input", () => { first = 0; show(); });
    for (const filter of filters) filter.addEventListener("change", () => { first = 0; show(); });
    back.addEventListener("click", () => { first = Math.max(0, first - PAGE); show(); });
    next.addEventListener("click", () => { first += PAGE; show(); });
    box.querySelector("[data-download]").addEventListener("click", () => download(names.map((name) => `"${name}"`), shown, box.dataset.table));
    for (const part of box.querySelectorAll(".tools, .pager")) part.hidden = false;
    show();
  }
})();
