"""``python -m eval.compare outputs/*/*``: a leaderboard of runs, with what differs between their configs.

A run of ``python -m train`` is a row; what ``python -m eval`` measured of the same weights later (by fingerprint) joins
it, and of other models is a row of its own.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NoReturn

from eval.models import mean_and_sd
from eval.script import SCRIPT
from eval.sections import number, sortable
from eval.style import STYLE
from eval.terminal import mean_sd
from eval.wording import change, hundred, interval, limits, measure_name, value
from runtime.errors import UserError
from runtime.files import write_atomic

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
    """

    name: str
    tasks: dict[str, Mapping[str, Any]]
    config: dict[str, str] = field(default_factory=dict)
    gain: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Board:
    """A leaderboard: rows best first, the tasks, those that every row has, and the config keys that differ."""

    entries: list[Entry]
    tasks: list[str]
    shared: list[str]
    keys: list[str]
    seeds: list[dict[str, Any]]
    other_rows: set[tuple[str, str]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 2 for bad input."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.INFO)
    try:
        arguments = _parser().parse_args(argv)
        board = leaderboard([Path(name) for name in arguments.runs])
        out = Path(arguments.out)
        out.mkdir(parents=True, exist_ok=True)
        text = markdown(board)
        for ending, content in (("md", text), ("html", page(board)), ("csv", table(board))):
            write_atomic(out / f"leaderboard.{ending}", content)
        sys.stdout.write(text)
        log.info("leaderboard: %s (and .md, .csv)", out / "leaderboard.html")
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m eval.compare --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m eval.compare", description="A leaderboard of runs, with what differs between "
                     "their configs, as Markdown (also printed), HTML and CSV.")
    parser.add_argument("runs", nargs="+", metavar="FOLDER", help="folders of python -m train and python -m eval")
    parser.add_argument("--out", default="outputs/compare", metavar="DIR", help="where to write (default %(default)s)")
    return parser


def leaderboard(folders: Sequence[Path]) -> Board:
    """Return the board of what lies in ``folders``; one that holds nothing to compare is named in the log.

    Raises:
        UserError: one is not there, or none of them holds a report.
    """
    trained: dict[str, Entry] = {}
    measured: dict[str, Entry] = {}
    for folder in folders:
        if not folder.exists():
            raise UserError(f"{folder}: no such folder; give folders of python -m train or python -m eval")
        if not folder.is_dir():  # a shell's outputs/*/* also finds the files of an earlier leaderboard
            continue
        run = (folder / "config.yaml").is_file()
        file = folder / "report" / "report.json" if run else folder / "report.json"
        if run and not (folder / "model").is_dir():
            log.info("%s: a run without a model, left out; go on with it by python -m train resume=%s", folder, folder)
            continue
        if not file.is_file():
            log.info("%s: holds no report, left out", folder)
            continue
        about = _read(file)
        if about is None:
            log.info("%s: is no report of this program, or damaged, left out; evaluate again", file)
            continue
        key = about["fingerprint"]
        if run:
            old = about.get("baseline")
            trained[f"{key} {folder}"] = Entry(folder.name, dict(about["tasks"]), _config(folder / "config.yaml"),
                                               old if old and "delta" in old else None)
            continue
        found = measured.setdefault(key, Entry(about["model"], {}))
        found.tasks |= about["tasks"]
    for key, entry in trained.items():
        later = measured.pop(key.split(" ")[0], None)
        if later is not None:
            entry.tasks |= later.tasks
    entries = [*trained.values(), *measured.values()]
    if not entries:
        raise UserError("there is nothing to compare: none of the folders holds a report; train or evaluate first")
    return _board(entries)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        for row in about["tasks"].values():
            value(row), row["data"]["sha256"]
        about["fingerprint"], about["model"]
    except (ValueError, KeyError, TypeError, AttributeError):
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
    shared = [name for name in tasks if all(name in entry.tasks for entry in entries)]
    configured = [entry.config for entry in entries if entry.config]
    keys = sorted({key for config in configured for key in config})
    keys = [key for key in keys if _tells(key, configured)]
    entries = sorted(entries, key=lambda entry: -average(entry, shared or tasks))
    first = {name: next(entry.tasks[name]["data"]["sha256"] for entry in entries if name in entry.tasks)
             for name in tasks}
    other = {(entry.name, name) for entry in entries for name, row in entry.tasks.items()
             if row["data"]["sha256"] != first[name]}
    return Board(entries, tasks, shared, keys, _seeds(entries, tasks), other)


def _tells(key: str, configs: Sequence[Mapping[str, str]]) -> bool:
    """Return whether a key's value differs. A key that some lack, since their loss or model has no such, does not."""
    missing = [""] if key.endswith(".path") else []
    return len({config.get(key, *missing) for config in configs if key in config or missing}) > 1


def average(entry: Entry, tasks: Sequence[str]) -> float:
    """Return the mean of an entry's scores on those of ``tasks`` that it has."""
    values = [value(entry.tasks[name]) for name in tasks if name in entry.tasks]
    return sum(values) / len(values) if values else -1.0


