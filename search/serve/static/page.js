// Answers as one types, moves by keys, marks without leaving the page. Without it every form still works by itself.
"use strict";

const words = JSON.parse(document.body.dataset.words);
const box = document.getElementById("q");
const form = document.getElementById("search");
const results = document.getElementById("results");
const WAIT = 120; // ms after the last key

// ---- search as one types: the last query wins ----
let timer = 0;
let under_way = null;

function address(part) {
  const asked = new URLSearchParams(new FormData(form));
  for (const [name, value] of [...asked]) if (!value.trim()) asked.delete(name, value);
  if (part) asked.set("part", "1");
  const query = asked.toString();
  return query ? "/?" + query : "/";
}

async function search() {
  clearTimeout(timer);
  under_way?.abort();
  const mine = under_way = new AbortController();
  results.classList.add("old");
  try {
    const answer = await fetch(address(true), { signal: mine.signal, headers: { accept: "text/html" } });
    if (answer.status === 401) return location.reload();
    const text = await answer.text();
    if (mine !== under_way) return;
    if (!answer.ok) return say(problem(text));
    results.innerHTML = text; // made by our server, which escapes every value
    history.replaceState(null, "", address(false));
    document.title = document.title.includes(" · ") || box.value ? title() : document.title;
    say("");
  } catch (error) {
    if (error.name !== "AbortError") say(words.failed);
  } finally {
    if (mine === under_way) results.classList.remove("old");
  }
}

const name = document.querySelector("header .name").textContent;
const title = () => (box.value.trim() ? box.value.trim() + " · " : "") + name;

function problem(text) {
  try { return JSON.parse(text).error; } catch { return words.failed; }
}

if (form && results) {
  form.addEventListener("input", event => {
    clearTimeout(timer);
    const offered = event.target.list?.options; // a value that is half typed is none yet
    if (offered && event.target.value && ![...offered].some(each => each.value === event.target.value)) return;
    if (!event.isComposing) timer = setTimeout(search, WAIT); // a Chinese word is not a word until it is composed
  });
  form.addEventListener("compositionend", () => { clearTimeout(timer); timer = setTimeout(search, WAIT); });
  form.addEventListener("change", event => { if (event.target.list) search(); });
  form.addEventListener("submit", event => { event.preventDefault(); search(); });
}

// ---- what happened, for eyes and screen readers ----
let fading = 0;

function say(text) {
  const said = document.getElementById("said");
  said.textContent = text;
  clearTimeout(fading);
  if (text) fading = setTimeout(() => { said.textContent = ""; }, 4000);
}

// ---- marks ----
async function post(action, data) {
  const answer = await fetch(action, { method: "POST", body: new URLSearchParams(data), headers: { accept: "application/json" } });
  if (answer.status === 401) return location.reload();
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

document.addEventListener("submit", async event => {
  const marking = event.target.closest("form.marking");
  if (!marking) return;
  event.preventDefault();
  const data = new FormData(marking, event.submitter);
  try {
    const found = await post("/marks", data);
    for (const button of marking.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(button.value === found.mark));
    document.dispatchEvent(new CustomEvent("marked", { detail: { marking, found } }));
  } catch (error) {
    say(error.message || words.failed);
  }
});

// on the page of what to mark next, a mark leads on
document.addEventListener("marked", event => {
  if (location.pathname === "/queue" && event.detail.found.mark) setTimeout(() => step(1), 150);
  const { right, near, wrong } = event.detail.found;
  for (const bar of document.querySelectorAll("progress")) bar.value = right + near + wrong;
  say(words.marked.replace("{n}", right + near + wrong));
});

async function undo() {
  try {
    const { undone } = await post("/undo", {});
    if (!undone) return;
    say(words.undone.replace("{text}", undone.text));
    if (form && results) await search(); else location.reload();
  } catch (error) {
    say(error.message || words.failed);
  }
}

// ---- keys ----
const hits = () => [...document.querySelectorAll(".hit")].filter(hit => hit.checkVisibility());
const chosen = () => document.querySelector(".hit.chosen");

function choose(hit) {
  chosen()?.classList.remove("chosen");
  if (!hit) return;
  hit.classList.add("chosen");
  hit.focus({ preventScroll: true });
  hit.scrollIntoView({ block: "nearest" });
}

function step(by) {
  const all = hits();
  const at = all.indexOf(chosen());
  if (at + by < 0 && box) { choose(null); box.focus(); return; }
  choose(all[Math.min(all.length - 1, Math.max(0, at + by))]);
}

const MARK = { y: "right", m: "near", n: "wrong" };

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    if (typing && typing !== box) return;
    event.preventDefault();
    step(event.key === "ArrowDown" ? 1 : -1);
    return;
  }
  if (event.key === "Escape") { choose(null); box?.focus(); return; }
  if (typing) return;
  const hit = chosen();
  if (event.key === "/" && box) { event.preventDefault(); choose(null); box.focus(); box.select(); }
  else if (event.key === "u") undo();
  else if (hit && event.key === "Enter" && event.target === hit && hit.dataset.more) location.href = hit.dataset.more;
  else if (hit && event.key === "o") hit.querySelector("a.outside")?.click();
  else if (hit && MARK[event.key]) hit.querySelector(`:scope > .acts [value=${MARK[event.key]}]`)?.click();
});

document.addEventListener("click", event => {
  const hit = event.target.closest(".hit");
  if (hit && !event.target.closest("a, button, summary")) choose(hit);
});

// ---- who marks: saved when the field is left ----
document.querySelector(".labeller input")?.addEventListener("change", event => event.target.form.requestSubmit());

// ---- a training's progress ----
const training = document.getElementById("training");

async function follow() {
  if (!training?.querySelector("[data-running]")) return;
  try {
    const answer = await fetch("/train?part=1", { headers: { accept: "text/html" } });
    if (answer.ok) training.innerHTML = await answer.text();
    if (!training.querySelector("[data-running]")) return location.reload();
  } catch { /* the server may be busy: ask again */ }
  setTimeout(follow, 1500);
}

follow();
