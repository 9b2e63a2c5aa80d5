"""The tables of one task: its parts, its thresholds, its confusion, and where the model fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sentence_forge.eval.report.formatting import (
    change,
    count,
    hundred,
    interval,
    measure_name,
    signed,
)
from sentence_forge.eval.report.tables import Cell, Table, columns, gain, number
from sentence_forge.eval.schema import PairError, ReportJson, Score, TaskGain, TaskRow, limits

_SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


def task_tables(about: ReportJson, name: str) -> list[Table]:
    """Return a task's tables, those that would be empty left out."""
    row = about["tasks"][name]
    baseline = about.get("baseline")
    old = baseline["tasks"].get(name) if baseline else None
    made = [_further_measures(row, old), _parts(row), _similarities(row), _thresholds(row), _confusion(row),
            _geometry(row), _worst(row), _changed(old, baseline["model"] if baseline else ""), _slices(row, old),
            _lost(row), _missed(row)]
    return [table for table in made if table is not None]


def _parts(row: TaskRow) -> Table | None:
    """Return a row a sub-set or category, each with the measures that the task has for it."""
    parts = row["domains"]
    if not parts:
        return None
    measures = list(dict.fromkeys(measure for part in parts.values() for measure in part
                                  if measure != "n" and not measure.endswith("_ci95")))
    shown = measures[:1] if row["measure"] == "spearman_cosine" else measures

    def cell(part: Mapping[str, Any], measure: str) -> Cell:
        found = part.get(measure)
        return replace(number(found, part.get(f"{measure}_ci95"), "bar"), share=max(0.0, found or 0.0))

    rows = [[Cell(name or "no name"), Cell(count(part["n"])), *(cell(part, measure) for measure in shown)]
            for name, part in parts.items()]
    mean = row.get("spearman_cosine_mean_of_domains")
    return Table("parts", "By part", columns("part", "scored", *map(measure_name, shown)), rows,
                 caption=f"Each part is ranked alone; their mean is {hundred(mean)}." if mean is not None else "")


def _further_measures(row: TaskRow, old: TaskGain | None) -> Table | None:
    """Return the measures beside the one that counts, each with the difference from the baseline."""
    if "also" not in row:
        return None
    found: Any = row  # the keys are the measures' names
    before = old.get("also", {}) if old else {}
    rows = [[Cell(measure_name(name)), number(found[name], found[f"{name}_ci95"]),
             *([number(before[name]["value"]), _gain(before[name])] if name in before else [])] for name in row["also"]]
    left_out = (f" {row['without_relevant']:,} queries without a relevant document are left out."
                if row["without_relevant"] else "")
    return Table("measures", "Further measures",
                 columns("measure", "value", *["baseline", "difference"] if before else []), rows,
                 caption=f"{count(row['n'])} queries over {row['documents']:,} documents.{left_out}")


def _gain(found: Score) -> Cell:
    return gain(found["delta"], found["delta_ci95"], found["p"])


def _missed(row: TaskRow) -> Table | None:
    found = row.get("missed")
    if not found:
        return None
    texts = ["query", "best document", "came first"]
    rows = [[Cell(hundred(each["ndcg"]), each["ndcg"]), Cell("far" if each["rank"] is None else str(each["rank"]),
                                                             each["rank"] or 1e9),
             *(Cell(text, kind="text") for text in (each["query"], each["expected"], each["first"]))] for each in found]
    return Table("missed", "Queries that miss most", columns("nDCG@10", "rank", *texts, texts=texts), rows,
                 sortable=True, folded=True, more=f"the {len(found)} with the lowest nDCG@10", kind="pairs",
                 caption="Rank: of the query's best document.")


def _similarities(row: TaskRow) -> Table | None:
    if "spearman_dot" not in row:
        return None
    found: Any = row  # the keys are made of the names of similarities
    rows = [[Cell(name), *(number(found[f"{statistic}_{name}"], found.get(f"{statistic}_{name}_ci95"))
                           for statistic in ("spearman", "pearson"))] for name in _SIMILARITIES]
    return Table("similarities", "By similarity", columns("similarity", "Spearman", "Pearson"), rows)


def _thresholds(row: TaskRow) -> Table | None:
    if "best_f1" not in row:
        return None
    f1, accuracy = row["best_f1"], row["best_accuracy"]
    rows = [[Cell("F1"), Cell(f"{f1['cosine']:.3f}"), number(f1["f1"]), number(f1["precision"]), number(f1["recall"])],
            [Cell("accuracy"), Cell(f"{accuracy['cosine']:.3f}"), number(accuracy["accuracy"]), Cell(""), Cell("")]]
    return Table("thresholds", "Best thresholds", columns("by", "cosine from", "value", "precision", "recall"), rows,
                 caption=f"{row['positives']:,} of {count(row['n'])} pairs match.")


def _confusion(row: TaskRow) -> Table | None:
    if "confusion" not in row:
        return None
    names, matrix = row["confusion"]["labels"], row["confusion"]["gold_by_predicted"]
    rows = []
    for at, (name, counts) in enumerate(zip(names, matrix, strict=True)):
        total = max(1, sum(counts))
        rows.append([Cell(name), *(Cell(count(each), kind="heat", share=each / total) for each in counts),
                     number(counts[at] / total)])
    sums = [sum(column) for column in zip(*matrix, strict=True)]
    rows.append([Cell("precision"), *(number(matrix[at][at] / total if total else None)
                                      for at, total in enumerate(sums)), Cell("")])
    heads = columns("gold label", *(f"predicted {name}" for name in names), "recall")
    return Table("confusion", "Confusion", heads, rows,
                 caption="A row is what people say, a column what the model says.")


