"""The tables of a report, each made once: pages, Markdown and terminals only render them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from sentence_forge.eval.report.formatting import (
    change,
    count,
    headline,
    hundred,
    interval,
    mean_sd,
    measure_name,
    p_value,
    verdict,
)
from sentence_forge.eval.report.sentences import trained_on
from sentence_forge.eval.schema import Limits, ReportJson, Score, TaskGain, TaskRow, TrainedOn, limits, value


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
        more: what stands small beside the heading.
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


def overview(about: ReportJson) -> list[Table]:
    """Return the tables over all tasks, those that would be empty left out."""
    made = (tasks_table(about), models_table(about), dims_table(about), trust_table(about))
    return [table for table in made if table is not None]


def task_title(name: str, row: TaskRow) -> str:
    """Return what a heading calls a task."""
    return f"{row['label']} ({name})" if row.get("label") else name


def tasks_table(about: ReportJson) -> Table:
    """Return a row a task, then the averages, with the difference from the baseline where there is one."""
    baseline = about.get("baseline")
    several = len(about["averages"]) > 1
    pearson = any("pearson_cosine" in row for row in about["tasks"].values())
    heads = [Column("task", texts=True), Column(headline(about["averages"])), Column("", drawn=True),
             *[Column("baseline"), Column("difference")] * bool(baseline), *[Column("Pearson")] * pearson,
             Column("scored"), Column("texts cut")]

    def line(title: Cell, now: Score, then: Score | None, last: Sequence[Cell]) -> list[Cell]:
        bars = [Bar(now["value"], now["ci95"])]
        compared = [Cell("–", kind="baseline"), Cell("–", kind="change same")]
        if then:
            bars.insert(0, Bar(then["value"], then["ci95"], old=True))
            compared = [number(then["value"], kind="baseline"),
                        gain(then["delta"], then["delta_ci95"], then["p"], "change")]
        return [title, number(now["value"], now["ci95"], "value"), Cell("", kind="span", bars=bars),
                *compared * bool(baseline), *last]

    rows = []
    for name, row in about["tasks"].items():
        r = hundred(row["pearson_cosine"]) if "pearson_cosine" in row else ""
        title = Cell(task_title(name, row), note=measure_name(row["measure"]) if several else "", link=f"#{name}")
        old = baseline["tasks"].get(name) if baseline else None
        rows.append(line(title, _score(row), old and _score(old), [
            *[Cell(r, kind="minor first")] * pearson, Cell(count(row["n"]), kind="minor second"),
            Cell(count(row["truncated"]), kind="minor third")]))
    for measure, mean in about["averages"].items():
        if mean["tasks"] > 1:
            title = Cell(f"average {measure_name(measure)}" if several else "average", kind="total")
            rows.append(line(title, mean, baseline["averages"].get(measure) if baseline else None,
                             [Cell("", kind="minor")] * (2 + pearson)))
    return Table("tasks", "Tasks", heads, rows, kind="summary",
                 caption="Filled: this model. Hollow: the baseline." if baseline else "")


def _score(row: TaskRow | TaskGain) -> Score:
    """Return a task's number, and the difference where the row has one, as averages have them."""
    return cast("Score", {**row, "value": value(row), "ci95": limits(row)})


def models_table(about: ReportJson) -> Table | None:
    """Return a row a model and a task a column; runs that differ in their seed alone as mean and sd."""
    models = about.get("models")
    if not models:
        return None
    names = list(about["tasks"])
    best = {name: max((row["tasks"][name]["value"] for row in models if name in row["tasks"]), default=0.0)
            for name in names}

    def cell(name: str, found: Score | None) -> Cell:
        if found is None:
            return Cell("–")
        note = gain(found["delta"], found["delta_ci95"]).line if "delta" in found else interval(found["ci95"])
        return Cell(hundred(found["value"]), found["value"], note, "best" if found["value"] == best[name] else "")

    rows = [[Cell(row["model"]), *(cell(name, row["tasks"].get(name)) for name in names), number(row["average"])]
            for row in models]
    rows += [[Cell(f"{row['model']}, mean ± sd of {len(row['seeds'])} seeds", kind="total"),
              *(Cell(mean_sd(row["tasks"].get(name))) for name in names), Cell(mean_sd(row["average"]))]
             for row in about.get("seeds", ())]
    note = "the difference from the baseline, with its 95 % interval" if about.get("baseline") else "the 95 % interval"
    return Table("models", "Models", columns("model", *names, f"average {measure_name(next(iter(about['averages'])))}"),
                 rows, caption=f"Below each score: {note}. The highest of each task is bold.")


def dims_table(about: ReportJson) -> Table | None:
    """Return what cutting the vectors loses, a row a dimension; None where there is none but the model's own."""
    found = about.get("dims", [])
    if len(found) < 2:
        return None
    names = list(found[0]["tasks"])
    several = len(names) > 1
    rows = []
    for row in found:
        average = row.get("average")
        scores = [*(row["tasks"].get(name) for name in names), *[average] * several]
        rows.append([Cell(str(row["dim"]), row["dim"]), *(number(score["value"] if score else None)
                                                          for score in scores),
                     gain(average["delta"], average["delta_ci95"]) if average and "delta" in average else Cell("")])
    return Table("dims", "Cut to fewer dimensions", columns("dimensions", *names, *["average"] * several, "difference"),
                 rows, caption="The first numbers of each vector, as many as the row says, brought to length 1. "
                               "Difference: from whole vectors, of the average, over the same resamples.")


def trust_table(about: ReportJson) -> Table | None:
    """Return how far each score can be trusted: what repeats, what was cut, what was trained on, the score without."""
    tasks = {name: (row, row["honesty"]) for name, row in about["tasks"].items() if "honesty" in row}
    if not tasks:
        return None
    means = any("spearman_cosine_mean_of_domains" in row for row, _ in tasks.values())
    rows = []
    for name, (row, found) in tasks.items():
        mean = row.get("spearman_cosine_mean_of_domains")
        rows.append([Cell(name), _share(row["truncated"], row["texts"]), _share(found["duplicates"], row["n"]),
                     *_overlap(found["trained_on"], row), *[Cell("" if mean is None else hundred(mean))] * means])
    heads = columns("task", "texts cut", "repeated", "trained on, to the letter", "normalised", "texts seen", "score",
                    "without", "difference without", *["mean of sub-sets"] * means)
    return Table("trust", "How far to trust it", heads, rows,
                 caption=f"{trained_on(about)} Normalised: without case, punctuation and runs of spaces, the texts of "
                         "a pair in any order. The score that counts is over all rows, sub-sets joined (“all”); the "
                         "mean of sub-sets is SentEval's other protocol.")


def _overlap(known: TrainedOn | None, row: TaskRow) -> list[Cell]:
    score = number(value(row))
    if known is None:
        return [*[Cell("?", kind="same")] * 3, score, Cell("?", kind="same"), Cell("")]
    without = known.get("without")
    last = [Cell("same", kind="same"), Cell("")]
    if without:
        last = [Cell(f"{hundred(without['value'])} of {without['n']:,}"),
                gain(without["delta"], without.get("delta_ci95")) if "delta" in without else Cell("")]
    return [_share(known["exact"], row["n"]), _share(known["normalised"], row["n"]),
            _share(known["texts"], known["of_texts"]), score, *last]


def _share(found: int | None, of: int | None) -> Cell:
    if not found:
        return Cell(count(found), kind="same")
    return Cell(count(found), found, note=f"{100 * found / max(1, of or 0):.1f} %")
