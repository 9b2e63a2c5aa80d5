"""An evaluation as people see it: in a terminal, in a notebook, and as report.json, report.md and report.html."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from sentence_forge.eval.evaluate import Evaluation
from sentence_forge.eval.report.overview import overview, task_title
from sentence_forge.eval.report.sentences import left_out, protocol, story
from sentence_forge.eval.report.task_tables import task_tables
from sentence_forge.eval.report.text import markdown_section, markdown_table, markdown_text, terminal
from sentence_forge.eval.report.training import Training, dev_sentence, training_json, training_table
from sentence_forge.eval.schema import ReportJson
from sentence_forge.runtime.errors import UserError, printable
from sentence_forge.runtime.files import write_atomic


@dataclass(frozen=True)
class Report:
    """What an evaluation found. ``str()`` gives the terminal's tables; a notebook shows the page's summary.

    Args:
        evaluation: as ``eval.evaluate.evaluate`` returns it, with the arrays behind the numbers.
        training: the run that made the model.
    """

    evaluation: Evaluation
    training: Training | None = None

    @classmethod
    def open(cls, folder: str | Path) -> Report:
        """Return a report that was saved; its page has no plots, since they need more than report.json.

        Raises:
            UserError: the folder holds no report, or a damaged one.
        """
        from sentence_forge.eval.report.leaderboard import read_report

        about = read_report(Path(folder) / "report.json")
        if about is None:
            raise UserError(f"{folder}: holds no report.json, or a damaged one; evaluate again")
        return cls(Evaluation(about, {}))

    @property
    def json(self) -> ReportJson:
        """report.json: fractions, no NaN."""
        if self.training is None:
            return self.evaluation.json
        return {**self.evaluation.json, "training": training_json(self.training)}

    def save(self, folder: str | Path) -> Path:
        """Write report.json, report.md and report.html, each whole or not at all, and return the page's path.

        Args:
            folder: made where it is absent.
        """
        from sentence_forge.eval.report.page import page

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "report.json", _escaped(json.dumps(self.json, ensure_ascii=False, indent=2,
                                                                 allow_nan=False)) + "\n")
        write_atomic(folder / "report.md", self.markdown())
        write_atomic(folder / "report.html", page(self.evaluation, self.training))
        return folder / "report.html"

    def markdown(self) -> str:
        """Return report.md."""
        about = self.evaluation.json
        tasks, *others = overview(about)
        lines = [f"# {markdown_text(about['model'])}", "", markdown_text(protocol(about)), ""]
        if story(about):
            lines += [markdown_text(story(about)), ""]
        lines += markdown_table(tasks)
        for line in left_out(about):
            lines += [markdown_text(line), ""]
        if self.training is not None:
            sentence = dev_sentence(self.training)
            title, _, *table = markdown_section(training_table(self.training))
            lines += [title, "", *([markdown_text(sentence), ""] if sentence else []), *table]
        for table_of_all in others:
            lines += markdown_section(table_of_all)
        for name, row in about["tasks"].items():
            for table_of_task in task_tables(about, name):
                lines += markdown_section(table_of_task, before=task_title(name, row))
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        lines += [f"Fingerprint {markdown_text(about['fingerprint'])}. {markdown_text(versions)}.", ""]
        lines += [f"- {markdown_text(row['data']['path'])} sha256 {markdown_text(row['data']['sha256'])}"
                  for row in about["tasks"].values()]
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        return terminal(self.evaluation.json)

    def _repr_html_(self) -> str:
        from sentence_forge.eval.report.page import fragment

        return fragment(self.evaluation)


def _escaped(text: str) -> str:
    """Escape the characters of JSON that a terminal would obey; the values stay the same."""
    return re.sub("[^\n -~]", lambda found: found[0] if printable(found[0]) == found[0] else f"\\u{ord(found[0]):04x}",
                  text)
