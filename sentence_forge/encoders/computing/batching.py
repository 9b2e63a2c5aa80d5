"""Cut a batch into parts that a device computes one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def parts(offsets: np.ndarray, limit: int) -> Iterator[slice]:
    """Cut a stream into runs of texts of at most ``limit`` tokens (one text may exceed it).

    Args:
        offsets: of the texts in the stream, int64 ``[n + 1]``.
        limit: tokens a run.
    """
    start = 0
    while start < len(offsets) - 1:
        end = max(start + 1, int(np.searchsorted(offsets, offsets[start] + limit, side="right")) - 1)
        yield slice(start, end)
        start = end


def plan_groups(lengths: np.ndarray, tokens_a_group: int, slack: float = 0.3) -> list[np.ndarray]:
    """Cut a batch into groups of nearly equal length.

    Args:
        lengths: tokens a text, int64 ``[n]``.
        tokens_a_group: most positions, padding included, a group may have (one text may exceed it).
        slack: how much longer than its shortest text a group's longest may be, as a fraction.

    Returns:
        Positions in ``lengths``; every text is in just one group.
    """
    order = np.argsort(lengths, kind="stable")
    groups = []
    start = 0
    for end in range(1, len(order) + 1):
        if end < len(order):
            longest = lengths[order[end]]
            if longest <= (1 + slack) * lengths[order[start]] and longest * (end + 1 - start) <= tokens_a_group:
                continue
        groups.append(order[start:end])
        start = end
    return groups
