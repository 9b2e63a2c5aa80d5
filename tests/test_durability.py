"""Files that are complete after any kill and on a full disk; damage that is found; one writer, one model an index."""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, Done
from corpora import WordEncoder, answers_equal_brute_force
from faults import DAMAGES, damage, forked, largest_file
from kills import Corpus, Parts, kill_while_indexing, kill_while_saving, seconds_to_index, write
from other_models import others, small
from safetensors.torch import save_file

from sentence_forge.encoders.encoder import Encoder
from sentence_forge.encoders.making.build import pretrained
from sentence_forge.export.model import write_model, write_onnx_files
from sentence_forge.runtime import files as runtime_files
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import clear_leftovers, staged_folder, write_atomic
from sentence_forge.runtime.locks import writer_lock
from sentence_forge.runtime.manifests import read_manifest
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.train import checkpoint
from sentence_forge.train.generators import restore_generators

Command = Callable[..., Done]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return Parts()


# --- checkpoints --------------------------------------------------------------------------------------------------


def test_sixteen_kinds_of_damage_are_found(parts: Parts, tmp_path: Path) -> None:
    draw = random.Random(3)
    older, newer = parts.save(tmp_path, 1), parts.save(tmp_path, 2)
    whole = tmp_path / "whole"
    shutil.copytree(newer, whole)
    files = ["model/model.safetensors", "model/loss.safetensors", "optimizer.safetensors", "generators.safetensors",
             "state.json", "model/tokenizer.json", "model/modules.json", "manifest.json"]
    for name in files:
        for how in DAMAGES:
            shutil.rmtree(newer)
            shutil.copytree(whole, newer)
            damage(newer / name, how, draw)
            with pytest.raises(UserError, match=Path(name).name):
                read_manifest(newer)
            assert checkpoint.newest_good(tmp_path) == older
            with pytest.raises(UserError):
                checkpoint.verified(tmp_path, newer)


def test_kill_9_while_saving_leaves_whole_checkpoints_only(parts: Parts, tmp_path: Path) -> None:
    draw = random.Random(5)
    for number in range(10):
        kill_while_saving(tmp_path / str(number), parts, draw)


def test_optimizer_and_generators_come_back_bit_for_bit(parts: Parts, tmp_path: Path) -> None:
    import numpy as np
    import torch

    before = {key: value.clone() for key, value in parts.optimizer.state_dict()["state"][0].items()}
    folder = parts.save(tmp_path, 1)
    drawn = [torch.rand(3), np.random.rand(3), random.random()]
    parts.optimizer.step()
    parts.load(folder)
    restore_generators(folder)
    again = [torch.rand(3), np.random.rand(3), random.random()]
    assert all(np.array_equal(one, two) for one, two in zip(drawn, again, strict=True))
    after = parts.optimizer.state_dict()["state"][0]
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_full_disk_leaves_what_was_there_and_no_temporary_files(parts: Parts, tmp_path: Path) -> None:
    parts.save(tmp_path, 1)
    write_atomic(tmp_path / "notes", "old")
    with largest_file(20_000):
        with pytest.raises(UserError, match=r"step-1: can't be written: [\d.]+ kB are needed, [\d.]+ .B were free"):
            parts.save(tmp_path, 1)
        with pytest.raises(UserError, match=r"notes: can't be written"):
            write_atomic(tmp_path / "notes", "x" * 30_000)
    write(tmp_path / "index", Corpus("index", 50, 1).after)
    many = [str(row) for row in range(3000)], [f"title {row}" for row in range(3000)]
    for size in (100_000, 200_000, 300_000):  # too small for the segments' files, for the rows', for the vectors'
        with largest_file(size), pytest.raises(UserError, match=r"can't be written"):
            index_corpus(tmp_path / "index", *many, WordEncoder(), segment_rows=1000)
    answers_equal_brute_force(tmp_path / "index", *Corpus("index", 50, 1).after)
    assert not list((tmp_path / "index").glob("*-2.*"))
    with pytest.raises(UserError, match=r"999.0 TB are needed"), staged_folder(tmp_path / "big", needs=999 * 10**12):
        pass
    read_manifest(tmp_path / "checkpoints" / "step-1")
    assert (tmp_path / "notes").read_text() == "old"
    assert not list(tmp_path.rglob(".tmp-*")) and not (tmp_path / "big").exists()


def test_training_on_a_full_disk_ends_in_one_line(command: Command, tmp_path: Path) -> None:
    shape = ["loss=cosine", *TINY, "loop.evaluate_every=99", "hydra.run.dir=run"]
    assert command("train", *shape, "loop.max_steps=2").code == 0
    with largest_file(60_000):
        done = command("train", "resume=run", "loop.max_steps=4")
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert done.code == 2 and len(errors) == 1 and "can't be written" in errors[0], done.err
    assert "Traceback" not in done.err
    assert not list((tmp_path / "run").rglob(".tmp-*"))
    read_manifest(tmp_path / "run" / "checkpoints" / "step-2")
    weights = (tmp_path / "run" / "model" / "model.safetensors").stat().st_size
    with largest_file(weights + 60_000):  # room for the model, none for its ONNX file, without which search is slow
        done = command("export", "model=run", "out=made")
    assert done.code == 2 and "can't be written" in done.err and "Traceback" not in done.err, done.err
    assert not list((tmp_path / "made").glob("*.onnx"))


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    """Some libraries make their files for the owner alone."""
    outside = tmp_path / "outside"
    outside.touch(0o600)
    before = os.umask(0o027)
    try:
        with staged_folder(tmp_path / "run") as folder:
            save_file({"a": torch.ones(1)}, folder / "weights.safetensors")
            (folder / "secret").touch(0o400)
            (folder / "link").symlink_to(outside)
    finally:
        os.umask(before)
    rights = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "run").iterdir()}
    assert rights == {"weights.safetensors": 0o640, "secret": 0o400, "link": 0o600}


