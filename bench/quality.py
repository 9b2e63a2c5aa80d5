"""Is it as good? MiniLM on STSb train, ours and the stock trainer, some seeds each, STSb test Spearman.

``python -m bench.quality [--seeds 5] [--epochs 1] [--batch 16]``: cosine loss, learning rate 2e-5, warm-up a tenth,
linear decay. Ours is ``python -m train``. Both are measured as they are after the last step, by the stock ``encode``.
Data from the folder $SENTENCE_FORGE_DATA. Each finished seed is kept in ``bench/results/<kind>/quality.json``, and a
run that was cut goes on from there; other settings, or another commit, begin anew.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
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

LEARNING_RATE = 2e-5
STOCK = "stock trainer"


def main() -> None:
    """Print a line a side and seed, and one for the difference of the means."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, help="instead of epochs, to see that it works")
    parser.add_argument("--results", type=Path, help="folder; bench/results/<kind of machine>")
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    settings = {"epochs": arguments.epochs, "batch": arguments.batch, "steps": arguments.steps,
                "learning_rate": LEARNING_RATE}
    file, commit = (arguments.results or results_of_this_kind()) / "quality.json", facts()["commit"]
    results = Results(file, "python -m bench.quality",
                      [each for each in read_lines(file)
                       if each.get("settings") == settings and each.get("commit") == commit and "seed" in each])
    found: dict[str, list[float]] = {"ours": [], STOCK: []}
    for seed in range(1, arguments.seeds + 1):
        for side, train in (("ours", ours), (STOCK, stock)):
            known = [each["value"] for each in results.lines if (each["side"], each["seed"]) == (side, seed)]
            if not known:
                with tempfile.TemporaryDirectory() as folder:
                    known = [100 * spearman(train(Path(folder), seed, settings))]
                results.add(line(f"STSb test, {side}, seed {seed}", known[0], "Spearman x 100", side=side, seed=seed,
                                 settings=settings, commit=commit))
            found[side] += known[:1]
    if arguments.seeds > 1:
        low, high = interval(found["ours"], found[STOCK])
        mean, theirs = float(np.mean(found["ours"])), float(np.mean(found[STOCK]))
        results.add(line(f"STSb test, mean of {arguments.seeds} seeds", mean, "Spearman x 100", peer=STOCK,
                         peer_value=theirs, difference=round(mean - theirs, 3), ci95=[round(low, 3), round(high, 3)],
                         interval="Welch", within=high >= 0, settings=settings))


def interval(ours: Sequence[float], stock: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the difference of the means, ours less stock's, by Welch's t-test."""
    from scipy.stats import ttest_ind

    found = ttest_ind(ours, stock, equal_var=False).confidence_interval(0.95)
    return float(found.low), float(found.high)


def spearman(model: SentenceTransformer) -> float:
    """Return Spearman's correlation of cosines and gold scores on STSb test."""
    from scipy.stats import spearmanr

    left, right, gold = _pairs("test")
    u, v = (model.encode(texts, normalize_embeddings=True, show_progress_bar=False) for texts in (left, right))
    return float(spearmanr(np.sum(u * v, axis=1), gold).statistic)


def ours(folder: Path, seed: int, settings: dict[str, Any]) -> SentenceTransformer:
    """Train by the command, and return the model of the last checkpoint."""
    length = f"loop.max_steps={settings['steps']}" if settings["steps"] else f"loop.epochs={settings['epochs']}"
    run = folder / "run"
    subprocess.run([sys.executable, "-m", "train", "loss=cosine", "model=minilm", f"data={_file('train')}",
                    f"data.dev_path={_file('dev')}", f"seed={seed}", f"loop.batch_size={settings['batch']}",
                    f"loop.learning_rate={settings['learning_rate']}", length, "loop.precision=fp32",
                    "loop.projector=0", "loop.evaluate_every=1000000", "loop.keep=1", f"hydra.run.dir={run}"],
                   check=True, stdout=subprocess.DEVNULL)
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    return SentenceTransformer(str(checkpoint / "model"), local_files_only=True)


def stock(folder: Path, seed: int, settings: dict[str, Any]) -> SentenceTransformer:
    """Train by the stock trainer, and return the model as it then is."""
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
        disable_tqdm=True, use_cpu=not torch.cuda.is_available())
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict({"sentence1": left, "sentence2": right,
                                                                      "score": gold}),
        loss=CosineSimilarityLoss(model))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return model


def _file(split: str) -> Path:
    return data_dir() / "stsb" / f"{split}.csv.gz"


def _pairs(split: str) -> tuple[list[str], list[str], list[float]]:
    source = FileSource(_file(split), _file("dev"))  # a dev file is named, so no row is held out
    rows = source.read("pair_score", "train")
    return list(rows["sentence1"]), list(rows["sentence2"]), list(rows["score"])


if __name__ == "__main__":
    main()
