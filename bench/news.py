"""The tables of RESULTS.md about Chinese news, from what the commands wrote, so that no figure is typed.

``python -m bench.news [EVALUATION...] [--judged LINES] [--systems LINES]``: an evaluation is the folder that ``python
-m eval model=<run> baseline=e5_small suite=news_zh output=<recipe>-<seed>`` wrote; seeds of a recipe become one row.
LINES are what ``python -m bench.judge score`` and ``python -m bench.bm25 tasks`` printed.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.process import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.news", description=__doc__)
    parser.add_argument("evaluations", nargs="*", type=Path)
    parser.add_argument("--judged", type=Path, help="lines of python -m bench.judge score")
    parser.add_argument("--systems", type=Path, help="lines of python -m bench.bm25 tasks")
    arguments = parser.parse_args(argv)
    return run(lambda: _print(arguments.evaluations, arguments.judged, arguments.systems))


def _print(evaluations: Sequence[Path], judged: Path | None, systems: Path | None) -> None:
    tables = [of_recipes(evaluations)] if evaluations else []
    for path, table_of in ((judged, of_judged), (systems, of_systems)):
        if path is not None:
            tables.append(table_of([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]))
    sys.stdout.write("\n\n".join("\n".join(table) for table in tables) + "\n")


def of_recipes(folders: Sequence[Path]) -> list[str]:
    """Return a table of a row a recipe: each task's score x 100 and its paired gain over the untouched model.

    Over several seeds these are means, and the interval reaches from the lowest end to the highest.

    Raises:
        UserError: an evaluation is not there, has no baseline, or has another baseline or suite than the first.
    """
    recipes: dict[str, list[dict[str, Any]]] = {}
    for folder in folders:
        report = _report(folder)
        first = next(iter(recipes.values()), [report])[0]
        for about in (lambda each: each["baseline"]["fingerprint"], lambda each: list(each["tasks"])):
            if about(report) != about(first):
                raise UserError(f"{folder}: has another baseline or other tasks than {folders[0]}; evaluate all alike")
        recipes.setdefault(re.sub(r"-\d+$", "", folder.name), []).append(report)
    some = next(iter(recipes.values()))[0]
    measures = {task: row["measure"] for task, row in some["tasks"].items()}
    before = some["baseline"]["tasks"]
    rows = [["untouched", *(_score(before[task][measure]) for task, measure in measures.items()), ""]]
    for recipe, reports in recipes.items():
        cells = []
        for task, measure in measures.items():
            gains = [report["baseline"]["tasks"][task] for report in reports]
            ends = [min(gain["delta_ci95"][0] for gain in gains), max(gain["delta_ci95"][1] for gain in gains)]
            cells.append(_gain(_mean(report["tasks"][task][measure] for report in reports),
                               _mean(gain["delta"] for gain in gains), ends))
        rows.append([recipe, *cells, str(len(reports))])
    return _table(["", *(f"{task}, {measure}" for task, measure in measures.items()), "seeds"], rows)


def of_judged(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of a row a search, from what ``bench.judge`` measured; gains are over the first search."""
    names = ("ndcg@10", "precision@10", "mrr@10")
    return _table(["", *names, "judged"], ([line["name"], *(_cell(line, name) for name in names),
                                            f"{100 * line['judged']:.0f} %"] for line in lines))


def of_systems(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of a row a system, from what ``bench.bm25 tasks`` measured; gains are over the vectors."""
    rows: dict[str, list[str]] = {}
    header = {}
    for line in lines:
        task, _, system = line["name"].partition(", ")
        measure = line["unit"].removesuffix(" x 100")
        header[f"{task}, {measure}"] = None
        rows.setdefault(system, [system]).append(_cell(line, measure))
    return _table(["", *header], rows.values())


def _cell(line: dict[str, Any], name: str) -> str:
    """Return a measure with its interval, or with what it gains where a line says that."""
    if f"{name}_delta" not in line:
        return f"{line[name]:.1f} [{line[f'{name}_ci95'][0]:.1f}, {line[f'{name}_ci95'][1]:.1f}]"
    return _gain(line[name] / 100, line[f"{name}_delta"] / 100, [end / 100 for end in line[f"{name}_delta_ci95"]])


def _report(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{folder}: has no report.json that can be read; give folders that python -m eval wrote"
                        ) from None
    if not found.get("baseline"):
        raise UserError(f"{folder}: was evaluated without baseline=; do so with the untouched model")
    return found


def _gain(value: float, delta: float, ends: Sequence[float]) -> str:
    """Return a score with its gain, bold where the interval leaves out zero."""
    said = f"{100 * delta:+.1f} [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]"
    return f"{_score(value)} {f'**{said}**' if ends[0] > 0 or ends[1] < 0 else said}"


def _score(value: float) -> str:
    return f"{100 * value:.1f}"


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


if __name__ == "__main__":
    raise SystemExit(main())
