"""The page: whatever a corpus holds is text on it; and a person uses it in a real Chromium."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from browser import browser, key, wait_for
from corpora import WordEncoder, build, titles_like
from serving import Tags, served

from sentence_forge.search.indexing import index_corpus

HOSTILE = ["<script>alert(1)</script> storm", "<img src=x onerror=alert(1)> storm", "\"'><svg onload=alert(1)> storm",
           "\u202eevil\u202c \x1b[31mred\x1b[0m \x00 storm", "storm " + "x" * 10_000, "{{ 7 * 7 }} {% raw %} storm",
           "javascript:alert(1) storm", "</title></textarea></style> storm"]


def test_titles_queries_and_names_are_text_everywhere(tmp_path: Path) -> None:
    build(tmp_path, HOSTILE, [f"<b>{row}</b>" for row in range(len(HOSTILE))])
    with served(tmp_path) as client:
        for path in ["/?q=storm", "/pairs", "/similar?id=%3Cb%3E0%3C/b%3E", "/", "/?part=1&q=storm",
                     "/?q=%3Cscript%3Ealert(1)%3C/script%3E%22%20autofocus%20onfocus=alert(1)%20x=%22", "/api"]:
            answer = client.ask("GET", path, cookie="labeller=%3Cscript%3Ealert(1)%3C/script%3E")
            assert answer.status == 200, path
            page = Tags(answer.text)
            assert {tag for tag, _ in page.tags} <= {
                "html", "head", "meta", "title", "link", "script", "body", "header", "nav", "a", "form", "label",
                "input", "button", "main", "section", "p", "ol", "ul", "li", "div", "b", "meter", "span", "details",
                "summary", "i", "footer", "dl", "dt", "dd", "kbd", "h1", "h2", "code", "table", "tr", "td"}
            assert [each.get("src") for each in page.named("script")] in ([], ["/static/page.js"])
            assert not [name for _, attributes in page.tags for name in attributes if name[:2] == "on"]
            assert not [each for each in page.named("a") if not (each["href"] or "").startswith("/")]
            assert not re.search("[\x00-\x08\x1b\u202a-\u202e]", answer.text) and len(answer.text) < 100_000
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src 'self';" in policy
        shown = Tags(client.get("/", q="storm").text).texts
        assert HOSTILE[0] in shown and HOSTILE[5] in shown


@pytest.mark.parametrize(("accepted", "word"), [
    ("zh-CN,zh;q=0.9,en;q=0.8", "搜索"), ("en-GB,en;q=0.9", "Search"), ("de;q=0.9, zh;q=0.5, en;q=0.1", "搜索"),
    ("", "Search"), ("*;q=x,,;;q=1", "Search"), ("zh;q=0", "Search")])
def test_it_speaks_the_browser_s_language(tmp_path: Path, accepted: str, word: str) -> None:
    build(tmp_path, ["storm hits"])
    with served(tmp_path) as client:
        assert word in Tags(client.ask("GET", "/", accept_language=accepted).text).texts


def test_a_person_types_moves_marks_and_comes_back(tmp_path: Path) -> None:
    index = tmp_path / "index"
    build(index, titles_like(200))
    with served(index) as client, browser(tmp_path / "profile") as page:
        page.say("Network.setExtraHTTPHeaders", headers={"Accept-Language": "en"})
        page.say("Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False)
        page.open(f"{client.address}/")
        for letter in "storm opera":
            key(page, letter)
        wait_for(page, "document.querySelectorAll('.hit').length > 5 && location.search == '?q=storm+opera'")
        assert "storm" in page.run("document.querySelector('.hit .title').textContent")
        for name in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", "y"):
            key(page, name)
        marked = "[...document.querySelectorAll('[aria-pressed=true]')].map(each=>each.value).join()"
        wait_for(page, f"{marked} == 'right'")
        chosen = page.run("document.querySelector('.hit.chosen .title').textContent")
        page.open(f"{client.address}/?q=storm+opera")
        assert page.run(marked) == "right"
        assert page.run("document.querySelector('[aria-pressed=true]').closest('.hit').querySelector('.title')"
                        ".textContent") == chosen
        for name in ("ArrowDown", "ArrowDown", "n"):
            key(page, name)
        wait_for(page, f"{marked} == 'wrong'")
        key(page, "u")
        wait_for(page, f"{marked} == 'right'")
        key(page, "/")
        assert page.run("document.activeElement.id") == "q"
        for name in ("ArrowDown", "ArrowDown", "Enter"):
            key(page, name)
        wait_for(page, "location.pathname == '/similar' && document.readyState == 'complete'")
        assert page.run("document.querySelector('h1').textContent") == chosen
        assert chosen not in page.run("[...document.querySelectorAll('.hit .title')].map(each=>each.textContent)")
        for address in ("/", "/?q=storm+opera", "/pairs", "/api"):
            page.say("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
            page.open(f"{client.address}{address}")
            assert page.run("document.scrollingElement.scrollWidth") <= 390  # nothing sticks out on a telephone
        assert page.errors == []
        assert {url.split("/")[2] for url in page.asked if url.startswith("http")} == {f"127.0.0.1:{client.port}"}


def test_a_person_filters_by_what_the_corpus_keeps(tmp_path: Path) -> None:
    index = tmp_path / "index"
    rows = range(200)
    index_corpus(index, [str(row) for row in rows], titles_like(200), WordEncoder(), kept={
        "source": ["x", "y"] * 100, "date": [f"2026-01-{1 + row % 28:02}" for row in rows],
        "town": [f"Town {row % 50}" for row in rows], "url": [f"https://news.example/{row}" for row in rows]})
    shown = "[...document.querySelectorAll('.hit')].map(each => each.dataset.more.split('=')[1]).join()"

    def found(*where: str) -> str:
        hits = client.get("/api/search", q="storm", k=20, filter=where).json["hits"]
        return ",".join(hit["id"] for hit in hits)

    with served(index) as client, browser(tmp_path / "profile") as page:
        page.say("Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False)
        page.open(f"{client.address}/?q=storm")
        assert page.run("[...document.querySelectorAll('.facets [name]')].map(each => each.name).join()") == (
            "is.source,from.date,to.date,is.town")
        assert page.run("document.querySelector('[type=date]').max") == "2026-01-28"
        page.click("document.querySelector('select')")
        for name in ("ArrowDown", "ArrowDown", "Enter"):
            key(page, name)
        wait_for(page, f"{shown} == '{found('source=y')}'")
        set_value = "(e => {{ e.value = '{}'; e.dispatchEvent(new Event('input', {{bubbles: true}})); 1 }})"
        page.run(set_value.format("2026-01-20") + "(document.querySelector('[type=date]'))")
        wait_for(page, f"{shown} == '{found('source=y', 'date>=2026-01-20')}'")
        page.run("document.querySelector('[list]').focus()")
        for letter in "Town 21":
            key(page, letter)
        wait_for(page, f"{shown} == '{found('source=y', 'date>=2026-01-20', 'town=Town 21')}'")
        address = page.run("location.search")
        page.open(f"{client.address}/{address}")  # the filter stays with the address
        assert page.run("document.querySelector('select').value + document.querySelector('[list]').value") == "yTown 21"
        assert "titles that meet the filter" in page.run("document.querySelector('.took').textContent")
        page.click("document.querySelector('.took a')")
        wait_for(page, f"{shown} == '{found()}'")
        assert page.errors == []


def test_a_person_who_goes_astray_is_told_so_on_a_page(tmp_path: Path) -> None:
    build(tmp_path, ["storm hits"])
    with served(tmp_path) as client:
        for path, status in (("/similar?id=nobody", 404), ("/?k=x", 422), ("/nowhere", 404)):
            page = client.ask("GET", path, accept="text/html,*/*")
            assert page.status == status and "Back to the search" in Tags(page.text).texts
            assert client.ask("GET", path).json["error"]


def test_the_last_query_wins(tmp_path: Path) -> None:
    index = tmp_path / "index"
    build(index, titles_like(200))
    with served(index) as client, browser(tmp_path / "profile") as page:
        page.open(f"{client.address}/")
        # The answer to the first query is held back until the second one's is there.
        page.run("""(() => { const real = window.fetch; let held = true; window.fetch = async (url, options) => {
          if (held && url.includes('drought')) { held = false; const late = await real(url, {...options, signal: null});
            await new Promise(done => setTimeout(done, 1500)); return late; }
          return real(url, options); }; })()""")
        page.run("document.getElementById('q').value = 'drought'; document.getElementById('q')"
                 ".dispatchEvent(new Event('input', {bubbles: true})); 1")
        time.sleep(0.4)
        page.run("document.getElementById('q').value = 'opera'; document.getElementById('q')"
                 ".dispatchEvent(new Event('input', {bubbles: true})); 1")
        wait_for(page, "location.search == '?q=opera'")
        time.sleep(1.8)
        assert page.run("location.search") == "?q=opera"
        assert "opera" in page.run("document.querySelector('.hit .title').textContent")
