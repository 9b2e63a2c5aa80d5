"""How a batch is to be computed without padding, decided by NumPy alone: no device is asked, so a thread may do it.

A plan has one stream or more: texts of one forward, with their layout and every array of numbers that the forward
needs. ``computing.flat_way`` runs it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sentence_forge.encoders.computing.batching import parts
from sentence_forge.encoders.computing.layout import Layout, by_length, in_bins
from sentence_forge.encoders.computing.tokens import Tokens

CPU_TOKENS = 1024  # computed at a time on a CPU: their activations stay in the cache
ROW = 128  # positions a row on a GPU, where no text is longer
MOST_SHAPES = 3


class Shapes(NamedTuple):
    """The shapes of streams that are compiled; a stream that fits none of them is computed without.

    Args:
        row: positions a row, in all of them.
        rows: numbers of rows, ascending, of streams that begin with ids, and of those that begin with word embeddings.
    """

    row: int
    rows: tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class How:
    """What decides a plan beside the texts.

    Args:
        limit: tokens of a stream at most, where a text isn't longer.
        rows: whether texts lie in rows, see ``Layout``.
        multiple: of which a stream's positions are one, where they don't.
        learning: whether gradients are wanted.
        compiled: whether streams in rows are compiled, where gradients are wanted.
        shapes: those that are; None compiles every one, rounded up so that there are few.
        kernel: whether streams that aren't compiled go to the varlen kernel.
        pooling: ``mean``, ``max``, ``cls`` or ``lasttoken``, computed on the stream itself; None makes a rectangle.
        pad_id: the id of unused positions.
        first_position: the position of a text's first token.
    """

    limit: int
    rows: bool
    multiple: int = 1
    learning: bool = False
    compiled: bool = False
    shapes: Shapes | None = None
    kernel: bool = False
    pooling: str | None = None
    pad_id: int = 0
    first_position: int = 0


@dataclass(frozen=True)
class Stream:
    """Texts of one forward.

    Args:
        layout: where they lie.
        tokens: which of the batch's tokens, sorted by the length of the texts, they are.
        compiled: whether the forward is compiled.
        arrays: what it needs, by name.
    """

    layout: Layout
    tokens: slice
    compiled: bool
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class Plan:
    """A batch's texts and how they are computed.

    Args:
        tokens: the texts, as they were given.
        streams: sorted by length, one after the other; none where the texts take another way than the flat one.
        arrays: what is needed for all of them: ``order``, where each text's vector is, and ``words``, the ids of all
            tokens where their embeddings are looked up at once.
        again: whether no stream keeps its activations, so that each is computed again for the backward.
    """

    tokens: Tokens
    streams: tuple[Stream, ...] = ()
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    again: bool = False

    @property
    def groups(self) -> list[Mapping[str, np.ndarray]]:
        """All arrays, to be copied to a device: the plan's own, then those of each stream."""
        return [self.arrays, *(stream.arrays for stream in self.streams)]


def lay_out(tokens: Tokens, how: How, *, by_words: bool = False) -> Plan:
    """Return the plan of a batch: sorted by length, in streams of the size that the device computes best.

    Args:
        tokens: of at least one text.
        how: on this device.
        by_words: look up all word embeddings at once also where there is a single stream.
    """
    order = np.argsort(tokens.lengths, kind="stable")
    there = tokens.take(order)
    runs = list(parts(there.offsets, how.limit if how.rows else min(CPU_TOKENS, how.limit)))
    # one look-up for all: the gradient of a vocabulary's embeddings is as large as the vocabulary
    by_words = by_words or (len(runs) > 1 and how.learning)
    inverse = np.empty(len(order), dtype=np.int64)
    inverse[order] = np.arange(len(order))
    arrays = {"order": inverse, **({"words": there.ids.astype(np.int64)} if by_words else {})}
    streams = []
    for run in runs:
        which = slice(int(there.offsets[run.start]), int(there.offsets[run.stop]))
        layout, compiled = _placed(there.lengths[run], how, by_words)
        streams.append(Stream(layout, which, compiled, _arrays(layout, None if by_words else there.ids[which], how,
                                                               kernel=how.kernel and not compiled)))
    return Plan(tokens, tuple(streams), arrays, again=how.learning and len(there.ids) > how.limit)


