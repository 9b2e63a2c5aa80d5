"""Files that the system doesn't give now are not taken for damaged ones: nothing is removed for that."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from corpora import WordEncoder, build, titles_like

from sentence_forge.export.run import unfinished
from sentence_forge.runtime.errors import UnreadableError, UserError
from sentence_forge.search import checked
from sentence_forge.search.generation import newest, prune
from sentence_forge.search.segments import read_segments, text_hashes, write_segment
from sentence_forge.search.serve import live
from sentence_forge.search.serve.live import LiveIndex


@contextmanager
def few_open_files() -> Iterator[None]:
    """Leave this process five more files to open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, hard))
    try:
        with suppress(OSError):  # numbers below the highest may be free, too
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(5):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in held:
            os.close(number)


def test_segments_that_are_too_many_to_open_are_kept(tmp_path: Path) -> None:
    encoder = WordEncoder()
    for title in titles_like(20):
        write_segment(tmp_path, text_hashes([title]), encoder.encode([title]), encoder.fingerprint)
    said = r"can.t be read now .*allow more open files, by ulimit"
    with few_open_files(), pytest.raises(UnreadableError, match=said):
        read_segments(tmp_path, encoder.fingerprint)
    assert len(read_segments(tmp_path, encoder.fingerprint)) == 20


def test_commands_may_open_as_many_files_as_the_system_lets_them() -> None:
    code = ("import resource; from sentence_forge.runtime.process import run_command;"
            "run_command(lambda: print(resource.getrlimit(resource.RLIMIT_NOFILE)))")
    limited = ["bash", "-c", "ulimit -Sn 200; ulimit -Hn 3000; exec \"$@\"", "bash", sys.executable, "-c", code]
    assert subprocess.run(limited, check=True, capture_output=True, text=True).stdout == "(3000, 3000)\n"


def test_a_generation_that_a_disk_does_not_give_is_neither_removed_nor_passed_over(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (5, 6):
        build(tmp_path, titles_like(count), [str(row) for row in range(count)])
    there, read = sorted(path.name for path in tmp_path.iterdir()), Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "manifest-2.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    for act in (newest, prune):
        with pytest.raises(UnreadableError, match=r"manifest-2.json: can't be read now \(.*Input/output error"):
            act(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == there


def test_what_nfs_keeps_of_an_open_file_is_no_other_folders_content(tmp_path: Path) -> None:
    (tmp_path / ".nfs000000000012").touch()
    assert unfinished(tmp_path) is None
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="exists and is no export"):
        unfinished(tmp_path)


def test_a_file_with_other_bytes_is_damaged_as_before(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.zeros((3, 2), np.float32))
    (tmp_path / "vectors.npy").write_bytes((tmp_path / "vectors.npy").read_bytes()[:90])
    with pytest.raises(UserError, match="damaged") as found:
        checked.map_vectors(tmp_path / "vectors.npy", 3)
    assert not isinstance(found.value, UnreadableError)


def test_a_generation_that_can_not_be_opened_is_said_once_and_tried_less_and_less_often(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    build(tmp_path, titles_like(5), [str(row) for row in range(5)])
    asked: list[float] = []
    opened = live.open_index

    def refused(*given: object, **options: object) -> object:
        asked.append(time.monotonic())
        raise UserError("its model is not here")

    followed = LiveIndex(tmp_path, WordEncoder(), seconds=0.02)
    try:
        monkeypatch.setattr(live, "open_index", refused)
        build(tmp_path, titles_like(6), [str(row) for row in range(6)])
        time.sleep(1.5)
        assert 2 <= len(asked) <= 9
        assert caplog.text.count("could not be opened: its model is not here") == 1
        monkeypatch.setattr(live, "open_index", opened)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with followed.reading() as index:
                if len(index) == 6:
                    break
            time.sleep(0.05)
        with followed.reading() as index:
            assert len(index) == 6
    finally:
        followed.close()
