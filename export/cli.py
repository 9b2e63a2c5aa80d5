"""``python -m export``: write a model, then index a corpus with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentence_forge.runtime.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig

ABOUT = """
Write a model as a folder and as ONNX, and index a corpus with it.

  python -m export model=outputs/train/<run> corpus=titles.csv out=news
  python -m export model=minilm out=my-model                        the model alone
  python -m export only=index corpus=titles.csv out=news            the corpus changed: encode what is new
  python -m export model=<run> corpus=titles.csv out=small dim=96   vectors cut to 96 numbers (a run with dims=)
  python -m export model=<run> blend=0.5 out=mixed                  halfway between the run's beginning and its end
  python -m export model=<run> blend=auto suite=dev.csv out=mixed   the share that your scored pairs choose
  python -m export model=minilm corpus=titles.csv out=quick precision=int8    encoded with int8 weights, on a CPU
  python -m export model=minilm corpus=titles.csv out=quick precision=bf16    encoded with bf16 weights, on a GPU
  python -m export model=minilm corpus=titles.csv out=news cluster=ray cluster.workers=8
  python -m export model=minilm corpus=titles.csv out=news backend=openvino   encoded by OpenVINO, on a CPU
  python -m export model=minilm corpus=titles.csv out=news to=postgres to.url=postgresql://localhost/mine#news
  python -m export model=<run> out=my-model push=<owner>/<name>     and to the hub; push_dry_run=true only says what
  python -m search news "query"

corpus= takes csv, tsv, txt, json, jsonl, parquet, xlsx, packed or not, and - (the standard input). What isn't given is
detected and logged: corpus.column=, corpus.encoding=, corpus.separator=, corpus.sheet=, corpus.header=[names].
corpus.id_column= names the ids' column (else the data row), corpus.limit= rows, corpus.clean=[tags,entities,...].
only=index stops where more than corpus.most_lost= (0.1) of the index's rows are not in the corpus any more.
"""


def main() -> None:
    """Export; see ``configs/export.yaml``."""
    entry("export", _job, ABOUT, ("model", "corpus", "cluster", "to", "suite"))


def _job(config: DictConfig) -> None:
    from sentence_forge.export.run import run, settings_of

    run(settings_of(config))
