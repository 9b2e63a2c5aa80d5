"""The typed config of each command: keys, types, defaults, and the checks of their values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, OmegaConf

from sentence_forge.configs.choices import (
    Backend,
    ClusterKind,
    Device,
    ExportPrecision,
    Only,
    Precision,
    Schedule,
    TargetKind,
    VectorColumn,
)
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.values import check_seed, check_shares


@dataclass
class Loop:
    """The training loop.

    Where an interval is a number of steps, a value below 1 is a fraction of the run.
    """

    epochs: float = 3.0
    max_steps: int | None = None  # optimiser steps; instead of epochs
    batch_size: int = 32  # rows a forward, of all processes together
    accumulate: int = 1  # forwards an optimiser step
    learning_rate: float = 5e-5
    weight_decay: float = 0.01  # not on biases and normalisation weights
    schedule: Schedule = Schedule.linear
    warmup: float = 0.1  # steps, or below 1 a fraction of the run
    max_grad_norm: float = 1.0  # over everything that is trained, loss head included; 0 is off
    log_every: int = 10
    evaluate_every: float = 0.2
    checkpoint_every: float = 500  # and at the end
    keep: int = 2  # newest checkpoints kept
    patience: int | None = None  # evaluations without a better one before the run stops
    precision: Precision = Precision.auto
    fast: bool = True  # no padding; false is one padded rectangle a batch
    tokens_at_once: int | None = None  # beyond it activations are computed twice; none: what fits half the memory
    compile: Any = "auto"  # torch.compile over few shapes; auto: on CUDA where a run is long enough to repay it
    remine_every: float | None = None  # steps between minings of hard negatives for pairs; the first is at the start
    remine_margin: float | None = None  # a text whose cosine is above (1 - it) times the positive's is none; none: 0.05
    projector: int = 1000  # dev texts shown in TensorBoard's projector; 0 is off

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "learning_rate", "log_every", "evaluate_every",
                     "checkpoint_every", "keep"):
            if not getattr(self, name) > 0:
                raise UserError(f"loop.{name}: is {getattr(self, name)}; it must be above 0")
        for name, otherwise in (("patience", ", or null for no early stop"), ("max_steps", ""), ("tokens_at_once", "")):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"loop.{name}: is {value}; it must be at least 1{otherwise}")
        if self.remine_every is not None and not self.remine_every > 0:
            raise UserError(f"loop.remine_every: is {self.remine_every}; it must be above 0, or null for no mining")
        if self.remine_margin is not None and not 0 <= self.remine_margin < 1:
            raise UserError(f"loop.remine_margin: is {self.remine_margin}; it is a fraction of the positive's cosine, "
                            "from 0 to below 1")
        if self.compile != "auto" and not isinstance(self.compile, bool):
            raise UserError(f"loop.compile: is {self.compile}; it must be auto, true or false")
        for name in ("warmup", "weight_decay", "max_grad_norm", "projector"):
            if getattr(self, name) < 0:
                raise UserError(f"loop.{name}: is {getattr(self, name)}; it must not be negative")


@dataclass
class Train:
    """``python -m train``."""

    model: Any = MISSING
    loss: Any = MISSING
    data: Any = MISSING
    dims: Any = None  # lengths that vectors can be cut to, [384,192,96]; auto: the model's own, 1/2, 1/4, 1/8 of it
    dim_weights: list[float] | None = None  # of each length's loss; none: 1 each
    suite: dict[str, Any] = field(default_factory=dict)  # task name -> evaluator; none: the data's own measure decides
    loop: Loop = field(default_factory=Loop)
    data_dir: str | None = None  # where the suites' files lie
    file: str | None = None  # scored pairs, for suite=file; judgements, for suite=mine
    score_range: list[float] | None = None  # of file; none: found by all its scores
    seed: int = 42
    draw: int | None = None  # of a random search: the job's number; see configs/draw.py
    device: Device = Device.auto
    resume: str | None = None  # a run, one of its checkpoints, or auto
    resume_anyway: bool = False  # though data, versions or config.yaml changed since, so the result may be another
    plugins: list[str] = field(default_factory=list)  # your packages that _target_ may name

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.suite and self.data_dir is None and any("folder" in task for task in self.suite.values()):
            raise UserError("suite= needs data_dir= (or SENTENCE_FORGE_DATA), the folder that holds its files")
        if self.score_range is not None and self.file is None and self.resume is None:
            raise UserError("score_range: is that of suite=file; of the training data say data.score_range=[low,high]")


@dataclass
class Eval:
    """``python -m eval``."""

    model: Any = None
    suite: dict[str, Any] = field(default_factory=dict)
    baseline: Any = None  # another model: paired differences
    models: list[str] = field(default_factory=list)  # further ones, for one table
    data_dir: str | None = None
    file: str | None = None  # scored pairs, for suite=file; judgements, for suite=mine
    score_range: list[float] | None = None  # of file; none: found by all its scores
    dims: list[int] | None = None  # also cut the vectors to these; none: to those it was trained for
    blend: list[float] | None = None  # of a run, also the models that are so much of the way from its beginning to it
    output: str = MISSING
    resamples: int = 2000  # of the bootstrap
    seed: int = 0
    device: Device = Device.auto
    plugins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_shares(self.blend or (), "blend")


@dataclass
class Corpus:
    """The texts to index."""

    path: str | None = None  # - is the standard input
    column: str | None = None  # none: title, another well-known name of it, or the only column of texts
    id_column: str | None = None  # none: the 1-based data row
    limit: int | None = None  # data rows
    encoding: str | None = None  # none: found by the bytes; gb18030, cp1252, utf-16, ...
    separator: str | None = None  # none: found by the first rows; a character, or comma, semicolon, tab, pipe
    sheet: str | None = None  # of an .xlsx; none: the first
    header: list[str] | None = None  # names for the columns of a file without a header
    clean: list[str] = field(default_factory=list)  # of tags, entities, width, invisible, nul, blanks; or all
    keep: list[str] | None = None  # further columns, to show and to filter by; none: those that the index keeps already
    most_lost: float = 0.1  # of the rows of an index, how many may not be in the corpus any more
    shard_rows: int | None = None  # rows of each part of the index's files; none: as it is, else ten million
    half: bool | None = None  # store vectors as float16, where that finds the same; none: as it is, else float32


@dataclass
class Cluster:
    """Where a corpus is encoded."""

    kind: ClusterKind = ClusterKind.none
    workers: int | None = None  # none: as many as there are GPUs, else CPUs / cpus
    cpus: int = 1  # of a worker
    address: str | None = None  # of the cluster; none: $RAY_ADDRESS or the one that runs here, else one is started


@dataclass
class To:
    """Where an index goes."""

    kind: TargetKind = TargetKind.folder
    url: str | None = None  # postgresql://user@host:5432/database#table; its password is better in ~/.pgpass
    column: VectorColumn = VectorColumn.vector  # of a generation that is new
    switch: bool = True  # let everybody search it once it is loaded; else python -m search ... --generation N --switch


@dataclass
class Export:
    """``python -m export``."""

    model: Any = None
    corpus: Corpus = field(default_factory=Corpus)
    blend: Any = None  # of a run: this share of the way from its beginning to its end, or auto: the best by suite=
    suite: dict[str, Any] = field(default_factory=dict)  # for blend=auto; none: the run's own
    file: str | None = None  # scored pairs, for suite=file; judgements, for suite=mine
    score_range: list[float] | None = None  # of file; none: found by all its scores
    dim: int | None = None  # keep the first so many numbers of each vector, for a model trained with dims=
    out: str = MISSING
    only: Only | None = None
    precision: ExportPrecision | None = None  # none: fp32, or with only=index what the index is
    backend: Backend = Backend.auto  # with only=index auto is what the index is by
    cluster: Cluster = field(default_factory=Cluster)
    to: To = field(default_factory=To)
    push: str | None = None  # owner/name of the hub: the model and its card go there
    push_private: bool = True  # of a repository that is new
    push_dry_run: bool = False  # only say what would go
    data_dir: str | None = None  # its STSb measures the exported encoders; without it the sample's dev pairs do
    device: Device = Device.auto
    plugins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_shares(() if self.blend in (None, "auto") else (self.blend,), "blend", ", or auto")


def register() -> None:
    """Give Hydra the typed skeletons, named in each command's defaults list, and the functions that YAML may call."""
    from hydra.core.config_store import ConfigStore

    from sentence_forge.configs import draw
    from sentence_forge.runtime.locks import new_folder

    draw.register()
    OmegaConf.register_new_resolver("new_folder", new_folder, use_cache=True, replace=True)
    for name, node in (("train", Train), ("eval", Eval), ("export", Export)):
        ConfigStore.instance().store(name=f"{name}_schema", node=node)
