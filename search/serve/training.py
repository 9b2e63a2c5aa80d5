"""From marks to another model: the commands, a run of them on request, and what the new model finds instead."""

from __future__ import annotations

import json
import logging
import re
import shlex
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sentence_forge.runtime.errors import UserError, printable
from sentence_forge.runtime.locks import new_folder
from sentence_forge.runtime.overrides import quoted
from sentence_forge.search.changes import Change, changes, summary
from sentence_forge.search.index import Index
from sentence_forge.search.serve.judged import judged, test_file, write
from sentence_forge.search.serve.live import LiveIndex
from sentence_forge.search.serve.marks import KINDS, Marks

if TYPE_CHECKING:
    from sentence_forge.eval.schema import ReportJson

log = logging.getLogger(__name__)
K = 10
MOST_QUERIES = 200  # whose hits are compared
STEPS = ("marks", "train", "eval", "export", "compare")
_LOOP = ["loop.epochs=3", "loop.batch_size=16", "loop.learning_rate=2e-5", "loop.log_every=1", "loop.projector=0"]
_PLAIN = re.compile(r"(?!(?i:null|true|false|nan|inf)$)[A-Za-z_][A-Za-z0-9_]*")  # names that Hydra takes as they are
_PATH = re.compile(r"(?<![\w.])/(?:[^\s:/]+/)*")  # of an absolute path all but the file's name


@dataclass
class Progress:
    """Where a run is: its step, why it failed, its losses by optimiser step, and at the end what changed."""

    step: str = ""
    failed: str = ""
    losses: list[tuple[int, float]] = field(default_factory=list)
    folder: str = ""
    measured: str = ""
    summary: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    marked: dict[str, dict[str, str]] = field(default_factory=dict)
    """For each query its marked texts and what they were marked."""

    @property
    def tally(self) -> list[tuple[str, int, int]]:
        """For each kind of mark how many of the marked texts are among the hits before and after."""
        before, after = (Counter(self.marked[change.query].get(hit.title, "") for change in self.changes
                                 for hit in getattr(change, side)) for side in ("old", "new"))
        return [(kind, before[kind], after[kind]) for kind in KINDS]

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self.step in STEPS and not self.failed


