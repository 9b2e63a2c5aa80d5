"""The parts of a task's card that say where it fails and how far to trust it; each is empty where there is nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sentence_forge.eval.report.formatting import (
    change,
    dims_table,
    hundred,
    interval,
    measure_name,
    p_value,
    trained_on,
)

Row = Mapping[str, Any]


def sortable(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str) -> str:
    """Return a table whose heads are buttons; ``rows`` hold whole ``<td>`` elements."""
    head = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in heads)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return (f'<div class="wide"><table class="sortable {kind}"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a small table of texts, which scrolls by itself where the window is narrow."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table class="small"><tr>{head}</tr>{body}</table></div>'


def worst_pairs(row: Row, *, opened: bool) -> str:
    """Return the table of the pairs with the largest rank errors."""
    found = row.get("failures")
    if not found:
        return ""
    rows = [[_error(pair["error"]), number(pair["gold"], f"{pair['gold']:g}"),
             number(pair["cosine"], f"{pair['cosine']:.3f}"), text(pair["text1"]), text(pair["text2"])]
            for pair in found]
    shown = sortable(("rank error", "gold", "cosine", "text", "other text"), rows, "pairs")
    return _details("Worst pairs", f"the {len(found)} most wrongly ranked, either way", shown +
                    '<p class="note">Rank error: the rank by cosine less the rank by score, in % of all pairs. '
                    '<span class="over">Above zero</span>: taken to be more alike than people say; '
                    '<span class="under">below</span>: less.</p>', opened=opened)


def changed_pairs(old: Row | None, name: str) -> str:
    """Return the table of the pairs whose rank error changed most against the baseline."""
    found = (old or {}).get("changes")
    if not found:
        return ""
    rows = [[number(pair["change"], change(pair["change"]).split(".")[0], "good" if pair["change"] > 0 else "bad"),
             number(pair["gold"], f"{pair['gold']:g}"), number(pair["cosine_before"], f"{pair['cosine_before']:.3f}"),
             number(pair["cosine"], f"{pair['cosine']:.3f}"), text(pair["text1"]), text(pair["text2"])]
            for pair in found]
    shown = sortable(("change", "gold", "before", "now", "text", "other text"), rows, "pairs")
    return _details("What changed most", f"against {name}", shown +
                    '<p class="note">Change: by how many % of all pairs the rank error shrank (above zero, better) or '
                    "grew.</p>")


def slices(row: Row, old: Row | None) -> str:
    """Return the table of slices, beside the baseline's where there is one."""
    found = row.get("slices")
    if not found:
        return ""
    before = (old or {}).get("slices", {})
    two = bool(before)
    heads = ["slice", "pairs", measure_name(row["measure"]), *["before"] * two, "bias", *["bias before"] * two]
    lines = []
    for name, part in found.items():
        then = before.get(name)
        old_cells = [hundred(then["value"]), _bias(then["bias"])] if then else ["–", "–"]
        lines.append([name, f"{part['n']:,}", hundred(part["value"]), *old_cells[:two], _bias(part["bias"]),
                      *old_cells[1:1 + two]])
    return _details("Slices", f"{len(found)} kinds of pairs", table(heads, lines) +
                    '<p class="note">Bias: the mean rank error of the slice, in % of all pairs; above zero the model '
                    "takes these pairs to be more alike than people do. Within a slice of like scores a correlation is "
                    "low by itself: read the bias there.</p>")


def confusion(row: Row) -> str:
    """Return the confusion matrix of a task that has one, with recall and precision of each label."""
    found = row.get("confusion")
    if not found:
        return ""
    names, matrix = found["labels"], found["gold_by_predicted"]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = ""
    for name, counts in zip(names, matrix, strict=True):
        total = max(1, sum(counts))
        cells = "".join(f'<td class="heat" style="--heat:{100 * count / total:.0f}%">{count:,}</td>'
                        for count in counts)
        lines += (f"<tr><td>{escape(name)}</td>{cells}<td>{hundred(counts[names.index(name)] / total)}</td></tr>")
    columns = [sum(column) for column in zip(*matrix, strict=True)]
    right = "".join(f"<td>{hundred(matrix[number][number] / columns[number] if columns[number] else None)}</td>"
                    for number in range(len(names)))
    return ('<div><h3>Confusion: a row is what people say, a column what the model says</h3><div class="wide">'
            f'<table class="small confusion"><tr><th></th>{head}<th>recall</th></tr>{lines}<tr><td>precision</td>'
            f"{right}<td></td></tr></table></div></div>")


