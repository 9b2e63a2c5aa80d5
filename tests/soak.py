"""``make soak``: every promise about durability at its full count, and one table of tried, survived and lost.

Kills hit forked children that run the real code after its imports, and five whole commands of each kind.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile_models
from conftest import TINY
from corpora import answers_equal_brute_force, build, titles_like
from failing_calls import compiled, tried
from faults import DAMAGES, damage, forked, one_thread
from kills import Corpus, Parts, kill_while_indexing, kill_while_saving, seconds_to_index, write
from omegaconf import OmegaConf
from other_models import others, small
from resuming import cut_at, same_end
from trials import ROOT, Row, Trial, command, finished, in_fork, pytests, trials
from twos import export_twice, read_while_replaced, train_twice

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.manifests import read_manifest
from sentence_forge.runtime.overrides import options
from sentence_forge.train import checkpoint

# --- training -----------------------------------------------------------------------------------------------------

SAMPLERS = ("Shuffled", "NoDuplicates", "ClassesTimesTexts")
WITH_CLASSES = ("softmax", "batch_hard")


def grid(scale: float) -> Row:
    """Exact resume: loss x sampler x {middle of epoch 1, its end, middle of epoch 2}."""
    pairs = [(loss, sampler) for loss in options("loss") for sampler in SAMPLERS
             if sampler != "ClassesTimesTexts" or loss in WITH_CLASSES]
    chosen = pairs[: max(1, round(len(pairs) * scale))]
    tried = survived = 0
    for loss, sampler in chosen:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            about = OmegaConf.load(ROOT / "configs" / "loss" / f"{loss}.yaml")
            about.sampler = {"_target_": f"train.batches.{sampler}"}
            (folder / "conf" / "loss").mkdir(parents=True)
            OmegaConf.save(about, folder / "conf" / "loss" / "other.yaml")
            in_fork("train", "--config-dir", str(folder / "conf"), "loss=other", *TINY, "loop.epochs=2",
                    "loop.batch_size=32", "loop.accumulate=2", "loop.log_every=3", "loop.evaluate_every=4",
                    "loop.keep=99", "loop.checkpoint_every=1", "loop.patience=9", "hydra.run.dir=whole", cwd=folder)
            states = [json.loads((each / "state.json").read_text())["loop"]
                      for each in checkpoint.steps(folder / "whole")]
            end = next(state["step"] for state, later in itertools.pairwise(states) if later["epoch"] > state["epoch"])
            for step in (end // 2, end, min(end + end // 2 + 1, states[-1]["step"] - 1)):
                tried += 1
                broken = folder / f"broken-{step}"
                try:
                    cut_at(folder / "whole", broken, step)
                    in_fork("train", f"resume={broken}", cwd=folder)
                    same_end(folder / "whole", broken, states[-1]["step"])
                    survived += 1
                except Exception:
                    sys.stderr.write(f"LOST: {loss} {sampler} at step {step}\n{traceback.format_exc()}\n")
    return Row("exact resume: loss x sampler x point", tried, survived)


def kill_training(folder: Path, draw: random.Random) -> None:
    """Kill a whole ``python -m train`` that saves all the time; the same command with resume= goes on."""
    run = folder / "run"
    process = command("train", "loss=mnrl", *TINY, "loop.max_steps=100000", "loop.checkpoint_every=1",
                      "loop.evaluate_every=99999", "hydra.run.dir=run", cwd=folder)
    while not checkpoint.steps(run):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    time.sleep(draw.uniform(0, 2))
    process.kill()
    process.communicate()
    newest = checkpoint.steps(run)[-1]
    read_manifest(newest)
    step = int(newest.name.removeprefix("step-"))
    said = finished("train", "resume=run", f"loop.max_steps={step + 1}", cwd=folder)
    assert f"going on from run/checkpoints/{newest.name}" in said and "Traceback" not in said, said
    assert not list(run.rglob(".tmp-*"))


# --- the index ----------------------------------------------------------------------------------------------------


def write_corpus(path: Path, rows: tuple[list[str], list[str]]) -> None:
    path.write_text("id,title\n" + "".join(f"{name},{title}\n" for name, title in zip(*rows, strict=True)))


def kill_export(exported: Path, kind: str) -> Trial:
    """Kill a whole ``python -m export only=index``; then search and --verify find the old index or the new one."""
    def trial(folder: Path, draw: random.Random) -> None:
        from sentence_forge.search.index import Index
        from sentence_forge.search.verify import verify

        corpus = Corpus(kind, 300, seed=draw.randrange(1000))
        shutil.copytree(exported, folder / "news")
        arguments = ("only=index", "corpus=titles.csv", "corpus.id_column=id", "corpus.most_lost=1", "out=news")
        if corpus.before is not None:
            write_corpus(folder / "titles.csv", corpus.before)
            in_fork("export", *arguments, cwd=folder)
        write_corpus(folder / "titles.csv", corpus.after)
        process = command("export", *arguments, cwd=folder)
        lock, begun = folder / "news" / "index" / ".lock", time.time()
        while process.poll() is None and not (lock.exists() and lock.stat().st_mtime >= begun):
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.4))
        process.kill()
        acknowledged = "index: " in process.communicate()[1]
        try:
            with Index.open(folder / "news") as index:
                found = list(index.ids), list(index.titles)
        except UserError:
            assert corpus.before is None and not acknowledged
        else:
            assert found in ((corpus.after,) if acknowledged else (corpus.before, corpus.after))
            assert verify(folder / "news") == []
        in_fork("export", *arguments, cwd=folder)
        assert verify(folder / "news") == []
    return trial


def exported_model(folder: Path) -> Path:
    in_fork("train", "loss=mnrl", *TINY, "loop.max_steps=2", "hydra.run.dir=run", cwd=folder)
    finished("export", "model=run", "out=news", cwd=folder)
    return folder / "news"


def flip_in_index(folder: Path, draw: random.Random) -> None:
    from sentence_forge.search.verify import verify

    for seed in (1, 2):
        write(folder, Corpus("index", 50, seed).after)
    assert verify(folder) == []
    files = sorted(path for path in folder.iterdir() if path.name != ".lock")
    damage(draw.choice(files), "flip", draw)
    assert verify(folder) != []


def two_writers(folder: Path, draw: random.Random) -> None:
    from sentence_forge.search.index import Index

    corpora = [Corpus("index", 60, seed).after for seed in draw.sample(range(1000), 2)]
    delays = draw.uniform(0, 0.02), draw.uniform(0, 0.02)

    def writer(number: int) -> int:
        def work(acknowledge: object) -> None:
            time.sleep(delays[number])
            try:
                write(folder / "index", corpora[number])
            except UserError as error:
                assert re.search(r"process \d+ is writing here", str(error)), error
                (folder / f"refused-{number}").touch()

        return forked(work).status

    child = os.fork()
    if not child:
        os._exit(writer(0))
    second = writer(1)
    first = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with Index.open(folder / "index") as index:
        found = list(index.ids), list(index.titles)
    assert found in corpora
    answers_equal_brute_force(folder / "index", *found)
    assert first == second == 0
    assert len(list(folder.glob("refused-*"))) <= 1


def damaged_manifest(folder: Path, draw: random.Random) -> None:
    from sentence_forge.search.index import Index

    old, new = titles_like(20, 1), titles_like(20, 2)
    ids = [str(row) for row in range(20)]
    write(folder, (ids, old))
    write(folder, (ids, new))
    damage(folder / "manifest-2.json", draw.choice([how for how in DAMAGES if how != "delete"]), draw)
    with Index.open(folder) as index:
        assert list(index.titles) == old
    write(folder, (ids, new))
    answers_equal_brute_force(folder, ids, new)


def fingerprints(scale: float) -> Row:
    """Every other model is refused, at the query and at writing; the same one, moved, is taken."""
    from sentence_forge.encoders.encoder import Encoder
    from sentence_forge.encoders.making.build import pretrained
    from sentence_forge.search.index import Index
    from sentence_forge.search.indexing import index_corpus

    tried = survived = 0
    with tempfile.TemporaryDirectory() as name:
        index, moved = Path(name, "index"), Path(name, "moved")
        index_corpus(index, ["1"], ["storm hits the coast"], Encoder(small()))
        for what, model in others():
            tried += 1
            with contextlib.suppress(UserError):
                Index.open(index, Encoder(model))
                sys.stderr.write(f"LOST: {what} was taken\n")
                continue
            with contextlib.suppress(UserError):
                index_corpus(index, ["2"], ["opera opens"], Encoder(model))
                sys.stderr.write(f"LOST: {what} was taken for writing\n")
                continue
            survived += 1
        small().save_pretrained(str(moved), create_model_card=False)
        Index.open(index, Encoder(pretrained(str(moved)))).close()
    return Row("another model's queries and writes, refused", tried, survived)


# --- files and folders that mean harm -----------------------------------------------------------------------------


def damages(scale: float) -> Row:
    """Each kind of damage in each kind of a checkpoint's files."""
    parts, draw = Parts(), random.Random(1)
    files = ("model/model.safetensors", "optimizer.safetensors", "state.json", "manifest.json",
             "generators.safetensors", "model/loss.safetensors", "model/tokenizer.json", "model/modules.json")
    kinds = [(name, how) for name in files for how in DAMAGES]

    def trial(folder: Path, _: random.Random) -> None:
        name, how = kinds.pop()
        older, newer = parts.save(folder, 1), parts.save(folder, 2)
        damage(newer / name, how, draw)
        assert checkpoint.newest_good(folder) == older
        with contextlib.suppress(UserError):
            read_manifest(newer)
            raise AssertionError(f"{how} {name} was not seen")

    return trials("kinds of damage to a checkpoint, found", len(kinds), trial)


