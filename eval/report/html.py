"""Fill in the HTML templates of reports. Each page is one file that opens offline, with styles and script inside."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sentence_forge.eval.report import plots, sentences
from sentence_forge.eval.report.formatting import change, count, hundred, interval, measure_name, p_value, plain
from sentence_forge.eval.report.tables import Bar, Table


def render(template: str, **context: Any) -> str:  # noqa: ANN401 - whatever the template names
    """Return a template of ``eval/report/templates``, filled in.

    Every value is escaped and its control characters are spelled out (``formatting.plain``), but for ``Markup``. A
    name that the context lacks is an error.

    Args:
        template: the file's name without ``.html.j2``.
        **context: what the template needs; ``title`` always.
    """
    return _environment().get_template(f"{template}.html.j2").render(**context)


@cache
def _environment() -> Environment:
    made = Environment(loader=PackageLoader("sentence_forge.eval.report"), autoescape=True, undefined=StrictUndefined,
                       finalize=_finalize, trim_blocks=True, lstrip_blocks=True)
    made.globals |= {"css": Markup(template_file("style.css")), "script": Markup(template_file("sort.js")),
                     "scale_of": Scale, "story": sentences.story, "protocol": sentences.protocol,
                     "left_out": sentences.left_out}
    made.filters |= {"hundred": hundred, "change": change, "interval": interval, "count": count, "p_value": p_value,
                     "measure_name": measure_name}
    return made


def template_file(name: str) -> str:
    """Return the text of a file beside the templates, such as ``style.css``."""
    return resources.files("sentence_forge.eval.report").joinpath("templates", name).read_text(encoding="utf-8")


def _finalize(value: object) -> object:
    return value if isinstance(value, Markup) or not isinstance(value, str) else plain(value)


class Scale:
    """The scale that the bars of a table share.

    Args:
        table: whose cells hold the bars.
    """

    def __init__(self, table: Table) -> None:
        bars = [bar for row in table.rows for cell in row for bar in cell.bars]
        ends = [end for bar in bars for end in bar.limits or (bar.value,)]
        margin = max(0.01, 0.06 * (max(ends) - min(ends)))
        self.low, self.high = min(ends) - margin, max(ends) + margin

    def at(self, value: float) -> float:
        """Return where ``value`` lies, in % of the width."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """Return where about four round values lie, and how they read, x 100."""
        low, high = 100 * self.low, 100 * self.high
        return [(self.at(tick / 100), f"{tick:g}") for tick in plots.round_values(low, high, 4) if low < tick < high]

    def span(self, bar: Bar) -> tuple[float, float]:
        """Return where a bar's interval starts and how wide it is, in %."""
        left, right = (self.at(end) for end in bar.limits or (bar.value, bar.value))
        return left, round(right - left, 2)
