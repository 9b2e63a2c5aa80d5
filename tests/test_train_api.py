"""``sf.train`` from Python: the command's words, rows in memory, and a process that is left as it was."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Done

import sentence_forge as sf
from sentence_forge.train.api import TrainedRun

SMALL = ["model=mini", "model.hidden=32", "model.layers=1", "model.heads=2", "model.vocabulary=600", "loop.projector=0",
         "loop.batch_size=16"]
TORCH_SETS = ("KMP_", "TORCHINDUCTOR_")  # when it is imported
PAIRS = [{"anchor": f"a cat of {n}", "positive": f"cat number {n}"} for n in range(60)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TQDM_DISABLE")
    return tmp_path


def left() -> tuple:
    """All that a caller has and a training must leave as it is."""
    import torch
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    root = logging.getLogger()
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(TORCH_SETS)}
    return (list(root.handlers), root.level, root.manager.disable, signals, list(sys.argv), environment,
            GlobalHydra.instance().is_initialized(), HydraConfig.instance().cfg, torch.get_num_threads(), os.getcwd())


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def test_words_and_keywords_train_what_the_command_trains(command: Callable[..., Done], here: Path) -> None:
    before = left()
    first = sf.train("loss=cosine", *SMALL, "loop.max_steps=3", "hydra.run.dir=words")
    assert left() == before
    model = {"hidden": 32, "layers": 1, "heads": 2, "vocabulary": 600}
    second = sf.train("model=mini", loss="cosine", loop={"projector": 0, "batch_size": 16, "max_steps": 3}, out="keys",
                      **{f"model.{key}": value for key, value in model.items()})
    assert left() == before
    assert command("train", "loss=cosine", *SMALL, "loop.max_steps=3", "hydra.run.dir=typed").code == 0
    assert weights(first.folder) == weights(second.folder) == weights(here / "typed")
    assert isinstance(first, TrainedRun) and first.folder == here / "words"
    assert first.model.encode(["a text"]).shape == (1, 32)
    assert first.report.json["tasks"] == json.loads((here / "typed" / "report" / "report.json").read_text())["tasks"]
    command_line = json.loads((first.folder / "environment.json").read_text())["command"]
    assert command_line[:2] == ["python -m train", "loss=cosine"]


def tables() -> dict[str, Any]:
    import datasets
    import pyarrow as pa

    return {"list": PAIRS, "pandas": pd.DataFrame(PAIRS, index=range(100, 160)), "arrow": pa.Table.from_pylist(PAIRS),
            "datasets": datasets.Dataset.from_list([{"anchor": "no", "positive": "no"}, *PAIRS]).select(range(1, 61))}


@pytest.mark.parametrize("kind", ["list", "pandas", "arrow", "datasets"])
def test_rows_in_memory_train_as_those_of_a_file_and_a_run_goes_on_with_them(here: Path, kind: str) -> None:
    (here / "pairs.csv").write_text("anchor,positive\n" + "".join(f"{r['anchor']},{r['positive']}\n" for r in PAIRS))
    words = [*SMALL, "loop.max_steps=4", "loop.checkpoint_every=2"]
    run = sf.train(*words, data=tables()[kind], loss="mnrl", out="memory")
    if kind == "list":
        assert weights(run.folder) == weights(sf.train(*words, "data=pairs.csv", loss="mnrl", out="file").folder)
    before = weights(run.folder)
    other = here / "elsewhere"
    other.mkdir()
    os.chdir(other)
    assert weights(sf.train(resume=run.folder / "checkpoints" / "step-2").folder) == before
    assert list(json.loads((run.folder / "environment.json").read_text())["data"]) == [str(run.folder / "data" /
                                                                                         "rows.parquet")]


def test_classes_of_a_dataset_are_their_names_and_dev_rows_are_taken(here: Path) -> None:
    import datasets

    names = ["neutral", "contradiction", "entailment"]  # other than in the order that bare numbers are read in
    features = datasets.Features({"premise": datasets.Value("string"), "hypothesis": datasets.Value("string"),
                                  "label": datasets.ClassLabel(names=names)})

    def rows(start: int) -> datasets.Dataset:
        return datasets.Dataset.from_list([{"premise": f"p {n}", "hypothesis": f"{names[n % 3]} {n}", "label": n % 3}
                                           for n in range(start, start + 60)], features=features)

    run = sf.train(*SMALL, "loop.max_steps=1", loss="softmax", data={"train": rows(0), "validation": rows(60)}, out="r")
    assert sorted(file.name for file in (run.folder / "data").iterdir()) == ["dev.parquet", "train.parquet"]
    read = sf.read(run.folder / "data" / "train.parquet", split="train")
    assert all(row["hypothesis"].startswith(row["label"]) for row in read)
    with pytest.raises(sf.UserError, match="there is no split 'test'"):
        sf.train(*SMALL, data={"test": rows(0)})


BAD: list[tuple[list[str], dict[str, Any], str]] = [
    (["loss=mnlr"], {}, "loss=mnlr: there is no loss 'mnlr'; did you mean 'mnrl'?"),
    (["data="], {}, "data=: the path is empty; give a file"),
    (["data=nowhere.csv"], {}, "data=nowhere.csv: no such file: "),
    (["loop.epochs=0"], {}, "loop.epochs: is 0.0; it must be above 0"),
    ([], {"loop": {"epoch": 1}}, "loop.epoch: there is no such key; did you mean 'loop.epochs'"),
    ([], {"score_range": [0, 5]}, "score_range: is that of suite=file; of the training data say data.score_range="),
    (["-m", "seed=1,2"], {}, "'-m': give overrides"),
    ([], {"loss": pd.DataFrame({"x": range(1000)})}, "loss: is of type DataFrame; give a name, a number, a list or"),
    ([], {"loop": {"epochs": {1, 2}}}, "loop.epochs: is of type set; give a name"),
    ([], {"data": 5}, "data: is of type int; give a path or a name as a string, or rows"),
    ([], {"seed": list(range(1000))}, "9, 20, 21, 2...; give a whole number"),
    (["data=" + 300 * "y"], {}, "yyy...: there is no data 'yyy"),
    ([], {"data": []}, "data: has no rows"),
    ([], {"data": [{"anchor": "a", "positive": "b"}, {"anchor": "a"}]}, "data: row 2 has other columns than row 1"),
    ([], {"data": [{"anchor": "a", "positive": 1}, {"anchor": "b", "positive": "c"}]}, "data: the rows make no table"),
    ([], {"data": [{"x": "a"}]}, "data (train): all rows have the same first text"),
    (["loss=mnrl"], {"data": [*PAIRS, {"anchor": None, "positive": "b"}]}, "data: row 61, column anchor: is empty"),
    (["loss=mnrl"], {"data": {"train": [*PAIRS, {"anchor": "", "positive": "b"}]}},
     "data['train']: row 61, column anchor: is empty"),
    (["loss=mnrl"], {"data": [*PAIRS, {"anchor": "a", "positive": ""}]}, "data: row 61, column positive: is empty"),
]


@pytest.mark.parametrize(("words", "keywords", "expected"), BAD, ids=[each[2][:30] for each in BAD])
def test_bad_input_is_the_command_s_line_and_leaves_nothing(command: Callable[..., Done], here: Path, words: list[str],
                                                            keywords: dict[str, Any], expected: str) -> None:
    before = left()
    with pytest.raises(sf.UserError) as caught:
        sf.train(*SMALL, *words, out="run", **keywords)
    assert expected in str(caught.value) and left() == before
    assert len(str(caught.value)) < 400
    assert not (here / "run").exists()
    if words and not keywords and words[0] != "-m":
        assert command("train", *SMALL, *words, "hydra.run.dir=run").err.splitlines()[0] == f"error: {caught.value}"


def test_a_folder_that_holds_a_run_is_left_alone(here: Path) -> None:
    run = sf.train(*SMALL, "loop.max_steps=1", data=PAIRS, out="run")
    before = weights(run.folder), (run.folder / "data" / "rows.parquet").read_bytes()
    with pytest.raises(sf.UserError, match="holds a run already"):
        sf.train(*SMALL, "loop.max_steps=1", data=PAIRS[:30], out="run")
    assert (weights(run.folder), (run.folder / "data" / "rows.parquet").read_bytes()) == before


def test_an_interrupt_is_raised_after_a_checkpoint_and_the_run_goes_on(here: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_forge.train.loop import Training

    step = Training._step

    def stopped(self: Training) -> float:
        if self.state.step == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self)

    whole = sf.train(*SMALL, "loop.max_steps=4", data=PAIRS, out="whole")
    before = left()
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            sf.train(*SMALL, "loop.max_steps=4", data=PAIRS, out="run")
    assert left() == before
    assert [folder.name for folder in (here / "run" / "checkpoints").iterdir()] == ["step-2"]
    assert weights(sf.train(resume="run").folder) == weights(whole.folder)


def test_it_trains_in_a_thread_that_is_not_the_main_one(here: Path) -> None:
    found: list[Any] = []

    def work(number: int) -> None:
        try:
            found.append(sf.train(*SMALL, "loop.max_steps=1", data=PAIRS, out=f"run{number}").model.encode(["a cat"]))
        except BaseException as error:  # for the assertion below
            found.append(error)

    before = left()
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert left() == before
    assert len(found) == 2 and np.array_equal(found[0], found[1]), found


@pytest.mark.parametrize(("wrong", "says"), [
    (lambda: sf.train(5), "overrides are strings such as 'loss=mnrl', not int"),
    (lambda: sf.train([{"anchor": "a"}]), "overrides are strings such as 'loss=mnrl', not list"),
    (lambda: sf.load(None), "model: is of type NoneType; give a path or a name as a string"),
    (lambda: sf.read(""), "path: is empty; give a path or a name"),
    (lambda: sf.evaluate("minilm", suite=[]), "suite: is an empty list; give a name"),
    (lambda: sf.evaluate("minilm", suite=[3]), "suite: is of type int; give a path or a name"),
    (lambda: sf.evaluate("minilm", suite={"a": 1}), "suite: is of type dict; give"),
    (lambda: sf.export("minilm", corpus=["a"], out="o"), "corpus: is of type list; give a path or a name as a string"),
    (lambda: sf.export(5, out="o"), "int is no model; give a folder, a name, a run or an Encoder"),
])
def test_values_of_another_type_are_refused_in_a_line(here: Path, wrong: Callable[[], object], says: str) -> None:
    with pytest.raises(sf.UserError) as caught:
        wrong()
    assert str(caught.value).startswith(says) and "\n" not in str(caught.value) and not list(here.iterdir())
