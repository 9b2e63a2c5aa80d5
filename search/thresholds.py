"""Thresholds on the cosine from which two texts mean the same or are related, as the export calibrated them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

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