def shapes_of(plans: Iterable[Plan]) -> Shapes:
    """Return the few shapes that most streams of these plans fit, a quarter of which is empty at most.

    Rows are as long as nine streams in ten need for their longest text. Of their numbers that one is taken first that
    most streams fit, then one for those that are left, while it is for more than one stream in twenty. Numbers are
    rounded up, to an eighth or a sixteenth of them, as other batches may need a little more.
    """
    streams = [("words" in plan.arrays, stream.layout.lengths) for plan in plans for stream in plan.streams]
    row = int(np.quantile([_power(int(lengths.max())) for _, lengths in streams], 0.9, method="higher"))
    found = []
    for kind in (False, True):
        left = np.array([in_bins(lengths, row).size // row for by_words, lengths in streams
                         if by_words == kind and lengths.max() <= row])
        least = len(left) / 20
        rungs: list[int] = []
        while len(left) and len(rungs) < MOST_SHAPES:
            fitting = {rung: _fits(left, rung) for rung in sorted({_rounded(rows) for rows in left.tolist()})}
            best = max(fitting, key=lambda rung: int(fitting[rung].sum()))
            if fitting[best].sum() <= least:
                break
            rungs.append(best)
            left = left[~fitting[best]]
        found.append(tuple(sorted(rungs)))
    return Shapes(row, (found[0], found[1]))


def _fits(rows: np.ndarray, shape: int) -> np.ndarray:
    """Whether streams that need so many rows are to be filled up to a shape: a quarter of it is empty at most."""
    return (rows <= shape) & (rows >= 0.75 * shape)


def _power(longest: int) -> int:
    return max(ROW, 1 << (longest - 1).bit_length())


def _rounded(rows: int) -> int:
    step = _step(rows)
    return -(-rows // step) * step


def _step(rows: int) -> int:
    return max(2, (1 << rows.bit_length()) // 16)


def _placed(lengths: np.ndarray, how: How, by_words: bool) -> tuple[Layout, bool]:
    """Return the layout of texts sorted by length, and whether it is compiled."""
    if not how.rows:
        return by_length(lengths, how.multiple), False
    longest = int(lengths.max())
    if how.compiled and how.learning:  # evaluations have a new shape each time, so they are not compiled
        if how.shapes is None:  # rows of a power of two, and their number to an eighth or a sixteenth of it
            row = _power(longest)
            return in_bins(lengths, row, _step(int(lengths.sum()) // row)), True
        row = how.shapes.row
        if longest <= row:
            layout = in_bins(lengths, row)
            fitting = [rows for rows in how.shapes.rows[by_words] if _fits(np.array(layout.size // row), rows)]
            if fitting:
                return dataclasses.replace(layout, size=fitting[0] * row), True
    return in_bins(lengths, max(ROW, -(-longest // 64) * 64)), False


def _arrays(layout: Layout, ids: np.ndarray | None, how: How, *, kernel: bool) -> dict[str, np.ndarray]:
    """Return what one forward needs; without ``ids`` it begins with word embeddings."""
    lengths, places = layout.lengths, layout.places
    positions = np.zeros(layout.size, dtype=np.int64)
    positions[places] = layout.within
    positions += how.first_position
    made = {"positions": positions}
    if ids is not None:
        made["ids"] = np.full(layout.size, how.pad_id, dtype=np.int64)
        made["ids"][places] = ids
    if layout.row:
        made["segments"] = layout.segments()
        if kernel:
            made["bounds"] = layout.bounds()
    if layout.row or layout.size > len(places):
        made["places"] = places
    if how.pooling is None:
        real = np.arange(int(lengths.max())) < lengths[:, None]
        made |= {"cells": np.flatnonzero(real), "mask": real.astype(np.int64)}
    elif how.pooling in ("cls", "lasttoken"):
        made["one"] = layout.starts if how.pooling == "cls" else layout.starts + lengths - 1
    else:
        made["ends"] = np.concatenate([[0], np.cumsum(lengths)])
    return made


class Packed:
    """Arrays in one buffer, so that they go to a device in one copy.

    Args:
        groups: arrays by name.

    >>> packed = Packed([{"one": np.arange(3)}, {"two": np.zeros((2, 1), dtype=np.float32)}])
    >>> packed.buffer.nbytes, [list(group) for group in packed.places]
    (32, [['one'], ['two']])
    """

    def __init__(self, groups: Sequence[Mapping[str, np.ndarray]]) -> None:
        self.places: list[dict[str, tuple[int, np.ndarray]]] = []  # where each begins, and itself
        end = 0
        for group in groups:
            self.places.append({})
            for name, array in group.items():
                self.places[-1][name] = end, array
                end += -(-array.nbytes // 8)
        self.buffer = np.zeros(end, dtype=np.int64)
        for placed in self.places:
            for start, array in placed.values():
                flat = self.buffer[start: start + -(-array.nbytes // 8)].view(array.dtype)[: array.size]
                flat.reshape(array.shape)[...] = array