def lost_triplets(row: Row) -> str:
    """Return the triplets that were lost by the widest margin."""
    found = row.get("lost")
    if not found:
        return ""
    rows = [[number(each["margin"], f"{each['margin']:.3f}", "bad"), *(text(part) for part in each["texts"][:3])]
            for each in found]
    return _details("Lost by the most", f"{len(found)} triplets",
                    sortable(("margin", "anchor", "positive", "negative"), rows, "pairs"), opened=True)


def geometry(row: Row) -> str:
    """Return how the task's vectors lie, and the threshold that fits its scores."""
    found = row.get("geometry")
    if not found:
        return ""
    facts = [("alignment", "–" if found["alignment"] is None else f"{found['alignment']:.3f}",
              "mean squared distance of pairs that score at least 80 % of the range; lower is better"),
             ("uniformity", f"{found['uniformity']:.3f}", "log mean exp(−2 d²) over all texts; lower is more even"),
             ("anisotropy", f"{found['anisotropy']:.3f}", "mean cosine of two texts by chance; 0 is even")]
    for name in ("positives", "negatives"):
        spread = found[name]
        if spread:
            low, middle, high = spread["quartiles"]
            facts.append((f"cosine of {name}", f"{middle:.3f}", f"median of {spread['n']:,}; half of them lie from "
                                                                f"{low:.3f} to {high:.3f}"))
    if best := found.get("threshold"):
        facts.append(("same from", f"{best['cosine']:.3f}", f"precision {hundred(best['precision'])}, recall "
                                                            f"{hundred(best['recall'])}, on these very pairs"))
    shown = "".join(f"<dt>{name}</dt><dd><b>{value}</b> <span>{escape(why)}</span></dd>" for name, value, why in facts)
    return f'<div><h3>Geometry</h3><dl class="facts">{shown}</dl></div>'


def parametric(old: Row | None) -> str:
    """Return Williams' and Steiger's tests against the baseline, in a line."""
    if not old or "williams" not in old:
        return ""
    t, z = old["williams"], old["steiger"]
    return (f'<p class="note">Williams t({t["df"]:,}) = {t["t"]:.2f}, {p_value(t["p"])}; Steiger Z = {z["z"]:.2f}, '
            f'{p_value(z["p"])} (of the ranks; the interval above assumes less).</p>')


def number(value: float, shown: str, kind: str = "") -> str:
    """Return a cell that sorts by ``value``."""
    return f'<td data-v="{value:.6g}"{f" class={kind}" if kind else ""}>{shown}</td>'


def text(value: str) -> str:
    """Return a cell of text."""
    return f'<td class="text">{escape(value)}</td>'


def honesty(about: Row) -> str:
    """Return the card of honesty rows: what repeats, what was cut, what was trained on, the score without it."""
    tasks = {name: row for name, row in about["tasks"].items() if "honesty" in row}
    if not tasks:
        return ""
    lines = ""
    for name, row in tasks.items():
        known = row["honesty"]["trained_on"]
        mean = row.get("spearman_cosine_mean_of_domains")
        lines += (f"<tr><td>{escape(name)}</td>{_share(row['truncated'], row['texts'])}"
                  f"{_share(row['honesty']['duplicates'], row['n'])}{_overlap(known, row)}"
                  f"<td>{hundred(mean) if mean is not None else ''}</td></tr>")
    return ('<section class="card" id="honesty"><div class="head"><h2>How far to trust it</h2></div><div class="wide">'
            '<table class="small"><tr><th>Task</th><th>texts cut</th><th>repeated</th>'
            "<th>trained on, to the letter</th><th>trained on, normalised</th><th>texts seen</th>"
            "<th>score</th><th>score without</th>"
            f"<th>mean of sub-sets</th></tr>{lines}</table></div>"
            f'<p class="note">{escape(trained_on(about))} Normalised: '
            "without case, punctuation and runs of spaces, the texts of a pair in any order. The score that counts is "
            "over all rows, sub-sets joined (“all”); the mean of sub-sets is SentEval's other protocol.</p></section>")


