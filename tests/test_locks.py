"""Locks, links and names in folders that others may have prepared, or that two processes want at once."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from conftest import TINY, Done
from faults import end_at_last, forked

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import (
    check_link,
    clear_leftovers,
    is_own_file,
    make_folder,
    remove,
    staged_folder,
    write_atomic,
)
from sentence_forge.runtime.locks import new_folder, waiting_lock, writer_lock
from sentence_forge.runtime.manifests import read_manifest, sealed, write_manifest

Command = Callable[..., Done]


def link(path: Path, to: Path) -> None:
    path.symlink_to(to)


def fifo(path: Path, to: Path) -> None:
    os.mkfifo(path)


def hard_link(path: Path, to: Path) -> None:
    path.hardlink_to(to)


def folder(path: Path, to: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("plant", [link, fifo, hard_link, folder])
@pytest.mark.parametrize("lock", [writer_lock, lambda at: waiting_lock(at / ".lock")])
def test_a_lock_that_is_something_else_is_left_alone(tmp_path: Path, plant: Callable, lock: Callable) -> None:
    precious = tmp_path / "precious"
    precious.write_text("alias ls='ls -l'\n")
    (tmp_path / "index").mkdir()
    plant(tmp_path / "index" / ".lock", precious)
    with pytest.raises(UserError, match=r"index/\.lock: .*lock file"), lock(tmp_path / "index"):
        pass
    assert precious.read_text() == "alias ls='ls -l'\n" and precious.stat().st_size == 17
    assert os.path.lexists(tmp_path / "index" / ".lock")


def test_a_lock_is_no_link_even_to_an_empty_file_or_to_none(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for to in ("empty", "missing"):
        (tmp_path / ".lock").symlink_to(to)
        with pytest.raises(UserError, match="no lock file"), writer_lock(tmp_path):
            pass
        (tmp_path / ".lock").unlink()
    assert os.listdir(tmp_path) == ["empty"] and not (tmp_path / "empty").read_bytes()


def test_a_folder_is_flushed_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut leaves files of no bytes under their final names."""
    flushed, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (flushed.append(os.readlink(f"/proc/self/fd/{handle}")),
                                                     fsync(handle)))
    with staged_folder(tmp_path / "model") as staged:
        (staged / "below").mkdir()
        (staged / "below" / "weights").write_text("x")
    assert {str(staged), str(staged / "below"), str(staged / "below" / "weights")} <= set(flushed)


