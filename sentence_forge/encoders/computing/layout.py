"""Where the tokens of several texts lie in one stream, without padding; by NumPy alone.

Which tokens attend to which follows from it; see ``computing.flat``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """The positions of several texts in one stream.

    Args:
        starts: int64 ``[n]``, each text's first position.
        lengths: int64 ``[n]``.
        size: number of positions in the stream, unused ones included.
        spans: for texts sorted by length: ``(number of texts, tokens a text)`` of each run of equal length, in order;
            unused positions at the end are one more run.
        row: for texts in rows: positions a row; no text crosses the end of a row.
    """

    starts: np.ndarray
    lengths: np.ndarray
    size: int
    spans: tuple[tuple[int, int], ...] = ()
    row: int = 0

    @property
    def within(self) -> np.ndarray:
        """Position of each token in its text, int64 ``[tokens]``, text by text."""
        ends = np.cumsum(self.lengths)
        return np.arange(ends[-1]) - np.repeat(ends - self.lengths, self.lengths)

    @property
    def places(self) -> np.ndarray:
        """Position of each token in the stream, int64 ``[tokens]``, text by text."""
        return np.repeat(self.starts, self.lengths) + self.within

    def segments(self) -> np.ndarray:
        """Return the number of each position's text, int64 ``[rows, row]``; -1 for unused positions."""
        owner = np.full(self.size, -1, dtype=np.int64)
        owner[self.places] = np.repeat(np.arange(len(self.lengths)), self.lengths)
        return owner.reshape(-1, self.row)

    def bounds(self) -> np.ndarray:
        """Return where each text and each row's unused rest begins, and the stream's end: int32 ``[n + rows + 1]``.

        The rest of a full row is an empty stretch, so the shape depends on ``n`` and the number of rows alone.
        """
        rows = np.arange(self.size // self.row)
        filled = np.zeros(len(rows), dtype=np.int64)
        np.add.at(filled, self.starts // self.row, self.lengths)
        return np.sort(np.concatenate([self.starts, rows * self.row + filled, [self.size]])).astype(np.int32)


def by_length(lengths: np.ndarray, multiple: int = 1) -> Layout:
    """Lay out texts that are sorted by length.

    Args:
        lengths: int64 ``[n]``, ascending.
        multiple: the stream is filled up, behind the last text, to a multiple of so many positions.
    """
    known, counts = np.unique(lengths, return_counts=True)
    assert (np.diff(lengths) >= 0).all(), "texts must be sorted by length"
    ends = np.cumsum(lengths)
    spans = tuple(zip(counts.tolist(), known.tolist(), strict=True))
    size = -(-int(ends[-1]) // multiple) * multiple
    rest = ((1, size - int(ends[-1])),) if size > ends[-1] else ()
    return Layout(ends - lengths, lengths, size, spans=spans + rest)


def in_bins(lengths: np.ndarray, row: int, multiple: int = 1) -> Layout:
    """Lay out texts in rows, several a row: the longest first, each into the fullest row that still has space for it.

    Args:
        lengths: int64 ``[n]``, in any order.
        row: positions a row; at least the longest text.
        multiple: the number of rows is rounded up to one of this, so that there are few shapes.
    """
    starts = np.empty(len(lengths), dtype=np.int64)
    by_space: list[list[int]] = [[] for _ in range(row + 1)]
    spaces = 0  # bit r is set if some row has r positions left
    rows = 0
    for text in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[text])
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            number = by_space[space].pop()
            if not by_space[space]:
                spaces &= ~(1 << space)
        else:
            number, space, rows = rows, row, rows + 1
        starts[text] = number * row + row - space
        by_space[space - length].append(number)
        spaces |= 1 << (space - length)
    return Layout(starts, lengths, -(-rows // multiple) * multiple * row, row=row)
