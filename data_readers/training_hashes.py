"""Keep hashes of a model's training texts in its folder, to find out which test rows it was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sentence_forge.data_readers.checks import normalise

FILE = "training_texts.npy"
"""In a model folder: sorted distinct uint64, of every stage that was trained here."""

Hashes = NDArray[np.uint64]
_BLOCK, _BLOCKS_A_MERGE = 20_000, 50  # rows; more would take much memory at once
_EXACT, _NORMAL, _TEXT = b"pair, exact", b"pair, normal", b"text, normal"


def hashes_of(rows: Iterable[Sequence[str]]) -> Hashes:
    """Return the hashes of training rows, sorted, each once.

    Of a row: each pair of its first text with another, in any order, word for word and normalised (a triplet holds two
    pairs; a row of one text is a pair of its own), and each of its texts, normalised.
    """
    found: set[int] = set()
    normal: dict[str, str] = {}
    for row in rows:
        for text in row:
            if text not in normal:
                normal[text] = normalise(text)
                found.add(_hash(_TEXT, (normal[text],)))
        for other in row[1:] or row[:1]:
            found.add(_hash(_EXACT, (row[0], other)))
            found.add(_hash(_NORMAL, (normal[row[0]], normal[other])))
    return np.array(sorted(found), dtype=np.uint64)


def remember(folder: Path, rows: Iterable[Sequence[str]], base: Path | None) -> None:
    """Write into a model's folder the hashes of its training ``rows``, and those of the model it began from."""
    before, left = Seen.of(base), iter(rows)
    hashes = np.empty(0, dtype=np.uint64)
    found: list[Hashes] = []
    while block := list(islice(left, _BLOCK)):
        found.append(hashes_of(block))
        if len(found) == _BLOCKS_A_MERGE:
            hashes, found = np.unique(np.concatenate([hashes, *found])), []
    hashes = np.unique(np.concatenate([hashes, *found]))
    np.save(folder / FILE, hashes if before is None else np.union1d(before.hashes, hashes), allow_pickle=False)


class Seen:
    """The training rows of a model, to be asked which of other rows are among them.

    Args:
        hashes: what ``hashes_of`` returned, or several of them joined by ``np.union1d``.
    """

    def __init__(self, hashes: Hashes) -> None:
        self.hashes = hashes

    @classmethod
    def of(cls, folder: Path | None) -> Seen | None:
        """Return what a model folder remembers of its training; None where it was not trained here."""
        if folder is None or not (folder / FILE).is_file():
            return None
        return cls(np.load(folder / FILE, allow_pickle=False))

    def exact(self, units: Sequence[tuple[str, ...]]) -> NDArray[np.bool_]:
        """Return which units (pairs, or single texts) were trained on word for word, [n]."""
        return self._among(_hash(_EXACT, (unit[0], unit[-1])) for unit in units)

    def normalised(self, units: Sequence[tuple[str, ...]]) -> NDArray[np.bool_]:
        """Return which units were trained on but for case, punctuation and white space, [n]."""
        return self._among(_hash(_NORMAL, (normalise(unit[0]), normalise(unit[-1]))) for unit in units)

    def texts(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Return which texts stood anywhere in the training rows, normalised, [n]."""
        return self._among(_hash(_TEXT, (normalise(text),)) for text in texts)

    def _among(self, hashes: Iterable[int]) -> NDArray[np.bool_]:
        return np.isin(np.fromiter(hashes, dtype=np.uint64), self.hashes)


def _hash(kind: bytes, texts: tuple[str, ...]) -> int:
    joined = "\0".join(sorted(texts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8, person=kind).digest(), "little")
