"""The three forms of a report: report.json for programs, report.md for a repository, report.html for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.evaluate import Report
from eval.page import page
from eval.wording import change, hundred, interval, p_value, protocol, story, task_title
from runtime.files import write_atomic, write_json


def write_report(report: Report, folder: Path, training: Mapping[str, Any] | None = None) -> None:
    """Write report.json, report.md and report.html into ``folder``, each whole or not at all.

    Args:
        report: what ``eval.evaluate.evaluate`` found.
        folder: made where it is absent.
        training: the run that made the model: ``title``; ``rows``, pairs of a name and a value; ``baseline``, a dict of
            ``measure``, ``before``, ``after`` and, where known, ``delta_ci95`` (fractions, on dev); ``curve``, a dict
            of ``step`` and ``loss`` (equally long), ``dev`` (pairs of a step and a value) and ``measure``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = dict(report.json)
    if training is not None:
        about["training"] = {"title": training.get("title"), "baseline": training.get("baseline"),
                             "rows": {str(name): str(value) for name, value in training.get("rows", ())}}
    write_json(folder / "report.json", about)
    write_atomic(folder / "report.md", markdown(report, training))
    write_atomic(folder / "report.html", page(report, training))


def markdown(report: Report, training: Mapping[str, Any] | None = None) -> str:
    """Return the report as Markdown: a table of tasks, the sub-sets, and what the numbers came from."""
    about = report.json
    before = about.get("baseline")
    lines = [f"# {_cell(about['model'])}", "", protocol(about), ""]
    if before:
        lines += [_cell(story(about)), ""]
    lines += [*_tasks(about), ""]
    if about["absent"]:
        lines += [f"Not in the data folder and not averaged over: {', '.join(about['absent'])}.", ""]
    if training is not None:
        lines += [*_training(training), ""]
    for name, row in about["tasks"].items():
        if row["domains"]:
            lines += [f"## {_cell(task_title(name, row))}, by sub-set", "", "| sub-set | pairs | Spearman | Pearson |",
                      "|---|---:|---:|---:|"]
            lines += [f"| {_cell(domain)} | {part['n']} | {hundred(part.get('spearman_cosine'))} | "
                      f"{hundred(part.get('pearson_cosine'))} |" for domain, part in row["domains"].items()]
            lines.append("")
    lines += [f"Fingerprint `{about['fingerprint']}`. "
              + ", ".join(f"{name} {version}" for name, version in about["versions"].items()) + ".", ""]
    lines += [f"- `{row['data']['path']}` sha256 `{row['data']['sha256']}`" for row in about["tasks"].values()]
    return "\n".join(lines) + "\n"


def _tasks(about: Mapping[str, Any]) -> list[str]:
    before = about.get("baseline")
    head = ["task", "Spearman", "95 % interval", "Pearson", "pairs", "texts cut"]
    if before:
        head += [f"{_cell(before['model'])}", "difference", "95 % interval", "p"]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for name, row in about["tasks"].items():
        cells = [_cell(task_title(name, row)), hundred(row["spearman_cosine"]), interval(row["spearman_cosine_ci95"]),
                 hundred(row["pearson_cosine"]), str(row["n"]), str(row["truncated"])]
        lines.append("| " + " | ".join(cells + (_against(before["tasks"][name]) if before else [])) + " |")
    if len(about["tasks"]) > 1:
        cells = ["**average**", f"**{hundred(about['average'])}**", interval(about["average_ci95"]), "", "", ""]
        if before:
            cells += _against({**before, "spearman_cosine": before["average"]})
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _against(row: Mapping[str, Any]) -> list[str]:
    return [hundred(row["spearman_cosine"]), change(row["delta"]), interval(row["delta_ci95"], sign=True),
            p_value(row["p"]).removeprefix("p = ").removeprefix("p ")]


def _training(training: Mapping[str, Any]) -> list[str]:
    lines = [f"## {_cell(str(training.get('title', 'Training')))}", ""]
    before = training.get("baseline")
    if before:
        sure = (f" (95 % interval of the difference {interval(before['delta_ci95'], sign=True)})"
                if before.get("delta_ci95") else "")
        lines += [f"{before['measure']} on dev: {hundred(before['before'])} before training, "
                  f"{hundred(before['after'])} after{sure}.", ""]
    lines += ["| | |", "|---|---|"]
    return lines + [f"| {_cell(str(name))} | {_cell(str(value))} |" for name, value in training.get("rows", ())]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
