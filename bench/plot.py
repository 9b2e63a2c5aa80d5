"""The plots of ``bench/results/<kind>``: how much faster with its spread, and the loss curves on one another.

``python -m bench.plot`` draws what is there: ``training.svg`` from train.json (and gpu.json), ``agreement.svg`` from
agreement.json, ``quality.svg`` from quality.json, ``scale.svg`` from scale.json, ``curve.svg`` from curve.json.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.lines import slope
from bench.results import RESULTS, read_lines
from bench.scale_table import GOAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS_COLOUR, STOCK_COLOUR, TUNED_COLOUR = "#1f5fa8", "#d1762b", "#7a7a7a"
_CURVES = (("fast", ["fast_query"], OURS_COLOUR), ("exact", ["exact_query"], TUNED_COLOUR),
           ("FAISS HNSW", ["fast_query, hnsw", "fast_query, hnsw, goal"], STOCK_COLOUR),
           ("pgvector HNSW", ["fast_query, pgvector", "fast_query, pgvector, goal"], "#7b5ea7"),
           ("pgvector IVFFlat", ["fast_query, ivfflat, goal"], "#c06fa0"))


def main() -> None:
    """Draw for each kind of machine that has results, and print the files."""
    sys.stdout.writelines(f"{file}\n" for folder in sorted(RESULTS.iterdir()) for file in draw(folder))


def draw(folder: Path) -> list[Path]:
    """Draw what a folder of results gives, into that folder, and return the files."""
    training = [line for name in ("train", "gpu") for line in read_lines(folder / f"{name}.json")
                if {"ratio_spread", "ratio_ci95"} & set(line)]
    curves = [line for line in read_lines(folder / "agreement.json") if "last_ten" in line]
    seeds = [line for line in read_lines(folder / "quality.json") if "seed" in line]
    sizes = [line for line in read_lines(folder / "scale.json") if "_query" in line["name"]]
    models = read_lines(folder / "curve.json")
    files = []
    if models:
        files.append(_picture(folder / "curve.svg", _models, models, height=4.2))
    if training:
        files.append(_picture(folder / "training.svg", _ratios, training, height=1.3 + 0.42 * len(_names(training))))
    if curves:
        files.append(_picture(folder / "agreement.svg", _curves, curves[-1], height=3.6))
    if seeds:
        files.append(_picture(folder / "quality.svg", _seeds, seeds, height=1.2 + 0.5 * len(_sides(seeds))))
    if sizes:
        files.append(_picture(folder / "scale.svg", _sizes, sizes, height=3.6))
    return files


def _picture(file: Path, paint: Callable[[Axes, Any], None], what: object, height: float) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"  # the same results, the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    paint(axes, what)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    return file


def _names(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(line["name"] for line in lines))


def _ratios(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """Paint each case's ratio of speeds, with its interval (or spread), against each stock trainer."""
    names = _names(lines)

    def ends(line: Mapping[str, Any]) -> Sequence[float]:
        return line.get("ratio_ci95") or line["ratio_spread"]

    for colour, shift, word in ((STOCK_COLOUR, -0.14, "defaults"), (TUNED_COLOUR, 0.14, "tuned")):
        chosen = [line for line in lines if word in line["peer"]]
        heights = [names.index(line["name"]) + shift for line in chosen]
        axes.hlines(heights, [ends(line)[0] for line in chosen], [ends(line)[1] for line in chosen],
                    color=colour, linewidth=2)
        axes.plot([line["ratio"] for line in chosen], heights, "o", color=colour, label=f"to the stock trainer, {word}")
        for line, height in zip(chosen, heights, strict=True):
            axes.annotate(f"{line['ratio']:.2f}", (ends(line)[1], height), xytext=(6, 0),
                          textcoords="offset points", va="center", color=colour, fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(yticks=range(len(names)), yticklabels=[name.replace("train ", "") for name in names],
             xlim=(0, 1.1 * max(ends(line)[1] for line in lines)),
             xlabel="times as many rows a second (mean with 95 % interval; older: median, lowest to highest)")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _curves(axes: Axes, line: Mapping[str, Any]) -> None:
    """Paint both loss curves, the stock one wide below ours."""
    steps = range(1, len(line["ours"]) + 1)
    axes.plot(steps, line["stock"], color=STOCK_COLOUR, linewidth=5, alpha=0.5, label="stock trainer")
    axes.plot(steps, line["ours"], color=OURS_COLOUR, linewidth=1.2, label="ours")
    axes.set(xlabel="step", ylabel="loss",
             title=f"mnrl, dropout off: at most {line['value']:.1e} apart, relative to the loss")
    axes.legend(frameon=False)


def _seeds(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """Paint each seed's score, a row a side, with the mean."""
    sides = _sides(lines)
    for height, side in enumerate(sides):
        colour = OURS_COLOUR if side.startswith("ours") else STOCK_COLOUR
        values = [line["value"] for line in lines if line["side"] == side]
        axes.plot(values, [height] * len(values), "o", color=colour, alpha=0.7)
        axes.plot([sum(values) / len(values)], [height], "|", color=colour, markersize=22)
    axes.set(yticks=range(len(sides)), yticklabels=sides, ylim=(len(sides) - 0.5, -0.5),
             xlabel="STSb test, Spearman x 100, a dot a seed")


def _sides(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(line["side"] for line in lines))


def _sizes(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """Paint the median time of a query over the rows, both logarithmic, with the slope of each curve.

    A peer's is the one at a recall of 0.995, where that was measured, and left out where it doesn't reach it.
    """
    for label, names, colour in _CURVES:
        times = {line["rows"]: line["value"] for name in names for line in lines
                 if line["name"] == name and line.get("recall", 1) >= GOAL}  # a later name's is kept
        if not times:
            continue
        times = dict(sorted(times.items()))
        grown = f", slope {slope(times):.2f}" if len(times) > 1 else ""
        axes.loglog(list(times), list(times.values()), "o-", color=colour, label=f"{label}{grown}")
    axes.set(xlabel="rows", ylabel=f"ms a query, recall@10 {GOAL}")
    axes.legend(frameon=False)


def _models(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """Paint each model's nDCG@10 with its interval over its titles a second, logarithmic."""
    for line in lines:
        low, high = line["ndcg@10_ci95"]
        colour = OURS_COLOUR if line is not lines[0] else TUNED_COLOUR
        axes.vlines(line["value"], low, high, color=colour, linewidth=2)
        axes.plot(line["value"], line["ndcg@10"], "o", color=colour)
        axes.annotate(line["name"], (line["value"], line["ndcg@10"]), xytext=(6, 4),
                      textcoords="offset points", fontsize=8)
    axes.set(xscale="log", xlabel="titles a second (bm25: put into its index)", ylabel="nDCG@10 x 100, by category")
    axes.margins(x=0.2)


if __name__ == "__main__":
    main()
