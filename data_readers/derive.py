"""Turn rows of one shape into another that follows from it: NLI rows into triplets, labelled texts into titles."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from sentence_forge.data_readers.shapes import NLI_LABELS
from sentence_forge.data_readers.table import ROW, NoRows, Table, rows_at
from sentence_forge.runtime.errors import UserError

logger = logging.getLogger(__name__)


def also_given(own: str, labels: Sequence[str] | Mapping[str, str | None] | None, pair_label: str) -> list[str]:
    """Return the shapes that follow from the shape ``own``.

    Args:
        own: the shape of the rows.
        labels: those that may occur, or a mapping to their names; None is NLI's.
        pair_label: the label of rows that are also an anchor and its positive.
    """
    if own == "pair_class":
        names = set(labels.values() if isinstance(labels, Mapping) else labels or NLI_LABELS)
        needed = {"triplet": {"entailment", "contradiction"}, "pair": {pair_label}}
        return [shape for shape, those in needed.items() if those <= names]
    return {"labelled_text": ["titles", "pair"], "titles": ["pair"]}.get(own, [])


def in_shape(table: Table, own: str, shape: str, pair_label: str) -> Table:
    """Return a table of the shape ``own`` in ``shape``, which is the same or follows from it."""
    if own == "pair_class" and shape != own:
        return triplets(table) if shape == "triplet" else pairs(table, pair_label)
    if own == "labelled_text":
        if shape == own:
            return labelled(table)
        table = titles(table)
    return self_pairs(table) if shape == "pair" and own in ("labelled_text", "titles") else table


def labelled(table: Table) -> Table:
    """Return the rows with a label, and say how many have none.

    Raises:
        NoRows: none has one.
    """
    kept = [position for position, label in enumerate(table["label"]) if label.strip()]
    if not kept:
        raise NoRows("column label: every label is empty; use a loss that takes titles or pairs")
    if len(kept) < len(table[ROW]):
        logger.info("%d of %d rows have no label and are left out", len(table[ROW]) - len(kept), len(table[ROW]))
    return rows_at(table, kept)


def triplets(table: Table) -> Table:
    """Return (anchor, positive, negative) from NLI rows: a premise, a text it entails, a text it contradicts.

    The entailments and contradictions of a premise are joined one to one in file order, and the shorter list is cycled,
    so that every hypothesis occurs and a premise gives ``max(n, m)`` rows. A contradiction that is elsewhere an
    entailment of the same premise is left out. ``row`` is the entailment's.

    sentence-transformers' ``training_nli_v2.py`` does otherwise: it draws one entailment and one contradiction a
    premise at random, and takes each hypothesis for a premise too, with the same label.

    Raises:
        UserError: no premise has both an entailment and a contradiction.
    """
    found: dict[str, tuple[list[int], list[int]]] = {}
    for position, (premise, label) in enumerate(zip(table["premise"], table["label"], strict=True)):
        if label in ("entailment", "contradiction"):
            found.setdefault(premise, ([], []))[label == "contradiction"].append(position)
    result: Table = {"anchor": [], "positive": [], "negative": [], ROW: []}
    hypotheses = table["hypothesis"]
    for premise, (positives, contradictions) in found.items():
        entailed = {hypotheses[position] for position in positives}  # the annotators may disagree
        negatives = [position for position in contradictions if hypotheses[position] not in entailed]
        for turn in range(max(len(positives), len(negatives)) if positives and negatives else 0):
            positive, negative = positives[turn % len(positives)], negatives[turn % len(negatives)]
            result["anchor"].append(premise)
            result["positive"].append(hypotheses[positive])
            result["negative"].append(hypotheses[negative])
            result[ROW].append(table[ROW][positive])
    if not result[ROW]:
        raise UserError("no premise has both an entailment and a contradiction, so no triplets can be made; "
                        "use a loss that takes pair_class or pair")
    return result


def reversed_too(table: Table) -> Table:
    """Return triplets each followed by (positive, anchor, negative), the reverse sample of ``training_nli_v2.py``."""
    swapped = table | {"anchor": table["positive"], "positive": table["anchor"]}
    return {name: [cell for both in zip(column, swapped[name], strict=True) for cell in both]
            for name, column in table.items()}


def pairs(table: Table, label: str = "entailment") -> Table:
    """Return (anchor, positive) from labelled pairs: premise and hypothesis of each row with ``label``.

    Raises:
        UserError: there is no such row.
    """
    chosen = rows_at(table, [position for position, found in enumerate(table["label"]) if found == label])
    if not chosen[ROW]:
        raise NoRows(f"no row is labelled {label}, so no pairs can be made")
    return {"anchor": chosen["premise"], "positive": chosen["hypothesis"], ROW: chosen[ROW]}


def self_pairs(table: Table) -> Table:
    """Return (anchor, positive) from titles: each twice, under two dropout masks (SimCSE, Gao et al., 2021)."""
    return {"anchor": table["title"], "positive": list(table["title"]), ROW: table[ROW]}


def titles(table: Table) -> Table:
    """Return titles from labelled texts."""
    return {"title": table["text"], ROW: table[ROW]}
