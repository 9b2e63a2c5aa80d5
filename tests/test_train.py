"""Training as a user types it: every loss, what a run leaves behind, resuming, stopping, and bad input."""

from __future__ import annotations

import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, Done
from omegaconf import OmegaConf
from resuming import cut_at, same_end
from sentence_transformers import SentenceTransformer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sentence_forge.runtime.overrides import options
from sentence_forge.train.batches import Batches, ClassesTimesTexts, NoDuplicates, Shuffled
from sentence_forge.train.optim import adamw, learning_rate_at

ROOT = Path(__file__).parent.parent
LOSSES = [name for name in options("loss") if name != "matryoshka"]
SHORT = [*TINY, "loop.max_steps=6", "loop.log_every=1", "hydra.run.dir=run"]
Command = Callable[..., Done]


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_on_the_default_data(command: Command, tmp_path: Path, loss: str) -> None:
    done = command("train", f"loss={loss}", *SHORT)
    assert done.code == 0, done.err
    run = tmp_path / "run"
    lines = metrics(run)
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(line["train/loss"]) and 0 <= line["speed/padding_share"] < 0.2
               for line in lines if "train/loss" in line)
    assert lines[0]["step"] == 0  # the untouched model, measured
    report = json.loads((run / "report" / "report.json").read_text())
    assert report["tasks"]["sample-en-dev"]["n"] == 160
    assert "baseline" in report
    assert (run / "report" / "report.html").stat().st_size > 10_000
    stock = SentenceTransformer(str(run / "model"), device="cpu")
    assert stock.encode(["a text"]).shape == (1, 32)
    assert (run / "model" / "loss.safetensors").exists() == (loss in ("softmax", "distill"))  # which have weights
    if loss == "softmax":
        head = json.loads((run / "model" / "loss.json").read_text())
        assert head == {"_target_": "losses.softmax.Softmax", "concatenation": ["u", "v", "|u-v|"], "dim": 32,
                        "labels": ["contradiction", "entailment", "neutral"]}
    named = OmegaConf.load(ROOT / "configs" / "loss" / f"{loss}.yaml")["_target_"].rpartition(".")[2]
    assert f"loss {named}" in (run / "model" / "README.md").read_text()


