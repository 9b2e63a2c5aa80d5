"""What was measured of recipes and searches, kept without a text, and the tables of RESULTS.md that are made of it.

``python -m bench.recipes NAME FROM...`` keeps ``bench/results/<kind of machine>/NAME.json`` and prints its table. FROM
is the folder of ``python -m eval model=<run> models=[<run>,...] baseline=<start> suite=... output=<folder>``, its runs
called ``<recipe>-<seed>``: a row a recipe, over its seeds; or, with ``'blend=[0.1,0.2]'`` in place of models and
baseline, a row a share. ``--add`` leaves what is kept of other runs of the same
beginning on the same tasks. Or it is a file of what ``python -m bench.judge score``
or ``python -m bench.bm25 tasks`` printed: a row a search.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.recipe_tables import START, Line, table
from bench.results import Results, read_lines, results_of_this_kind
from bench.runs import command_of, minutes_of, rows_per_second
from sentence_forge.eval.report.models import other_measures
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.process import run

_ROUNDING = 1e-4  # by which a processor's threads may change a score


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.recipes", description=__doc__)
    parser.add_argument("name", help="of the results")
    parser.add_argument("sources", nargs="+", type=Path, metavar="FROM")
    parser.add_argument("--results", type=Path, help="folder; bench/results/<kind of machine>")
    parser.add_argument("--add", action="store_true", help="leave what is kept of other runs")
    arguments = parser.parse_args(argv)
    return run(lambda: _keep(arguments.name, arguments.sources, arguments.results, arguments.add))


def _keep(name: str, sources: Sequence[Path], results: Path | None, add: bool) -> None:
    lines = list(rows_of(sources) if sources[0].is_dir() else printed(sources))
    file = (results or results_of_this_kind()) / f"{name}.json"
    if add:
        lines = _added(file, read_lines(file), lines)
    made = table(lines)
    Results(file, "python -m bench.recipes").add(*lines)
    sys.stdout.write(made + "\n")


def _added(file: Path, kept: Sequence[Line], lines: Sequence[Line]) -> list[Line]:
    """Return the kept lines and the new ones; a run that was measured again has its new line.

    Raises:
        UserError: what is kept is of another beginning, of other tasks, or measured it otherwise.
    """
    names = {line["name"] for line in lines}
    if kept and not _same_start(kept[0], lines[0]):
        raise UserError(f"{file}: is of another beginning or other tasks; leave --add out to begin it anew")
    return [*([] if kept else lines[:1]), *(line for line in kept if line["name"] not in names - {START}), *lines[1:]]


def _same_start(one: Line, other: Line) -> bool:
    return "tasks" in one and "tasks" in other and one["model"] == other["model"] and one["tasks"].keys() == other[
        "tasks"].keys() and all(score["measure"] == other["tasks"][task]["measure"]
                                and abs(score["value"] - other["tasks"][task]["value"]) < _ROUNDING
                                for task, score in one["tasks"].items())


def rows_of(folders: Sequence[Path]) -> list[Line]:
    """Return a line for the models' beginning and one for each model of the folders' reports.

    Raises:
        UserError: a report is not there, has no baseline, or has another baseline or other tasks than the first.
    """
    lines: list[Line] = []
    for folder in folders:
        start, models = _measured(_report(folder))
        if lines and not _same_start(lines[0], start):
            raise UserError(f"{folder}: has another baseline or other tasks than {folders[0]}; evaluate all alike")
        lines += [start] * (not lines)
        lines += [_line(row) for row in models if all("delta" in score for score in row["tasks"].values())]
    return lines


def _measured(report: Mapping[str, Any]) -> tuple[Line, list[Mapping[str, Any]]]:
    """Return the line of a report's beginning, and its models' rows: of shares of the way, if it has those."""
    if "blends" in report:
        begun, *shares = report["blends"]
        values = {task: (score["measure"], score["value"]) for task, score in begun["tasks"].items()}
        models = [{**row, "model": f"share {row['share']:g}"} for row in shares]
    else:
        begun, models = report["baseline"], report.get("models") or [_alone(report)]
        values = {task: (row["measure"], row[row["measure"]]) for task, row in begun["tasks"].items()}
    tasks: dict[str, dict[str, Any]] = {task: {"measure": measure, "value": value}
                                        for task, (measure, value) in values.items()}
    for row in models:
        for task, score in row["tasks"].items():
            if "delta" not in score and "also" in score:  # the beginning's own row, among several models'
                tasks[task]["also"] = score["also"]
    return {"name": START, "recipe": START, "seed": None, "model": begun["fingerprint"], "tasks": tasks}, models


def printed(files: Sequence[Path]) -> list[Line]:
    """Return the lines of files that ``bench.judge`` or ``bench.bm25`` printed.

    Raises:
        UserError: a file isn't one of them.
    """
    lines = []
    for file in files:
        try:
            lines += [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
        except (OSError, ValueError):
            raise UserError(f"{file}: is no file of lines that python -m bench.judge score or python -m bench.bm25 "
                            "tasks printed") from None
    if not lines or "name" not in lines[0]:
        raise UserError(f"{files[0]}: holds no line that was measured")
    return lines


def _line(row: Mapping[str, Any]) -> Line:
    """Return what is kept of a model's row in a report: numbers, its fingerprint, and how it was trained."""
    run = Path(row["model"])
    recipe, _, seed = run.name.rpartition("-")
    return {"name": run.name, "recipe": recipe if seed.isdigit() else run.name,
            "seed": int(seed) if seed.isdigit() else None, "model": row["fingerprint"],
            "command": command_of(run), "rows_per_second": rows_per_second(run), "minutes": minutes_of(run),
            "tasks": {task: {key: score[key] for key in ("measure", "value", "also", "delta", "delta_ci95")
                             if key in score}
                      for task, score in row["tasks"].items()}}


def _alone(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a report about a single model as one of several has it."""
    return {"model": report["model"], "fingerprint": report["fingerprint"], "tasks": {
        task: {"measure": row["measure"], "value": row[row["measure"]],
               **({"also": also} if (also := other_measures(row)) else {}),
               **{key: report["baseline"]["tasks"][task][key] for key in ("delta", "delta_ci95")}}
        for task, row in report["tasks"].items()}}


def _report(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{folder}: has no report.json that can be read; give folders that python -m eval wrote"
                        ) from None
    if not found.get("baseline") and not found.get("blends"):
        raise UserError(f"{folder}: was evaluated without baseline=; do so with the untouched model")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
