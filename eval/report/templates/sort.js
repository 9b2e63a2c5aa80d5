// A click on a column's heading sorts its table; without script everything is there, unsorted.
document.querySelectorAll("table.sortable").forEach(table => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => {
      const cell = row.cells[column];
      return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
    };
    const order = (a, b) => {
      const x = key(a), y = key(b);
      return typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
    };
    const body = table.tBodies[0];
    const fixed = [...body.rows].filter(row => row.classList.contains("total"));
    const free = [...body.rows].filter(row => !row.classList.contains("total"));
    body.append(...free.sort((a, b) => down ? order(b, a) : order(a, b)), ...fixed);
  }));
});
