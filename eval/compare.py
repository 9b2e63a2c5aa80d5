"""``python -m eval.compare outputs/*/*``: a leaderboard of runs, with what differs between their configs.

A run of ``python -m train`` is a row, and so is a sweep's job, whatever became of it; what ``python -m eval`` measured
of the same weights later (by fingerprint) joins it, and of other models is a row of its own.
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from sentence_forge.eval.report.formatting import change, hundred, interval, limits, measure_name, value
from sentence_forge.eval.report.leaderboard import Board, Entry, average, leaderboard
from sentence_forge.eval.report.script import SCRIPT
from sentence_forge.eval.report.sections import number, sortable
from sentence_forge.eval.report.style import STYLE
from sentence_forge.eval.report.terminal import mean_sd
from sentence_forge.runtime.files import write_atomic
from sentence_forge.runtime.plain import Parser, run

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 for Ctrl-C."""
    return run(lambda: _compare(_parser().parse_args(argv)))


def _compare(arguments: argparse.Namespace) -> None:
    board = leaderboard([Path(name) for name in arguments.runs])
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    text = markdown(board)
    for ending, content in (("md", text), ("html", page(board)), ("csv", table(board))):
        write_atomic(out / f"leaderboard.{ending}", content)
    sys.stdout.write(text)
    log.info("leaderboard: %s (and .md, .csv)", out / "leaderboard.html")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m eval.compare", description="A leaderboard of runs, with what differs between "
                     "their configs, as Markdown (also printed), HTML and CSV.")
    parser.add_argument("runs", nargs="+", metavar="FOLDER", help="folders of python -m train (-m, too) and "
                        "python -m eval")
    parser.add_argument("--out", default="outputs/compare", metavar="DIR", help="where to write (default %(default)s)")
    return parser


def markdown(board: Board) -> str:
    """Return the board as Markdown."""
    heads = _heads(board)
    lines = ["| " + " | ".join(map(_cell, heads)) + " |",
             "|---" + "|---:" * (len(board.tasks) + 2) + "|---" * len(board.keys + board.job) + "|"]
    for entry in board.entries:
        lines.append("| " + " | ".join([_cell(entry.name), *(_score(board, entry, name) for name in board.tasks),
                                        _average(board, entry), _gain(entry),
                                        *map(_cell, _last(board, entry))]) + " |")
    for group in board.seeds:
        cells = [f"mean ± sd of {len(group['names'])} seeds",
                 *(mean_sd(group["tasks"].get(name)) for name in board.tasks), mean_sd(group["average"]), "",
                 *("" if key.rpartition(".")[2] == "seed" else _cell(group["config"].get(key, ""))
                   for key in board.keys), *("" for _ in board.job)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_notes(board), ""])


def page(board: Board) -> str:
    """Return the board as a page of its own: sortable, light and dark, nothing fetched."""
    heads = _heads(board)
    rows = []
    for entry in board.entries:
        cells = [f"<td>{escape(entry.name)}</td>"]
        for name in board.tasks:
            row = entry.tasks.get(name)
            cells.append("<td data-v='-1'>–</td>" if row is None else
                         number(value(row), f"{_score(board, entry, name)}<small>{interval(limits(row))}</small>"))
        cells.append(number(average(entry, board.shared), _average(board, entry)))
        cells.append(number(entry.gain["delta"] if entry.gain else -1, _gain(entry)))
        cells += [f"<td>{escape(text)}</td>" for text in _last(board, entry)]
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
    writer.writerow(["run", *board.tasks, "average", "gain", "gain_low", "gain_high", *board.keys, *board.job])
    for entry in board.entries:
        gain = [entry.gain["delta"], *entry.gain["delta_ci95"]] if entry.gain else ["", "", ""]
        scores = [value(entry.tasks[name]) if name in entry.tasks else "" for name in board.tasks]
        writer.writerow([entry.name, *scores, average(entry, board.shared) if entry.tasks and board.shared else "",
                         *gain, *_last(board, entry)])
    return file.getvalue()


def _heads(board: Board) -> list[str]:
    return ["run", *(_head(board, name) for name in board.tasks), "average", "gain", *board.keys, *board.job]


def _last(board: Board, entry: Entry) -> list[str]:
    return [*(entry.config.get(key, "") for key in board.keys), *(entry.job.get(key, "") for key in board.job)]


def _head(board: Board, name: str) -> str:
    measure = next(entry.tasks[name]["measure"] for entry in board.entries if name in entry.tasks)
    return name if measure == "spearman_cosine" else f"{name} ({measure_name(measure)})"


def _score(board: Board, entry: Entry, name: str) -> str:
    row = entry.tasks.get(name)
    return "–" if row is None else hundred(value(row)) + ("†" if (entry.name, name) in board.other_rows else "")


def _average(board: Board, entry: Entry) -> str:
    return hundred(average(entry, board.shared)) if entry.tasks and board.shared else "–"


def _gain(entry: Entry) -> str:
    return "" if entry.gain is None else (f"{change(entry.gain['delta'])} "
                                          f"({interval(entry.gain['delta_ci95'], sign=True)})")


def _notes(board: Board) -> list[str]:
    missing = [name for name in board.tasks if name not in board.shared]
    notes = [f"Everything × 100. Average: over the {len(board.shared)} tasks that every row has"
             + (f" (without {', '.join(missing)})." if missing else "."),
             "Gain: the mean difference from the model before its training, with its 95 % interval. The other columns "
             "are the config keys that differ."]
    if board.job:
        notes.append("Dev: a fraction, each loss's own measure on its own rows, so not comparable between losses; the "
                     "average is.")
    return notes + (["†: measured on other rows than the row above, so not comparable."] if board.other_rows else [])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
