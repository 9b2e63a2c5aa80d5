"""The types of report.json: fractions, no NaN, None where something could not be measured.

A task's number stands under the name of its measure (``"spearman_cosine": 0.82``) and its 95 % interval under
``<measure>_ci95``; ``value`` and ``limits`` read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

if TYPE_CHECKING:
    from sentence_forge.eval.blends import BlendRow
    from sentence_forge.eval.dims import DimRow
    from sentence_forge.eval.tasks.judged import MissedQuery

Limits = Sequence[float]
"""The lower and the upper end of a 95 % interval."""


class DataFile(TypedDict):
    """A test file, without where on this machine it lies."""

    path: str
    sha256: str


class Score(TypedDict):
    """A number, or a mean over ``tasks`` of a measure, and where it is compared its difference and two-sided p."""

    value: float
    measure: NotRequired[str]
    also: NotRequired[Mapping[str, float]]  # a ranking's other measures, such as ndcg@10
    ci95: NotRequired[Limits | None]
    tasks: NotRequired[int]
    delta: NotRequired[float]
    delta_ci95: NotRequired[Limits | None]
    p: NotRequired[float | None]


class Without(TypedDict):
    """The measure over the rows that were not trained on, and the baseline's over the same."""

    n: int
    value: float | None
    before: NotRequired[float]
    delta: NotRequired[float]
    delta_ci95: NotRequired[Limits]


class TrainedOn(TypedDict):
    """How many test rows (word for word, or the same after normalising) and texts were in the training rows."""

    exact: int
    normalised: int
    texts: int
    of_texts: int
    without: NotRequired[Without]


class Contamination(TypedDict):
    """Rows that repeat an earlier one, and rows that were trained on; None where no training is recorded."""

    duplicates: int
    trained_on: TrainedOn | None


class PairError(TypedDict):
    """A pair that is ranked wrongly; against a baseline also how wrongly it was before."""

    row: int
    text1: str
    text2: str
    gold: float
    cosine: float
    error: float
    cosine_before: NotRequired[float]
    error_before: NotRequired[float]
    change: NotRequired[float]


class Slice(TypedDict):
    """A kind of pairs: how many, the measure over them, their mean rank error."""

    n: int
    value: float | None
    bias: float


class Threshold(TypedDict):
    """The cosine from which pairs are best called the same, and how well that does."""

    cosine: float
    precision: NotRequired[float]
    recall: NotRequired[float]
    f1: NotRequired[float]
    accuracy: NotRequired[float]


class Spread(TypedDict):
    """The cosines of a group of pairs."""

    n: int
    mean: float
    quartiles: list[float]


class Geometry(TypedDict):
    """How the vectors of a task's texts lie; see ``eval.geometry``."""

    alignment: float | None
    uniformity: float
    anisotropy: float
    positives: Spread | None
    negatives: Spread | None
    threshold: NotRequired[Threshold]


class Confusion(TypedDict):
    """Counts, a row for each gold label, a column for each predicted one."""

    labels: list[str]
    gold_by_predicted: list[list[int]]


class LostTriplet(TypedDict):
    """A triplet whose negative was nearer than its positive."""

    row: int
    texts: list[str]
    margin: float


class TaskRow(TypedDict):
    """What one task found; which optional keys there are depends on the kind of task."""

    measure: str
    n: int | None
    truncated: int | None
    texts: int
    domains: Mapping[str, Mapping[str, Any]]
    data: DataFile
    label: NotRequired[str]
    score_range: NotRequired[list[float]]
    pearson_cosine: NotRequired[float]
    spearman_cosine_mean_of_domains: NotRequired[float]
    positives: NotRequired[int]
    best_f1: NotRequired[Threshold]
    best_accuracy: NotRequired[Threshold]
    confusion: NotRequired[Confusion]
    lost: NotRequired[list[LostTriplet]]
    also: NotRequired[list[str]]  # further measures, which stand in the row under their names
    documents: NotRequired[int]
    without_relevant: NotRequired[int]
    missed: NotRequired[list[MissedQuery]]
    honesty: NotRequired[Contamination]
    failures: NotRequired[list[PairError]]
    slices: NotRequired[dict[str, Slice]]
    geometry: NotRequired[Geometry]


class TaskGain(TypedDict):
    """The baseline's number on a task (under its measure's name) and the paired difference from it."""

    measure: str
    delta: float
    delta_ci95: Limits | None
    p: float | None
    williams: NotRequired[dict[str, float]]
    steiger: NotRequired[dict[str, float]]
    also: NotRequired[dict[str, Score]]
    changes: NotRequired[list[PairError]]
    slices: NotRequired[dict[str, Slice]]


class Baseline(TypedDict):
    """The model that the report's is compared with."""

    model: str
    fingerprint: str
    tasks: dict[str, TaskGain]
    averages: dict[str, Score]
    average: NotRequired[float]  # of the first measure, like what follows
    average_ci95: NotRequired[Limits | None]
    delta: NotRequired[float]
    delta_ci95: NotRequired[Limits | None]
    p: NotRequired[float | None]


class ModelRow(TypedDict):
    """One of several models on the same tasks."""

    model: str
    fingerprint: str
    tasks: dict[str, Score]
    average: float
    average_ci95: Limits | None


class MeanSd(TypedDict):
    """Mean and sample standard deviation over seeds."""

    mean: float
    sd: float


class SeedsRow(TypedDict):
    """Runs that differ in their seed alone, joined."""

    model: str
    runs: list[str]
    seeds: list[int]
    tasks: dict[str, MeanSd]
    average: MeanSd


class ReportJson(TypedDict):
    """report.json."""

    model: str
    fingerprint: str
    protocol: str
    tasks: dict[str, TaskRow]
    absent: list[str]
    skipped: dict[str, str]
    average: float
    average_ci95: Limits | None
    averages: dict[str, Score]
    max_length: int | None
    trained_on: dict[str, int] | None
    dims: NotRequired[list[DimRow]]
    blends: NotRequired[list[BlendRow]]
    baseline: NotRequired[Baseline]
    models: NotRequired[list[ModelRow]]
    seeds: NotRequired[list[SeedsRow]]
    training: NotRequired[dict[str, Any]]
    resamples: int
    seed: int
    seconds: float
    versions: dict[str, str]


def value(row: TaskRow | TaskGain) -> float:
    """Return the one number that counts in a task's row."""
    return float(cast("Mapping[str, Any]", row)[row["measure"]])


def limits(row: TaskRow | TaskGain) -> Limits | None:
    """Return that number's 95 % interval; None where there is none."""
    return cast("Mapping[str, Any]", row).get(f"{row['measure']}_ci95")
