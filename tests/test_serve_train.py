"""Marks on the page, a training from the page, and the new model's hits beside the old ones."""

from __future__ import annotations

import csv
import http.client
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from browser import browser, wait_for
from corpora import build, titles_like
from serving import Client, Tags, served

import sentence_forge as sf
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.encoders.making.build import from_scratch
from sentence_forge.search.index import Index
from sentence_forge.search.serve.marks import Marks

KEPT = ["source", "来源, b", "id", "title"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    titles = titles_like(60)
    with (folder / "titles.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "title", "source", "来源, b"], *(
            [f"n{row}", title, "x" if row % 2 else "", str(row)] for row, title in enumerate(titles))])
    tiny = Encoder(from_scratch(lambda: titles, hidden=32, layers=1, heads=2, vocabulary=600))
    sf.export(tiny, folder / "titles.csv", out=folder / "news",
              **{"corpus.id_column": "id", "corpus.keep": KEPT})
    return folder / "news"


class Trained(NamedTuple):
    """A server whose page trained on 60 marks, what its page shows then, and where the new model is."""

    client: Client
    page: Tags
    folder: Path


@pytest.fixture(scope="module")
def trained(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(exported, folder / "news")
    with served(folder / "news", encoder=None, work=folder / "work") as client:
        before = Tags(client.get("/train").text)
        assert [button for button in before.named("button", class_="main") if "disabled" in button]
        for query in range(30):
            for row, kind in ((query, "right"), (query + 30, "wrong")):
                fields = {"query": quote(f"storm query {query}"), "id": f"n{row}", "mark": kind}
                assert client.form("/marks", fields).status == 303
        assert client.form("/train", {}, origin="http://evil.example").status == 403
        assert client.form("/train", {}).status == 303
        assert client.form("/train", {}).status == 409
        page = finished(client)
        yield Trained(client, page, next((folder / "work").iterdir()))


def finished(client: Client, seconds: float = 900) -> Tags:
    until = time.monotonic() + seconds
    while "data-running" in (text := client.get("/train", part=1).text):
        assert time.monotonic() < until, text
        time.sleep(0.3)
    return Tags(client.get("/train").text)


def test_a_person_trains_on_marks_and_sees_what_changed(trained: Trained, exported: Path) -> None:
    client, page, made = trained
    assert not page.named("p", class_="bad"), page.texts
    assert "On the held-out queries:" in page.texts and "Before" in page.texts and "After" in page.texts
    assert any(text.startswith("30 queries: the top 10 overlap by") for text in page.texts)
    assert len((page.named("polyline")[0]["points"] or "").split()) > 3  # the loss, step by step
    tally = page.texts.index("Right hits in the top 10")
    assert all(int(number) <= 30 for number in page.texts[tally + 1:tally + 3])
    assert client.get("/healthz").json["generation"] == 1
    with Index.open(made / "index") as index, Index.open(exported) as before:
        assert list(index.titles) == list(before.titles) and index.kept.names == KEPT
        assert index.kept.of_row(1) == before.kept.of_row(1) == dict(zip(KEPT, ["x", "1", "n1", index.titles[1]],
                                                                         strict=True))
        assert list(index.ids) == list(before.ids) and index.fingerprint != before.fingerprint
    marks = Marks(made / "index")  # the marks went with the new index
    assert len(marks.all()) == 60
    marks.close()


def test_the_commands_can_be_typed(trained: Trained) -> None:
    shown = [shlex.split(text) for text in trained.page.texts if text.startswith("python -m ")]
    assert [words[2] for words in shown if words[2:4] != ["search", "serve"]] == [
        "search", "train", "eval", "export", "search.compare"]
    export = next(words for words in shown if words[2] == "export")
    assert {"corpus=titles.csv", "corpus.id_column=id", "corpus.keep=[source,'来源, b',id,title]"} <= set(export)
    assert not re.search("[<>]", " ".join(" ".join(words) for words in shown))


def test_the_train_view_in_a_browser(trained: Trained, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as page:
        page.say("Network.setExtraHTTPHeaders", headers={"Accept-Language": "en"})
        page.say("Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False)
        page.open(f"{trained.client.address}/train")
        assert page.run("document.querySelectorAll('.sides').length") == 30
        assert page.run("(([a, b]) => a.getBoundingClientRect().right <= b.getBoundingClientRect().left)"
                        "(document.querySelectorAll('.sides > div'))")  # before and after stand beside each other
        assert page.run("document.querySelector('polyline').getBoundingClientRect().width") > 200
        page.click("document.querySelector('.commands summary')")
        assert page.run("document.querySelectorAll('.commands pre')[4].checkVisibility()")
        page.click("document.querySelector('button.main')")  # once more: a form of ours is taken from our page
        wait_for(page, "!!document.querySelector('[data-running] .steps .now')")
        page.click("document.querySelector('[data-running] button')")
        wait_for(page, "document.querySelector('.bad')?.textContent == 'stopped'")
        assert page.run("!document.querySelector('[data-running]') && !document.querySelector('button.main').disabled")
        page.say("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        page.open(f"{trained.client.address}/train")
        assert page.run("document.scrollingElement.scrollWidth") <= 390
        assert page.errors == []


def test_what_fails_or_is_stopped_says_so_without_a_path(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "news")
    marks = Marks(tmp_path / "news")
    marks.set("one query", "n1", "text", "right", "ann")
    with served(tmp_path / "news", encoder=None, work=tmp_path / "work") as client:
        assert client.form("/train", {}).status == 303
        page = finished(client)
        assert any("nothing to train on yet" in text for text in page.texts)
        for number in range(20):
            for kind in ("right", "wrong"):
                marks.set(f"query {number}", "n1", f"text {kind} {number}", kind, "ann")
        assert client.form("/train", {}).status == 303
        time.sleep(0.5)
        assert client.form("/train/stop", {}).status == 303
        page = finished(client)
        assert "stopped" in page.texts and str(tmp_path) not in " ".join(
            text for text in page.texts if not text.startswith("python -m "))
    marks.close()


def test_an_index_without_a_model_is_not_trained_on(tmp_path: Path) -> None:
    build(tmp_path, ["storm hits"])
    with served(tmp_path) as client:
        assert "This index has no model beside it; export one with python -m export." in Tags(
            client.get("/train").text).texts
        assert client.form("/train", {}).status == 409


def test_a_killed_server_loses_no_mark_that_it_acknowledged(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "news")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sentence_forge.search", "serve", str(tmp_path / "news"), "--port", str(port)]
    taken: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE) as server:
        assert server.stderr is not None and b"http://" in server.stderr.readline()
        client = Client(port)

        def mark() -> None:
            for number in range(200):
                fields = {"query": f"query {number}", "id": f"n{number % 60}", "mark": "right"}
                if client.form("/marks", fields).status == 303:
                    taken.append(f"query {number}")

        marking = threading.Thread(target=lambda: _until_refused(mark))
        marking.start()
        while len(taken) < 100:
            time.sleep(0.002)
        os.kill(server.pid, signal.SIGKILL)
        marking.join()
    assert 100 <= len(taken) < 200
    marks = Marks(tmp_path / "news")
    assert {mark.query for mark in marks.all()} >= set(taken)
    marks.close()


def _until_refused(asking: object) -> None:
    assert callable(asking)
    try:
        asking()
    except (OSError, http.client.HTTPException):  # the server has gone
        return
