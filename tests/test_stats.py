"""Correlations and intervals against scipy and against loops that resample for real."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference

from sentence_forge.eval.stats import (
    bootstrap,
    paired_bootstrap,
    pearson,
    percentile_interval,
    resample_counts,
    spearman,
)


def bootstrap_ci(x: np.ndarray, y: np.ndarray, statistic: str = "spearman", **settings: int) -> tuple[float, float]:
    return percentile_interval(bootstrap([x], y, statistic, **settings)[0])


RNG = np.random.default_rng(7)
SMOOTH = RNG.normal(size=200)
TIED = np.round(SMOOTH + RNG.normal(size=200))
BINARY = (SMOOTH > 1).astype(float)


@pytest.mark.parametrize("other", [TIED, BINARY, SMOOTH**3, -SMOOTH, 1e6 + 1e-3 * TIED],
                         ids=["tied", "binary", "monotone", "reversed", "offset"])
def test_correlations_are_scipys(other: np.ndarray) -> None:
    assert spearman(SMOOTH, other) == pytest.approx(reference.spearmanr(SMOOTH, other).statistic, abs=1e-12)
    assert pearson(SMOOTH, other) == pytest.approx(reference.pearsonr(SMOOTH, other).statistic, abs=1e-12)


@pytest.mark.parametrize("statistic", ["spearman", "pearson"])
@pytest.mark.parametrize("x", [SMOOTH, TIED], ids=["smooth", "tied"])
def test_bootstrap_is_the_statistic_of_each_resampled_array(statistic: str, x: np.ndarray) -> None:
    y = np.round(2 * (x + RNG.normal(size=200))) / 2
    fast = bootstrap([x], y, statistic, resamples=60, seed=3)[0]
    rows = np.concatenate(list(resample_counts(200, 60, seed=3)))
    naive = {"spearman": reference.spearmanr, "pearson": reference.pearsonr}[statistic]
    slow = [naive(np.repeat(x, row), np.repeat(y, row)).statistic for row in rows]
    assert rows.sum(axis=1).tolist() == [200] * 60
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)
    low, high = bootstrap_ci(x, y, statistic, resamples=60, seed=3)
    np.testing.assert_allclose([low, high], np.quantile(slow, [0.025, 0.975]), rtol=0, atol=1e-12)


def test_resamples_are_the_same_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap([SMOOTH], TIED, resamples=50, seed=1)
    monkeypatch.setattr("sentence_forge.eval.stats._CHUNK", 7 * 200)
    np.testing.assert_array_equal(bootstrap([SMOOTH], TIED, resamples=50, seed=1), whole)


def test_a_constant_resample_is_left_out() -> None:
    x = np.arange(12.0)
    y = np.array([0.0] * 11 + [1.0])  # one resample in three misses the only pair that differs
    for statistic in ("spearman", "pearson"):
        samples = bootstrap([x], y, statistic, resamples=300)[0]
        assert 60 < np.isnan(samples).sum() < 160
        assert np.isfinite(percentile_interval(samples)).all()


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered, rho = 0, 0.7
    rng = np.random.default_rng(0)
    for trial in range(200):
        x = rng.normal(size=120)
        y = rho * x + (1 - rho**2) ** 0.5 * rng.normal(size=120)
        low, high = bootstrap_ci(x, y, "pearson", resamples=400, seed=trial)
        covered += low <= rho <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_paired_bootstrap_tells_progress_from_noise() -> None:
    rng = np.random.default_rng(1)
    gold = rng.normal(size=800)
    base = gold + rng.normal(size=800)
    better, alike = base + 0.4 * (gold - base), base + 0.02 * rng.normal(size=800)
    gain = paired_bootstrap(better, base, gold)
    assert gain.delta == pytest.approx(spearman(better, gold) - spearman(base, gold), abs=1e-15)
    assert 0 < gain.ci95[0] < gain.delta < gain.ci95[1] and gain.p < 0.002
    noise = paired_bootstrap(alike, base, gold)
    assert noise.ci95[0] < 0 < noise.ci95[1] and noise.p > 0.05
    # Paired resamples share their noise: the interval is far narrower than that of either correlation.
    low, high = bootstrap_ci(base, gold)
    assert noise.ci95[1] - noise.ci95[0] < (high - low) / 3
    samples = np.subtract(*bootstrap([alike, base], gold))
    assert noise.p == pytest.approx(2 * min((samples <= 0).mean(), (samples >= 0).mean()), abs=0.002)
    same = paired_bootstrap(base, base, gold)
    assert (same.delta, same.ci95, same.p) == (0.0, (0.0, 0.0), 1.0)
    loss = paired_bootstrap(base, better, gold)
    assert loss.p == gain.p and loss.delta == -gain.delta


@pytest.mark.parametrize(("x", "says"), [([1.0, 1.0, 1.0], "equal"), ([1.0, np.nan, 2.0], "finite"),
                                         ([1.0], "at least two"), ([1.0, 2.0], "lengths differ")])
def test_what_has_no_correlation_is_refused(x: list[float], says: str) -> None:
    for call in (spearman, pearson, bootstrap_ci):
        with pytest.raises(ValueError, match=says):
            call(x, [1.0, 2.0, 3.0])
