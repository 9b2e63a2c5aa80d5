"""Plots as inline SVG text: no script, no file beside the page, colours from the page's style sheet.

Coordinates are rounded to a tenth of a pixel. What is drawn is decided here, what is said about it in ``eval.page``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from sentence_forge.eval.stats import Floats

MOST_DOTS = 1500
WIDTH, HEIGHT = 460, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 14, 40
FEW_SCORES = 8  # up to so many distinct scores dots are spread sideways, or they would be stripes


@dataclass(frozen=True)
class Axis:
    """A linear axis from data to pixels.

    Args:
        low: the lowest value of the data.
        high: the highest.
        start: the pixel at which the axis starts, ``margin`` below ``low``.
        stop: the pixel at which it stops, ``margin`` above ``high``.
        margin: what the axis has on either side of the data, in the data's unit.
    """

    low: float
    high: float
    start: float
    stop: float
    margin: float = 0.0

    def __call__(self, values: Floats | Sequence[float]) -> Floats:
        """Return the pixels of ``values``."""
        span = self.high - self.low + 2 * self.margin
        share = (np.asarray(values, dtype=np.float64) - self.low + self.margin) / span
        return self.start + share * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Return about six round values in the data's range; its one value where it has only one."""
        return round_values(self.low, self.high) if self.high > self.low else [self.low]


def round_values(low: float, high: float, about: int = 6) -> list[float]:
    """Return about so many round values from ``low`` to ``high``."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{step * number:.10g}") for number in range(first, last + 1)]


def across(low: float, high: float, margin: float | None = None) -> Axis:
    """Return the axis along the bottom of a plot, a little wider than the data."""
    return Axis(low, high, _LEFT, WIDTH - _RIGHT, _margin(low, high) if margin is None else margin)


def upwards(low: float, high: float) -> Axis:
    """Return the axis along the left of a plot, a little wider than the data."""
    return Axis(low, high, HEIGHT - _BOTTOM, _TOP, _margin(low, high))


def scatter(gold: Floats, cosine: Floats, gold_range: tuple[float, float]) -> str:
    """Return gold against cosine: at most ``MOST_DOTS`` dots, the median by score, a band of the middle half."""
    distinct = np.unique(gold)
    width = 0.2 * float(np.diff(distinct).min()) if len(distinct) <= FEW_SCORES else 0.0
    x = across(*gold_range, margin=1.2 * width or None)
    y = upwards(float(cosine.min()), float(cosine.max()))
    rng = np.random.default_rng(0)
    drawn = np.sort(rng.permutation(len(gold))[:MOST_DOTS])
    left, top = x(gold[drawn] + rng.uniform(-width, width, len(drawn))), y(cosine[drawn])
    dots = "".join(f'<circle cx="{_px(a)}" cy="{_px(b)}" r="2"/>' for a, b in zip(left, top, strict=True))
    centres, quartiles = binned(gold, cosine)
    at = x(centres)
    upper, middle, lower = (y(quartiles[:, column]) for column in (2, 1, 0))
    band = _path([*zip(at, upper, strict=True), *zip(at[::-1], lower[::-1], strict=True)], closed=True)
    line = _path(list(zip(at, middle, strict=True)))
    knots = "".join(f'<circle cx="{_px(a)}" cy="{_px(b)}" r="3"/>' for a, b in zip(at, middle, strict=True))
    body = (f'<g class="dots">{dots}</g><path class="band" d="{band}"/><path class="median" d="{line}"/>'
            f'<g class="knots">{knots}</g>')
    return _plot(x, y, body, "gold score", "cosine", "gold score against cosine, with the median cosine by score")


def small(gold: Floats, cosine: Floats, before: Floats | None = None) -> str:
    """Return a small plot without numbers: median cosine by score with its middle half; ``before`` is dashed."""
    x = Axis(float(gold.min()), float(gold.max()), 2, 178)
    y = Axis(-0.2, 1.0, 98, 2)
    body = "".join(f'<path class="rule" d="M2 {_px(at)}H178"/>' for at in y([0.0, 0.5, 1.0]))
    centres, quartiles = binned(gold, np.clip(cosine, -0.2, 1))
    at = x(centres)
    upper, middle, lower = (y(quartiles[:, column]) for column in (2, 1, 0))
    band = _path([*zip(at, upper, strict=True), *zip(at[::-1], lower[::-1], strict=True)], closed=True)
    body += f'<path class="band" d="{band}"/><path class="line" d="{_path(list(zip(at, middle, strict=True)))}"/>'
    if before is not None:
        _, old = binned(gold, np.clip(before, -0.2, 1))
        body += f'<path class="before" d="{_path(list(zip(at, y(old[:, 1]), strict=True)))}"/>'
    return f'<svg class="plot" viewBox="0 0 180 100" role="img" aria-label="median cosine by score">{body}</svg>'


def binned(gold: Floats, cosine: Floats, bins: int = 11, fewest: int = 5) -> tuple[Floats, Floats]:
    """Return the mean score and the quartiles of the cosines [bins, 3] of equally wide bins of the score.

    Bins with fewer than ``fewest`` pairs are left out, unless no bin has as many.
    """
    edges = np.linspace(gold.min(), gold.max(), bins + 1)
    which = np.clip(np.digitize(gold, edges) - 1, 0, bins - 1)
    sizes = np.bincount(which, minlength=bins)
    kept = np.flatnonzero(sizes >= min(fewest, int(sizes.max())))
    return (np.array([gold[which == number].mean() for number in kept]),
            np.array([np.quantile(cosine[which == number], [0.25, 0.5, 0.75]) for number in kept]))


def thirds(gold: Floats) -> list[tuple[str, Floats]]:
    """Return up to three groups of pairs by score, lowest first: how a legend calls each, and which rows are in it."""
    distinct = np.unique(gold)
    if len(distinct) <= 3:
        return [(f"{value:g}", gold == value) for value in distinct]
    low, high = np.quantile(gold, [1 / 3, 2 / 3])
    masks = [gold <= low, (gold > low) & (gold <= high), gold > high]
    return [(f"{gold[mask].min():.3g} to {gold[mask].max():.3g}", mask) for mask in masks if mask.any()]


def histogram(cosine: Floats, groups: Sequence[tuple[str, Floats]], bins: int = 36) -> str:
    """Return the overlaid histograms of the cosines of each group, as shares of the group."""
    x = across(float(cosine.min()), float(cosine.max()))
    edges = np.linspace(x.low - x.margin, x.high + x.margin, bins + 1)
    shares = [100 * np.histogram(cosine[mask], edges)[0] / max(1, mask.sum()) for _, mask in groups]
    y = Axis(0.0, 1.08 * max(float(share.max()) for share in shares), HEIGHT - _BOTTOM, _TOP)
    left = np.repeat(x(edges), 2)
    body = ""
    for number, share in enumerate(shares):
        corners = list(zip(left, y([0.0, *np.repeat(share, 2), 0.0]), strict=True))
        body += f'<path class="hist {hue(number, len(groups))}" d="{_path(corners, closed=True)}"/>'
    return _plot(x, y, body, "cosine", "% of group", "how the cosines of low, middle and high scores are spread")


def hue(number: int, groups: int) -> str:
    """Return the colour class of one of up to three groups, so that the highest is always the same."""
    return {1: ["high"], 2: ["low", "high"], 3: ["low", "mid", "high"]}[groups][number]


def curve(steps: Sequence[float], values: Sequence[float], name: str, *, before: float | None = None,
          knots: bool = False, ringed: float | None = None, most: int = 400) -> str:
    """Return a line over training steps; ``before`` is a dashed level, the point of the step ``ringed`` gets a ring.

    Values that are not finite are left out; more than ``most`` are averaged in runs of neighbours.
    """
    points = np.array([(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)])
    if not len(points):
        return '<p class="note">Nothing was logged.</p>'
    if len(points) > most:
        points = np.array([run.mean(axis=0) for run in np.array_split(points, most)])
    levels = [*points[:, 1], *([] if before is None else [before])]
    x, y = across(0.0, float(max(points[:, 0].max(), 1))), upwards(min(levels), max(levels))
    at = list(zip(x(points[:, 0]), y(points[:, 1]), strict=True))
    body = ""
    if before is not None:
        level = _px(y([before])[0])
        body += (f'<path class="before" d="M{_px(x.start)} {level}H{_px(x.stop)}"/>'
                 f'<text class="before-name" x="{_px(x.stop - 4)}" y="{_px(float(level) - 5)}">before training</text>')
    body += f'<path class="line" d="{_path(at)}"/>'
    if knots:
        body += '<g class="knots">' + "".join(f'<circle cx="{_px(a)}" cy="{_px(b)}" r="3"/>' for a, b in at) + "</g>"
    if ringed is not None:
        a, b = at[int(np.abs(points[:, 0] - ringed).argmin())]
        body += f'<circle class="best" cx="{_px(a)}" cy="{_px(b)}" r="7"/>'
    return _plot(x, y, body, "step", name, f"{name} over training steps")


def by_share(shares: Sequence[float], lines: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Return differences from the beginning over the share of the end, a line each with its colour class."""
    levels = [0.0, *(value for _, values in lines for value in values)]
    x, y = across(min(shares), max(shares)), upwards(min(levels), max(levels))
    zero = _px(y([0.0])[0])
    body = f'<path class="before" d="M{_px(x.start)} {zero}H{_px(x.stop)}"/>'
    for hue_class, values in lines:
        at = list(zip(x(shares), y(values), strict=True))
        body += f'<path class="share {hue_class}" d="{_path(at)}"/><g class="knots">' + "".join(
            f'<circle cx="{_px(a)}" cy="{_px(b)}" r="3"/>' for a, b in at) + "</g>"
    return _plot(x, y, body, "share of the end", "difference from the beginning × 100",
                 "what is gained on one task and lost on the others by the share of the end")


