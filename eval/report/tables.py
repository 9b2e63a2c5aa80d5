"""The tables of a report, each made once: pages, Markdown and terminals only render them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

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
        note: a page's small second line; text forms have columns of their own for it.
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


@dataclass(frozen=True)
class Column:
    """A column's heading, whether it holds texts, and whether only one form shows it."""

    head: str
    texts: bool = False
    only: Literal["", "page", "text"] = ""


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

    def shown(self, form: Literal["page", "text"]) -> tuple[list[Column], list[list[Cell]]]:
        """Return the columns of a form and its rows."""
        kept = [number for number, column in enumerate(self.columns) if column.only in ("", form)]
        return [self.columns[number] for number in kept], [[row[number] for number in kept] for row in self.rows]


def columns(*heads: str, texts: Iterable[str] = ()) -> list[Column]:
    """Return columns of numbers, but for those in ``texts``; without such, the first one is of texts."""
    kinds = set(texts) or {heads[0]}
    return [Column(head, head in kinds) for head in heads]


def overview(about: ReportJson) -> list[Table]:
    """Return the tables over all tasks, those that would be empty left out."""
    made = (tasks_table(about), models_table(about), dims_table(about), trust_table(about))
    return [table for table in made if table is not None]


def task_title(name: str, row: TaskRow) -> str:
    """Return what a heading calls a task."""
    return f"{row['label']} ({name})" if row.get("label") else name


def tasks_table(about: ReportJson) -> Table:
    """Return a row a task, then the averages, with the difference from the baseline where there is one."""
    before = about.get("baseline")
    several = len(about["averages"]) > 1
    pearson = any("pearson_cosine" in row for row in about["tasks"].values())
    heads = [Column("task", texts=True), *[Column("measure", only="text")] * several,
             Column(headline(about["averages"])), Column("95 %", only="text"), Column("", only="page")]
    if before:
        heads += [*(Column(head, only="text") for head in ("before", "change", "95 %", "p")),
                  Column(f"against {before['model']}", only="page")]
    heads += [*[Column("Pearson")] * pearson, Column("scored"), Column("texts cut")]

    def line(title: Cell, score: Score, old: Score | None, measure: str, last: Sequence[Cell]) -> list[Cell]:
        bars, spread = [Bar(score["value"], score["ci95"])], interval(score["ci95"])
        cells = [title, *[Cell(measure_name(measure))] * several,
                 Cell(hundred(score["value"]), note=spread, kind="value"), Cell(spread)]
        gain = []
        if before and old:
            bars.insert(0, Bar(old["value"], old["ci95"], old=True))
            sure = interval(old["delta_ci95"], sign=True)
            gain = [Cell(hundred(old["value"])), Cell(change(old["delta"])), Cell(sure), Cell(p_value(old["p"])),
                    Cell(change(old["delta"]), note=f"{sure}, {p_value(old['p'])}",
                         kind=f"change {verdict(old['delta_ci95'])}")]
        elif before:
            gain = [Cell("–"), Cell(""), Cell(""), Cell(""), Cell("–", kind="change same")]
        return [*cells, Cell("", kind="span", bars=bars), *gain, *last]

    rows = []
    for name, row in about["tasks"].items():
        old = before["tasks"].get(name) if before else None
        r = hundred(row["pearson_cosine"]) if "pearson_cosine" in row else ""
        last = [*[Cell(r, kind="minor first")] * pearson, Cell(count(row["n"]), kind="minor second"),
                Cell(count(row["truncated"]), kind="minor third")]
        title = Cell(task_title(name, row), note=measure_name(row["measure"]) if several else "", link=f"#{name}")
        rows.append(line(title, _score(row), old and _score_before(old), row["measure"], last))
    for measure, mean in about["averages"].items():
        if mean["tasks"] > 1:
            title = Cell(f"average {measure_name(measure)}" if several else "average", kind="total")
            rows.append(line(title, mean, before["averages"].get(measure) if before else None, measure,
                             [Cell("", kind="minor")] * (2 + pearson)))
    return Table("tasks", "Tasks", heads, rows, kind="summary",
                 caption="Filled: this model. Hollow: the one that it is compared with." if before else "")