def _overlap(known: Row | None, row: Row) -> str:
    score = f"<td>{hundred(row[row['measure']])}</td>"
    if known is None:
        return f'<td colspan="3" class="same">not recorded</td>{score}<td class="same">–</td>'
    without = known.get("without")
    last = '<td class="same">the same</td>'
    if without:
        last = (f"<td class=\"wrap\"><b>{hundred(without['value'])}</b>"
                f"<small>of {without['n']:,} left{_gain(without)}</small></td>")
    return (_share(known["exact"], row["n"]) + _share(known["normalised"], row["n"])
            + _share(known["texts"], known["of_texts"]) + score + last)


def _gain(without: Row) -> str:
    if "delta" not in without:
        return ""
    sure = f" ({interval(without['delta_ci95'], sign=True)})" if "delta_ci95" in without else ""
    return f", {change(without['delta'])}{sure} against the baseline's {hundred(without['before'])}"


def _share(count: int, of: int) -> str:
    if not count:
        return '<td class="same">0</td>'
    return f"<td>{count:,} <small>{100 * count / max(1, of):.1f} %</small></td>"


def models(about: Row) -> str:
    """Return the table of several models, and of seeds as mean and standard deviation."""
    rows = about.get("models")
    if not rows:
        return ""
    names = list(about["tasks"])
    mean = escape(measure_name(next(iter(about["averages"]))))
    best = {name: max(row["tasks"].get(name, {}).get("value", -1) for row in rows) for name in names}
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = ""
    for row in rows:
        cells = ""
        for name in names:
            found = row["tasks"].get(name)
            if found is None:
                cells += "<td>–</td>"
                continue
            mark = ' class="best"' if found["value"] == best[name] else ""
            delta = (f"<small>{change(found['delta'])}, {interval(found['delta_ci95'], sign=True)}</small>"
                     if "delta" in found else f"<small>{interval(found['ci95'])}</small>")
            cells += f"<td{mark}>{hundred(found['value'])}{delta}</td>"
        lines += f"<tr><td>{escape(row['model'])}</td>{cells}<td>{hundred(row['average'])}</td></tr>"
    for row in about.get("seeds", ()):
        cells = "".join(f"<td>{_mean_sd(row['tasks'].get(name))}</td>" for name in names)
        what = f"<small>mean ± sd of {len(row['seeds'])} seeds</small>"
        lines += (f'<tr class="total"><td>{escape(row["model"])}{what}</td>{cells}'
                  f"<td>{_mean_sd(row['average'])}</td></tr>")
    key = ("Small: the difference from the baseline, with its 95 % interval." if about.get("baseline") else
           "Small: the 95 % interval.")
    return (f'<section class="card" id="models"><div class="head"><h2>Models</h2></div><div class="wide">'
            f'<table class="small models"><tr><th>Model</th>{head}<th>average {mean}</th></tr>{lines}</table></div>'
            f'<p class="note">{key} The highest of each task is bold.</p></section>')


def dims(about: Row) -> str:
    """Return the table of what cutting the vectors loses."""
    rows = dims_table(about)
    if not rows:
        return ""
    return ('<section class="card" id="dims"><div class="head"><h2>Cut to fewer dimensions</h2></div>'
            f'{table(rows[0], rows[1:])}<p class="note">The first so many numbers of each vector, at length 1. '
            "Difference: from whole vectors, of the average, over the same resamples.</p></section>")


def _mean_sd(found: Mapping[str, float] | None) -> str:
    return "–" if found is None else f"{hundred(found['mean'])} ± {hundred(found['sd'])}"


def _error(value: float) -> str:
    return number(value, f"{100 * value:+.0f}".replace("-", "−"), "over" if value > 0 else "under")


def _bias(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _details(title: str, more: str, inner: str, *, opened: bool = False) -> str:
    return (f"<details{' open' if opened else ''}><summary>{escape(title)} <small>{escape(more)}</small></summary>"
            f"{inner}</details>")