def _plot(x: Axis, y: Axis, body: str, x_name: str, y_name: str, says: str) -> str:
    grid = "".join(f'<path d="M{_px(x.start)} {_px(at)}H{_px(x.stop)}"/>' for at in y(y.ticks()))
    marks = "".join(f'<text x="{_px(at)}" y="{HEIGHT - _BOTTOM + 16}">{tick:g}</text>'
                    for tick, at in zip(x.ticks(), x(x.ticks()), strict=True))
    levels = "".join(f'<text x="{_LEFT - 6}" y="{_px(at + 3.5)}">{tick:g}</text>'
                     for tick, at in zip(y.ticks(), y(y.ticks()), strict=True))
    names = (f'<text class="name" x="{_px((x.start + x.stop) / 2)}" y="{HEIGHT - 6}">{escape(x_name)}</text>'
             f'<text class="name" transform="translate(11 {_px((y.start + y.stop) / 2)}) rotate(-90)">'
             f"{escape(y_name)}</text>")
    return (f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(says)}">'
            f'<g class="grid">{grid}</g><g class="across">{marks}</g><g class="up">{levels}</g>{names}{body}</svg>')


def _margin(low: float, high: float) -> float:
    return 0.04 * (high - low) or 0.5 * abs(low) or 0.5


def _path(points: Sequence[tuple[float, float]], *, closed: bool = False) -> str:
    return "M" + "L".join(f"{_px(a)} {_px(b)}" for a, b in points) + ("Z" if closed else "")


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