class Trainer:
    """Trains on the marks of an index, one run at a time, each in a new folder.

    Args:
        folder: the index, as the user gave it.
        live: the index.
        marks: of it.
        work: where the runs' folders are made.
    """

    def __init__(self, folder: str, live: LiveIndex, marks: Marks, work: Path) -> None:
        self._export, self._live, self._marks, self._work = Path(folder), live, marks, work
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.progress = Progress()

    @property
    def why_not(self) -> str:
        """The key of the words that say why no run can begin from here; empty where one can."""
        with self._live.reading() as index:
            if not isinstance(index, Index):
                return "in_database"
            return "" if (index.export / "model").is_dir() else "no_model"

    def commands(self, export: Path, at: Path, corpus: str, *columns: str) -> list[tuple[str, list[str]]]:
        """Return each step's command, without ``python -m``.

        Args:
            export: the index's.
            at: the folder of their files.
            corpus: the file to index.
            *columns: what the export is told of its columns, besides those to keep.
        """
        model, marks = str(export / "model"), at / "marks.csv"
        with self._live.reading() as index:
            names = [name if _PLAIN.fullmatch(name) else quoted(name) for name in index.kept.names]
        columns += (f"corpus.keep=[{','.join(names)}]",) if names else ()
        return [("marks", ["search", "marks", str(export), "--export", str(marks)]),
                ("train", ["train", "loss=mnrl", f"model={model}", f"data={marks}", f"hydra.run.dir={at / 'run'}",
                           *_LOOP]),
                ("eval", ["eval", f"model={at / 'run'}", f"baseline={model}", "suite=marks",
                          f"file={test_file(marks)}", f"output={at / 'report'}"]),
                ("export", ["export", f"model={at / 'run'}", f"corpus={corpus}", *columns,
                            f"out={at / 'index'}"]),
                ("compare", ["search.compare", str(at / "index"), str(export)])]

    def shown(self) -> list[str]:
        """Return the commands as they are typed, in the folder where the corpus lies."""
        try:
            with self._live.reading() as index:
                about = json.loads((index.export / "manifest.json").read_text(encoding="utf-8"))["corpus"]
        except (OSError, ValueError, KeyError):  # an index without an export
            about = {}
        id_column = [f"corpus.id_column={about['id_column']}"] if about.get("id_column") else []
        commands = self.commands(self._export, Path(f"{self._export.name}-marked"), about.get("name", "titles.csv"),
                                 *id_column)
        return [f"python -m {shlex.join(words)}" for _, words in commands]

    def start(self) -> bool:
        """Start a run in a thread; False if one is under way, or there is no model."""
        with self._lock:
            if self.progress.running or self.why_not:
                return False
            self.progress = Progress("marks")
        threading.Thread(target=self._run, args=(self.progress,), name="training", daemon=True).start()
        return True

    def stop(self) -> None:
        """Stop the run: its training writes a checkpoint."""
        with self._lock:
            if self.progress.running:
                self.progress.failed = "stopped"
            if self._process is not None:
                self._process.terminate()

    def _run(self, progress: Progress) -> None:
        try:
            work = Path(new_folder(str(self._work / time.strftime("%Y-%m-%d_%H-%M-%S"))))
            progress.folder = str(work)
            test = write(self._marks.all(), work / "marks.csv", "triplets").test_queries
            commands = self.commands(*self._write_corpus(work))
            for step, words in commands[1:-1]:
                progress.step = step
                if step != "eval":
                    self._command(words, work, progress)
                elif test:
                    with suppress(UserError):  # such as too few held-out queries to measure with: no reason to stop
                        self._command(words, work, progress)
                        progress.measured = _measured(work / "report" / "report.json")
            progress.step = "compare"
            self._marks.copy(work / "index")
            self._compare(work / "index", progress)
            progress.step = "done"
        except Exception as error:
            if not isinstance(error, UserError):
                log.exception("training on the marks failed")
            progress.failed = progress.failed or _PATH.sub("", printable(str(error)))

    def _command(self, words: Sequence[str], work: Path, progress: Progress) -> None:
        """Run a command, its output into the folder's log; take in the losses while it runs.

        Raises:
            UserError: it failed, with its own line; or the run was stopped.
        """
        with (work / f"{words[0]}.log").open("wb") as output, self._lock:
            if progress.failed:
                raise UserError(progress.failed)
            self._process = subprocess.Popen([sys.executable, "-m", f"sentence_forge.{words[0]}", *words[1:]],
                                             stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        code = None
        while code is None:
            code = self._poll()
            progress.losses = _losses(work / "run" / "metrics.jsonl")
        if code:
            lines = (work / f"{words[0]}.log").read_text(encoding="utf-8", errors="replace").splitlines()
            errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            raise UserError(errors[-1] if errors else f"{words[0]} ended with {code}; see {words[0]}.log")

    def _poll(self) -> int | None:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(0.5)
        return None

    def _write_corpus(self, work: Path) -> tuple[Path, Path, str, str, str]:
        """Write the index's rows as a file to index again, for the corpus may have moved; return `commands`' words."""
        import csv

        path = work / "corpus.csv"
        with self._live.reading() as index, path.open("w", encoding="utf-8", newline="") as file:
            assert isinstance(index, Index)  # or no training would have begun
            names = index.kept.names
            row_id, text = (_free(name, names) for name in ("id", "title"))
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([row_id, text, *names])
            for row, (name, title) in enumerate(zip(index.ids, index.titles, strict=True)):
                cells = index.kept.of_row(row)
                writer.writerow([name, title, *(cells.get(column, "") for column in names)])
            return index.export, work, str(path), f"corpus.column={text}", f"corpus.id_column={row_id}"

    def _compare(self, new: Path, progress: Progress) -> None:
        queries = dict([*judged(self._marks.all()).queries.items()][:MOST_QUERIES])
        with Index.open(new) as after, self._live.reading() as before:
            assert isinstance(before, Index)
            found = changes(after, before, list(queries), K)
        progress.marked = {query: {text: kind for kind in KINDS for text in texts[kind]}
                           for query, texts in queries.items()}
        progress.changes = sorted(found, key=lambda change: change.overlap)
        progress.summary = summary(progress.changes, K)


def _free(name: str, taken: Sequence[str]) -> str:
    """Return a name for a column that is none of those taken."""
    return _free(f"{name}_", taken) if name in taken else name


def _losses(metrics: Path) -> list[tuple[int, float]]:
    try:
        found = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):  # not there yet, or its last line is being written
        return []
    return [(line["step"], line["train/loss"]) for line in found if "train/loss" in line]


def _measured(report: Path) -> str:
    """Return nDCG@10 of the held-out marks before and after, from a report.json."""
    found: ReportJson = json.loads(report.read_text(encoding="utf-8"))
    gain, after = found["baseline"]["tasks"]["marks"], found["tasks"]["marks"]
    number = float(after["ndcg@10"])  # type: ignore[typeddict-item]
    interval = gain["delta_ci95"]
    sure = "" if interval is None else f", 95 % interval {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"
    return f"nDCG@10 {100 * (number - gain['delta']):.1f} → {100 * number:.1f} ({100 * gain['delta']:+.1f}{sure})"
