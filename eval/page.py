"""report.html: one self-contained page, the summary first, then a card a task. No script, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from eval import plots
from eval.evaluate import Report
from eval.style import STYLE
from eval.tasks import TaskResult
from eval.wording import change, hundred, interval, p_value, protocol, story, task_title, verdict


def page(report: Report, training: Mapping[str, Any] | None = None) -> str:
    """Return the page; ``training`` as in ``eval.report.write_report``."""
    about = report.json
    parts = [_top(about), _summary(about)]
    if training is not None:
        parts.append(_training(training))
    for name, result in report.results.items():
        parts.append(_task(name, result, about.get("baseline", {}).get("tasks", {}).get(name)))
    return (f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{escape(about['model'])}: STS report</title><style>{STYLE}</style></head>"
            f"<body><main>{''.join(parts)}</main>{_footer(about)}</body></html>\n")


def _top(about: Mapping[str, Any]) -> str:
    count = len(about["tasks"])
    over = f"average of {count} tasks" if count > 1 else task_title(*next(iter(about["tasks"].items())))
    return (f'<header class="top"><div><p class="eyebrow">Semantic textual similarity</p>'
            f'<h1>{escape(about["model"])}</h1><p class="note">{escape(protocol(about))}</p></div>'
            f'<div class="average"><b>{hundred(about["average"])}</b>'
            f'<span class="note">{escape(over)} · 95 % interval {interval(about["average_ci95"])}</span></div>'
            "</header>")


def _summary(about: Mapping[str, Any]) -> str:
    before = about.get("baseline")
    rows = [(f'<a href="#{escape(name)}">{_title(name, row)}</a>', row,
             before and before["tasks"][name]) for name, row in about["tasks"].items()]
    if len(rows) > 1:
        average = {"spearman_cosine": about["average"], "spearman_cosine_ci95": about["average_ci95"]}
        rows.append(("Average", average, before and {**before, "spearman_cosine": before["average"],
                                                     "spearman_cosine_ci95": before["average_ci95"]}))
    low, high = _bounds([row for _, row, _ in rows], [old for _, _, old in rows if old])
    ticks = [tick for tick in plots.round_values(100 * low, 100 * high, 4) if 100 * low < tick < 100 * high]
    scale = "".join(f'<span style="left:{_share(tick / 100, low, high)}%">{tick:g}</span>' for tick in ticks)
    change_head = f"<th>against {escape(before['model'])}</th>" if before else ""
    body = "".join(_summary_row(title, row, old, (low, high), ticks) for title, row, old in rows)
    told = f'<p class="story">{escape(story(about))}</p>' if before else ""
    absent = (f'<p class="note">Not in the data folder and not averaged over: {escape(", ".join(about["absent"]))}.</p>'
              if about["absent"] else "")
    key = '<p class="note">Filled: this model. Hollow: the one it is held against.</p>' if before else ""
    return (f'<section class="card">{told}<table class="summary"><thead><tr><th>Task</th><th>Spearman × 100</th>'
            f'<th class="span"><div class="scale">{scale}</div></th>{change_head}<th>Pearson</th><th>pairs</th>'
            f"<th>texts cut</th></tr></thead><tbody>{body}</tbody></table>{key}{absent}</section>")


def _summary_row(title: str, row: Mapping[str, Any], old: Mapping[str, Any] | None, bounds: tuple[float, float],
                 ticks: Sequence[float]) -> str:
    value, limits = row["spearman_cosine"], row["spearman_cosine_ci95"]
    grid = "".join(f'<u style="left:{_share(tick / 100, *bounds)}%"></u>' for tick in ticks)
    marks = ""
    if old:
        marks += _mark(old["spearman_cosine"], old["spearman_cosine_ci95"], bounds, ' class="old"')
    marks += _mark(value, limits, bounds, "")
    changed = ""
    if old:
        changed = (f'<td class="change {verdict(old)}">{change(old["delta"])}'
                   f"<small>{interval(old['delta_ci95'], sign=True)}, {p_value(old['p'])}</small></td>")
    minor = (("first", "Pearson", hundred(row["pearson_cosine"]) if "pearson_cosine" in row else ""),
             ("second", "pairs", _count(row.get("n"))), ("third", "texts cut", _count(row.get("truncated"))))
    cells = "".join(f'<td class="minor {place}" data-name="{name}">{shown}</td>' for place, name, shown in minor)
    kind = ' class="total"' if title == "Average" else ""
    return (f'<tr{kind}><td>{title}</td><td class="value">{hundred(value)}<small>{interval(limits)}</small></td>'
            f'<td class="span"><div class="bar">{grid}{marks}</div></td>{changed}{cells}</tr>')


def _mark(value: float, limits: Sequence[float], bounds: tuple[float, float], kind: str) -> str:
    left, right = (_share(limit, *bounds) for limit in limits)
    return (f'<i{kind} style="left:{left}%;width:{right - left:.2f}%"></i>'
            f'<b{kind} style="left:{_share(value, *bounds)}%"></b>')


def _bounds(rows: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    limits = [limit for row in [*rows, *old] for limit in row.get("spearman_cosine_ci95", ())]
    margin = max(0.01, 0.06 * (max(limits) - min(limits)))
    return min(limits) - margin, max(limits) + margin


def _share(value: float, low: float, high: float) -> float:
    return round(100 * (value - low) / (high - low), 2)


def _title(name: str, row: Mapping[str, Any]) -> str:
    return f"{escape(row['label'])} <small>{escape(name)}</small>" if row.get("label") else escape(name)


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _task(name: str, result: TaskResult, old: Mapping[str, Any] | None) -> str:
    row, gold, cosine = result.row, result.gold, result.cosine
    groups = plots.thirds(gold)
    legend = "".join(f'<span class="{plots.hue(number, len(groups))}">score {escape(label)} ({mask.sum():,})</span>'
                     for number, (label, mask) in enumerate(groups))
    drawn = min(len(gold), plots.MOST_DOTS)
    dots = f"{drawn:,} of {len(gold):,} pairs, drawn by chance" if drawn < len(gold) else f"all {len(gold):,} pairs"
    if len(np.unique(gold)) <= plots.FEW_SCORES:
        dots += ", spread sideways to be seen"
    against = f'<small class="{verdict(old)}">{change(old["delta"])} against the baseline</small>' if old else ""
    cut = f", {row['truncated']:,} of {row['texts']:,} texts cut" if row["truncated"] else ""
    return (f'<section class="card" id="{escape(name)}"><div class="head"><h2>{_title(name, row)}</h2>'
            f'<div><strong>{hundred(row["spearman_cosine"])}</strong> <small>{interval(row["spearman_cosine_ci95"])} · '
            f"{row['n']:,} pairs{cut}</small> {against}</div></div>"
            f'<div class="two"><div><h3>Human score and cosine</h3>{plots.scatter(gold, cosine, _range(row))}'
            f'<p class="note">Dots: {dots}. Line: median cosine by score, all pairs; band: the middle half.</p></div>'
            f"<div><h3>Cosines of pairs scored low, middle and high</h3>{plots.histogram(cosine, groups)}"
            f'<p class="legend">{legend}</p><p class="note">The less they overlap, the better a threshold can tell '
            f'them apart.</p></div></div><div class="two below">{_domains(row)}{_measures(row)}</div></section>')


def _range(row: Mapping[str, Any]) -> tuple[float, float]:
    low, high = row["score_range"]
    return low, high


def _measures(row: Mapping[str, Any]) -> str:
    names = ("cosine", "dot", "euclidean", "manhattan")
    head = "".join(f"<th>{name}</th>" for name in names)
    lines = "".join(f"<tr><td>{statistic.title()}</td>"
                    + "".join(f"<td>{hundred(row[f'{statistic}_{name}'])}</td>" for name in names) + "</tr>"
                    for statistic in ("spearman", "pearson"))
    return f'<div><h3>By similarity</h3><table class="small"><tr><th></th>{head}</tr>{lines}</table></div>'


def _domains(row: Mapping[str, Any]) -> str:
    if not row["domains"]:
        return ""
    mean = row.get("spearman_cosine_mean_of_domains")
    mean = "" if mean is None else f" (mean {hundred(mean)})"
    lines = ""
    for name, domain in row["domains"].items():
        value = domain.get("spearman_cosine")
        width = 0 if value is None else max(0.0, round(100 * value, 1))
        lines += (f"<span>{escape(name) or 'no name'} <small>{domain['n']:,}</small></span>"
                  f'<div><div style="width:{width}%"></div></div><span>{hundred(value)}</span>')
    return f'<div><h3>By sub-set, each ranked alone{mean}</h3><div class="domains">{lines}</div></div>'


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
