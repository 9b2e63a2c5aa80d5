"""Find where a model fails: the pairs it ranks most wrongly, what changed against a baseline, and kinds of pairs.

A pair's error is its rank by cosine less its rank by gold, as a share of the pairs: +0.4 means that 40 % of all pairs
were passed that should stand above it. Ranks, because Spearman is of ranks, and because they compare across models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sentence_forge.data_readers.checks import normalise
from sentence_forge.eval.schema import PairError, Slice
from sentence_forge.eval.stats import Floats, midranks
from sentence_forge.eval.tasks.base import Bools, TaskResult

SHOWN = 12  # pairs a list
Unit = tuple[str, ...]

_TOKEN = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")
_NEGATION = re.compile(r"\b(?:not|no|never|none|nobody|nothing|nowhere|neither|nor|cannot|without|fail(?:s|ed)? to)\b"
                       r"|n['’]t\b|[不没沒未勿]|[无無](?!线)|非(?![常洲])|(?<![特区分级性个类识告])别(?!墅)")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred|"
                     r"thousand|million|billion)\b|[二两三四五六七八九十百千万亿]+")


def rank_errors(result: TaskResult) -> Floats:
    """Return each pair's error [n], in -1 to 1: positive where the model says more alike than people do."""
    assert result.cosine is not None and result.gold is not None
    return (midranks(result.cosine) - midranks(result.gold)) / len(result.gold)


def worst(result: TaskResult, units: Sequence[Unit], shown: int = SHOWN) -> list[PairError]:
    """Return the pairs with the largest errors, up to ``shown`` of either direction, the largest first."""
    error = rank_errors(result)
    order = np.argsort(error, kind="stable")
    low = _first(order[error[order] < 0], units, shown)
    high = _first(order[error[order] > 0][::-1], units, shown)
    chosen = sorted([*low, *high], key=lambda row: -abs(error[row]))
    return [_described(result, units, row, error[row]) for row in chosen]


def changes(result: TaskResult, before: TaskResult, units: Sequence[Unit], shown: int = SHOWN) -> list[PairError]:
    """Return the pairs whose error grew or shrank most against ``before``, the largest change first.

    ``change`` is by how much the error's size fell: positive is better.
    """
    now, then = rank_errors(result), rank_errors(before)
    better = np.abs(then) - np.abs(now)
    order = np.argsort(better, kind="stable")
    chosen = [*_first(order[better[order] < 0], units, shown), *_first(order[better[order] > 0][::-1], units, shown)]
    assert before.cosine is not None
    return [{**_described(result, units, row, now[row]), "cosine_before": _rounded(before.cosine[row]),
             "error_before": _rounded(then[row]), "change": _rounded(better[row])}
            for row in sorted(chosen, key=lambda row: -abs(better[row]))]


def slices(result: TaskResult, units: Sequence[Unit], domains: Sequence[str] | None) -> dict[str, Slice]:
    """Return ``n``, the measure (where it is defined) and the mean error of each slice of the pairs.

    A slice with a positive ``bias`` is one the model takes to be more alike than people do, whatever its measure:
    within a slice of like scores a correlation is low by itself.
    """
    error = rank_errors(result)
    found: dict[str, Slice] = {}
    for name, mask in _masks(result, units, domains):
        if mask.any():
            found[name] = Slice(n=int(mask.sum()), value=result.measure_on(mask), bias=_rounded(error[mask].mean()))
    return found


def overlap(unit: Unit) -> float:
    """Return the share of words (in Chinese, characters) that two texts have in common, of all in either (Jaccard)."""
    left, right = (set(_TOKEN.findall(normalise(text))) for text in (unit[0], unit[-1]))
    return len(left & right) / max(1, len(left | right))


def negation_flips(unit: Unit) -> bool:
    """Return whether one text is negated and the other is not."""
    return bool(_NEGATION.search(unit[0].lower())) != bool(_NEGATION.search(unit[-1].lower()))


def number_flips(unit: Unit) -> bool:
    """Return whether both texts hold numbers and these differ."""
    left, right = (set(_NUMBER.findall(text.lower())) for text in (unit[0], unit[-1]))
    return bool(left and right and left != right)


def _masks(result: TaskResult, units: Sequence[Unit], domains: Sequence[str] | None) -> list[tuple[str, Bools]]:
    assert result.gold is not None
    gold = midranks(result.gold) / len(result.gold)
    shared = np.array([overlap(unit) for unit in units])
    length = np.array([sum(len(_TOKEN.findall(text)) for text in unit) / len(unit) for unit in units])
    short, long = np.quantile(length, [1 / 3, 2 / 3])
    few, many = np.quantile(shared, [1 / 3, 2 / 3])
    similar = (shared >= many) & (shared > few)
    named = [(f"domain: {name}", np.array([each == name for each in domains])) for name in sorted(set(domains))
             ] if domains else []
    return [
        *named,
        (f"short, up to {short:.0f} words", length <= short),
        (f"long, from {long:.0f} words", (length >= long) & (length > short)),
        (f"few words shared, up to {100 * few:.0f} %", shared <= few),
        (f"many words shared, from {100 * many:.0f} %", similar),
        ("many words shared, not the meaning", similar & (gold <= 1 / 3)),
        ("few words shared, the same meaning", (shared <= few) & (gold > 2 / 3)),
        ("one side negated", np.array([negation_flips(unit) for unit in units])),
        ("numbers differ", np.array([number_flips(unit) for unit in units])),
    ]


def _first(rows: NDArray[np.int_], units: Sequence[Unit], shown: int) -> list[int]:
    """Return the first of ``rows`` with ``shown`` different pairs; a test set may hold a pair many times."""
    found: dict[Unit, int] = {}
    for row in rows:
        if len(found) == shown:
            break
        found.setdefault(units[row], int(row))
    return list(found.values())


def _described(result: TaskResult, units: Sequence[Unit], row: int, error: float) -> PairError:
    assert result.cosine is not None and result.gold is not None
    return {"row": int(row) + 1, "text1": units[row][0], "text2": units[row][-1], "gold": float(result.gold[row]),
            "cosine": _rounded(result.cosine[row]), "error": _rounded(error)}


def _rounded(value: float) -> float:
    return round(float(value), 6)
