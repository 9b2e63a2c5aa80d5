"""The page's one script: a click on a column's head sorts the table. Without it everything is there, unsorted."""

SCRIPT = """
document.querySelectorAll("table.sortable").forEach(table=>{
const heads=[...table.tHead.rows[0].cells];
heads.forEach((head,column)=>head.querySelector("button")?.addEventListener("click",()=>{
const down=head.getAttribute("aria-sort")!=="descending";
heads.forEach(other=>other.removeAttribute("aria-sort"));
head.setAttribute("aria-sort",down?"descending":"ascending");
const key=row=>{const cell=row.cells[column];return cell.dataset.v===undefined?cell.textContent:Number(cell.dataset.v)};
const order=(a,b)=>{const x=key(a),y=key(b);return typeof x==="number"?x-y:x.localeCompare(y)};
const body=table.tBodies[0];
body.append(...[...body.rows].sort((a,b)=>down?order(b,a):order(a,b)));
}));
});
"""
