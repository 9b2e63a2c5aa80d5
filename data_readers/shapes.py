"""The six shapes a row of data can have: what a reader yields and a loss takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A row's shape.

    Args:
        name: what YAML and errors call it.
        texts: the columns that hold text, in the order in which a loss sees their embeddings.
        label: the column a loss takes as its label, if there is one.
        more_texts: whether further columns ``<last text column>_2``, ``_3``, ... may follow (hard negatives).
        retrieval: whether the first text is a query that should find the second: a model with prompts for queries and
            documents puts each before its own.
    """

    name: str
    texts: tuple[str, ...]
    label: str | None = None
    more_texts: bool = False
    retrieval: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns a row must have."""
        return self.texts if self.label is None else (*self.texts, self.label)

    def text_columns(self, present: list[str]) -> list[str]:
        """Return the text columns among ``present``, numbered extras included, in the loss's order."""
        extras = []
        if self.more_texts:
            number = 2
            while f"{self.texts[-1]}_{number}" in present:
                extras.append(f"{self.texts[-1]}_{number}")
                number += 1
        return [*self.texts, *extras]


PAIR_CLASS = Shape("pair_class", ("premise", "hypothesis"), "label")
PAIR_SCORE = Shape("pair_score", ("sentence1", "sentence2"), "score")
PAIR = Shape("pair", ("anchor", "positive"), retrieval=True)
TRIPLET = Shape("triplet", ("anchor", "positive", "negative"), more_texts=True, retrieval=True)
LABELLED_TEXT = Shape("labelled_text", ("text",), "label")
TITLES = Shape("titles", ("title",))

SHAPES: dict[str, Shape] = {
    shape.name: shape for shape in (PAIR_CLASS, PAIR_SCORE, PAIR, TRIPLET, LABELLED_TEXT, TITLES)
}
NLI_LABELS = ("entailment", "neutral", "contradiction")
