"""The tables of a report as data, which pages, Markdown and terminals show alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sentence_forge.eval.report.formatting import change, hundred, interval, p_value, verdict
from sentence_forge.eval.schema import Limits


@dataclass(frozen=True)
class Bar:
    """A number with its interval, drawn on the scale that a column shares; ``old`` for the baseline's."""

    value: float
    limits: Limits | None
    old: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        text: what every form shows.
        value: what a page sorts by.
        note: a page's small second line; in parentheses elsewhere.
        kind: a page's CSS class.
        share: 0 to 1, a page's shade or bar behind the text.
        link: a page's address.
        bars: numbers that a page draws instead of the text.
    """

    text: str
    value: float | None = None
    note: str = ""
    kind: str = ""
    share: float | None = None
    link: str = ""
    bars: Sequence[Bar] = ()

    @property
    def line(self) -> str:
        """The text with its note, as forms without small print have it."""
        return f"{self.text} ({self.note})" if self.note else self.text


@dataclass(frozen=True)
class Column:
    """A column's heading, whether it holds texts, and whether a page alone has it, since it is drawn."""

    head: str
    texts: bool = False
    drawn: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        key: its name among a report's tables.
        title: its heading.
        columns: of each row.
        rows: as many cells each as there are columns.
        more: small print beside the heading.
        caption: a sentence or two below it.
        sortable: a page's headings sort it.
        folded: a page shows it on a click.
        kind: a page's CSS class.
    """

    key: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    more: str = ""
    caption: str = ""
    sortable: bool = False
    folded: bool = False
    kind: str = "small"

    def lines(self) -> list[list[str]]:
        """Return the headings and the rows as text, without what is drawn."""
        kept = [number for number, column in enumerate(self.columns) if not column.drawn]
        return [[self.columns[number].head for number in kept],
                *([row[number].line for number in kept] for row in self.rows)]

    def texts(self) -> list[bool]:
        """Return which columns of ``lines`` hold texts."""
        return [column.texts for column in self.columns if not column.drawn]


def columns(*heads: str, texts: Iterable[str] = ()) -> list[Column]:
    """Return columns of numbers, but for those in ``texts``; without such, the first one is of texts."""
    kinds = set(texts) or {heads[0]}
    return [Column(head, head in kinds) for head in heads]


def number(value: float | None, limits: Limits | None = None, kind: str = "") -> Cell:
    """Return the cell of a fraction with its interval."""
    return Cell(hundred(value), value, "" if limits is None else interval(limits), kind)


def gain(delta: float, limits: Limits | None = None, p: float | None = None, kind: str = "") -> Cell:
    """Return the cell of a difference with its interval and p, where they are known."""
    note = "" if limits is None else interval(limits, sign=True) + ("" if p is None else f", {p_value(p)}")
    return Cell(change(delta), delta, note, f"{kind} {verdict(limits)}".strip())
