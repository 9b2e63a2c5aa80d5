"""report.html: one self-contained page, the summary first, then a card a task. One small script, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from sentence_forge.eval.evaluate import Report
from sentence_forge.eval.report import plots, sections
from sentence_forge.eval.report.formatting import (
    change,
    headline,
    hundred,
    interval,
    limits,
    measure_name,
    p_value,
    protocol,
    story,
    task_title,
    value,
    verdict,
)
from sentence_forge.eval.report.script import SCRIPT
from sentence_forge.eval.report.style import STYLE
from sentence_forge.eval.tasks.base import TaskResult


def page(report: Report, training: Mapping[str, Any] | None = None) -> str:
    """Return the page; ``training`` as in ``eval.report.write_report``."""
    about = report.json
    parts = [_top(about), _summary(about), sections.models(about), sections.dims(about)]
    if training is not None:
        parts.append(_training(training))
    parts += [_small_multiples(report), sections.honesty(about)]
    pairs = [name for name, result in report.results.items() if result.cosine is not None]
    for name, result in report.results.items():
        parts.append(_task(name, about, result, opened=name in pairs[:1]))
    return (f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{escape(about['model'])}: evaluation</title><style>{STYLE}</style></head>"
            f"<body><main>{''.join(parts)}</main>{_footer(about)}<script>{SCRIPT}</script></body></html>\n")


def _top(about: Mapping[str, Any]) -> str:
    first = next(iter(about["averages"].values()))
    tasks = [(name, row) for name, row in about["tasks"].items() if row["measure"] == next(iter(about["averages"]))]
    over = f"average of {first['tasks']} tasks" if first["tasks"] > 1 else task_title(*tasks[0])
    return (f'<header class="top"><div><p class="eyebrow">Evaluation</p>'
            f'<h1>{escape(about["model"])}</h1><p class="note">{escape(protocol(about))}</p></div>'
            f'<div class="average"><b>{hundred(first["value"])}</b>'
            f'<span class="note">{escape(measure_name(tasks[0][1]["measure"]))}, {escape(over)} · 95 % interval '
            f'{interval(first["ci95"])}</span></div></header>')


def _summary(about: Mapping[str, Any]) -> str:
    before = about.get("baseline")
    rows = [(f'<a href="#{escape(name)}">{_title(name, row)}</a>', row,
             before and before["tasks"].get(name)) for name, row in about["tasks"].items()]
    for measure, average in about["averages"].items():
        if average["tasks"] > 1:
            old = before and before["averages"].get(measure)
            name = "Average" if len(about["averages"]) == 1 else f"Average {measure_name(measure)}"
            rows.append((name, {"measure": "value", "value_ci95": average["ci95"], **average},
                         old and {"measure": "value", "value_ci95": old["ci95"], **old}))
    low, high = _bounds([row for _, row, _ in rows] + [old for _, _, old in rows if old])
    ticks = [tick for tick in plots.round_values(100 * low, 100 * high, 4) if 100 * low < tick < 100 * high]
    scale = "".join(f'<span style="left:{_share(tick / 100, low, high)}%">{tick:g}</span>' for tick in ticks)
    change_head = f"<th>against {escape(before['model'])}</th>" if before else ""
    pearson = any("pearson_cosine" in row for row in about["tasks"].values())
    body = "".join(_summary_row(title, row, old, (low, high), ticks, compared=bool(before), pearson=pearson,
                                several=len(about["averages"]) > 1) for title, row, old in rows)
    told = f'<p class="story">{escape(story(about))}</p>' if before else ""
    absent = (f'<p class="note">Not in the data folder and not averaged over: {escape(", ".join(about["absent"]))}.</p>'
              if about["absent"] else "")
    absent += "".join(f'<p class="note">{escape(name)}: skipped, {escape(why)}.</p>'
                      for name, why in about["skipped"].items())
    key = '<p class="note">Filled: this model. Hollow: the one it is held against.</p>' if before else ""
    return (f'<section class="card">{told}<table class="summary"><thead><tr><th>Task</th>'
            f'<th>{escape(headline(about))} × 100</th>'
            f'<th class="span"><div class="scale">{scale}</div></th>{change_head}'
            f"{'<th>Pearson</th>' if pearson else ''}<th>scored</th><th>texts cut</th></tr></thead>"
            f"<tbody>{body}</tbody></table>{key}{absent}</section>")


def _summary_row(title: str, row: Mapping[str, Any], old: Mapping[str, Any] | None, bounds: tuple[float, float],
                 ticks: Sequence[float], *, compared: bool, pearson: bool, several: bool) -> str:
    grid = "".join(f'<u style="left:{_share(tick / 100, *bounds)}%"></u>' for tick in ticks)
    marks = ""
    if old:
        marks += _mark(value(old), limits(old), bounds, ' class="old"')
    marks += _mark(value(row), limits(row), bounds, "")
    changed = '<td class="change">–</td>' if compared else ""
    if old:
        changed = (f'<td class="change {verdict(old)}">{change(old["delta"])}'
                   f"<small>{interval(old['delta_ci95'], sign=True)}, {p_value(old['p'])}</small></td>")
    r = hundred(row["pearson_cosine"]) if "pearson_cosine" in row else ""
    minor = [*([("first", "Pearson", r)] if pearson else []), ("second", "scored", _count(row.get("n"))),
             ("third", "texts cut", _count(row.get("truncated")))]
    cells = "".join(f'<td class="minor {place}" data-name="{name}">{shown}</td>' for place, name, shown in minor)
    kind = ' class="total"' if title.startswith("Average") else ""
    what = f"<small>{escape(measure_name(row['measure']))}</small>" if several and row["measure"] != "value" else ""
    return (f'<tr{kind}><td>{title}{what}</td><td class="value">{hundred(value(row))}'
            f"<small>{interval(limits(row))}</small></td>"
            f'<td class="span"><div class="bar">{grid}{marks}</div></td>{changed}{cells}</tr>')


def _mark(at: float, spread: Sequence[float] | None, bounds: tuple[float, float], kind: str) -> str:
    left, right = (_share(limit, *bounds) for limit in spread or (at, at))
    return (f'<i{kind} style="left:{left}%;width:{right - left:.2f}%"></i>'
            f'<b{kind} style="left:{_share(at, *bounds)}%"></b>')


def _small_multiples(report: Report) -> str:
    """Return a small plot a task: the median cosine by score, before and after where there is a baseline."""
    drawn = ""
    for name, result in report.results.items():
        if result.cosine is None or result.gold is None:
            continue
        old = report.baseline.results.get(name) if report.baseline else None
        drawn += (f'<figure><figcaption><a href="#{escape(name)}">{escape(name)}</a> '
                  f"<b>{hundred(result.value)}</b></figcaption>"
                  f"{plots.small(result.gold, result.cosine, None if old is None else old.cosine)}</figure>")
    if drawn.count("<figure>") < 2:
        return ""
    key = (' <span class="now">Solid: this model.</span> <span class="then">Dashed: the baseline.</span>'
           if report.baseline else "")
    return (f'<section class="card"><div class="head"><h2>Score and cosine, task by task</h2></div>'
            f'<div class="multiples">{drawn}</div><p class="note">Median cosine (line) and middle half (band) of the '
            f"pairs, from the lowest human score to the highest; all plots share the cosine's axis, −0.2 to 1.{key} "
            "The steeper, the better told apart.</p></section>")


def _bounds(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    ends = [limit for row in rows for limit in (limits(row) or (value(row),))]
    margin = max(0.01, 0.06 * (max(ends) - min(ends)))
    return min(ends) - margin, max(ends) + margin


def _share(at: float, low: float, high: float) -> float:
    return round(100 * (at - low) / (high - low), 2)


def _title(name: str, row: Mapping[str, Any]) -> str:
    return f"{escape(row['label'])} <small>{escape(name)}</small>" if row.get("label") else escape(name)


def _count(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _task(name: str, about: Mapping[str, Any], result: TaskResult, *, opened: bool) -> str:
    row, baseline = about["tasks"][name], about.get("baseline", {})
    old = baseline.get("tasks", {}).get(name)
    against = f'<small class="{verdict(old)}">{change(old["delta"])} against the baseline</small>' if old else ""
    cut = f", {row['truncated']:,} of {row['texts']:,} texts cut" if row["truncated"] else ""
    scored = "" if row["n"] is None else f" · {row['n']:,} scored{cut}"
    plotted = "" if result.cosine is None else _plots(row, result)
    parts = "".join(part for part in (_domains(row), _measures(row), sections.confusion(row), sections.geometry(row))
                    if part)
    more = (sections.parametric(old) + sections.worst_pairs(row, opened=opened)
            + sections.changed_pairs(old, baseline.get("model", "")) + sections.slices(row, old)
            + sections.lost_triplets(row))
    return (f'<section class="card" id="{escape(name)}"><div class="head"><h2>{_title(name, row)}</h2>'
            f'<div><strong>{hundred(value(row))}</strong> <small>{escape(measure_name(row["measure"]))}, '
            f"{interval(limits(row))}{scored}</small> {against}</div></div>"
            f'{plotted}<div class="two below">{parts}</div>{more}</section>')


def _plots(row: Mapping[str, Any], result: TaskResult) -> str:
    gold, cosine = result.gold, result.cosine
    assert gold is not None and cosine is not None
    groups = plots.thirds(gold)
    legend = "".join(f'<span class="{plots.hue(number, len(groups))}">score {escape(label)} ({mask.sum():,})</span>'
                     for number, (label, mask) in enumerate(groups))
    drawn = min(len(gold), plots.MOST_DOTS)
    dots = f"{drawn:,} of {len(gold):,} pairs, drawn by chance" if drawn < len(gold) else f"all {len(gold):,} pairs"
    if len(np.unique(gold)) <= plots.FEW_SCORES:
        dots += ", spread sideways to be seen"
    return (f'<div class="two"><div><h3>Human score and cosine</h3>{plots.scatter(gold, cosine, _range(row))}'
            f'<p class="note">Dots: {dots}. Line: median cosine by score, all pairs; band: the middle half.</p></div>'
            f"<div><h3>Cosines of pairs scored low, middle and high</h3>{plots.histogram(cosine, groups)}"
            f'<p class="legend">{legend}</p><p class="note">The less they overlap, the better a threshold can tell '
            "them apart.</p></div></div>")


def _range(row: Mapping[str, Any]) -> tuple[float, float]:
    low, high = row["score_range"]
    return low, high


def _measures(row: Mapping[str, Any]) -> str:
    if "spearman_dot" in row:
        names = ("cosine", "dot", "euclidean", "manhattan")
        lines = []
        for name in names:
            cells = [name]
            for statistic in ("spearman", "pearson"):
                limits_of = row.get(f"{statistic}_{name}_ci95")
                cells += [hundred(row[f"{statistic}_{name}"]), "" if limits_of is None else interval(limits_of)]
            lines.append(cells)
        heads = ["", "Spearman", "95 %", "Pearson", "95 %"]
        return f"<div><h3>By similarity</h3>{sections.table(heads, lines)}</div>"
    if "best_f1" in row:
        f1, accuracy = row["best_f1"], row["best_accuracy"]
        lines = [["F1", f"{f1['cosine']:.3f}", hundred(f1["f1"]), hundred(f1["precision"]), hundred(f1["recall"])],
                 ["accuracy", f"{accuracy['cosine']:.3f}", hundred(accuracy["accuracy"]), "", ""]]
        heads = ["by", "cosine from", "value", "precision", "recall"]
        return (f"<div><h3>Best thresholds</h3>{sections.table(heads, lines)}"
                f'<p class="note">{row["positives"]:,} of {row["n"]:,} pairs match.</p></div>')
    return ""


def _domains(row: Mapping[str, Any]) -> str:
    if not row.get("domains"):
        return ""
    measures = [name for name in next(iter(row["domains"].values()))
                if name not in ("n", "pearson_cosine") and not name.endswith("_ci95")]
    if len(measures) > 1:
        heads = ["", "titles", *map(measure_name, measures)]
        lines = [[name, f"{part['n']:,}", *(hundred(part.get(measure)) for measure in measures)]
                 for name, part in [*row["domains"].items(), ("all", row)]]
        return f"<div><h3>By category</h3>{sections.table(heads, lines)}</div>"
    mean = row.get("spearman_cosine_mean_of_domains")
    mean = "" if mean is None else f" (mean {hundred(mean)})"
    bars = ""
    for name, domain in row["domains"].items():
        found = domain.get(row["measure"])
        limits_of = domain.get(f"{row['measure']}_ci95")
        spread = f" <small>{interval(limits_of)}</small>" if limits_of else ""
        width = 0 if found is None else max(0.0, round(100 * found, 1))
        bars += (f"<span>{escape(name) or 'no name'} <small>{domain['n']:,}</small></span>"
                 f'<div><div style="width:{width}%"></div></div><span>{hundred(found)}'
                 f"{spread}</span>")
    return f'<div><h3>By sub-set, each ranked alone{mean}</h3><div class="domains">{bars}</div></div>'


def _training(training: Mapping[str, Any]) -> str:
    curve = training.get("curve") or {}
    facts = "".join(f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
                    for name, value in training.get("rows", ()))
    before = training.get("baseline")
    told, level = "", None
    if before:
        level = 100 * before["before"]
        told = (f'<p class="story">{escape(str(before["measure"]))} on dev: {level:.2f} before training, '
                f"{hundred(before['after'])} after")
        if before.get("delta_ci95"):
            told += (f' <span class="{verdict(before)}">({change(before["after"] - before["before"])}, 95 % interval '
                     f"{interval(before['delta_ci95'], sign=True)})</span>")
        told += ".</p>"
    charts = ""
    if curve.get("dev"):
        steps, values = zip(*curve["dev"], strict=True)
        name = f"dev {curve.get('measure', 'measure')} × 100"
        values = tuple(100 * value for value in values)
        charts += (f"<div><h3>{escape(name)}</h3>{plots.curve(steps, values, name, before=level, knots=True)}"
                   '<p class="note">Ringed: the best.</p></div>')
    if curve.get("step"):
        charts += f"<div><h3>Loss</h3>{plots.curve(curve['step'], curve['loss'], 'loss')}</div>"
    return (f'<section class="card"><div class="head"><h2>{escape(str(training.get("title", "Training")))}</h2></div>'
            f'{told}<div class="two">{charts}</div><dl class="below">{facts}</dl></section>')


def _footer(about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    data = "".join(f"<dt>{escape(row['data']['path'])}</dt><dd><code>sha256 {escape(row['data']['sha256'])}</code></dd>"
                   for row in about["tasks"].values())
    length = f"<dt>reads at most</dt><dd>{about['max_length']} tokens</dd>" if about["max_length"] else ""
    return (f"<footer><dl><dt>model</dt><dd>{escape(about['model'])}</dd><dt>fingerprint</dt>"
            f"<dd><code>{escape(about['fingerprint'])}</code></dd>{length}<dt>versions</dt><dd>{escape(versions)}</dd>"
            f"<dt>took</dt><dd>{about['seconds']:,.1f} s</dd>{data}</dl></footer>")
