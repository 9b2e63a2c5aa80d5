"""Find the strings that repeat among many: by 8 bytes a string, and by the strings themselves where those are equal."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sentence_forge.data_readers.lazy import BLOCK, taken

if TYPE_CHECKING:
    from sentence_forge.data_readers.lazy import IntArray

_hash = hash  # of 8 bytes, and another one in each process, so nobody can make many strings collide


def repeats(strings: Sequence[str]) -> tuple[IntArray, IntArray]:
    """Return the places of strings that an earlier one is equal to, int64, rising, and where that one first stands.

    In memory are 17 bytes a string, and, of those that repeat, the strings.

    >>> later, first = repeats(["a", "b", "a", "c", "a"])
    >>> later.tolist(), first.tolist()
    ([2, 4], [0, 0])
    """
    import numpy as np

    hashes = np.fromiter(map(_hash, strings), np.int64, len(strings))
    suspects = _repeated(hashes)
    first: dict[str, int] = {}
    later, earlier = array("q"), array("q")
    for start in range(0, len(hashes) if len(suspects) else 0, BLOCK):
        some = hashes[start:start + BLOCK]
        found = suspects.take(np.searchsorted(suspects, some), mode="clip") == some
        places = start + np.flatnonzero(found)
        for place, string in zip(places.tolist(), taken(strings, places), strict=True):
            if (before := first.setdefault(string, place)) != place:  # equal hashes may be of different strings
                later.append(place)
                earlier.append(before)
    return np.frombuffer(later, np.int64), np.frombuffer(earlier, np.int64)


def _repeated(hashes: IntArray) -> IntArray:
    """Return the hashes that occur more than once, rising."""
    import numpy as np

    ordered = np.sort(hashes)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
