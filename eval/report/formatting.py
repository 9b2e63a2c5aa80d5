"""Format numbers, names and texts for reports: fractions are shown x 100, and control characters are made visible."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sentence_forge.runtime.errors import printable

if TYPE_CHECKING:
    from sentence_forge.eval.schema import Limits, MeanSd

MEASURES = {"spearman_cosine": "Spearman", "pearson_cosine": "Pearson", "mteb_main_score": "MTEB's main score"}


def plain(text: str) -> str:
    r"""Return other people's text in one line that is safe to show: see ``runtime.errors.printable``.

    >>> print(plain("a title" + chr(27) + "[2J, in two" + chr(10) + "lines"))
    a title\x1b[2J, in two lines
    """
    return printable(" ".join(text.split()))


def width_of(text: str) -> int:
    """Return how many columns of a terminal ``text`` takes: Chinese characters two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(each) or unicodedata.category(each) == "Cf"
               else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def hundred(value: float | None) -> str:
    """Return a fraction times 100 with two decimals; a dash for what could not be measured.

    >>> hundred(0.82031), hundred(None)
    ('82.03', '–')
    """
    return "–" if value is None else f"{100 * value:.2f}".replace("-", "−")


def change(value: float | None) -> str:
    """Return a difference times 100 with its sign; empty where there is none."""
    return "" if value is None else signed(value, 2)


def signed(value: float, decimals: int = 0) -> str:
    """Return a number times 100 with its sign; zero has none.

    >>> signed(0.5), signed(-0.00001, 2)
    ('+50', '0.00')
    """
    text = f"{100 * value:+.{decimals}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def interval(limits: Limits | None, *, sign: bool = False) -> str:
    """Return an interval times 100; a dash where there is none."""
    if limits is None:
        return "–"
    low, high = (change(limit) if sign else hundred(limit) for limit in limits)
    return f"{low} to {high}"


def p_value(p: float | None) -> str:
    """Return a p-value to three decimals, never as zero; a dash where there is none."""
    if p is None:
        return "–"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def mean_sd(found: MeanSd | None) -> str:
    """Return a mean and its standard deviation over seeds, x 100."""
    return "–" if found is None else f"{hundred(found['mean'])} ± {hundred(found['sd'])}"


def count(number: int | None) -> str:
    """Return a number of things; a dash where it is not known."""
    return "–" if number is None else f"{number:,}"


def verdict(delta_ci95: Limits | None) -> str:
    """Return ``good``, ``bad`` or ``same``: whether a difference's interval excludes zero, and on which side."""
    if delta_ci95 is None:
        return "same"
    low, high = delta_ci95
    return "good" if low > 0 else "bad" if high < 0 else "same"


def measure_name(measure: str) -> str:
    """Return how people call a measure of report.json.

    >>> measure_name("ndcg@10"), measure_name("triplet_accuracy")
    ('nDCG@10', 'triplet accuracy')
    """
    return MEASURES.get(measure, measure.replace("_", " ").replace("ndcg", "nDCG").replace("mrr", "MRR"))


def headline(averages: Mapping[str, object]) -> str:
    """Return the heading of a column of numbers: the one measure, or a word for several."""
    return measure_name(next(iter(averages))) if len(averages) == 1 else "score"
