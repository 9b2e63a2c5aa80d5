"""What another model changes in a corpus's hits, and what a score means by the export's calibrated thresholds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from browser import browser
from conftest import TINY
from corpora import WordEncoder, titles_like

from sentence_forge.eval.report.formatting import width_of
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.changes import changes, drawn_queries, side_by_side, summary
from sentence_forge.search.display import hits_table
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.page import page
from sentence_forge.search.thresholds import in_words, read_thresholds


class OtherEncoder(WordEncoder):
    """Another model: it hardly hears the second word of a text."""

    def encode(self, texts: Sequence[str], role: str | None = None) -> np.ndarray:
        return np.stack([sum((self._word(word) * (0.1 if place == 1 else 1) for place, word in enumerate(text.split())),
                             np.zeros(self.dim, np.float32)) for text in texts])


def two(folder: Path, titles: list[str], others: list[str] | None = None) -> tuple[Index, Index]:
    encoders = WordEncoder(), OtherEncoder(fingerprint=sha256(b"other").hexdigest())
    for name, encoder, held in (("old", encoders[0], titles), ("new", encoders[1], others or titles)):
        index_corpus(folder / name, [f"id{row}" for row in range(len(held))], held, encoder)
    return Index.open(folder / "new", encoders[1]), Index.open(folder / "old", encoders[0])


def test_changes_are_those_of_the_two_lists(tmp_path: Path) -> None:
    new, old = two(tmp_path, titles_like(300))
    queries = ["storm election", "robots opera", "markets markets"]
    for change, query in zip(changes(new, old, queries, 10), queries, strict=True):
        before, after = ([hit.id for hit in index.search([query], 10)[0]] for index in (old, new))
        assert [hit.id for hit in change.new] == after and [hit.id for hit in change.old] == before
        assert {move.id for move in change.entered} == set(after) - set(before)
        assert {move.id for move in change.left} == set(before) - set(after)
        assert {(move.id, move.old, move.new) for move in change.moved} == {
            (name, before.index(name) + 1, after.index(name) + 1) for name in set(before) & set(after)
            if before.index(name) != after.index(name)}
        assert change.overlap == len(set(before) & set(after)) / 10
    assert any(change.overlap < 1 for change in changes(new, old, queries, 10))


def test_a_model_against_itself_changes_nothing(tmp_path: Path) -> None:
    _, old = two(tmp_path, titles_like(100))
    queries = drawn_queries(old, 30)
    assert len(queries) == 30 and set(queries) <= set(titles_like(100))
    found = changes(old, old, queries, 5)
    assert all(change.overlap == 1 and not change.moved for change in found)
    assert all(hit.title != change.query for change in found for hit in change.new)  # a title does not find itself
    first, second = summary(found, 5)
    assert "overlap by 100.0 %" in first and "unchanged 30" in second and "another first hit 0" in second


def test_rows_of_another_corpus_are_matched_by_title(tmp_path: Path) -> None:
    titles = titles_like(60)
    new, old = two(tmp_path, titles, titles[::-1])  # the same titles under other ids
    (change,) = changes(new, old, ["storm election"], 10)
    before, after = ({hit.title for hit in index.search(["storm election"], 10)[0]} for index in (old, new))
    assert change.overlap == len(before & after) / 10
    with pytest.raises(UserError, match="no queries"):
        changes(new, old, [])


def test_the_terminal_s_lines_fit_and_show_who_moved(tmp_path: Path) -> None:
    titles = [*titles_like(50), "台风 登陆 沿海 多地 停课 " * 9]
    new, old = two(tmp_path, titles)
    for change in changes(new, old, ["storm robots", "台风 登陆"], 10):
        for width in (60, 100):
            lines = side_by_side(change, width)
            plain = ["".join(part.partition("m")[2] if number else part
                             for number, part in enumerate(line.split("\x1b["))) for line in lines]
            assert len(lines) == 11 and max(map(width_of, plain)) <= width
        text = "\n".join(lines)
        assert text.count("+") == len(change.entered) == len(change.left)


def test_the_page_is_escaped_and_shows_both_lists(tmp_path: Path) -> None:
    titles = [*titles_like(40), "storm <script>alert(1)</script> & more"]
    new, old = two(tmp_path, titles)
    found = changes(new, old, ["storm election", "storm <b>"], 10)
    text = page(found, 10, "new <i>", "old", "a note")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    assert "<script>" not in text and "<b>" not in text and "new &lt;i&gt;" in text and "http" not in text
    assert text.count("<small>left") == text.count("<small>entered") == sum(len(each.entered) for each in found)
    with browser(tmp_path / "profile") as shown:
        shown.open(f"file://{tmp_path / 'page.html'}")
        assert shown.run("document.querySelectorAll('section ol li').length") == 40
        shown.say("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        assert shown.run("document.scrollingElement.scrollWidth") <= 390


def test_thresholds_are_the_export_s_own(tmp_path: Path) -> None:
    found = {"fingerprint": "abc", "marks": {
        "measured_on": "stsb-dev", "n": 9, "related": {"cosine": 0.5},
        "same": {"cosine": 0.8, "precision": 0.6, "recall": 0.7}}}
    (tmp_path / "manifest.json").write_text(json.dumps(found))
    thresholds = read_thresholds(tmp_path, "abc")
    assert thresholds is not None and [thresholds.of(score) for score in (0.9, 0.8, 0.7999, 0.5, 0.4)] == [
        "same", "same", "related", "related", ""]
    assert in_words(found["marks"]) == (
        "a search will mark hits as `same` in meaning from a cosine of 0.800 on: of the pairs of stsb-dev that are so "
        "near, 60 % mean the same, and of those that mean the same, 70 % are so near")
    assert in_words(found["marks"] | {"same": {"cosine": 0.3, "precision": 0.28, "recall": 1.0}}) == (
        "a search will not mark hits as `same` or `related`: of the pairs of stsb-dev with the cosine that tells the "
        "same best, 0.300, or more, only 28 % mean the same")
    assert read_thresholds(tmp_path, "abc-int8") == thresholds
    assert read_thresholds(tmp_path, "another") is None and read_thresholds(tmp_path / "nowhere", "abc") is None
    _, old = two(tmp_path, titles_like(20))
    hits = old.search(["storm"], 5)[0]
    marked = hits_table(hits, 80, thresholds)
    assert [("same" in line, "related" in line) for line in marked] == [
        (thresholds.of(hit.score) == "same", thresholds.of(hit.score) == "related") for hit in hits]
    assert hits_table(hits, None, thresholds) == hits_table(hits, None)  # tab-separated lines keep their columns


def test_as_typed_on_an_export(command: Callable, tmp_path: Path) -> None:
    titles = titles_like(40)
    (tmp_path / "titles.csv").write_text("title\n" + "\n".join(titles), encoding="utf-8")
    assert command("train", "loss=mnrl", *TINY, "loop.max_steps=2", "hydra.run.dir=run").code == 0
    done = command("export", "model=run", "corpus=titles.csv", "out=news")
    assert done.code == 0, done.err
    about = json.loads((tmp_path / "news" / "manifest.json").read_text(encoding="utf-8"))
    assert in_words(about["marks"]) in done.err
    about["marks"]["same"]["precision"] = 0.4  # too often wrong to be said
    (tmp_path / "news" / "manifest.json").write_text(json.dumps(about))
    assert "mark" not in json.loads(command("search", "news", titles[3], "--json").out)["hits"][0]
    about["marks"]["same"]["precision"] = 0.6
    (tmp_path / "news" / "manifest.json").write_text(json.dumps(about))
    done = command("search", "news", titles[3], "--json")
    hits = json.loads(done.out)["hits"]
    assert hits[0]["mark"] == "same" and {hit["mark"] for hit in hits} <= {"same", "related", ""}
    done = command("search", "news", "--pairs", "--json", "-k", "5")
    assert all("mark" in json.loads(line) for line in done.out.splitlines())
    assert "mean the same, from cosine" in command("search", "news", "--pairs").err
    (tmp_path / "queries.txt").write_text("storm election\nrobots\n", encoding="utf-8")
    done = command("search.compare", "news", "news", "queries.txt", "--html", "page.html")
    assert done.code == 0 and "2 queries: the top 10 overlap by 100.0 %" in done.err
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert len(rows) == 20 and {row[1] for row in rows} == {"same"} and {row[0] for row in rows} == {
        "storm election", "robots"}
    assert (tmp_path / "page.html").is_file()
    old_form = command("search", "news", "--against", "news", "queries.txt")
    assert old_form.out == done.out and old_form.err.startswith("--against is a command of its own now")
    assert "overlap by 100.0 %" in command("search", "news", "storm", "--against=news", "-k", "3").err
    assert "40 titles drawn" in command("search.compare", "news", "news").err
    pages = list((tmp_path / "outputs" / "compare").glob("*/changes.html"))  # one each, none in another's place
    assert len(pages) == 3 and sum("titles drawn" in page.read_text(encoding="utf-8") for page in pages) == 1
    done = command("search.compare", "news", "nowhere", "storm")
    assert done.code == 2 and done.err.startswith("error: nowhere: no such folder")
    assert command("search.compare", "news", "news", "storm", "--pairs").code == 2
    assert command("search.compare", "news", "news", "storm", "-k", "0").code == 2
    done = command("search.compare", "news", "news", "storm", "--html", "new/folder/page.html")
    assert done.code == 0 and (tmp_path / "new" / "folder" / "page.html").is_file()
    for wrong, said in (("new", "--html new: is a folder"), ("queries.txt/page.html", "queries.txt: is no folder")):
        done = command("search.compare", "news", "news", "storm", "--html", wrong)
        assert done.code == 2 and said in done.err and not done.out
