"""Samplers, which cut an epoch into batches by the seed and the epoch's number alone, so a resumed run has the same."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Generic, TypeVar

import numpy as np

from sentence_forge.runtime.errors import UserError

log = logging.getLogger(__name__)
T = TypeVar("T")


class Sampler(ABC):
    """Cuts an epoch into batches of row numbers."""

    @abstractmethod
    def epoch(self, number: int) -> list[np.ndarray]:
        """Return the batches of epoch ``number``, each an int64 array of row numbers."""


class Shuffled(Sampler):
    """Every row once an epoch, in random order."""

    def __init__(self, *, rows: int, batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed

    def epoch(self, number: int) -> list[np.ndarray]:
        """Return shuffled batches; the last may be smaller."""
        order = np.random.default_rng([self.seed, number]).permutation(self.rows)
        return [order[start : start + self.batch_size] for start in range(0, self.rows, self.batch_size)]


class NoDuplicates(Sampler):
    """Every row once an epoch, and no text twice in a batch: equal texts would be false in-batch negatives.

    A row whose texts are already in the batch waits for a later one, as in sentence-transformers' NO_DUPLICATES. What
    is left when only clashing rows remain makes smaller batches; a single row, which has no negative, is left out.

    Args:
        text_ids: int64 ``[rows, columns]``, equal where texts are equal.
        batch_size: rows a batch, from 2; ``train.sources`` refuses 1.
        seed: of the order.
    """

    def __init__(self, *, text_ids: np.ndarray, batch_size: int, seed: int) -> None:
        self.text_ids = text_ids
        self.batch_size, self.seed = batch_size, seed

    def epoch(self, number: int) -> list[np.ndarray]:
        """Return batches without repeated texts."""
        fresh = self._rows(np.random.default_rng([self.seed, number]).permutation(len(self.text_ids)))
        waiting: list[tuple[int, set[int]]] = []  # rows that clashed with an earlier batch, oldest first
        batches = []
        while True:
            batch: list[int] = []
            seen: set[int] = set()
            clashed = []
            for row, texts in chain(waiting, fresh):
                if seen.isdisjoint(texts):
                    batch.append(row)
                    seen |= texts
                    if len(batch) == self.batch_size:
                        break
                else:
                    clashed.append((row, texts))
            looked_at = {*batch, *(row for row, _ in clashed)}
            waiting = clashed + [(row, texts) for row, texts in waiting if row not in looked_at]
            if len(batch) > 1:
                batches.append(np.array(batch, dtype=np.int64))
            if len(batch) < self.batch_size and not waiting:
                return batches

    def _rows(self, order: np.ndarray) -> Iterator[tuple[int, set[int]]]:
        """Yield rows with their texts; only a block of them becomes Python's, which takes ten times the memory."""
        for start in range(0, len(order), 8192):
            block = order[start : start + 8192]
            yield from zip(block.tolist(), map(set, self.text_ids[block].tolist()), strict=True)


class ClassesTimesTexts(Sampler):
    """Batches of P classes x K texts (Hermans et al. 2017, section 3), every text at least once an epoch.

    Each class's texts are shuffled and cut into handfuls of K, the last filled up with the class's other texts. A
    batch takes a handful from each of the P classes that have most left; when fewer than P have any, the others give
    texts again, so no batch is without negatives and no class is dropped.

    Args:
        labels: the class of each row.
        batch_size: used for P where ``classes_per_batch`` is None.
        seed: of the order.
        texts_per_class: K.
        classes_per_batch: P.

    Raises:
        UserError: a single class, or no class with two texts.
    """

    def __init__(self, *, labels: Sequence[str], batch_size: int, seed: int, texts_per_class: int = 4,
                 classes_per_batch: int | None = None) -> None:
        by_class: dict[str, list[int]] = defaultdict(list)
        for row, label in enumerate(labels):
            by_class[label].append(row)
        single = sorted(label for label, rows in by_class.items() if len(rows) < 2)
        if len(by_class) < 2:
            raise UserError("the loss needs at least two classes; every text is labelled "
                            f"{next(iter(by_class))!r}")
        if texts_per_class < 2 or (classes_per_batch is not None and classes_per_batch < 2):
            raise UserError("loss.sampler: texts_per_class and classes_per_batch must be at least 2")
        if len(single) == len(by_class):
            raise UserError("the loss needs classes with at least two texts; every class here has one")
        if single:
            log.warning("%d classes have a single text, which has no positive: %s", len(single), ", ".join(single[:10]))
        self.rows = [np.array(rows, dtype=np.int64) for _, rows in sorted(by_class.items())]
        self.k = texts_per_class
        wanted = classes_per_batch or max(2, batch_size // texts_per_class)
        self.p = min(wanted, len(self.rows))
        if self.p < wanted:
            log.info("batches hold %d classes x %d texts: the data has no more classes; a larger "
                     "loss.sampler.texts_per_class makes larger batches", self.p, self.k)
        self.seed = seed

    def epoch(self, number: int) -> list[np.ndarray]:
        """Return batches of P x K rows (fewer where a class has fewer than K texts)."""
        generator = np.random.default_rng([self.seed, number])
        handfuls = [self._handfuls(rows, generator) for rows in self.rows]
        batches = []
        while any(handfuls):
            left = np.array([len(each) for each in handfuls])
            chosen = np.argsort(-(left + generator.random(len(left))))[: self.p]
            parts = [handfuls[number].pop() if handfuls[number]
                     else generator.permutation(self.rows[number])[: self.k] for number in chosen]
            batches.append(np.concatenate(parts))
        generator.shuffle(batches)  # else every epoch would end on the largest class
        return batches

    def _handfuls(self, rows: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        order = generator.permutation(rows)
        cut = [order[start : start + self.k] for start in range(0, len(order), self.k)]
        missing = min(self.k, len(order)) - len(cut[-1])
        if missing:
            others = order[: len(order) - len(cut[-1])]
            cut[-1] = np.concatenate([cut[-1], generator.choice(others, missing, replace=False)])
        return cut


class Batches(Generic[T]):
    """Batches, epoch after epoch, from any point on.

    Args:
        epochs: gives the batches of an epoch by its number.
        epoch: the epoch to begin in.
        position: batches of that epoch already taken.

    >>> batches = Batches(lambda epoch: [f"{epoch}a", f"{epoch}b"], position=1)
    >>> next(batches), next(batches), batches.done
    ('0b', '1a', 1.5)
    """

    def __init__(self, epochs: Callable[[int], list[T]], epoch: int = 0, position: int = 0) -> None:
        self.epochs, self.epoch, self.position = epochs, epoch, position
        self._cut = epochs(epoch)
        if not self._cut:
            raise UserError("the training data makes no batch: there are fewer than two rows with different texts")

    def __next__(self) -> T:
        if self.position >= len(self._cut):
            self.epoch, self.position = self.epoch + 1, 0
            self._cut = self.epochs(self.epoch)
        self.position += 1
        return self._cut[self.position - 1]

    def first(self, count: int) -> list[T]:
        """Return the first batches of the first epoch, wherever it is now."""
        return (self._cut if self.epoch == 0 else self.epochs(0))[:count]

    @property
    def per_epoch(self) -> int:
        """Batches in the current epoch."""
        return len(self._cut)

    @property
    def done(self) -> float:
        """Epochs taken, with the fraction of the current one."""
        return self.epoch + self.position / len(self._cut)