def test_a_lock_is_held_alone_and_leaves_no_empty_folder(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "new"
    with writer_lock(run):
        assert (run / ".lock").read_text() == str(os.getpid())
        with pytest.raises(UserError, match=f"process {os.getpid()} is writing here"), writer_lock(run):
            pass
        assert (run / ".lock").exists()  # the refused one has not removed it
    assert not run.exists()
    run.mkdir()
    with writer_lock(run):
        pass
    assert run.exists() and not list(run.iterdir())  # it was there before
    with writer_lock(run):
        (run / "model").mkdir()
    assert sorted(os.listdir(run)) == [".lock", "model"]


def test_of_many_that_want_a_folder_each_gets_its_own(tmp_path: Path) -> None:
    children = []
    for _ in range(12):
        child = os.fork()
        if not child:
            end_at_last()
            name = new_folder(str(tmp_path / "deep" / "run"))
            Path(name, str(os.getpid())).touch()
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    made = sorted((tmp_path / "deep").iterdir())
    assert {each.name for each in made} == {"run", *(f"run-{number}" for number in range(2, 13))}
    assert all(len(list(each.iterdir())) == 1 for each in made)


def test_two_trainings_begun_in_one_second(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Standing(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime(2026, 3, 4, 5, 6, 7)

    monkeypatch.setattr("hydra.core.utils.datetime", Standing)
    for _ in range(2):
        done = command("train", "loss=cosine", *TINY, "loop.max_steps=1")
        assert done.code == 0, done.err
    runs = [tmp_path / "outputs" / "train" / name for name in ("2026-03-04_05-06-07", "2026-03-04_05-06-07-2")]
    assert all((run / "report" / "report.json").exists() for run in runs)
    assert len(list(runs[0].parent.iterdir())) == 2
    done = command("train", "loss=cosine", *TINY, "loop.max_steps=1", "data.path=nowhere.csv", "data=file")
    assert done.code == 2 and len(list(runs[0].parent.iterdir())) == 2  # no empty folder stays behind


# --- links --------------------------------------------------------------------------------------------------------


@pytest.fixture
def thesis(tmp_path: Path) -> Path:
    (tmp_path / "thesis" / "step-1").mkdir(parents=True)
    (tmp_path / "thesis" / "step-1" / "text").write_text("precious")
    (tmp_path / "thesis" / "notes").write_text("precious")
    return tmp_path / "thesis"


def untouched(thesis: Path) -> bool:
    return sorted(file.read_text() for file in thesis.rglob("*") if file.is_file()) == ["precious", "precious"]


def test_a_link_is_removed_and_never_what_it_leads_to(thesis: Path, tmp_path: Path) -> None:
    for name in (".tmp-model-9999999", ".tmp-model.aside", "model"):
        (tmp_path / name).symlink_to(thesis)
    clear_leftovers(tmp_path)
    assert not os.path.lexists(tmp_path / ".tmp-model-9999999") and untouched(thesis)
    with staged_folder(tmp_path / "model", replace=True) as staged:
        (staged / "new").touch()
    assert not (tmp_path / "model").is_symlink() and os.listdir(tmp_path / "model") == ["new"]
    (tmp_path / "report.json").symlink_to(thesis / "notes")
    write_atomic(tmp_path / "report.json", "{}")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("dangling", "report.json", "model", "missing"):
        remove(tmp_path / name)
    assert untouched(thesis) and os.listdir(tmp_path) == ["thesis"]


def test_a_staged_name_that_somebody_has_planted(thesis: Path, tmp_path: Path) -> None:
    (tmp_path / f".tmp-a.json-{os.getpid()}").symlink_to(thesis / "notes")
    (tmp_path / f".tmp-model-{os.getpid()}").symlink_to(thesis)
    write_atomic(tmp_path / "a.json", "{}")
    with staged_folder(tmp_path / "model") as staged:
        (staged / "new").touch()
    assert untouched(thesis) and (tmp_path / "a.json").read_text() == "{}" and (tmp_path / "model" / "new").exists()


def test_a_linked_folder_must_hold_our_files_alone(thesis: Path, tmp_path: Path) -> None:
    linked = tmp_path / "checkpoints"
    check_link(linked, r"step-\d+")
    linked.symlink_to(thesis)
    with pytest.raises(UserError, match=r"checkpoints: is a link to .*thesis, which holds files that are not ours"):
        check_link(linked, r"step-\d+")
    (thesis / "notes").unlink()
    (thesis / ".tmp-step-2-99").mkdir()
    check_link(linked, r"step-\d+")
    linked.unlink()
    linked.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="which is no folder"):
        check_link(linked, r"step-\d+")
    with pytest.raises(UserError, match=r"checkpoints: is a link to .*nowhere, which isn't there"):
        make_folder(linked)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: is no folder"):
        make_folder(tmp_path / "file" / "below")


@pytest.mark.parametrize("part", ["checkpoints", "report", "tensorboard"])
def test_a_run_with_a_part_on_another_disk(command: Command, thesis: Path, tmp_path: Path, part: str) -> None:
    shape = ["loss=cosine", *TINY, "loop.max_steps=1", "hydra.run.dir=run"]
    (tmp_path / "run").mkdir()
    (tmp_path / "big").mkdir()
    (tmp_path / "run" / part).symlink_to(tmp_path / "big")
    done = command("train", *shape)
    assert done.code == 0 and (tmp_path / "run" / part).is_symlink() and list((tmp_path / "big").iterdir()), done.err
    done = command("train", "resume=run", "loop.max_steps=2")
    assert done.code == 0 and not list(tmp_path.rglob(".tmp-*")), done.err
    (tmp_path / "run" / part).unlink()
    (tmp_path / "run" / part).symlink_to(thesis)
    done = command("train", "resume=run", "loop.max_steps=3")
    assert done.code == 2 and f"run/{part}: is a link to" in done.err and untouched(thesis), done.err


def test_a_file_of_a_model_that_is_a_link_to_elsewhere_is_not_the_model_s(tmp_path: Path) -> None:
    model, cache = tmp_path / "model", tmp_path / "hub" / "blobs"
    model.mkdir()
    cache.mkdir(parents=True)
    for path in (tmp_path / "credentials", cache / "abc", model / "real"):
        path.touch()
    (model / "loss.json").symlink_to(tmp_path / "credentials")
    (model / "from_the_hub").symlink_to(cache / "abc")
    (model / "same").symlink_to("real")
    kept = {name for name in ("loss.json", "from_the_hub", "same", "real", "missing") if is_own_file(model / name)}
    assert kept == {"from_the_hub", "same", "real"}


# --- manifests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", [None, [], {"x": 1}, {"../secret": {"bytes": 1, "sha256": ""}},
                                   {"/etc/passwd": {"bytes": 1, "sha256": ""}}, {"gone": {}}, {"fifo": {"bytes": 0}}])
def test_a_manifest_that_somebody_made_is_refused_in_a_line(tmp_path: Path, files: object) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "manifest.json").write_text(sealed({"files": files}))
    with pytest.raises(UserError, match="manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", [b"", b"[]", b"3", b"{", b"\xff", b'{"files": {}}', b"[" * 100_000])
def test_a_manifest_that_is_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(text)
    with pytest.raises(UserError, match=r"manifest\.json: (unreadable|damaged)"):
        read_manifest(tmp_path)
    remove(tmp_path / "manifest.json")
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(UserError, match="is no file"):
        read_manifest(tmp_path)


def test_every_flipped_bit_of_a_manifest_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    write_manifest(tmp_path, {"step": 1})
    path = tmp_path / "manifest.json"
    data = path.read_bytes()
    assert json.loads(data)["files"] == {"a": {"bytes": 1, "sha256": json.loads(data)["files"]["a"]["sha256"]}}
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1:])
        with pytest.raises(UserError, match=re.escape(str(tmp_path))):
            read_manifest(tmp_path)


def test_who_waits_for_a_lock_gets_it_when_the_other_dies(tmp_path: Path) -> None:
    def hold(acknowledge: Callable[[object], None]) -> None:
        with waiting_lock(tmp_path / "lock"):
            acknowledge("held")
            os.kill(os.getpid(), 9)

    assert forked(hold).acknowledged == ["held"]
    with waiting_lock(tmp_path / "lock"):
        pass