def _score(row: TaskRow) -> Score:
    """Return the number that counts of a task's row, as averages have it."""
    return Score(value=value(row), ci95=limits(row))


def _score_before(row: TaskGain) -> Score:
    """Return the baseline's number on a task and the difference from it."""
    return Score(value=value(row), ci95=limits(row), delta=row["delta"], delta_ci95=row["delta_ci95"], p=row["p"])


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
        note = (f"{change(found['delta'])}, {interval(found['delta_ci95'], sign=True)}" if "delta" in found
                else interval(found["ci95"]))
        return Cell(hundred(found["value"]), found["value"], note, "best" if found["value"] == best[name] else "")

    rows = [[Cell(row["model"]), *(cell(name, row["tasks"].get(name)) for name in names),
             Cell(hundred(row["average"]), row["average"])] for row in models]
    rows += [[Cell(f"{row['model']}, mean ± sd of {len(row['seeds'])} seeds", kind="total"),
              *(Cell(mean_sd(row["tasks"].get(name))) for name in names), Cell(mean_sd(row["average"]))]
             for row in about.get("seeds", ())]
    note = "the difference from the baseline, with its 95 % interval" if about.get("baseline") else "the 95 % interval"
    return Table("models", "Models", columns("model", *names, f"average {measure_name(next(iter(about['averages'])))}"),
                 rows, caption=f"Small: {note}. The highest of each task is bold.")


def dims_table(about: ReportJson) -> Table | None:
    """Return what cutting the vectors loses, a row a dimension; None where there is none but the model's own."""
    found = about.get("dims", [])
    if len(found) < 2:
        return None
    names = list(found[0]["tasks"])
    several = len(names) > 1
    rows = []
    for row in found:
        scores = [row["tasks"].get(name) for name in names]
        average = row.get("average")
        rows.append([Cell(str(row["dim"]), row["dim"]), *(Cell(hundred(score and score["value"])) for score in scores),
                     *[Cell(hundred(average and average["value"]))] * several,
                     Cell(change(average.get("delta")) if average else ""),
                     Cell(interval(average["delta_ci95"], sign=True) if average and average.get("delta_ci95") else "")])
    heads = columns("dimensions", *names, *["average"] * several, "difference", "95 %")
    return Table("dims", "Cut to fewer dimensions", heads, rows,
                 caption="The first numbers of each vector, as many as the row says, brought to length 1. Difference: "
                         "from whole vectors, of the average, over the same resamples.")


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
                    "without", "change without", *["mean of sub-sets"] * means)
    return Table("trust", "How far to trust it", heads, rows,
                 caption=f"{trained_on(about)} Normalised: without case, punctuation and runs of spaces, the texts of "
                         "a pair in any order. The score that counts is over all rows, sub-sets joined (“all”); the "
                         "mean of sub-sets is SentEval's other protocol.")


def _overlap(known: TrainedOn | None, row: TaskRow) -> list[Cell]:
    score = Cell(hundred(value(row)))
    if known is None:
        return [*[Cell("?", kind="same")] * 3, score, Cell("?", kind="same"), Cell("")]
    without = known.get("without")
    last = [Cell("same", kind="same"), Cell("")]
    if without:
        gain = Cell("")
        if "delta" in without:
            sure = interval(without["delta_ci95"], sign=True) if "delta_ci95" in without else ""
            gain = Cell(change(without["delta"]), note=sure)
        last = [Cell(f"{hundred(without['value'])} of {without['n']:,}"), gain]
    return [_share(known["exact"], row["n"]), _share(known["normalised"], row["n"]),
            _share(known["texts"], known["of_texts"]), score, *last]


def _share(number: int | None, of: int | None) -> Cell:
    if not number:
        return Cell(count(number), kind="same")
    return Cell(count(number), number, note=f"{100 * number / max(1, of or 0):.1f} %")