def _seeds(entries: Sequence[Entry], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Return the runs that differ in their seed alone, joined: names, and mean and sd a task."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.config:
            key = json.dumps({name: text for name, text in entry.config.items() if name.rpartition(".")[2] != "seed"},
                             sort_keys=True)
            groups.setdefault(key, []).append(entry)
    found = []
    for members in groups.values():
        if len({entry.config.get("seed") for entry in members}) > 1:
            of_all = [name for name in tasks if all(name in entry.tasks for entry in members)]
            found.append({"names": [entry.name for entry in members], "config": members[0].config, "tasks": {
                name: mean_and_sd([value(entry.tasks[name]) for entry in members]) for name in of_all},
                "average": mean_and_sd([average(entry, of_all) for entry in members])})
    return found


def markdown(board: Board) -> str:
    """Return the board as Markdown."""
    heads = ["run", *(_head(board, name) for name in board.tasks), "average", "gain", *board.keys]
    lines = ["| " + " | ".join(map(_cell, heads)) + " |",
             "|---" + "|---:" * (len(board.tasks) + 2) + "|---" * len(board.keys) + "|"]
    for entry in board.entries:
        lines.append("| " + " | ".join([_cell(entry.name), *(_score(board, entry, name) for name in board.tasks),
                                        _average(board, entry), _gain(entry),
                                        *(_cell(entry.config.get(key, "")) for key in board.keys)]) + " |")
    for group in board.seeds:
        cells = [f"mean ± sd of {len(group['names'])} seeds",
                 *(mean_sd(group["tasks"].get(name)) for name in board.tasks), mean_sd(group["average"]), "",
                 *("" if key.rpartition(".")[2] == "seed" else _cell(group["config"].get(key, ""))
                   for key in board.keys)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_notes(board), ""])


def page(board: Board) -> str:
    """Return the board as a page of its own: sortable, light and dark, nothing fetched."""
    heads = ["run", *(_head(board, name) for name in board.tasks), "average", "gain", *board.keys]
    rows = []
    for entry in board.entries:
        cells = [f"<td>{escape(entry.name)}</td>"]
        for name in board.tasks:
            row = entry.tasks.get(name)
            cells.append("<td data-v='-1'>–</td>" if row is None else
                         number(value(row), f"{_score(board, entry, name)}<small>{interval(limits(row))}</small>"))
        cells.append(number(average(entry, board.shared), _average(board, entry)))
        cells.append(number(entry.gain["delta"] if entry.gain else -1, _gain(entry)))
        cells += [f"<td>{escape(entry.config.get(key, ''))}</td>" for key in board.keys]
        rows.append(cells)
    seeds = "".join(f"<p class='note'>{len(group['names'])} seeds ({escape(', '.join(group['names']))}): average "
                    f"{mean_sd(group['average'])}.</p>" for group in board.seeds)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in _notes(board))
    return (f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>Leaderboard</title>'
            f'<style>{STYLE}</style></head><body><main class="board"><header class="top"><div>'
            f'<p class="eyebrow">Evaluation</p><h1>Leaderboard</h1></div></header>'
            f'<section class="card">{sortable(heads, rows, "small board")}'
            f"{seeds}{notes}</section></main><script>{SCRIPT}</script></body></html>\n")


def table(board: Board) -> str:
    """Return the board as CSV, scores as fractions."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["run", *board.tasks, "average", "gain", "gain_low", "gain_high", *board.keys])
    for entry in board.entries:
        gain = [entry.gain["delta"], *entry.gain["delta_ci95"]] if entry.gain else ["", "", ""]
        scores = [value(entry.tasks[name]) if name in entry.tasks else "" for name in board.tasks]
        writer.writerow([entry.name, *scores, average(entry, board.shared) if board.shared else "", *gain,
                         *(entry.config.get(key, "") for key in board.keys)])
    return file.getvalue()


def _head(board: Board, name: str) -> str:
    measure = next(entry.tasks[name]["measure"] for entry in board.entries if name in entry.tasks)
    return name if measure == "spearman_cosine" else f"{name} ({measure_name(measure)})"


def _score(board: Board, entry: Entry, name: str) -> str:
    row = entry.tasks.get(name)
    return "–" if row is None else hundred(value(row)) + ("†" if (entry.name, name) in board.other_rows else "")


def _average(board: Board, entry: Entry) -> str:
    return hundred(average(entry, board.shared)) if board.shared else "–"


def _gain(entry: Entry) -> str:
    return "" if entry.gain is None else (f"{change(entry.gain['delta'])} "
                                          f"({interval(entry.gain['delta_ci95'], sign=True)})")


def _notes(board: Board) -> list[str]:
    missing = [name for name in board.tasks if name not in board.shared]
    notes = [f"Everything × 100. Average: over the {len(board.shared)} tasks that every row has"
             + (f" (without {', '.join(missing)})." if missing else "."),
             "Gain: the mean difference from the model before its training, with its 95 % interval. The other columns "
             "are the config keys that differ."]
    return notes + (["†: measured on other rows than the row above, so not comparable."] if board.other_rows else [])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
