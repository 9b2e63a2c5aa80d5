"""What is killed, and what must hold afterwards: checkpoints being saved, an index being written."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from corpora import WordEncoder, answers_equal_brute_force, titles_like
from faults import Acknowledge, forked

from sentence_forge.encoders.making.build import from_scratch
from sentence_forge.losses.loss_set import LossSet
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import clear_leftovers
from sentence_forge.runtime.manifests import read_manifest
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.train import checkpoint
from sentence_forge.train.optim import adamw
from sentence_forge.train.saver import Saver


class Parts:
    """A tiny model, a loss with a head, and an optimizer with moments: all that a checkpoint holds."""

    def __init__(self) -> None:
        self.model = from_scratch(lambda: ["one two three", "four five six"] * 4, hidden=32, layers=1, heads=2,
                                  vocabulary=60)
        self.losses = LossSet({"": {"_target_": "losses.softmax.Softmax", "dim": 32, "labels": ["a", "b"]}})
        self.optimizer = adamw([self.model, self.losses], learning_rate=1e-3, weight_decay=0.01)
        for parameter in self.parameters():
            parameter.grad = torch.ones_like(parameter)
        self.optimizer.step()

    def parameters(self) -> list[torch.nn.Parameter]:
        return [*self.model.parameters(), *self.losses.parameters()]

    def fill(self, value: float) -> None:
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(value)

    def save(self, run: Path, step: int, best: Path | None = None, keep: int = 10**6) -> Path:
        """Save, and train on while it is written: what is written must be as of the saving."""
        folder = run / "checkpoints" / f"step-{step}"
        saver = Saver(self.model, self.losses, self.optimizer)
        saver.save(folder, {"step": step}, best=best, keep=keep)
        self.fill(step + 0.5)
        saver.wait()
        self.fill(step)
        return folder

    def load(self, folder: Path) -> dict:
        return checkpoint.load(folder, model=self.model, losses=self.losses, optimizer=self.optimizer)


def kill_while_saving(run: Path, parts: Parts, draw: random.Random, longest: float = 0.6) -> None:
    """Kill a process that saves one checkpoint after the other; then the newest whole one is no older than promised."""
    def save_on_and_on(acknowledge: Acknowledge) -> None:
        for step in range(1, 1000):
            parts.fill(step)
            parts.save(run, step, keep=2)
            acknowledge(step)

    ended = forked(save_on_and_on, kill_after=draw.uniform(0, longest))
    assert ended.status == -9, ended
    clear_leftovers(run / "checkpoints")
    assert not list(run.rglob(".tmp-*"))
    promised = int(ended.acknowledged[-1]) if ended.acknowledged else 0
    folders = checkpoint.steps(run)
    for folder in folders:
        read_manifest(folder)  # a kill leaves no half one under its name, not even an old one being removed
    if not folders:
        assert not promised
        return
    assert len(folders) >= min(promised, 2)
    newest = checkpoint.newest_good(run)
    step = parts.load(newest)["step"]
    assert newest == folders[-1] and step >= promised
    assert all(bool((parameter == step).all()) for parameter in parts.parameters())


class Corpus:
    """Rows as they were and as they are to be, for one kind of change."""

    KINDS = ("index", "upsert", "remove", "compact")

    def __init__(self, kind: str, rows: int, seed: int) -> None:
        self.kind = kind
        ids, titles = [str(row) for row in range(rows)], titles_like(rows, seed)
        self.before: tuple[list[str], list[str]] | None = (ids, titles)
        draw = random.Random(seed)
        if kind == "index":
            self.before, self.after = None, (ids, titles)
        elif kind == "upsert":
            changed = [title if draw.random() < 0.6 else f"{title} again" for title in titles]
            self.after = [*ids, "new"], [*changed, "a new robots report"]
        elif kind == "remove":
            kept = [row for row in range(rows) if draw.random() < 0.7]
            self.after = [ids[row] for row in kept], [titles[row] for row in kept]
        else:  # the same rows in another order: every vector is copied into new contiguous files
            order = draw.sample(range(rows), rows)
            self.after = [ids[row] for row in order], [titles[row] for row in order]


def write(folder: Path, rows: tuple[Sequence[str], Sequence[str]]) -> None:
    index_corpus(folder, *rows, WordEncoder(), segment_rows=8, fast_from=40)


def kill_while_indexing(folder: Path, corpus: Corpus, draw: random.Random, seconds: float) -> bool:
    """Kill a writer; then there is the old index or the new one, whole, and the new one if it was acknowledged.

    Returns whether the new one was there.
    """
    if corpus.before is not None:
        write(folder, corpus.before)

    def change(acknowledge: Acknowledge) -> None:
        write(folder, corpus.after)
        acknowledge("done")

    ended = forked(change, kill_after=draw.uniform(0, seconds))
    try:
        with Index.open(folder) as index:
            found = list(index.ids), list(index.titles)
    except UserError:
        assert corpus.before is None and not ended.acknowledged
        found = None
    assert found in ((corpus.after,) if ended.acknowledged else (corpus.before, corpus.after))
    if found is not None:
        answers_equal_brute_force(folder, *found)
    write(folder, corpus.after)
    answers_equal_brute_force(folder, *corpus.after)
    assert not list(folder.rglob(".tmp-*")) and not (folder / "segments").exists()
    return found == corpus.after


def seconds_to_index(folder: Path, corpus: Corpus) -> float:
    """How long an undisturbed change takes in a fork."""
    if corpus.before is not None:
        write(folder, corpus.before)
    seconds = forked(lambda acknowledge: write(folder, corpus.after)).seconds
    shutil.rmtree(folder)
    return seconds
