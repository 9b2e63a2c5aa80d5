"""The three forms of a report: report.json for programs, report.md for a repository, report.html for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentence_forge.eval.evaluate import Report
from sentence_forge.eval.report.formatting import (
    change,
    dims_table,
    headline,
    hundred,
    interval,
    limits,
    measure_name,
    p_value,
    protocol,
    story,
    task_title,
    trained_on,
    value,
)
from sentence_forge.eval.report.page import page
from sentence_forge.eval.report.terminal import mean_sd
from sentence_forge.runtime.files import write_atomic, write_json


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
    lines += _models(about) + _dims(about) + _honesty(about)
    for name, row in about["tasks"].items():
        lines += _domains(name, row) + _failures(name, row)
    lines += [f"Fingerprint `{about['fingerprint']}`. "
              + ", ".join(f"{name} {version}" for name, version in about["versions"].items()) + ".", ""]
    lines += [f"- `{row['data']['path']}` sha256 `{row['data']['sha256']}`" for row in about["tasks"].values()]
    return "\n".join(lines) + "\n"


def _tasks(about: Mapping[str, Any]) -> list[str]:
    before = about.get("baseline")
    several = len(about["averages"]) > 1
    head = ["task", headline(about), "95 % interval", "Pearson", "scored", "texts cut"]
    if before:
        head += [f"{_cell(before['model'])}", "difference", "95 % interval", "p"]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for name, row in about["tasks"].items():
        title = task_title(name, row) + (f", {measure_name(row['measure'])}" if several else "")
        cells = [_cell(title), hundred(value(row)), interval(limits(row)),
                 hundred(row["pearson_cosine"]) if "pearson_cosine" in row else "", _count(row["n"]),
                 _count(row["truncated"])]
        lines.append("| " + " | ".join(cells + (_against(before["tasks"].get(name)) if before else [])) + " |")
    for measure, average in about["averages"].items():
        if average["tasks"] > 1:
            name = f"average {measure_name(measure)}" if several else "average"
            cells = [f"**{name}**", f"**{hundred(average['value'])}**", interval(average["ci95"]), "", "", ""]
            old = before["averages"].get(measure) if before else None
            lines.append("| " + " | ".join(cells + (_against(old and {**old, "measure": "value"}) if before else []))
                         + " |")
    return lines


def _against(row: Mapping[str, Any] | None) -> list[str]:
    if row is None:
        return ["–", "", "", ""]
    return [hundred(value(row)), change(row["delta"]), interval(row["delta_ci95"], sign=True),
            p_value(row["p"]).removeprefix("p = ").removeprefix("p ")]


def _models(about: Mapping[str, Any]) -> list[str]:
    if not about.get("models"):
        return []
    names = list(about["tasks"])
    lines = ["## Models", "", "| model | " + " | ".join(map(_cell, names)) + " | average |",
             "|---" + "|---:" * (len(names) + 1) + "|"]
    for row in about["models"]:
        cells = [hundred(row["tasks"].get(name, {}).get("value")) for name in names]
        lines.append(f"| {_cell(row['model'])} | {' | '.join(cells)} | {hundred(row['average'])} |")
    for row in about.get("seeds", ()):
        cells = [mean_sd(row["tasks"].get(name)) for name in names]
        lines.append(f"| {_cell(row['model'])}, mean ± sd of {len(row['seeds'])} seeds | {' | '.join(cells)} | "
                     f"{mean_sd(row['average'])} |")
    return [*lines, ""]


def _dims(about: Mapping[str, Any]) -> list[str]:
    rows = dims_table(about)
    if not rows:
        return []
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return ["## Cut to fewer dimensions", "", lines[0], "|---:" * len(rows[0]) + "|", *lines[1:], ""]


def _honesty(about: Mapping[str, Any]) -> list[str]:
    tasks = {name: row for name, row in about["tasks"].items() if "honesty" in row}
    if not tasks:
        return []
    lines = ["## How far to trust it", "", trained_on(about), "",
             "| task | texts cut | repeated | trained on, to the letter | normalised | texts seen | without |",
             "|---|---:|---:|---:|---:|---:|---:|"]
    for name, row in tasks.items():
        known = row["honesty"]["trained_on"]
        cells = ["not recorded", "", "", ""]
        if known:
            without = known.get("without")
            last = f"{hundred(without['value'])} of {without['n']}" if without else "the same"
            if without and "delta" in without:
                last += f", {change(without['delta'])} against the baseline"
            cells = [str(known["exact"]), str(known["normalised"]), f"{known['texts']} of {known['of_texts']}", last]
        lines.append(f"| {_cell(name)} | {row['truncated']} | {row['honesty']['duplicates']} | {' | '.join(cells)} |")
    return [*lines, ""]


def _domains(name: str, row: Mapping[str, Any]) -> list[str]:
    if not row["domains"]:
        return []
    measures = list(dict.fromkeys(measure for found in row["domains"].values() for measure in found if measure != "n"))
    head = " | ".join("95 % interval" if measure.endswith("_ci95") else measure_name(measure) for measure in measures)
    lines = [f"## {_cell(task_title(name, row))}, by part", "", f"| part | scored | {head} |",
             "|---" + "|---:" * (len(measures) + 1) + "|"]
    for part, found in row["domains"].items():
        cells = [interval(found.get(measure)) if measure.endswith("_ci95") else hundred(found.get(measure))
                 for measure in measures]
        lines.append(f"| {_cell(part)} | {found['n']} | {' | '.join(cells)} |")
    return [*lines, ""]


def _failures(name: str, row: Mapping[str, Any], shown: int = 6) -> list[str]:
    if not row.get("failures"):
        return []
    lines = [f"## {_cell(task_title(name, row))}, worst pairs", "",
             "| rank error | gold | cosine | text | other text |", "|---:|---:|---:|---|---|"]
    lines += [f"| {round(100 * pair['error']):+d} % | {pair['gold']:g} | {pair['cosine']:.3f} | "
              f"{_cell(pair['text1'])} | {_cell(pair['text2'])} |" for pair in row["failures"][:shown]]
    return [*lines, ""]


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


def _count(count: int | None) -> str:
    return "–" if count is None else str(count)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
