"""Is it as good? MiniLM on STSb train, ours and the stock trainer, some seeds each, STSb test Spearman.

``python -m bench.quality [--seeds 5] [--epochs 1] [--batch 16]``: cosine loss, learning rate 2e-5, warm-up a tenth,
linear decay. Ours is ``python -m train``. All are measured as they are after the last step, by the stock ``encode`` in
float32. ``--precision bf16`` compares ours trained in bf16 with ours in float32, by the paired differences of the
seeds, and with the stock trainer in bf16. Data from the folder $SENTENCE_FORGE_DATA. Each finished seed is kept in
``bench/results/<kind>/quality.json``, for either precision, and a run that was cut goes on from there; other settings,
or another commit, begin anew.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from bench.lines import line
from bench.machine import facts
from bench.results import Results, read_lines, results_of_this_kind
from bench.tasks import data_dir, minilm
from sentence_forge.data_readers.file import FileSource
from sentence_forge.encoders.computing.device import multiplies_in_bf16, pick_device

LEARNING_RATE = 2e-5
OURS, STOCK, HALF = "ours", "stock trainer", ", bf16"
SIDES = {"fp32": (OURS, STOCK), "bf16": (OURS, OURS + HALF, STOCK + HALF)}
PAIRS = ((OURS, STOCK, "Welch"), (OURS + HALF, OURS, "paired"), (OURS + HALF, STOCK + HALF, "Welch"))


def main() -> None:
    """Print a line a side and seed, and one for the difference of the means of each two that are compared."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", choices=SIDES, default="fp32")
    parser.add_argument("--steps", type=int, help="instead of epochs, to see that it works")
    parser.add_argument("--results", type=Path, help="folder; bench/results/<kind of machine>")
    arguments = parser.parse_args()
    if arguments.precision == "bf16" and not multiplies_in_bf16(torch.device(pick_device())):
        sys.exit("error: --precision bf16: this machine doesn't multiply in bf16; leave it out")
    os.environ["TQDM_DISABLE"] = "1"
    settings = {"epochs": arguments.epochs, "batch": arguments.batch, "steps": arguments.steps,
                "learning_rate": LEARNING_RATE}
    file, commit = (arguments.results or results_of_this_kind()) / "quality.json", facts()["commit"]
    results = Results(file, "python -m bench.quality",
                      [each for each in read_lines(file)
                       if each.get("settings") == settings and each.get("commit") == commit and "seed" in each])
    for seed in range(1, arguments.seeds + 1):
        for side in SIDES[arguments.precision]:
            if seed not in seeds_of(side, results.lines):
                with tempfile.TemporaryDirectory() as folder:
                    value = 100 * spearman(train(side, Path(folder), seed, settings))
                results.add(line(f"STSb test, {side}, seed {seed}", value, "Spearman x 100", side=side, seed=seed,
                                 settings=settings, commit=commit))
    results.add(*means(results.lines, {"settings": settings, "commit": commit}))


def seeds_of(side: str, lines: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Return what a side has reached by each seed."""
    return {each["seed"]: each["value"] for each in lines if each.get("side") == side}


def means(lines: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Print and yield a line for each two sides to compare that have the same seeds, at least two of them."""
    for side, peer, how in PAIRS:
        mine, theirs = (seeds_of(each, lines) for each in (side, peer))
        both = sorted(mine.keys() & theirs.keys())
        if len(both) > 1:
            mean, other = (float(np.mean([found[seed] for seed in both])) for found in (mine, theirs))
            low, high = interval([mine[seed] for seed in both], [theirs[seed] for seed in both], how)
            yield line(f"STSb test, {side}, mean of {len(both)} seeds", mean, "Spearman x 100", peer=peer,
                       peer_value=other, difference=round(mean - other, 3), ci95=[round(low, 3), round(high, 3)],
                       interval=how, within=high >= 0, **about)


def interval(ours: Sequence[float], others: Sequence[float], how: str = "Welch") -> tuple[float, float]:
    """Return the 95 % interval of the difference of the means, ours less the others'.

    By Welch's t-test; or, ``paired``, by Student's over the differences of the seeds, which draw the same rows.
    """
    from scipy.stats import ttest_ind, ttest_rel

    test = ttest_rel(ours, others) if how == "paired" else ttest_ind(ours, others, equal_var=False)
    found = test.confidence_interval(0.95)
    return float(found.low), float(found.high)


def spearman(model: SentenceTransformer) -> float:
    """Return Spearman's correlation of cosines and gold scores on STSb test."""
    from scipy.stats import spearmanr

    left, right, gold = _pairs("test")
    u, v = (model.encode(texts, normalize_embeddings=True, show_progress_bar=False) for texts in (left, right))
    return float(spearmanr(np.sum(u * v, axis=1), gold).statistic)


def train(side: str, folder: Path, seed: int, settings: dict[str, Any]) -> SentenceTransformer:
    """Train one side, and return its model, loaded from where it was saved behind the last step."""
    by = _ours if side.startswith(OURS) else _stock
    return SentenceTransformer(str(by(folder, seed, settings, bf16=side.endswith(HALF))), local_files_only=True)


def _ours(folder: Path, seed: int, settings: dict[str, Any], *, bf16: bool) -> Path:
    """Train by the command, and return the model of the last checkpoint."""
    length = f"loop.max_steps={settings['steps']}" if settings["steps"] else f"loop.epochs={settings['epochs']}"
    run = folder / "run"
    subprocess.run([sys.executable, "-m", "train", "loss=cosine", "model=minilm", f"data={_file('train')}",
                    f"data.dev_path={_file('dev')}", f"seed={seed}", f"loop.batch_size={settings['batch']}",
                    f"loop.learning_rate={settings['learning_rate']}", length,
                    f"loop.precision={'bf16' if bf16 else 'fp32'}", "loop.projector=0", "loop.evaluate_every=1000000",
                    "loop.keep=1", f"hydra.run.dir={run}"], check=True, stdout=subprocess.DEVNULL)
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    return checkpoint / "model"


def _stock(folder: Path, seed: int, settings: dict[str, Any], *, bf16: bool) -> Path:
    """Train by the stock trainer, and return the model as it then is: saved, for bf16 stays wrapped around this one."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
    from transformers import PrinterCallback

    left, right, gold = _pairs("train")
    model = minilm()
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder), seed=seed, num_train_epochs=settings["epochs"], max_steps=settings["steps"] or -1,
        per_device_train_batch_size=settings["batch"], learning_rate=settings["learning_rate"], weight_decay=0.01,
        warmup_steps=0.1, max_grad_norm=1.0, save_strategy="no", eval_strategy="no", report_to="none",
        disable_tqdm=True, use_cpu=not torch.cuda.is_available(), bf16=bf16)
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict({"sentence1": left, "sentence2": right,
                                                                      "score": gold}),
        loss=CosineSimilarityLoss(model))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def _file(split: str) -> Path:
    return data_dir() / "stsb" / f"{split}.csv.gz"


def _pairs(split: str) -> tuple[list[str], list[str], list[float]]:
    source = FileSource(_file(split), _file("dev"))  # a dev file is named, so no row is held out
    rows = source.read("pair_score", "train")
    return list(rows["sentence1"]), list(rows["sentence2"]), list(rows["score"])


if __name__ == "__main__":
    main()
