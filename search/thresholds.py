"""Thresholds on the cosine from which two texts mean the same or are related, as the export calibrated them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sentence_forge.encoders.fingerprint import same_model

LEAST_PRECISION = 0.5  # of `same`: below, it would mostly be said of pairs that differ


class Thresholds(NamedTuple):
    """The cosines from which two texts mean the ``same`` and are ``related``, and the data they were measured on.

    ``precision`` and ``recall`` are those of ``same``.
    """

    same: float
    related: float
    precision: float
    recall: float
    measured_on: str

    def of(self, score: float) -> str:
        """Return ``same``, ``related`` or nothing."""
        return "same" if score >= self.same else "related" if score >= self.related else ""


def in_words(found: Mapping[str, Any]) -> str:
    """Return whether hits will be marked by an export's thresholds, from which cosine on, and how often that is right.

    Args:
        found: what the export's manifest has as ``marks``.
    """
    same, on = found["same"], found["measured_on"]
    right = f"{100 * same['precision']:.0f} %"
    if same["precision"] < LEAST_PRECISION:
        return (f"a search will not mark hits as `same` or `related`: of the pairs of {on} with the cosine that tells "
                f"the same best, {same['cosine']:.3f}, or more, only {right} mean the same")
    return (f"a search will mark hits as `same` in meaning from a cosine of {same['cosine']:.3f} on: of the pairs of "
            f"{on} that are so near, {right} mean the same, and of those that mean the same, "
            f"{100 * same['recall']:.0f} % are so near")


def read_thresholds(export: Path, fingerprint: str) -> Thresholds | None:
    """Return the thresholds in an export's manifest.

    None without an export, where it is of another model, or where ``same`` was wrong more often than right.
    """
    try:
        about = json.loads((export / "manifest.json").read_text(encoding="utf-8"))
        found = about["marks"]
        same = found["same"]
        if not same_model(str(about["fingerprint"]), fingerprint) or same["precision"] < LEAST_PRECISION:
            return None
        return Thresholds(same["cosine"], found["related"]["cosine"], same["precision"], same["recall"],
                          found["measured_on"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # thresholds are optional; a broken export is reported elsewhere
