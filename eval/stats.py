"""Correlations with confidence intervals: Spearman, Pearson, percentile and paired bootstrap (Efron, Tibshirani 1993).

Everything is float64. Constant input has no correlation and raises ``ValueError``; callers add which task it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Statistic = Literal["spearman", "pearson"]
Seed = int | Sequence[int]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]  # [chunk, n]: how often each pair was drawn in each resample

_CHUNK = 1 << 20  # counts held at once: bounds memory to a few 8 MB arrays whatever n and resamples are


@dataclass(frozen=True)
class Difference:
    """By how much ``a`` beats ``b`` on the same pairs: ``delta`` with its 95 % interval and two-sided p-value."""

    delta: float
    ci95: tuple[float, float]
    p: float


def midranks(x: Floats) -> Floats:
    """Return the 1-based ranks of ``x`` [n], equal values sharing the mean of theirs."""
    _, group, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Return Pearson's r of ``x`` and ``y``, both [n].

    Raises:
        ValueError: lengths differ, fewer than two values, a value is not finite, or all values are equal.
    """
    a, b = _checked(x), _checked(y)
    if len(a) != len(b):
        raise ValueError(f"lengths differ: {len(a)} and {len(b)}")
    return float(np.clip(_unit(a) @ _unit(b), -1.0, 1.0))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Return Spearman's rho of ``x`` and ``y``, both [n]: Pearson's r of the midranks.

    Raises:
        ValueError: as ``pearson``.
    """
    return pearson(midranks(_checked(x)), midranks(_checked(y)))


def correlation(x: ArrayLike, y: ArrayLike, statistic: Statistic) -> float:
    """Return ``spearman`` or ``pearson``, by name."""
    return {"spearman": spearman, "pearson": pearson}[statistic](x, y)


def resample_counts(n: int, resamples: int, seed: Seed) -> Iterator[Counts]:
    """Yield resamples of ``n`` pairs as how often each pair was drawn, [chunk, n], ``resamples`` rows in all."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // n)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(0, n, size=(size, n)) + np.arange(size)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)


def bootstrap(xs: Sequence[ArrayLike], y: ArrayLike, statistic: Statistic = "spearman", *, resamples: int = 2000,
              seed: Seed = 0) -> Floats:
    """Return the statistic of each of ``xs`` with ``y`` in the same resamples of the pairs, [len(xs), resamples].

    Ranks are those of the resample, ties included. A resample in which a side is constant gives NaN.

    Raises:
        ValueError: as ``pearson``.
    """
    gold = _checked(y)
    columns = [_checked(x) for x in xs]
    if any(len(column) != len(gold) for column in columns):
        raise ValueError(f"lengths differ: {[len(column) for column in columns]} and {len(gold)}")
    of_chunk = (_spearman_of if statistic == "spearman" else _pearson_of)(columns, gold)
    return np.concatenate([of_chunk(counts) for counts in resample_counts(len(gold), resamples, seed)], axis=1)


def bootstrap_mean(values: ArrayLike, *, resamples: int = 2000, seed: Seed = 0) -> Floats:
    """Return the mean of ``values`` [n] in each resample of them, [resamples]."""
    kept = np.asarray(values, dtype=np.float64)
    return np.concatenate([counts @ kept / len(kept) for counts in resample_counts(len(kept), resamples, seed)])


def percentile_interval(samples: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the central ``level`` of bootstrap samples, those that are NaN left out."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def paired_bootstrap(x_a: ArrayLike, x_b: ArrayLike, y: ArrayLike, statistic: Statistic = "spearman", *,
                     resamples: int = 2000, seed: Seed = 0) -> Difference:
    """Return by how much ``x_a`` correlates better with ``y`` than ``x_b`` does; both see the same resamples.

    Raises:
        ValueError: as ``pearson``.
    """
    samples = bootstrap([x_a, x_b], y, statistic, resamples=resamples, seed=seed)
    return difference(correlation(x_a, y, statistic) - correlation(x_b, y, statistic), samples[0] - samples[1])


def difference(delta: float, samples: Floats) -> Difference:
    """Return ``delta`` with the interval and p-value that its bootstrap ``samples`` [resamples] give.

    p is twice the smaller share of samples on either side of zero, each count plus one, so that it is never 0
    (Davison and Hinkley, 1997, section 4.2).
    """
    kept = samples[~np.isnan(samples)]
    smaller = min(int((kept <= 0).sum()), int((kept >= 0).sum()))
    return Difference(delta, percentile_interval(kept), min(1.0, 2 * (smaller + 1) / (len(kept) + 1)))


class _ResampledRanks:
    """Ranks of a sample's values within its resamples, from how often each was drawn: nothing is sorted again."""

    def __init__(self, x: Floats) -> None:
        _, self._group, sizes = np.unique(x, return_inverse=True, return_counts=True)
        self._order = np.argsort(x, kind="stable")
        self._last = np.cumsum(sizes) - 1

    def __call__(self, counts: Counts) -> tuple[Floats, Floats]:
        """Return centred midranks [chunk, n] and their sums of squares [chunk], both exact (halves of integers)."""
        upto = np.cumsum(counts[:, self._order], axis=1)[:, self._last]
        before = np.concatenate([np.zeros((len(counts), 1), dtype=upto.dtype), upto[:, :-1]], axis=1)
        centred = (before + upto - counts.shape[1]) / 2
        return centred[:, self._group], ((upto - before) * centred**2).sum(axis=1)


def _spearman_of(columns: Sequence[Floats], gold: Floats) -> Callable[[Counts], Floats]:
    """Return a function of a chunk of resamples: Spearman's rho of each column with gold, [len(columns), chunk]."""
    ranks_of_gold, ranks_of_columns = _ResampledRanks(gold), [_ResampledRanks(column) for column in columns]

    def of_chunk(counts: Counts) -> Floats:
        gold_ranks, gold_squares = ranks_of_gold(counts)
        weighted = counts * gold_ranks
        found = []
        for ranks_of in ranks_of_columns:
            ranks, squares = ranks_of(counts)
            found.append(_ratio(np.einsum("bn,bn->b", weighted, ranks), squares * gold_squares))
        return np.stack(found)

    return of_chunk


def _pearson_of(columns: Sequence[Floats], gold: Floats) -> Callable[[Counts], Floats]:
    """Return a function of a chunk of resamples: Pearson's r of each column with gold, [len(columns), chunk]."""
    # Unit variance beforehand, so that one absolute bound tells a constant resample from rounding.
    x, y = np.stack([_unit(column) for column in columns]) * len(gold) ** 0.5, _unit(gold) * len(gold) ** 0.5

    def of_chunk(counts: Counts) -> Floats:
        weights = counts / counts.shape[1]
        mean_x, mean_y = x @ weights.T, weights @ y
        var_x, var_y = x**2 @ weights.T - mean_x**2, weights @ y**2 - mean_y**2
        constant = (var_x < 1e-13) | (var_y < 1e-13)
        return _ratio((x * y) @ weights.T - mean_x * mean_y, np.where(constant, 0.0, var_x * var_y))

    return of_chunk


def _ratio(covariance: Floats, squares: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(squares > 0, covariance / np.sqrt(squares), np.nan)


def _unit(x: Floats) -> Floats:
    centred = x - x.mean()
    return centred / np.linalg.norm(centred)


def _checked(x: ArrayLike) -> Floats:
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"a correlation needs at least two values in a row, got an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("not every value is finite")
    if values.min() == values.max():
        raise ValueError("all values are equal")
    return values
