"""The Markdown tables of what ``bench.recipes`` has kept: of recipes, judged searches, speeds and searches by task."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]
START = "untouched"


def table(lines: Sequence[Line]) -> str:
    """Return kept lines as a Markdown table: of recipes, of judged searches, of speeds or of searches by task."""
    made: Callable[[Sequence[Line]], list[str]] = (
        of_recipes if "recipe" in lines[0] else of_judged if "judged" in lines[0]
        else of_speeds if lines[0]["unit"] == "titles/s" else of_searches)
    return "\n".join(made(lines))


def of_recipes(lines: Sequence[Line]) -> list[str]:
    """Return a table of a row a recipe: each task's score x 100 and its paired gain over the beginning.

    Over several seeds these are means, and the interval reaches from the lowest end to the highest; speed and minutes
    are medians.
    """
    start, *others = lines
    measures = {task: row["measure"] for task, row in start["tasks"].items()}
    rows = [[START, *(_score(row["value"]) for row in start["tasks"].values()), "", "", ""]]
    for recipe in dict.fromkeys(line["recipe"] for line in others):
        seeds = [line for line in others if line["recipe"] == recipe]
        cells = [_over_seeds([line["tasks"][task] for line in seeds]) for task in measures]
        cost = [[line[key] for line in seeds if line.get(key)] for key in ("rows_per_second", "minutes")]
        medians = [statistics.median(each) if each else None for each in cost]
        rows.append([recipe, *cells, str(len(seeds)),
                     *("" if each is None else f"{each:.0f}" if each >= 1 else f"{each:.1f}" for each in medians)])
    return [*_table(["", *(f"{task}, {measure}" for task, measure in measures.items()), "seeds", "rows/s", "minutes"],
                    rows), *_of_other_measures(lines)]


def _of_other_measures(lines: Sequence[Line]) -> list[str]:
    """Return a second table, of what else was measured of rankings, means over the seeds; none where nothing was."""
    columns = [(task, measure) for task, score in lines[-1]["tasks"].items() for measure in score.get("also", ())
               if measure in ("ndcg@10", "mrr@10")]
    if not columns:
        return []
    kept = [line for line in lines if all("also" in line["tasks"][task] for task, _ in columns)]
    rows = ([recipe, *(_score(statistics.fmean(line["tasks"][task]["also"][measure] for line in kept
                                               if line["recipe"] == recipe)) for task, measure in columns)]
            for recipe in dict.fromkeys(line["recipe"] for line in kept))
    return ["", *_table(["", *(f"{task}, {measure}" for task, measure in columns)], rows)]


def of_judged(lines: Sequence[Line]) -> list[str]:
    """Return a table of a row a search, from what ``bench.judge`` measured; gains are over the first search."""
    names = ("ndcg@10", "precision@10", "mrr@10")
    return _table(["", *names, "judged"], ([Path(line["name"]).stem, *(_cell(line, name) for name in names),
                                            f"{100 * line['judged']:.0f} %"] for line in lines))


def of_speeds(lines: Sequence[Line]) -> list[str]:
    """Return a table of a row a model, from what ``bench.curve`` measured; gains are over the first model."""
    return _table(["", "titles/s", "ndcg@10"], ([line["name"], f"{line['value']:,.0f}", _cell(line, "ndcg@10")]
                                                for line in lines))


def of_searches(lines: Sequence[Line]) -> list[str]:
    """Return a table of a row a search, from what ``bench.bm25 tasks`` measured; gains are over the vectors."""
    rows: dict[str, list[str]] = {}
    header = {}
    for line in lines:
        task, _, search = line["name"].partition(", ")
        measure = line["unit"].removesuffix(" x 100")
        header[f"{task}, {measure}"] = None
        rows.setdefault(search, [search]).append(_cell(line, measure))
    return _table(["", *header], rows.values())


def _over_seeds(scores: Sequence[Mapping[str, Any]]) -> str:
    ends = [min(score["delta_ci95"][0] for score in scores), max(score["delta_ci95"][1] for score in scores)]
    return _gain(statistics.fmean(score["value"] for score in scores),
                 statistics.fmean(score["delta"] for score in scores), ends)


def _cell(line: Line, name: str) -> str:
    """Return a measure with its interval, or with what it gains where a line says that."""
    exact = str(line.get("unit", "")).lower().startswith(name)  # what stands under the name is rounded
    value = line["value"] if exact else line[name]
    if f"{name}_delta" not in line:
        return f"{value:.1f} [{line[f'{name}_ci95'][0]:.1f}, {line[f'{name}_ci95'][1]:.1f}]"
    return _gain(value / 100, line[f"{name}_delta"] / 100, [end / 100 for end in line[f"{name}_delta_ci95"]])


def _gain(value: float, delta: float, ends: Sequence[float]) -> str:
    """Return a score with its gain, bold where the interval leaves out zero."""
    said = f"{100 * delta:+.1f} [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]"
    return f"{_score(value)} {f'**{said}**' if ends[0] > 0 or ends[1] < 0 else said}"


def _score(value: float) -> str:
    return f"{100 * value:.1f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