def hostile_folders(scale: float) -> Row:
    from sentence_forge.encoders.making.build import pretrained

    with tempfile.TemporaryDirectory() as name:
        good = Path(name, "good")
        small().save_pretrained(str(good), create_model_card=False)
        names = list(hostile_models.CASES)

        def trial(folder: Path, _: random.Random) -> None:
            canary = hostile_models.make(names.pop(), good, folder / "model")
            with contextlib.suppress(UserError):
                pretrained(str(folder / "model"))
            assert not canary.exists()

        return trials("hostile model folders, nothing run", len(names), trial)


def fuzzed_fast_indexes(count: int) -> Row:
    """Search with crafted and damaged FAISS files; none may crash, hang or touch another file."""
    from test_hostile_index import TITLES, fuzz

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "index")
        build(folder, TITLES, fast_from=10)
        lost = 0
        try:
            fuzz(folder, count)
        except AssertionError as error:
            sys.stderr.write(f"LOST: {error}\n")
            lost = count
        return Row("crafted and damaged FAISS files", count, count - lost)


def two_models(folder: Path) -> tuple[Path, Path]:
    for seed in (1, 2):
        in_fork("train", "loss=mnrl", *TINY, "loop.max_steps=2", f"seed={seed}", f"hydra.run.dir=run-{seed}",
                cwd=folder)
    return folder / "run-1", folder / "run-2"


