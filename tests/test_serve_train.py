"""Marks on the page, a training from the page, and the new model's hits beside the old ones."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import TINY, Done
from corpora import build, titles_like
from serving import Client, Tags, served

from sentence_forge.search.index import Index
from sentence_forge.search.serve.marks import Marks


@pytest.fixture
def exported(tmp_path: Path, command: Callable[..., Done]) -> Path:
    titles = titles_like(60)
    with (tmp_path / "titles.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "title", "source"], *(
            [f"n{row}", title, "x" if row % 2 else ""] for row, title in enumerate(titles))])
    assert command("train", "loss=mnrl", *TINY, "loop.max_steps=1", "hydra.run.dir=run").code == 0
    done = command("export", "model=run", "corpus=titles.csv", "corpus.id_column=id", "corpus.keep=[source]",
                   "out=news")
    assert done.code == 0, done.err
    return tmp_path / "news"


def finished(client: Client, seconds: float = 240) -> Tags:
    until = time.monotonic() + seconds
    while "data-running" in (text := client.get("/train", part=1).text):
        assert time.monotonic() < until, text
        time.sleep(0.3)
    return Tags(client.get("/train").text)


def test_a_person_trains_on_marks_and_sees_what_changed(exported: Path, tmp_path: Path) -> None:
    with served(exported, encoder=None, work=tmp_path / "work") as client:
        page = Tags(client.get("/train").text)
        assert [button for button in page.named("button", class_="main") if "disabled" in button]
        shown = [text for text in page.texts if text.startswith("python -m ")]
        assert [command.split()[2] for command in shown] == ["search", "train", "eval", "export", "search.compare"]
        for query in range(30):
            for row, kind in ((query, "right"), (query + 30, "wrong")):
                fields = {"query": quote(f"storm query {query}"), "id": f"n{row}", "mark": kind}
                assert client.form("/marks", fields).status == 303
        assert client.form("/train", {}, origin="http://evil.example").status == 403
        assert client.form("/train", {}).status == 303
        assert client.form("/train", {}).status == 409
        page = finished(client)
        assert not page.named("p", class_="bad"), page.texts
        assert "On the held-out queries:" in page.texts and "Before" in page.texts and "After" in page.texts
        assert any(text.startswith("30 queries: the top 10 overlap by") for text in page.texts)
        assert client.get("/healthz").json["generation"] == 1
    made = next((tmp_path / "work").iterdir())
    with Index.open(made / "index") as index, Index.open(exported) as before:
        assert list(index.titles) == list(before.titles) and index.kept.names == ["source"]
        assert index.kept.of_row(1) == {"source": "x"} and index.fingerprint != before.fingerprint


def test_what_fails_or_is_stopped_says_so_without_a_path(exported: Path, tmp_path: Path) -> None:
    marks = Marks(exported)
    marks.set("one query", "n1", "text", "right", "ann")
    marks.close()
    with served(exported, encoder=None, work=tmp_path / "work") as client:
        assert client.form("/train", {}).status == 303
        page = finished(client)
        assert any("nothing to train on yet" in text for text in page.texts)
        marks = Marks(exported)
        for number in range(20):
            for kind in ("right", "wrong"):
                marks.set(f"query {number}", "n1", f"text {kind} {number}", kind, "ann")
        marks.close()
        assert client.form("/train", {}).status == 303
        time.sleep(0.5)
        assert client.form("/train/stop", {}).status == 303
        page = finished(client)
        assert "stopped" in page.texts and str(tmp_path) not in " ".join(
            text for text in page.texts if not text.startswith("python -m "))


def test_an_index_without_a_model_is_not_trained_on(tmp_path: Path) -> None:
    build(tmp_path, ["storm hits"])
    with served(tmp_path) as client:
        assert "This index has no model beside it; export one with python -m export." in Tags(
            client.get("/train").text).texts
        assert client.form("/train", {}).status == 409
