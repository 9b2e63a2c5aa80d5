"""A fast index whose making is killed after each of its steps goes on from there, and comes out the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import WordEncoder, build, titles_like
from faults import Acknowledge, forked

from sentence_forge.search import fast_build, learning, steps
from sentence_forge.search.index import Index
from sentence_forge.search.steps import Steps
from sentence_forge.search.verify import verify

TITLES = titles_like(1500)
ROUNDS = 8


@pytest.fixture(autouse=True)
def few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_build, "CELLS_FROM", 1000)
    monkeypatch.setattr(fast_build, "MOST_TIME", float("inf"))
    monkeypatch.setattr(learning, "PART", 500)


def killed_after(kept: int, folder: Path, titles: list[str]) -> tuple[bool, int]:
    """Index in a process that dies once it has kept so many steps; return whether it came to its end, and its steps."""

    def index(acknowledge: Acknowledge) -> None:
        write, done = steps.write_atomic, 0

        def counted(*what: Any) -> None:
            nonlocal done
            write(*what)
            done += 1
            acknowledge("kept")
            if done == kept:
                os.kill(os.getpid(), signal.SIGKILL)

        steps.write_atomic = counted  # type: ignore[attr-defined]
        build(folder, titles, fast_from=100)

    ended = forked(index)
    assert ended.status in (0, -signal.SIGKILL)
    return ended.status == 0, len(ended.acknowledged)


def index_file(folder: Path, number: int) -> bytes:
    return (folder / f"index-{number}.faiss").read_bytes()


def test_each_step_is_made_once_however_often_it_is_killed(tmp_path: Path) -> None:
    """Eight rounds of k-means, the code book, three parts of the rows; then likewise when the corpus grows."""
    for generation, (titles, parts) in enumerate(((TITLES[:1200], ROUNDS + 1 + 3), (TITLES, 3)), start=1):
        assert killed_after(99, tmp_path / "unbroken", titles) == (True, parts)
        runs = [killed_after(1, tmp_path / "broken", titles) for _ in range(parts + 1)]
        assert runs == [(False, 1)] * parts + [(True, 0)]
        assert index_file(tmp_path / "broken", generation) == index_file(tmp_path / "unbroken", generation)
        assert not (tmp_path / "broken" / "segments").exists()
    assert not verify(tmp_path / "broken")


def test_what_another_corpus_has_learnt_is_not_taken(tmp_path: Path) -> None:
    assert killed_after(ROUNDS, tmp_path / "index", TITLES[:1200]) == (False, ROUNDS)
    assert killed_after(99, tmp_path / "index", TITLES[:1201]) == (True, ROUNDS + 1 + 3)
    assert not (tmp_path / "index" / "segments").exists()


def test_a_damaged_step_is_named_and_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "index"
    killed_after(ROUNDS, folder, TITLES)
    [kept] = (folder / "segments").glob("learnt-*")
    last, first = kept / f"centres-{ROUNDS - 1}.npy", kept / "centres-0.npy"
    data = bytearray(last.read_bytes())
    data[200] ^= 1
    last.write_bytes(data)
    first.write_bytes(first.read_bytes()[:50])
    build(folder, TITLES, fast_from=100)
    assert caplog.text.count("damaged, its bytes differ from their sha256; it will be made anew") == 2
    build(tmp_path / "unbroken", TITLES, fast_from=100)
    assert index_file(folder, 1) == index_file(tmp_path / "unbroken", 1)
    with Index.open(folder, WordEncoder()) as index:
        assert index.fast is not None


def test_of_another_shape_or_type_nothing_is_taken(tmp_path: Path) -> None:
    kept = Steps(tmp_path / "kept")
    for make in (np.zeros(3), np.zeros((2, 2)), np.zeros((2, 2), np.float32)):
        taken = kept.array("one", make.shape, make.dtype, lambda made=make: made + 1)
        assert taken.shape == make.shape and taken.dtype == make.dtype and taken.min() == 1
    assert (kept.array("one", (2, 2), np.float32, lambda: np.zeros((2, 2), np.float32)) == 1).all()