def every_call(what: str, scale: float) -> Row:
    """Kill a command at each call that decides what is on the disk, and fail every fourth flush from there on."""
    what_is_tried = f"kill or failing disk at each call of python -m {what}"
    with tempfile.TemporaryDirectory() as folder:
        if compiled(Path(folder)) is None:
            sys.stderr.write("no C compiler: the calls of a command are not tried\n")
            return Row(what_is_tried, 0, 0)
    few = max(2, round(50 * scale))
    sample = [(how, number / (few - 1)) for how in ("kill", "fail") for number in range(few)]
    found = list(tried(what, None if scale >= 1 else sample))
    for each in found:
        if each.wrong:
            sys.stderr.write(f"LOST: {what}, {each.call}: {each.wrong}\n")
    return Row(what_is_tried, len(found), sum(not each.wrong for each in found))


def hypothesis_cases(scale: float) -> Row:
    each = max(50, round(5000 * scale))
    return pytests("random CSV files against a naive oracle", "tests/test_readers.py", "-k", "any_bytes or csv_wrote",
                   cases=2 * each, SENTENCE_FORGE_EXAMPLES=str(each))


def rows(scale: float) -> Iterator[Callable[[], Row]]:
    """Yield what is to be tried, one line of the table each."""
    def count(full: int) -> int:
        return max(1, round(full * scale))

    yield lambda: grid(scale)
    parts = Parts()
    yield lambda: trials("kill -9 while saving a checkpoint", count(100),
                         lambda folder, draw: kill_while_saving(folder, parts, draw))
    yield lambda: trials("kill -9 of python -m train", count(5), kill_training)
    yield lambda: damages(scale)
    yield lambda: pytests("SIGINT and SIGTERM", "tests/test_train.py", "-k", "signal")
    yield lambda: pytests("a full disk", "tests/test_durability.py", "-k", "full_disk")
    for kind in Corpus.KINDS:
        yield lambda kind=kind: kills_on_index(kind, count(50))
    with tempfile.TemporaryDirectory() as folder:
        exported = exported_model(Path(folder))
        for kind in Corpus.KINDS:
            yield lambda kind=kind: trials(f"kill -9 of python -m export only=index: {kind}", count(5),
                                           kill_export(exported, kind))
    yield lambda: trials("flipped bits in an index, found by --verify", count(100), flip_in_index)
    yield lambda: trials("damaged newest manifests, rolled back", count(20), damaged_manifest)
    yield lambda: trials("two writers on one index", count(20), two_writers)
    yield lambda: fingerprints(scale)
    yield lambda: pytests("hostile files", "tests/test_readers.py", "-k", "test_hostile_file")
    yield lambda: hypothesis_cases(scale)
    yield lambda: pytests("hostile _target_ values", "tests/test_house.py", "-k", "hostile_target")
    yield lambda: pytests("unknown keys in an experiment", "tests/test_hostile.py", "-k", "unknown_key")
    yield lambda: hostile_folders(scale)
    yield lambda: fuzzed_fast_indexes(count(10_000))
    yield lambda: pytests("hostile nodes in somebody's YAML", "tests/test_trust.py")
    yield lambda: pytests("locks and links that lead elsewhere", "tests/test_locks.py")
    yield lambda: pytests("closed streams, ASCII, signals, limits", "tests/test_surroundings.py")
    yield lambda: trials("two trainings begun in one second", count(20), train_twice)
    with tempfile.TemporaryDirectory() as folder:
        models = two_models(Path(folder))
        yield lambda: trials("two exports into one folder", count(20), export_twice(*models))
    yield lambda: trials("an index read while it is replaced twice", count(20), read_while_replaced)
    for what in ("train", "export"):
        yield lambda what=what: every_call(what, scale)
    yield lambda: pytests("commands listened to: sockets and pickles", "tests/test_hostile.py", "-k", "unpickled",
                          cases=6)


