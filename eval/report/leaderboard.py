"""Read the reports in folders of runs and evaluations, and join them into a leaderboard."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentence_forge.eval.jobs import COLUMNS, expanded, outcome, read_job
from sentence_forge.eval.report.models import mean_and_sd
from sentence_forge.eval.schema import Baseline, MeanSd, ReportJson, TaskRow, value
from sentence_forge.runtime.errors import UserError

log = logging.getLogger(__name__)
_NOT_CONFIG = ("resume", "resume_anyway", "suite", "data_dir", "device")  # where and how, not what


@dataclass
class Entry:
    """A row of the leaderboard: a run, or a model that was evaluated.

    Args:
        name: of the run's folder, or the model.
        tasks: rows of report.json.
        config: dotted keys and values; empty for what was not trained here.
        gain: the mean difference from the model before its training, with its interval (``delta``, ``delta_ci95``).
        job: of a sweep's job, its ``eval.jobs.COLUMNS``.
    """

    name: str
    tasks: dict[str, TaskRow]
    config: dict[str, str] = field(default_factory=dict)
    gain: Baseline | None = None
    job: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seeds:
    """Runs that differ in their seed alone: their names, config, and mean and sd of each task and of the average."""

    names: list[str]
    config: dict[str, str]
    tasks: dict[str, MeanSd]
    average: MeanSd


@dataclass(frozen=True)
class Board:
    """A leaderboard: rows best first, the tasks, those that every row has, the config keys that differ.

    ``job`` are the columns of a sweep's jobs, where there are any.
    """

    entries: list[Entry]
    tasks: list[str]
    shared: list[str]
    keys: list[str]
    seeds: list[Seeds]
    other_rows: set[tuple[str, str]]
    job: list[str]


def leaderboard(folders: Sequence[Path]) -> Board:
    """Return the board of what lies in ``folders``; one that holds nothing to compare is named in the log.

    Raises:
        UserError: one is not there, or none of them holds a report.
    """
    trained: dict[str, Entry] = {}
    measured: dict[str, Entry] = {}
    jobs: dict[str, tuple[Path, dict[str, Any]]] = {}
    for folder in expanded(folders):
        if not folder.exists():
            raise UserError(f"{folder}: no such folder; give folders of python -m train or python -m eval")
        if not folder.is_dir():  # a shell's outputs/*/* also finds the files of an earlier leaderboard
            continue
        job = read_job(folder)
        about = _report(folder, say=job is None)
        if about is None and job is None:
            continue
        if about is None or (folder / "config.yaml").is_file():
            key = f"{about['fingerprint'] if about else '?'} {folder}"
            trained[key] = _run(folder, about)
            if job is not None:
                jobs[key] = folder, job
            continue
        found = measured.setdefault(about["fingerprint"], Entry(about["model"], {}))
        found.tasks |= about["tasks"]
    for key, entry in trained.items():
        later = measured.pop(key.split(" ")[0], None)
        if later is not None:
            entry.tasks |= later.tasks
    for key, (folder, job) in jobs.items():
        trained[key].job = outcome(folder, job)
        if len(jobs) == len(trained):  # the sweep's own words, which a job that failed early has, too
            trained[key].config = job["overrides"]
    entries = [*trained.values(), *measured.values()]
    if not entries:
        raise UserError("there is nothing to compare: none of the folders holds a report; train or evaluate first")
    return _board(entries)


def _report(folder: Path, *, say: bool) -> ReportJson | None:
    """Return the report of a run or an evaluation; without one None, and a line in the log if ``say``."""
    run = (folder / "config.yaml").is_file()
    file = folder / "report" / "report.json" if run else folder / "report.json"
    about, why = None, ""
    if run and not (folder / "model").is_dir():
        why = f"{folder}: a run without a model, left out; go on with it by python -m train resume={folder}"
    elif not file.is_file():
        why = f"{folder}: holds no report, left out"
    elif (about := read_report(file)) is None:
        why = f"{file}: is no report of this program, or damaged, left out; evaluate again"
    if say and why:
        log.info(why)
    return about


def _run(folder: Path, about: ReportJson | None) -> Entry:
    old = about.get("baseline") if about else None
    config = folder / "config.yaml"
    return Entry(folder.name, dict(about["tasks"]) if about else {}, _config(config) if config.is_file() else {},
                 old if old and "delta" in old else None)


def read_report(file: Path) -> ReportJson | None:
    """Return a report.json; None where the file is none, or damaged."""
    try:
        about: ReportJson = json.loads(file.read_text(encoding="utf-8"))
        for row in about["tasks"].values():
            value(row), row["data"]["sha256"]
        about["fingerprint"], about["model"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return about


def _config(file: Path) -> dict[str, str]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        config = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (OmegaConfBaseException, YAMLError):
        raise UserError(f"{file}: is no YAML; leave the folder out") from None
    flat: dict[str, str] = {}

    def walk(node: Any, path: str) -> None:  # noqa: ANN401
        if isinstance(node, Mapping):
            for name, below in node.items():
                walk(below, f"{path}.{name}" if path else str(name))
        elif path.partition(".")[0] not in _NOT_CONFIG and path != "loss.shapes":
            shown = str(node).rpartition(".")[2] if path.endswith("_target_") else str(node)
            flat[path.removesuffix("._target_")] = shown

    walk(config, "")
    return flat


def _board(entries: list[Entry]) -> Board:
    tasks = list(dict.fromkeys(name for entry in entries for name in entry.tasks))
    shared = [name for name in tasks if all(name in entry.tasks for entry in entries if entry.tasks)]
    configured = [entry.config for entry in entries if entry.config]
    keys = sorted({key for config in configured for key in config})
    keys = [key for key in keys if _tells(key, configured)]
    entries = sorted(entries, key=lambda entry: -average(entry, shared or tasks))
    first = {name: next(entry.tasks[name]["data"]["sha256"] for entry in entries if name in entry.tasks)
             for name in tasks}
    other = {(entry.name, name) for entry in entries for name, row in entry.tasks.items()
             if row["data"]["sha256"] != first[name]}
    return Board(entries, tasks, shared, keys, _seeds(entries, tasks), other,
                 [column for column in COLUMNS if any(entry.job for entry in entries)])


def _tells(key: str, configs: Sequence[Mapping[str, str]]) -> bool:
    """Return whether a key's value differs. A key that some lack, since their loss or model has no such, does not."""
    missing = [""] if key.endswith(".path") else []
    return len({config.get(key, *missing) for config in configs if key in config or missing}) > 1


def average(entry: Entry, tasks: Sequence[str]) -> float:
    """Return the mean of an entry's scores on those of ``tasks`` that it has."""
    values = [value(entry.tasks[name]) for name in tasks if name in entry.tasks]
    return sum(values) / len(values) if values else -1.0


def _seeds(entries: Sequence[Entry], tasks: Sequence[str]) -> list[Seeds]:
    """Return the runs that differ in their seed alone, joined."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.config and entry.tasks:
            key = json.dumps({name: text for name, text in entry.config.items() if name.rpartition(".")[2] != "seed"},
                             sort_keys=True)
            groups.setdefault(key, []).append(entry)
    found = []
    for members in groups.values():
        if len({entry.config.get("seed") for entry in members}) > 1:
            of_all = [name for name in tasks if all(name in entry.tasks for entry in members)]
            found.append(Seeds([entry.name for entry in members], members[0].config, {
                name: mean_and_sd([value(entry.tasks[name]) for entry in members]) for name in of_all},
                mean_and_sd([average(entry, of_all) for entry in members])))
    return found
