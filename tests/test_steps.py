"""A fast index whose making is killed after each of its steps goes on from there, and comes out the same."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from corpora import WordEncoder, build, titles_like
from faults import Acknowledge, forked

from sentence_forge.search import fast_build, learning, steps
from sentence_forge.search.index import Index
from sentence_forge.search.segments import steps_of, text_hashes
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
        keep, done = steps._keep, 0

        def counted(*what: Any) -> None:
            nonlocal done
            keep(*what)
            done += 1
            acknowledge("kept")
            if done == kept:
                os.kill(os.getpid(), signal.SIGKILL)

        steps._keep = counted
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


def crafted(numbers: npt.NDArray) -> bytes:
    return numbers.tobytes() + hashlib.sha256(numbers.tobytes()).digest()


def test_a_step_that_is_damaged_or_crafted_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """FAISS would read and write anywhere by a cell's number that is too large."""
    folder = tmp_path / "index"
    assert killed_after(ROUNDS + 1 + 2, folder, TITLES) == (False, ROUNDS + 1 + 2)
    [kept] = (folder / "segments").glob("learnt-*")
    files = sorted(kept.iterdir())
    book, *cells, first, second, third = [*files[:3], *files[3:6]]
    assert book.name.startswith("book-") and len(cells) == 2 and third.name.endswith("-2")
    data = bytearray(first.read_bytes())
    data[200] ^= 1
    first.write_bytes(data)
    second.write_bytes(second.read_bytes()[:50])
    numbers = np.frombuffer(third.read_bytes()[:-32], np.float32).copy()
    numbers[7] = np.nan
    third.write_bytes(crafted(numbers))
    cells[0].write_bytes(crafted(np.full(500, 10**6, np.int32)))
    cells[1].write_bytes(crafted(np.full(500, -1, np.int32)))
    book.unlink()
    os.mkfifo(book)
    with caplog.at_level("WARNING"):
        ended = forked(lambda acknowledge: acknowledge(build(folder, TITLES, fast_from=100) and len(caplog.records)))
    assert ended.status == 0 and ended.acknowledged == ["6"]
    assert killed_after(99, tmp_path / "unbroken", TITLES)[0]
    assert index_file(folder, 1) == index_file(tmp_path / "unbroken", 1)
    with Index.open(folder, WordEncoder()) as index:
        assert index.fast is not None


def test_steps_of_another_model_or_precision_are_not_taken(tmp_path: Path) -> None:
    hashes = text_hashes(TITLES)
    folders = {steps_of(tmp_path, *given)._folder for given in (
        ("model", hashes), ("model half", hashes), ("other", hashes), ("model", hashes[::-1]))}
    assert len(folders) == 4


def test_nothing_is_kept_where_the_build_is_over(tmp_path: Path) -> None:
    """As of a worker that was taken for dead and goes on."""
    assert (Steps(tmp_path / "segments" / "learnt").array("one", (2,), np.int32, lambda: np.zeros(2)) == 0).all()
    assert not list(tmp_path.iterdir())


def test_of_another_size_nothing_is_taken(tmp_path: Path) -> None:
    kept = Steps(tmp_path / "kept")
    for make in (np.zeros(3), np.zeros((2, 2)), np.zeros((2, 2), np.float32)):
        taken = kept.array("one", make.shape, make.dtype, lambda made=make: made + 1)
        assert taken.shape == make.shape and taken.dtype == make.dtype and taken.min() == 1
    assert (kept.array("one", (2, 2), np.float32, lambda: np.zeros((2, 2), np.float32)) == 1).all()