def kills_on_index(kind: str, count: int) -> Row:
    corpora = [Corpus(kind, 120, seed) for seed in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        seconds = seconds_to_index(Path(folder, "dry"), corpora[0])

    def trial(folder: Path, draw: random.Random) -> None:
        kill_while_indexing(folder / "index", draw.choice(corpora), draw, 1.1 * seconds)

    return trials(f"kill -9 of a writer: {kind}", count, trial)


def only_our_lines() -> None:
    """Leave the terminal to us: libraries and the children's commands have much to say of so little data."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)


def main() -> int:
    """Run all of it, print the table, and return 1 if anything was lost."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--scale", type=float, default=1.0, help="a share of the counts, for trying it out")
    parse.add_argument("--table", type=Path, help="write the table there too, as Markdown")
    given = parse.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
    one_thread()
    only_our_lines()
    found = []
    for make in rows(given.scale):
        begun = time.monotonic()
        row = make()
        found.append(row)
        sys.stderr.write(f"{time.monotonic() - begun:6.0f} s  {row.what}: {row.survived} of {row.tried}\n")
        sys.stderr.flush()
    lines = ["| what | tried | survived | lost |", "|---|---:|---:|---:|",
             *(f"| {row.what} | {row.tried:,} | {row.survived:,} | {row.tried - row.survived:,} |" for row in found)]
    sys.stdout.write("\n".join(lines) + "\n")
    if given.table:
        given.table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(any(row.survived < row.tried for row in found))


if __name__ == "__main__":
    sys.exit(main())
