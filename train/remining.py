"""Hard negatives that the model finds for its own training pairs, anew as it gets better (``loop.remine_every``)."""

from __future__ import annotations

import dataclasses
import io
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sentence_forge.encoders.encoder import Encoder
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import write_atomic
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.mining import mine
from sentence_forge.train.parts import Data
from sentence_forge.train.rows import Part
from sentence_forge.train.split import Split

log = logging.getLogger(__name__)
RANGE_MAX = 50  # titles looked at an anchor


def with_room(parts: Sequence[Part]) -> list[Part]:
    """Return parts whose pairs or triplets have a further column of texts, for `Remining` to write into."""
    return [dataclasses.replace(part, rows=dataclasses.replace(
        part.rows, text_ids=np.column_stack([part.rows.text_ids, part.rows.text_ids[:, 1]]))) for part in parts]


class Remining:
    """Writes into the last column of each pair a text that the model takes for near and that is none of its positives.

    The candidates are all positives and negatives of the part. They are indexed and searched as ``python -m
    search.mine`` does it (`search.mining.mine`), with vectors of the model as it is. A pair that has too few near
    texts gets one at random. What was found is kept in the run's folder, ``mined/step-N.npz``, so that a resumed
    training sees the same rows.

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
        self._mined_at: int | None = None

    def renew(self, step: int) -> None:
        """Make the rows those of the step behind ``step``: mine if it is time, or read what a run that was cut mined.

        Raises:
            UserError: what was mined is gone.
        """
        at = step - step % self._every
        if at == self._mined_at:
            return
        file = self._folder / f"step-{at}.npz"
        if at == step:
            now = Encoder(self._encoder.model, name=f"step {step}")
            now.forward = self._encoder.forward
            if not self._read(file, now.fingerprint):
                work, device = now.forward.work, now.model.device.type
                with torch.autocast(device, dtype=torch.bfloat16, enabled=self._bf16):
                    self._mine(file, now)
                now.forward.work = work  # what was mined is none of the training's
                now.model.train()
        elif not self._read(file):
            raise UserError(f"{file}: is missing or of other rows; it held the negatives of this part of the training, "
                            f"so go on from a checkpoint of step {at} or before, or begin a new run")
        self._mined_at = at

    def _mine(self, file: Path, encoder: Encoder) -> None:
        begun = time.monotonic()
        random = np.random.default_rng([self._seed, int(file.stem.partition("-")[2])])
        missing = 0
        for rows, split in self._parts:
            found = _negatives(split, encoder, self._margin)
            none = np.flatnonzero(found < 0)
            found[none] = random.choice(split.text_ids[:, 1], len(none))
            rows.text_ids[:, -1] = found
            missing += len(none)
        total = sum(len(rows.numbers) for rows, _ in self._parts)
        stored = io.BytesIO()
        arrays: dict[str, Any] = {str(place): rows.text_ids[:, -1] for place, (rows, _) in enumerate(self._parts)}
        np.savez(stored, fingerprint=np.array(encoder.fingerprint), **arrays)
        self._folder.mkdir(exist_ok=True)
        write_atomic(file, stored.getvalue())
        log.info("%s: mined a hard negative for %d of %d pairs in %.0f s", encoder.name, total - missing, total,
                 time.monotonic() - begun)

    def _read(self, file: Path, fingerprint: str | None = None) -> bool:
        """Take what was mined from its file; return whether it is there and, where that is given, of these weights."""
        if not file.is_file():
            return False
        with np.load(file) as stored:
            if fingerprint is not None and str(stored["fingerprint"]) != fingerprint:
                return False
            columns = [stored[str(place)] for place in range(len(stored.files) - 1)]
        if [len(column) for column in columns] != [len(rows.numbers) for rows, _ in self._parts]:
            return False
        for (rows, _), column in zip(self._parts, columns, strict=True):
            rows.text_ids[:, -1] = column
        return True


def _negatives(split: Split, encoder: Encoder, margin: float) -> np.ndarray:
    """Return the number of each row's mined text, int64 ``[rows]``; -1 where too few texts are near."""
    texts = list(split.texts)
    candidates = np.unique(split.text_ids[:, 1:])
    pairs = [(texts[anchor], texts[positive]) for anchor, positive in split.text_ids[:, :2].tolist()]
    with tempfile.TemporaryDirectory(prefix="sentence-forge-") as folder:
        titles = [texts[number] for number in candidates.tolist()]
        index_corpus(Path(folder), list(map(str, candidates.tolist())), titles, encoder)
        with Index.open(folder, encoder) as index:
            found = mine(index, pairs, margin=margin, range_max=min(RANGE_MAX, max(1, len(titles) - 1)))
    number_of = dict(zip(titles, candidates.tolist(), strict=True))
    negative = {(anchor, positive): number_of[text] for anchor, positive, text in found.rows}
    return np.array([negative.get(pair, -1) for pair in pairs], dtype=np.int64)
