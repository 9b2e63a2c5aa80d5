"""Hard negatives that the model finds for its own training pairs, anew as it gets better (``loop.remine_every``)."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sentence_forge.encoders.computing.forward import Work
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import sha256_file, write_atomic
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.mining import mine
from sentence_forge.train.parts import Data
from sentence_forge.train.rows import Part
from sentence_forge.train.split import Split

if TYPE_CHECKING:
    from sentence_forge.train.loop import State

log = logging.getLogger(__name__)
MARGIN = 0.05  # where loop.remine_margin doesn't say another
RANGE_MAX = 50  # texts looked at an anchor


def with_room(parts: Sequence[Part]) -> list[Part]:
    """Return parts whose pairs or triplets have a further column of texts, for `Remining` to write into."""
    return [dataclasses.replace(part, rows=dataclasses.replace(
        part.rows, text_ids=np.column_stack([part.rows.text_ids, part.rows.text_ids[:, 1]]))) for part in parts]


class Remining:
    """Writes into the last column of each pair a text that the model takes for near and that is none of its positives.

    The candidates are all positives and negatives of the part. They are indexed and searched as ``python -m
    search.mine`` does it (`search.mining.mine`), with vectors of the model as it is. A pair that has too few near
    texts gets one at random. What was found is kept in the run's folder, ``mined/step-N.npz``, and a checkpoint knows
    which, so that a resumed training sees the same rows. All texts of a part are in memory meanwhile.

    Args:
        run: the run's folder.
        parts: as `with_room` made them.
        data: what they were made of.
        encoder: the model in training.
        every: steps from one mining to the next; the first is before the first step.
        margin: of `search.mining.mine`.
        seed: of the texts at random.
        bf16: whether the vectors are computed in bf16, as the training's are.
    """

    def __init__(self, run: Path, parts: Sequence[Part], data: Data, encoder: Encoder, *, every: int, margin: float,
                 seed: int, bf16: bool = False) -> None:
        self._folder, self._encoder, self._bf16 = run / "mined", encoder, bf16
        self._every, self._margin, self._seed = every, margin, seed
        self._parts = [(part.rows, split) for part, (_, split) in zip(parts, data.parts, strict=True)]
        self._there: int | None = None  # the step whose mining the rows hold

    def renew(self, state: State) -> None:
        """Make the rows those of the next step: mine if it is time, or take what a run that was cut had mined.

        Raises:
            UserError: that is gone, or was replaced.
        """
        if state.mined is None or (state.step % self._every == 0 and state.mined["step"] != state.step):
            file = self._folder / f"step-{state.step}.npz"
            self._mine(file, state.step)
            state.mined = {"step": state.step, "sha256": sha256_file(file)}
        elif self._there is None:
            file = self._folder / f"step-{state.mined['step']}.npz"
            if not file.is_file() or sha256_file(file) != state.mined["sha256"]:
                raise UserError(f"{file}: is gone or was replaced, and with it the negatives of step {state.step + 1}; "
                                f"go on from a checkpoint before step {state.mined['step'] + 1}, or begin a new run")
            self._take(file)
        self._there = state.mined["step"]

    def _mine(self, file: Path, step: int) -> None:
        """Write the rows' last column anew, and keep it in ``file``; if that holds it already, read it."""
        begun, encoder = time.monotonic(), Encoder(self._encoder.model, name=f"step {step}")
        encoder.forward = self._encoder.forward
        made_of = self._digest(encoder)
        if self._take(file, made_of):
            return
        self._folder.mkdir(exist_ok=True)
        random = np.random.default_rng([self._seed, step])
        missing = 0
        work, encoder.forward.work = encoder.forward.work, Work()  # what is mined is none of the training's
        with torch.autocast(encoder.model.device.type, dtype=torch.bfloat16, enabled=self._bf16):
            for rows, split in self._parts:
                found = _negatives(split, encoder, self._margin, self._folder)
                none = np.flatnonzero(found < 0)
                found[none] = _at_random(split, none, random)
                rows.text_ids[:, -1] = found
                missing += len(none)
        encoder.forward.work = work
        encoder.model.train()
        stored = io.BytesIO()
        arrays: dict[str, Any] = {str(place): rows.text_ids[:, -1] for place, (rows, _) in enumerate(self._parts)}
        np.savez(stored, made_of=np.array(made_of), **arrays)
        write_atomic(file, stored.getvalue())
        total = sum(len(rows.numbers) for rows, _ in self._parts)
        log.info("%s: mined a hard negative for %d of %d pairs in %.0f s", encoder.name, total - missing, total,
                 time.monotonic() - begun)

    def _digest(self, encoder: Encoder) -> str:
        """Return a hash of all that decides what is mined: weights, texts, rows and settings."""
        found = hashlib.sha256(json.dumps([encoder.fingerprint, self._margin, RANGE_MAX, self._seed,
                                           self._bf16]).encode())
        for rows, split in self._parts:
            found.update(rows.text_ids[:, :-1].tobytes())
            for text in split.texts:
                found.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        return found.hexdigest()

    def _take(self, file: Path, made_of: str | None = None) -> bool:
        """Read what was mined into the rows; return False where there is no file, or one that is made of other things.

        A file that can't be read is none where ``made_of`` is given; else its hash was found right before.
        """
        try:
            with np.load(file) as stored:
                if made_of is not None and str(stored["made_of"]) != made_of:
                    return False
                columns = [stored[str(place)] for place in range(len(self._parts))]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            if made_of is None:
                raise
            return False
        for (rows, _), column in zip(self._parts, columns, strict=True):
            rows.text_ids[:, -1] = column
        return True


def _negatives(split: Split, encoder: Encoder, margin: float, beside: Path) -> np.ndarray:
    """Return the number of each row's mined text, int64 ``[rows]``; -1 where too few texts are near."""
    texts = list(split.texts)
    candidates = np.unique(split.text_ids[:, 1:])
    pairs = [(texts[anchor], texts[positive]) for anchor, positive in split.text_ids[:, :2].tolist()]
    with tempfile.TemporaryDirectory(prefix="index-", dir=beside) as folder:
        titles = [texts[number] for number in candidates.tolist()]
        index_corpus(Path(folder), list(map(str, candidates.tolist())), titles, encoder)
        with Index.open(folder, encoder) as index:
            found = mine(index, pairs, margin=margin, range_max=min(RANGE_MAX, max(1, len(titles) - 1)))
    number_of = dict(zip(titles, candidates.tolist(), strict=True))
    negative = {(anchor, positive): number_of[text] for anchor, positive, text in found.rows}
    return np.array([negative.get(pair, -1) for pair in pairs], dtype=np.int64)


def _at_random(split: Split, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a positive of another row for each of the rows, int64; its own only where there is no other."""
    candidates, own = np.unique(split.text_ids[:, 1:]), split.text_ids[rows, :2]
    found = random.choice(candidates, len(rows))
    for _ in range(100):
        again = np.flatnonzero((found[:, None] == own).any(axis=1))
        if not len(again):
            break
        found[again] = random.choice(candidates, len(again))
    return found