def test_a_run_can_be_watched_and_traced(command: Command, tmp_path: Path) -> None:
    arguments = [each for each in SHORT if not each.startswith("loop.projector")]
    assert command("train", "loss=mnrl", *arguments).code == 0
    run = tmp_path / "run"
    board = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    assert {"train/loss", "train/learning_rate", "train/gradient_norm", "speed/pairs_per_second",
            "speed/tokens_per_second", "speed/padding_share", "dev/triplet_accuracy"} <= set(board.Tags()["scalars"])
    assert {"dev/positive_cosines", "dev/negative_cosines"} <= set(board.Tags()["histograms"])
    assert "config/text_summary" in board.Tags()["tensors"]
    hparams = EventAccumulator(str(run / "tensorboard")).Reload().summary_metadata
    assert "_hparams_/session_start_info" in hparams
    assert [event.step for event in board.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert list((run / "tensorboard").rglob("metadata.tsv"))  # the projector
    environment = json.loads((run / "environment.json").read_text())
    assert environment["versions"]["torch"] == metadata.version("torch")
    assert all(len(value) == 64 for value in environment["data"].values())
    assert "max_steps: 6" in (run / "config.yaml").read_text()


def test_the_best_checkpoint_is_never_the_untouched_one(command: Command, tmp_path: Path) -> None:
    assert command("train", "loss=cosine", *SHORT, "loop.learning_rate=1e-9").code == 0
    about = json.loads((tmp_path / "run" / "model" / "sentence_forge.json").read_text())
    assert about["training"]["best_step"] >= 1
    assert about["training"]["before"] is not None


def test_a_training_that_made_the_model_worse_says_so(command: Command, tmp_path: Path) -> None:
    for name, same in (("train", 0), ("dev", 5)):  # what is alike in dev is taught to be unlike
        rows = "".join(f"word{i} text{i},word{i + k} text{i + k} again,{same if k == 0 else 5 - same}\n"
                       for i in range(20) for k in (0, 7))
        (tmp_path / f"{name}.csv").write_text("sentence1,sentence2,score\n" + rows)
    done = command("train", "loss=cosine", "data=train.csv", "data.dev_path=dev.csv", *TINY, "loop.max_steps=6",
                   "loop.learning_rate=1e-2", "loop.evaluate_every=6")
    assert done.code == 0, done.err
    assert "the training made the model worse: dev " in done.err, done.err
    assert "sample-en-dev (the embedded sample, not your data; suite=<file> measures on yours): " in done.err
    assert "made the model worse" not in command("train", "loss=cosine", "data=dev.csv", "data.dev_path=dev.csv", *TINY,
                                                 "loop.max_steps=1", "loop.learning_rate=1e-12").err


def test_bare_titles_train_to_the_last_step(command: Command, tmp_path: Path) -> None:
    """A title is its own positive, so every dev measure ties; the longest-trained model is taken, not the first."""
    (tmp_path / "titles.csv").write_text("title\n" + "".join(f"title {i} of {i * 7}\n" for i in range(80)))
    assert command("train", "loss=mnrl", "data=titles.csv", *SHORT).code == 0
    about = json.loads((tmp_path / "run" / "model" / "sentence_forge.json").read_text())
    assert about["training"]["best_step"] == 6


def test_a_better_model_comes_out(command: Command, tmp_path: Path) -> None:
    arguments = ["loss=cosine", *TINY, "loop.epochs=8", "loop.learning_rate=1e-3", "hydra.run.dir=run"]
    assert command("train", *arguments).code == 0
    training = json.loads((tmp_path / "run" / "model" / "sentence_forge.json").read_text())["training"]
    assert training["after"] > training["before"] + 0.02


@pytest.mark.parametrize("loss", LOSSES)
def test_a_resumed_run_ends_where_an_unbroken_one_does(command: Command, tmp_path: Path, loss: str) -> None:
    """Bit for bit, dropout, accumulation and the loss head included, over an epoch's end."""
    assert command("train", *TINY, f"loss={loss}", "loop.max_steps=18", "loop.batch_size=32", "loop.accumulate=2",
                   "loop.evaluate_every=9", "loop.checkpoint_every=9", "loop.log_every=5", "loop.keep=9", "seed=7",
                   "hydra.run.dir=whole").code == 0
    cut_at(tmp_path / "whole", tmp_path / "broken", 9)
    done = command("train", "resume=broken")
    assert done.code == 0, done.err
    assert "going on from" in done.err and "step 9" in done.err
    same_end(tmp_path / "whole", tmp_path / "broken", 18)
    assert max(line.get("train/epoch", 0) for line in metrics(tmp_path / "broken")) > 1


def test_a_damaged_newest_checkpoint_is_named_and_passed_over(command: Command, tmp_path: Path) -> None:
    arguments = [*TINY, "loop.max_steps=8", "loop.checkpoint_every=4", "hydra.run.dir=run"]
    assert command("train", *arguments).code == 0
    run = tmp_path / "run"
    newest = run / "checkpoints" / "step-8" / "optimizer.safetensors"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    refused = command("train", "resume=run/checkpoints/step-8")
    assert refused.code == 2
    assert "optimizer.safetensors: damaged" in refused.err
    done = command("train", "resume=run", "loop.max_steps=10")
    assert done.code == 0
    assert "step-8" in done.err and "going on from run/checkpoints/step-4" in done.err
    assert metrics(run)[-1]["step"] == 10


def test_a_resumed_run_keeps_its_loss_and_takes_new_values(command: Command, tmp_path: Path) -> None:
    assert command("train", *SHORT).code == 0
    refused = command("train", "resume=run", "loss=triplet")
    assert refused.code == 2
    assert "a resumed run keeps its loss" in refused.err and "model=run" in refused.err
    assert command("train", "resume=run", "loop.max_steps=7").code == 0
    assert "max_steps: 7" in (tmp_path / "run" / "config.yaml").read_text()
    assert "loop.nonsense: there is no such key" in command("train", "resume=run", "+loop.nonsense=1").err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path: Path, number: int) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "train", "loss=mnrl", *TINY, "loop.max_steps=100000", "loop.log_every=1",
         f"hydra.run.dir={run}"], cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    deadline = time.monotonic() + 120
    while not ((run / "metrics.jsonl").exists() and "train/loss" in (run / "metrics.jsonl").read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()  # else it would be waited for through all its steps
            raise AssertionError(process.communicate()[1])
        time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert f"python -m train resume={run}" in err
    assert "Traceback" not in err
    assert len(list((run / "checkpoints").glob("step-*/manifest.json"))) == 1


def test_a_loss_that_is_no_number_stops_the_run_with_its_rows(command: Command, tmp_path: Path) -> None:
    done = command("train", "loss=mnrl", *SHORT, "loop.learning_rate=1e30", "loop.warmup=0", "loop.max_grad_norm=0",
                   "loop.evaluate_every=100")
    assert done.code == 2
    assert re.search(r"the (loss|gradient) of step \d+ is not finite; its rows were \d+, \d+", done.err)
    assert "Traceback" not in done.err
    done = command("train", "loss=mnrl", *SHORT, "loop.learning_rate=1e30", "loop.warmup=0", "hydra.run.dir=other")
    assert done.code == 2 and "no numbers" in done.err  # seen by the evaluation before the next loss


def test_early_stopping(command: Command, tmp_path: Path) -> None:
    done = command("train", "loss=cosine", *TINY, "loop.max_steps=40", "loop.evaluate_every=1", "loop.patience=3",
                   "loop.learning_rate=1e-12", "hydra.run.dir=run")
    assert done.code == 0
    assert "3 evaluations without a better one" in done.err
    dev = [line["dev/spearman_cosine"] for line in metrics(tmp_path / "run") if "dev/spearman_cosine" in line]
    trained = dev[1:]  # the first is the untouched model's, which is no checkpoint to go back to
    assert len(trained) - 1 - trained.index(max(trained)) == 3
    kept = sum(value == max(trained[:number + 1]) for number, value in enumerate(trained))
    assert done.err.count(", kept as the best so far\n") == kept > 0


def test_fast_and_padded_give_the_same_losses(command: Command, tmp_path: Path) -> None:
    for fast in ("true", "false"):
        assert command("train", "loss=mnrl", *TINY, "model.dropout=0", "loop.max_steps=5", "loop.log_every=1",
                       f"loop.fast={fast}", f"hydra.run.dir=fast-{fast}").code == 0
    fast, padded = ([line["train/loss"] for line in metrics(tmp_path / name) if "train/loss" in line]
                    for name in ("fast-true", "fast-false"))
    np.testing.assert_allclose(fast, padded, rtol=1e-5)


def test_suite_chooses_the_best(command: Command, tmp_path: Path) -> None:
    done = command("train", "loss=mnrl", "suite=sample", *SHORT)
    assert done.code == 0 and "sample-en-dev, sample-zh-dev: " in done.err, done.err
    about = json.loads((tmp_path / "run" / "model" / "sentence_forge.json").read_text())
    assert about["training"]["measure"] == "suite_spearman_cosine"
    assert set(about["measured"]) == {"sample-en-dev", "sample-zh-dev"}


def test_chinese(command: Command, tmp_path: Path) -> None:
    assert command("train", "loss=mnrl", "data.language=zh", *SHORT).code == 0
    assert "sample-zh-dev" in json.loads((tmp_path / "run" / "report" / "report.json").read_text())["tasks"]


PAIRS = "sentence1,sentence2,score\n" + "".join(f"text {i},words {i},{i % 6}\n" for i in range(40))
NLI = "premise,hypothesis,label\n" + "".join(f"p {i},h {i},{('entailment', 'neutral')[i % 2]}\n" for i in range(40))

ONE_CLASS = "text,label\n" + "".join(f"a {i},x\n" for i in range(30))
SINGLES = "text,label\n" + "".join(f"a {i},{i}\n" for i in range(30))


@pytest.mark.parametrize(("arguments", "files", "said"), [
    (["loss=mnlr"], {}, "did you mean 'mnrl'"),
    (["model=berd"], {}, "did you mean 'bert'"),
    (["data=sampel"], {}, "did you mean 'sample'"),
    (["data=none.csv"], {}, "none.csv"),
    (["loop.batchsize=3"], {}, "did you mean 'loop.batch_size'"),
    (["loop.batch_size=0"], {}, "loop.batch_size: is 0"),
    (["loss=mnrl", "loop.batch_size=1"], {}, "loop.batch_size: is 1, and this loss takes its negatives"),
    (["loop.batch_size=three"], {}, "loop.batch_size"),
    (["loop.schedule=step"], {}, "loop.schedule"),
    (["loss=softmax", "loss.concatenation=[u,w]"], {}, "no part 'w'"),
    (["loss=triplet", "loss.distance=cosinus"], {}, "did you mean 'cosine'"),
    (["+loss.temperature=3"], {}, "loss.temperature"),
    (["data.language=fr"], {}, "data.language=fr"),
    (["loss=softmax", "data=p.csv"], {"p.csv": PAIRS}, "loss=softmax takes pair_class (premise, hypothesis, label)"),
    (["loss=cosine", "data=p.csv"], {"p.csv": PAIRS.replace(",3\n", ",7\n")}, "to 7 (line 5)"),
    (["loss=cosine", "data=p.csv", "data.score_range=[0,1]"], {"p.csv": PAIRS}, "score_range"),
    (["loss=cosine", "data=p.csv"], {"p.csv": "sentence1,sentence2,score\n"}, "p.csv"),
    (["loss=softmax", "data=n.csv"], {"n.csv": NLI.replace("neutral", "maybe", 1)}, "'maybe'"),
    (["loss=softmax", "data=n.csv"], {"n.csv": NLI.replace("neutral", "entailment")}, "at least two labels"),
    (["loss=batch_hard", "data=t.csv"], {"t.csv": ONE_CLASS}, "two classes"),
    (["loss=batch_hard", "data=t.csv"], {"t.csv": SINGLES}, "at least two texts"),
    (["loss=cosine", "data=x.csv"], {"x.csv": "a,b\n1,2\n"}, "data.columns."),
    (["model=nowhere/at-all"], {}, "nowhere/at-all"),
    (["model=empty"], {"empty/readme.txt": "nothing"}, "is no model"),
    (["resume=empty"], {"empty/readme.txt": "nothing"}, "is no run"),
    (["resume=auto"], {}, "no unfinished run"),
    (["suite=sts", "data_dir=null"], {}, "data_dir="),
    (["seed=x"], {}, "seed: is 'x'; give a whole number"),
    (["loop.epochs=abc"], {}, "loop.epochs: is 'abc'; give a number"),
    (["loop.batch_size=1.5"], {}, "loop.batch_size: is 1.5; give a whole number"),
    (["loop.fast=maybe"], {}, "loop.fast: is 'maybe'; give true or false"),
    (["loss"], {}, "loss: has no value; give loss=<name>"),
    (["seed"], {}, "seed: has no value; give seed=<value>"),
    (["lopp.epochs", "loss"], {}, "lopp.epochs: is no key=value; did you mean 'loop.epochs'"),
    (["--hlp"], {}, "unrecognized arguments: --hlp; see python -m train --help"),
    (["--cfg", "job", "-m"], {}, "--multirun and --cfg can't be joined; see python -m train --help"),
    (["seed=-1"], {}, "seed: is -1; give a whole number from 0 to 4294967295"),
    (["seed=99999999999999999999999"], {}, "seed: is 99999999999999999999999; give"),
    (["hydra.run.dir=file/x"], {"file": ""}, "file/x: can't be made a folder"),
    (["device=tpu"], {}, "device"),
    (["dims=384"], {}, "dims: is 384; give a list of whole numbers, as [384,192,96], or auto, or null"),
    (["dims=[8,4]", "dim_weights=[1]"], {}, "dim_weights: has 1 entries for 2 dims; give one each"),
    (["loss=mnrl", "loss.scale=big"], {}, "loss.scale: is 'big'; give a number"),
    (["loss=mnrl", "loss.symmetric=3"], {}, "loss.symmetric: is 3; give true or false"),
    (["data=p.csv", "data.dev_fraction=ten"], {"p.csv": PAIRS}, "data.dev_fraction: is 'ten'; give a number"),
    (["data=p.csv", "data.score_range=5"], {"p.csv": PAIRS}, "data.score_range: is 5; give a list of numbers"),
    (["data=p.csv", "data.score_range=[a,b]"], {"p.csv": PAIRS}, "data.score_range: is ['a', 'b']; give a list of num"),
    (["data=p.csv", "data.columns=5"], {"p.csv": PAIRS}, "data.columns: is 5; give keys and values"),
    (["data.language=null"], {}, "data.language: is null; give text"),
    (["model=mini", "model.max_length=long"], {}, "model.max_length: is 'long'; give a whole number"),
    (["model.pooling=[mean,cls]"], {}, "model.pooling: is ['mean', 'cls']; give text (in quotes) or null"),
    (["model.dense=[{out_features: wide}]"], {}, "model.dense: out_features is 'wide'; give a whole number above 0"),
    (["model.lora=8"], {}, "model.lora: is 8; give {r: 8}"),
    (["model=mini", "model.heads=3"], {}, "model.heads: 3 does not divide model.hidden=256"),
    (["model=mini", "model.vocabulary=-5"], {}, "model.vocabulary: is -5"),
    (["model=mini", "model.dropout=2"], {}, "model.dropout: is 2"),
    (["data=org/pairs"], {}, "A data set of the hub: data=hub data.path=org/pairs"),
])
def test_bad_input_is_one_line(command: Command, tmp_path: Path, arguments: list[str], files: dict[str, str], said: str,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENTENCE_FORGE_DATA", raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    tiny = [] if any(each.startswith(("model", "resume")) for each in arguments) else TINY
    done = command("train", *tiny, *arguments)
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert done.code == 2, done.err
    assert len(errors) == 1 and said in errors[0], done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.glob("outputs/train/*/config.yaml"))  # nothing half-made is left


@pytest.mark.parametrize(("words", "said"), [
    ("train data=none.csv", "data=none.csv: no such file: HERE/none.csv"),
    ("train data=~nobody-at-all/x", "data=~nobody-at-all/x: no such file: HERE/~nobody-at-all/x"),
    ("train -m data=pairs.csv,none.csv", "data=pairs.csv,none.csv: no such file: HERE/none.csv"),
    ("train model=./nowhere", "model=./nowhere: no such folder: HERE/nowhere"),
    ("eval model=mini baseline=../nowhere", "baseline=../nowhere: no such folder: ABOVE/nowhere"),
    ("eval model=mini suite=[sts,none.csv]", "suite=[sts,none.csv]: no such file: HERE/none.csv"),
    ("eval model=mini suite=[sts,pairs.csv]", "a list takes names alone, and pairs.csv is a path; give suite=pairs"),
    ("export corpus=none-there", "corpus=none-there: no such file: HERE/none-there"),
    ("train model=mini.v1", "model=mini.v1: there is no model 'mini.v1', and no such folder; did you mean 'mini'"),
])
def test_a_path_that_is_nowhere_is_said_in_full(command: Command, tmp_path: Path, words: str, said: str) -> None:
    (tmp_path / "pairs.csv").write_text(PAIRS, encoding="utf-8")
    done = command(*words.split())
    said = said.replace("HERE", str(tmp_path)).replace("ABOVE", str(tmp_path.parent))
    assert done.code == 2 and said in done.err and "there are:" not in done.err, done.err


def test_a_device_that_is_not_here(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = command("train", *SHORT, "device=cuda")
    assert done.code == 2 and "device=cuda: there is no cuda here" in done.err


def test_a_run_is_not_written_over(command: Command, tmp_path: Path) -> None:
    assert command("train", *SHORT).code == 0
    done = command("train", *SHORT)
    assert done.code == 2 and "holds a run already" in done.err


def test_chinese_file_names_and_odd_characters(command: Command, tmp_path: Path) -> None:
    name = "新闻 [1] a=b, 'q'.csv"
    (tmp_path / name).write_text(PAIRS, encoding="utf-8")
    done = command("train", "loss=cosine", f"data={name}", *SHORT)
    assert done.code == 0, done.err


def test_no_text_twice_in_a_batch_and_every_row_once() -> None:
    generator = np.random.default_rng(1)
    text_ids = generator.integers(0, 60, size=(200, 2))
    text_ids[:, 1] += 1000
    sampler = NoDuplicates(text_ids=text_ids, batch_size=16, seed=3)
    seen: list[int] = []
    for batch in sampler.epoch(0):
        texts = text_ids[batch].reshape(-1)
        assert len(set(texts.tolist())) == len(texts)
        seen += batch.tolist()
    left_out = set(range(200)) - set(seen)
    assert len(seen) == len(set(seen)) and len(left_out) <= 5
    assert [b.tolist() for b in sampler.epoch(0)] == [b.tolist() for b in sampler.epoch(0)]
    assert [b.tolist() for b in sampler.epoch(0)] != [b.tolist() for b in sampler.epoch(1)]
    few = NoDuplicates(text_ids=np.array([[0, 1], [2, 3], [4, 4]]), batch_size=2, seed=0)
    assert [len(b) for b in few.epoch(0)] == [2]  # the third row alone would have no negative


def test_p_classes_times_k_texts() -> None:
    labels = ["a"] * 50 + ["b"] * 9 + ["c"] * 4 + ["d"] * 1
    sampler = ClassesTimesTexts(labels=labels, batch_size=12, seed=0, texts_per_class=4, classes_per_batch=3)
    seen: Counter[int] = Counter()
    for batch in sampler.epoch(0):
        classes = Counter(labels[row] for row in batch)
        assert len(classes) == 3 and max(classes.values()) <= 4 and len(set(batch.tolist())) == len(batch)
        seen.update(batch.tolist())
    assert set(seen) == set(range(64))  # no class, and no text, is dropped


def test_batches_go_on_from_any_point() -> None:
    sampler = Shuffled(rows=50, batch_size=8, seed=5)
    assert [b.tolist() for b in sampler.epoch(0)] != [b.tolist() for b in sampler.epoch(1)]
    whole = Batches(sampler.epoch)
    first = [next(whole).tolist() for _ in range(20)]
    later = Batches(sampler.epoch, epoch=1, position=3)
    assert [next(later).tolist() for _ in range(10)] == first[10:]
    assert sorted(row for batch in first[:7] for row in batch) == list(range(50))


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_learning_rate_is_that_of_transformers(schedule: str) -> None:
    from transformers import get_scheduler

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=3e-5)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    stock = get_scheduler(name, optimizer, num_warmup_steps=10, num_training_steps=100)
    for step in range(100):
        ours = learning_rate_at(step, peak=3e-5, warmup=10, total=100, schedule=schedule)
        assert ours == pytest.approx(stock.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        stock.step()


def test_accumulation_is_one_large_batch(command: Command, tmp_path: Path) -> None:
    """For a loss that is a mean over rows: 4 x 8 rows step as 32 do, and so does the clipping that follows."""
    common = ["loss=cosine", *TINY, "model.dropout=0", "loop.max_steps=1", "loop.warmup=0", "loop.learning_rate=1e-3",
              "loop.schedule=constant", "loop.max_grad_norm=0.1"]
    assert command("train", *common, "loop.batch_size=32", "hydra.run.dir=one").code == 0
    assert command("train", *common, "loop.batch_size=8", "loop.accumulate=4", "hydra.run.dir=four").code == 0
    one, four = (metrics(tmp_path / name)[1] for name in ("one", "four"))
    assert one["train/loss"] == pytest.approx(four["train/loss"], rel=1e-5)
    assert one["train/gradient_norm"] == pytest.approx(four["train/gradient_norm"], rel=1e-3)


def in_step(which: int, do: Callable[[list[torch.Tensor]], None]) -> Any:
    """Have something done in the middle of a training's step, with the gradients that its optimizer gets."""
    taken: list[int] = []

    def before(optimizer: torch.optim.Optimizer, *_: object) -> None:
        taken.append(1)
        if len(taken) == which:
            do([p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None])

    return register_optimizer_step_pre_hook(before)


def test_gradients_are_clipped(command: Command, tmp_path: Path) -> None:
    norms: list[float] = []
    hook = in_step(2, lambda gradients: norms.append(float(torch.nn.utils.get_total_norm(gradients))))
    try:
        assert command("train", "loss=mnrl", *SHORT, "loop.max_grad_norm=0.01").code == 0
    finally:
        hook.remove()
    assert norms == [pytest.approx(0.01, rel=1e-3)]
    logged = [row["train/gradient_norm"] for row in metrics(tmp_path / "run") if "train/gradient_norm" in row]
    assert min(logged) > 0.02  # of the gradients as they were


def test_a_stop_whose_checkpoint_does_not_fit_on_the_disk_promises_none(command: Command, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def stop(gradients: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        os.kill(os.getpid(), signal.SIGTERM)

    hook = in_step(2, stop)
    try:
        done = command("train", "loss=mnrl", *SHORT, "loop.evaluate_every=99")
    finally:
        hook.remove()
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.code == 2 and "can't be written" in done.err and "resume=run" not in done.err, done.err


def test_what_is_clipped_and_decayed_includes_the_loss_head() -> None:
    head, body = torch.nn.Linear(4, 3), torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    decayed, rest = adamw([body, head], learning_rate=1e-3, weight_decay=0.5).param_groups
    assert decayed["weight_decay"] == 0.5 and rest["weight_decay"] == 0.0
    assert {id(p) for p in decayed["params"]} == {id(body[0].weight), id(head.weight)}
    assert {id(p) for p in rest["params"]} == {id(body[0].bias), id(body[1].weight), id(body[1].bias), id(head.bias)}


def test_only_the_newest_checkpoints_are_kept(command: Command, tmp_path: Path) -> None:
    done = command("train", *TINY, "loop.max_steps=10", "loop.checkpoint_every=2", "loop.keep=2", "hydra.run.dir=run")
    assert done.code == 0
    assert sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").glob("step-*")) == ["step-10", "step-8"]


def test_folder_names_stay_as_typed(command: Command, tmp_path: Path) -> None:
    assert command("train", *TINY, "loop.max_steps=1", "hydra.run.dir=2026_11").code == 0
    assert (tmp_path / "2026_11" / "model").is_dir()
    assert command("train", *TINY, "loop.max_steps=1", "hydra.run.dir=a,b").code == 0
    assert (tmp_path / "a,b" / "model").is_dir()


def test_a_loss_of_the_users_own_package(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As README shows it."""
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "__init__.py").write_text("")
    (tmp_path / "mypackage" / "angle.py").write_text(
        "from torch.nn.functional import cosine_similarity\n"
        "from sentence_forge.losses.base import Loss\n"
        "class Angle(Loss):\n"
        "    def __init__(self, scale=20.0):\n"
        "        super().__init__()\n"
        "        self.scale = scale\n"
        "    def forward(self, embeddings, labels, text_ids):\n"
        "        return ((cosine_similarity(*embeddings) - labels).abs() * self.scale).mean()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = [*SHORT, "loss=cosine", "loss._target_=mypackage.angle.Angle", "+loss.scale=3"]
    refused = command("train", *arguments)
    assert refused.code == 2 and "plugins=" in refused.err
    done = command("train", *arguments, "plugins=[mypackage]")
    assert done.code == 0, done.err


def test_texts_of_an_evaluation_are_no_work_of_the_training(command: Command, tmp_path: Path) -> None:
    tokens_a_pair = []
    for every in (1, 1000):
        done = command("train", "loss=mnrl", *SHORT[:-1], f"loop.evaluate_every={every}", f"hydra.run.dir={every}")
        assert done.code == 0, done.err
        lines = [json.loads(line) for line in (tmp_path / str(every) / "metrics.jsonl").read_text().splitlines()]
        tokens_a_pair.append([round(line["speed/tokens_per_second"] / line["speed/pairs_per_second"], 6)
                              for line in lines if "speed/tokens_per_second" in line])
    assert tokens_a_pair[0] == tokens_a_pair[1] and len(tokens_a_pair[0]) == 6


@pytest.mark.parametrize(("loss", "folder"), [
    ("softmax", "nli_en_cad"), ("triplet", "nli_en_cad"), ("mnrl", "nli_en_cad"), ("cosine", "stsb"),
    ("batch_hard", "news_en_uci")])
def test_every_loss_trains_on_public_data(command: Command, real_data: Path, loss: str, folder: str) -> None:
    done = command("train", f"loss={loss}", f"data={real_data / folder}", *TINY, "loop.max_steps=3",
                   "hydra.run.dir=run")
    assert done.code == 0, done.err


ERRORS_BEFORE_TORCH = [
    ["train", "model=empty"], ["train", "model=nowhere/at-all"], ["train", "suite=[file]", "file=nosuch.csv"],
    ["train", "loop.patience=0"], ["train", "loss=mnlr"], ["train", "loss=softmax", "data=p.csv"],
    ["eval", "model=empty"], ["eval", "model=minilm", "suite=file", "file=a,b.csv"],
    ["export", "model=empty", "out=x"], ["export", "only=index", "corpus=p.csv", "out=empty"],
]


@pytest.mark.parametrize("arguments", ERRORS_BEFORE_TORCH, ids=" ".join)
def test_an_error_that_needs_no_model_comes_before_torch(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "p.csv").write_text(PAIRS)
    code = (f"import sys; sys.argv = {['x', *arguments[1:]]!r}\n"
            f"import sentence_forge.{arguments[0]}.cli\n"
            "try:\n"
            f"    sentence_forge.{arguments[0]}.cli.main()\n"
            "finally:\n"
            "    print(sorted({'torch', 'transformers', 'sentence_transformers', 'datasets'} & set(sys.modules)))\n")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 2 and done.stderr.startswith("error:") and done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == "[]\n"


def test_a_roberta_has_fewer_positions_than_embeddings(tmp_path: Path, command: Command) -> None:
    from transformers import BertTokenizer, RobertaConfig, RobertaModel

    config = RobertaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
                           max_position_embeddings=34, pad_token_id=1)
    words = ["[PAD]", "<pad>", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    RobertaModel(config).save_pretrained(tmp_path / "roberta")
    BertTokenizer(str(tmp_path / "vocab.txt"), pad_token="<pad>").save_pretrained(tmp_path / "roberta")
    refused = command("export", f"model={tmp_path / 'roberta'}", "model.max_length=33", "out=x")
    assert refused.code == 2 and "33 is outside 3..32" in refused.err
