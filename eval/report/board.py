"""Write a leaderboard as a page, as Markdown and as rows for CSV."""

from __future__ import annotations

from sentence_forge.eval.report.formatting import hundred, interval, mean_sd, measure_name, plain
from sentence_forge.eval.report.leaderboard import Board, Entry, average
from sentence_forge.eval.report.tables import Cell, Column, Table, gain
from sentence_forge.eval.report.text import markdown_table, markdown_text
from sentence_forge.eval.schema import limits, value


def board_table(board: Board) -> Table:
    """Return a row a run or model, best first, then a row for each group of seeds."""
    columns = [Column("run", texts=True), *(Column(_head(board, name)) for name in board.tasks), Column("average"),
               Column("gain"), *(Column(key, texts=True) for key in [*board.keys, *board.job])]
    rows = [[Cell(entry.name), *(_score(board, entry, name) for name in board.tasks),
             Cell(_average(board, entry), average(entry, board.shared)), _gain(entry),
             *map(Cell, _settings(board, entry))] for entry in board.entries]
    for group in board.seeds:
        rows.append([Cell(f"mean ± sd of {len(group.names)} seeds", kind="total", note=", ".join(group.names)),
                     *(Cell(mean_sd(group.tasks.get(name))) for name in board.tasks), Cell(mean_sd(group.average)),
                     Cell(""), *(Cell("" if key.rpartition(".")[2] == "seed" else group.config.get(key, ""))
                                 for key in board.keys), *(Cell("") for _ in board.job)])
    return Table("board", "Leaderboard", columns, rows, sortable=True, kind="small board")


def notes(board: Board) -> list[str]:
    """Return what must be known to read the table."""
    missing = [name for name in board.tasks if name not in board.shared]
    found = [f"Everything × 100. Average: over the {len(board.shared)} tasks that every row has"
             + (f" (without {', '.join(missing)})." if missing else "."),
             "Gain: the mean difference from the model before its training, with its 95 % interval. The other columns "
             "are the config keys that differ."]
    if board.job:
        found.append("Dev: a fraction, each loss's own measure on its own rows, so not comparable between losses; the "
                     "average is.")
    return found + (["†: measured on other rows than the row above, so not comparable."] if board.other_rows else [])


def markdown(board: Board) -> str:
    """Return the board as Markdown."""
    return "\n".join([*markdown_table(board_table(board)), *map(markdown_text, notes(board)), ""])


def page(board: Board) -> str:
    """Return the board as a page of its own: sortable, light and dark, nothing fetched."""
    from sentence_forge.eval.report.html import render

    return render("leaderboard", title="Leaderboard", board=board_table(board), notes=notes(board))


def csv_rows(board: Board) -> tuple[list[str], list[list[object]]]:
    """Return the board's header and rows for ``data_readers.csv_writer.write_csv``, scores as fractions."""
    header = ["run", *board.tasks, "average", "gain", "gain_low", "gain_high", *board.keys, *board.job]
    rows: list[list[object]] = []
    for entry in board.entries:
        gains = [entry.gain["delta"], *(entry.gain["delta_ci95"] or ("", ""))] if entry.gain else ["", "", ""]
        scores = [value(entry.tasks[name]) if name in entry.tasks else "" for name in board.tasks]
        rows.append([plain(entry.name), *scores,
                     average(entry, board.shared) if entry.tasks and board.shared else "", *gains,
                     *map(plain, _settings(board, entry))])
    return header, rows


def _settings(board: Board, entry: Entry) -> list[str]:
    return [*(entry.config.get(key, "") for key in board.keys), *(entry.job.get(key, "") for key in board.job)]


def _head(board: Board, name: str) -> str:
    measure = next(entry.tasks[name]["measure"] for entry in board.entries if name in entry.tasks)
    return name if measure == "spearman_cosine" else f"{name} ({measure_name(measure)})"


def _score(board: Board, entry: Entry, name: str) -> Cell:
    row = entry.tasks.get(name)
    if row is None:
        return Cell("–", -1)
    mark = "†" if (entry.name, name) in board.other_rows else ""
    return Cell(hundred(value(row)) + mark, value(row), note=interval(limits(row)))


def _average(board: Board, entry: Entry) -> str:
    return hundred(average(entry, board.shared)) if entry.tasks and board.shared else "–"


def _gain(entry: Entry) -> Cell:
    found = entry.gain
    return Cell("", -1) if found is None else gain(found["delta"], found["delta_ci95"])