def _geometry(row: TaskRow) -> Table | None:
    if "geometry" not in row:
        return None
    found = row["geometry"]
    facts = [("alignment", "–" if found["alignment"] is None else f"{found['alignment']:.3f}",
              "mean squared distance of pairs that score at least 80 % of the range; lower is better"),
             ("uniformity", f"{found['uniformity']:.3f}", "log mean exp(−2 d²) over all texts; lower is more even"),
             ("anisotropy", f"{found['anisotropy']:.3f}", "mean cosine of two texts by chance; 0 is even")]
    for name, spread in (("positives", found["positives"]), ("negatives", found["negatives"])):
        if spread:
            low, middle, high = spread["quartiles"]
            facts.append((f"cosine of {name}", f"{middle:.3f}",
                          f"median of {spread['n']:,}; half of them lie from {low:.3f} to {high:.3f}"))
    if best := found.get("threshold"):
        facts.append(("same from", f"{best['cosine']:.3f}", f"precision {hundred(best['precision'])}, recall "
                                                            f"{hundred(best['recall'])}, on these very pairs"))
    rows = [[Cell(name), Cell(number.replace("-", "−")), Cell(meaning, kind="text")] for name, number, meaning in facts]
    return Table("geometry", "Geometry", columns("fact", "value", "meaning", texts=["fact", "meaning"]), rows)


def _worst(row: TaskRow) -> Table | None:
    pairs = row.get("failures")
    if not pairs:
        return None
    rows = [[Cell(signed(pair["error"]), pair["error"], kind="over" if pair["error"] > 0 else "under"),
             Cell(f"{pair['gold']:g}", pair["gold"]), Cell(f"{pair['cosine']:.3f}", pair["cosine"]), *_texts(pair)]
            for pair in pairs]
    return Table("pairs", "Worst pairs", columns("rank error", "gold", "cosine", "text", "other text",
                                                 texts=["text", "other text"]), rows, sortable=True, folded=True,
                 more=f"the {len(pairs)} most wrongly ranked, either way",
                 caption="Rank error: the rank by cosine less the rank by score, in % of all pairs. Above zero: taken "
                         "to be more alike than people say; below: less.", kind="pairs")


def _changed(old: TaskGain | None, name: str) -> Table | None:
    pairs = old.get("changes") if old else None
    if not pairs:
        return None
    rows = [[Cell(signed(pair["change"]), pair["change"], kind="good" if pair["change"] > 0 else "bad"),
             Cell(f"{pair['gold']:g}", pair["gold"]), Cell(f"{pair['cosine_before']:.3f}", pair["cosine_before"]),
             Cell(f"{pair['cosine']:.3f}", pair["cosine"]), *_texts(pair)] for pair in pairs]
    return Table("changes", "What changed most", columns("change", "gold", "before", "now", "text", "other text",
                                                         texts=["text", "other text"]), rows, sortable=True,
                 folded=True, more=f"against {name}", kind="pairs",
                 caption="Change: by how many % of all pairs the rank error shrank (above zero, better) or grew.")


def _texts(pair: PairError) -> list[Cell]:
    return [Cell(pair["text1"], kind="text"), Cell(pair["text2"], kind="text")]


def _slices(row: TaskRow, old: TaskGain | None) -> Table | None:
    found = row.get("slices")
    if not found:
        return None
    before = (old.get("slices") if old else None) or {}
    two = bool(before)
    rows = []
    for name, part in found.items():
        then = before.get(name)
        rows.append([Cell(name), Cell(count(part["n"])), Cell(hundred(part["value"])),
                     *[Cell(hundred(then["value"]) if then else "–")] * two, Cell(signed(part["bias"], 1)),
                     *[Cell(signed(then["bias"], 1) if then else "–")] * two])
    heads = columns("slice", "pairs", measure_name(row["measure"]), *["before"] * two, "bias", *["bias before"] * two)
    return Table("slices", "Slices", heads, rows, folded=True, more=f"{len(found)} kinds of pairs",
                 caption="Bias: the mean rank error of the slice, in % of all pairs; above zero the model takes these "
                         "pairs to be more alike than people do. Within a slice of like scores a correlation is low by "
                         "itself: read the bias there.")


def _lost(row: TaskRow) -> Table | None:
    found = row.get("lost")
    if not found:
        return None
    rows = [[Cell(f"{each['margin']:.3f}", each["margin"], kind="bad"),
             *(Cell(text, kind="text") for text in each["texts"][:3])] for each in found]
    return Table("lost", "Lost by the most", columns("margin", "anchor", "positive", "negative",
                                                     texts=["anchor", "positive", "negative"]), rows, sortable=True,
                 folded=True, more=f"{len(found)} triplets", kind="pairs")


def task_line(row: TaskRow, old: TaskGain | None) -> str:
    """Return the small print beside a task's number: its measure, interval and how many were scored."""
    cut = f", {row['truncated']:,} of {row['texts']:,} texts cut" if row["truncated"] else ""
    scored = "" if row["n"] is None else f"; {row['n']:,} scored{cut}"
    against = f"; {change(old['delta'])} against the baseline" if old else ""
    return f"{measure_name(row['measure'])}, {interval(limits(row))}{scored}{against}"
