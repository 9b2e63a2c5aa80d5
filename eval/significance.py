"""Tests of two dependent correlations with one variable in common: do two models differ in how they follow gold?

Both assume normal variables; on Spearman's rho (Pearson's r of ranks) they are approximations, so a report shows them
beside the paired bootstrap, which assumes nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Tested(NamedTuple):
    """A test's statistic, its degrees of freedom (None for a normal one) and its two-sided p-value."""

    statistic: float
    df: int | None
    p: float


def williams(r_a: float, r_b: float, r_ab: float, n: int) -> Tested:
    """Return Williams' t (1959) for ``r_a`` against ``r_b``, as Steiger (1980, equation 7) recommends it.

    Args:
        r_a: correlation of gold with model a.
        r_b: correlation of gold with model b.
        r_ab: correlation of the two models.
        n: how many pairs all three are over; more than 3.
    """
    from scipy.stats import t as student

    determinant = 1 - r_a**2 - r_b**2 - r_ab**2 + 2 * r_a * r_b * r_ab
    mean = (r_a + r_b) / 2
    below = 2 * (n - 1) / (n - 3) * determinant + mean**2 * (1 - r_ab) ** 3
    if r_a == r_b or below <= 0:  # models that rank alike: nothing tells them apart
        return Tested(0.0, n - 3, 1.0)
    statistic = (r_a - r_b) * math.sqrt((n - 1) * (1 + r_ab) / below)
    return Tested(statistic, n - 3, float(2 * student.sf(abs(statistic), n - 3)))


def steiger(r_a: float, r_b: float, r_ab: float, n: int) -> Tested:
    """Return Steiger's Z (1980, equation 14): Dunn and Clark's z with the covariance taken at the mean correlation.

    Args: as ``williams``.
    """
    from scipy.stats import norm as normal

    mean = (r_a + r_b) / 2
    psi = r_ab * (1 - 2 * mean**2) - 0.5 * mean**2 * (1 - 2 * mean**2 - r_ab**2)
    covariance = psi / (1 - mean**2) ** 2
    if r_a == r_b or covariance >= 1 or max(abs(r_a), abs(r_b)) >= 1:  # Fisher's z of 1 is infinite
        return Tested(0.0, None, 1.0)
    statistic = (math.atanh(r_a) - math.atanh(r_b)) * math.sqrt((n - 3) / (2 - 2 * covariance))
    return Tested(statistic, None, float(2 * normal.sf(abs(statistic))))
