"""Marks are kept: through kills, re-indexings and undoing; and given on pages without script, too."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from corpora import WordEncoder, build
from serving import Client, Tags, served

from sentence_forge.runtime.errors import UserError
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.serve.marks import Marks
from sentence_forge.search.verify import verify

TITLES = ["storm hits coast", "storm hits the coast", "opera opens", "markets fall"]
WRITER = """
import sys
from pathlib import Path
from sentence_forge.search.serve.marks import Marks
marks = Marks(Path(sys.argv[1]))
for number in range(200):
    marks.set(f"query {number}", str(number), f"text {number}", "right", "ann")
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_a_kill_loses_no_mark_that_was_acknowledged(tmp_path: Path) -> None:
    known: set[str] = set()
    for after in (1, 23, 67, 140):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            try:
                known |= {writer.stdout.readline().strip() for _ in range(after)}
            finally:
                os.kill(writer.pid, signal.SIGKILL)
            known |= {*writer.stdout.read().split("\n")[:-1]}
        marks = Marks(tmp_path)
        assert {mark.row_id for mark in marks.all()} >= known
        marks.close()
    assert len(known) >= 140


def test_what_stands_after_replacing_and_undoing(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    marks.set("storm", "1", "a", "right", "ann")
    marks.set("storm", "1", "a", "wrong", "ann")
    marks.set("storm", "1", "a", "near", "bob")
    assert marks.of("storm", ["a", "b"], "ann") == {"a": "wrong"} and marks.of("storm", ["a"], "bob") == {"a": "near"}
    assert marks.counts() == {"right": 0, "near": 1, "wrong": 1}
    undone = marks.undo("ann")
    assert undone is not None and undone.mark == "wrong"
    assert marks.of("storm", ["a"], "ann") == {"a": "right"}
    assert marks.undo("ann") is not None and marks.undo("ann") is None
    assert marks.of("storm", ["a"], "ann") == {} and len(marks.all()) == 1
    marks.remove("storm", "a", "bob")
    assert marks.all() == []
    with pytest.raises(ValueError, match="perhaps"):
        marks.set("storm", "1", "a", "perhaps", "ann")
    marks.close()
    again = Marks(tmp_path)
    assert again.all() == []
    again.close()


def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (x)")
    before = other.read_bytes()
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "marks.sqlite").symlink_to(other)
    with pytest.raises(UserError, match="is a link"):
        Marks(folder)
    (folder / "marks.sqlite").unlink()
    (folder / "marks.sqlite").write_bytes(b"a text of somebody's " * 300)
    with pytest.raises(UserError, match="move it away"):
        Marks(folder)
    assert other.read_bytes() == before and (folder / "marks.sqlite").read_bytes()[:6] == b"a text"


def pressed(client: Client, cookie: str) -> list[str | None]:
    """The marks that the page of one query shows."""
    buttons = Tags(client.ask("GET", "/?q=storm%20coast", cookie=cookie).text).named("button")
    return [button["value"] for button in buttons if button.get("aria-pressed") == "true"]


def test_marks_are_given_without_script_and_survive_a_reindexing(tmp_path: Path) -> None:
    build(tmp_path, TITLES)
    name = f"labeller={quote('李 <b>')}"
    with served(tmp_path) as client:
        page = client.ask("GET", "/?q=storm%20coast", cookie=name)
        fields = {each["name"]: each["value"] for each in Tags(page.text).named("input", type="hidden")[1:4]}
        done = client.form("/marks", {**fields, "mark": "right"}, cookie=name)
        assert done.status == 303 and done.headers["location"] == "/?q=storm%20coast"
        assert "李 &lt;b&gt;" in page.text
        assert pressed(client, name) == ["right"]
        assert pressed(client, "labeller=ann") == []
    index_corpus(tmp_path, ["x", "y", "z"], ["a new one", TITLES[1], TITLES[0]], WordEncoder())
    assert verify(tmp_path) == []
    with served(tmp_path) as client:
        assert pressed(client, name) == ["right"]
        json = {"accept": "application/json", "cookie": name}
        undone = client.form("/undo", {}, **json).json["undone"]
        assert undone["query"] == "storm coast" and undone["text"] in TITLES and undone["labeller"] == "李 <b>"
        assert client.form("/undo", {}, **json).json["undone"] is None
        given = client.form("/marks", {"query": quote("storm / é"), "id": "z", "mark": "near"}, **json)
        assert given.json == {"mark": "near", "right": 0, "near": 1, "wrong": 0}
        again = client.form("/marks", {"query": quote("storm / é"), "id": "z", "mark": "near"}, **json)
        assert again.json["mark"] == "" and again.json["near"] == 0