def test_new_parents_are_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut could take a finished folder with the parent that was made for it."""
    flushed, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (flushed.append(Path(f"/proc/self/fd/{handle}").readlink()),
                                                     fsync(handle)))
    with staged_folder(tmp_path / "a" / "b" / "c"):
        pass
    with writer_lock(tmp_path / "d" / "e"):
        pass
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b", tmp_path / "d"} <= set(flushed)
    del flushed[:]
    with writer_lock(tmp_path / "d" / "f"):
        pass
    assert flushed == [tmp_path / "d"]


def test_onnx_files_are_on_the_disk_before_they_have_their_names(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the manifest that names their bytes could outlive a power cut, and they not."""
    encoder, flushed, fsync = Encoder(small()), [], os.fsync
    write_model(encoder, None, tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: (flushed.append(Path(f"/proc/self/fd/{handle}").readlink().name),
                                                     fsync(handle)))
    written, _ = write_onnx_files(encoder, tmp_path, None, "en")
    assert "fp32" in written and flushed == [".tmp-model.onnx", tmp_path.name] * len(written)


@pytest.mark.parametrize("atomic_exchange", [True, False])
def test_a_folder_is_replaced_without_a_moment_of_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       atomic_exchange: bool) -> None:
    if not atomic_exchange:  # a system without renameat2
        monkeypatch.setattr(runtime_files, "exchange", lambda one, other: False)
    path, draw = tmp_path / "model", random.Random(2)

    def replace(acknowledge: Callable[[object], None]) -> None:
        for number in range(10_000):
            with staged_folder(path, replace=True) as folder:
                for name in "ab":
                    (folder / name).write_text(str(number))
            acknowledge(number)

    for _ in range(8):
        ended = forked(replace, kill_after=draw.uniform(0.02, 0.1))
        if not atomic_exchange:
            clear_leftovers(tmp_path)
        if ended.acknowledged:
            assert (path / "a").read_text() == (path / "b").read_text()
            assert int((path / "a").read_text()) >= int(ended.acknowledged[-1])
        clear_leftovers(tmp_path)
        assert not list(tmp_path.glob(".tmp-*"))


# --- the index ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Corpus.KINDS)
def test_kill_9_leaves_the_old_index_or_the_new_one(tmp_path: Path, kind: str) -> None:
    corpus, draw = Corpus(kind, 60, seed=1), random.Random(kind)
    seconds = seconds_to_index(tmp_path / "dry", corpus)
    for number in range(5):
        kill_while_indexing(tmp_path / str(number), corpus, draw, 1.1 * seconds)


def test_two_writers_lose_and_double_nothing(tmp_path: Path) -> None:
    import multiprocessing

    corpora = [Corpus("index", 30, seed).after for seed in (1, 2)]
    context = multiprocessing.get_context("fork")
    for number in range(4):
        folder = tmp_path / str(number)
        writers = [context.Process(target=_write_quietly, args=(folder, rows), daemon=True) for rows in corpora]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(120)
        codes = sorted(writer.exitcode for writer in writers)
        assert codes in ([0, 0], [0, 2])
        with Index.open(folder) as index:
            found = list(index.ids), list(index.titles)
        assert found in corpora
        answers_equal_brute_force(folder, *found)


def _write_quietly(folder: Path, rows: tuple[list[str], list[str]]) -> None:
    try:
        write(folder, rows)
    except UserError as error:
        assert re.search(r"process \d+ is writing here", str(error)), error
        sys.exit(2)


def test_an_index_is_of_one_model(tmp_path: Path) -> None:
    ids, titles = ["1", "2"], ["storm hits the coast", "Markets fall"]
    index_corpus(tmp_path / "index", ids, titles, Encoder(small()))
    seen = 0
    for _, model in others():
        encoder = Encoder(model)
        with pytest.raises(UserError, match="of another model"):
            Index.open(tmp_path / "index", encoder)
        with pytest.raises(UserError, match="of another model"):
            index_corpus(tmp_path / "index", ids, titles, encoder)
        seen += 1
    assert seen >= 20
    small().save_pretrained(str(tmp_path / "here"), create_model_card=False)
    (tmp_path / "here").rename(tmp_path / "there")
    with Index.open(tmp_path / "index", Encoder(pretrained(str(tmp_path / "there")))) as index:
        assert index.search(["storm hits the coast"])[0][0].id == "1"
