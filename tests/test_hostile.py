"""Models, YAML and data that mean harm: nothing of theirs runs, and nothing leaves the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hostile_models
import pytest
from conftest import TINY, Done

from sentence_forge.encoders.fingerprint import fingerprint
from sentence_forge.encoders.making.build import from_scratch, pretrained
from sentence_forge.runtime.errors import UserError

ROOT = Path(__file__).parent.parent
Command = Callable[..., Done]


@pytest.fixture(scope="module")
def good_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "model"
    texts = ["one two three", "four five six"] * 4
    model = from_scratch(lambda: texts, hidden=32, layers=1, heads=2, vocabulary=60)
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_hostile_model_folder_runs_nothing(good_model: Path, tmp_path: Path) -> None:
    assert len(hostile_models.CASES) >= 30
    of_good = fingerprint(pretrained(str(good_model)))
    for number, name in enumerate(hostile_models.CASES):
        folder = tmp_path / str(number) / "model"
        folder.parent.mkdir()
        canary = hostile_models.make(name, good_model, folder)
        try:
            model = pretrained(str(folder))
        except UserError as error:
            assert str(folder) in str(error), name
            assert "path" not in name or "outside the model's folder" in str(error), error
            assert "from the hub" not in name or "kernel from the hub" in str(error), error
        else:  # the hostile part was not looked at, or it was put aside
            assert not any(word in name for word in ("path", "from the hub", "weights ", "prompt", "pipe")), name
            assert "Dense" in name or fingerprint(model) == of_good, name
        assert not canary.exists(), name


@pytest.mark.parametrize("where", ["model", "experiment"])
def test_trust_comes_from_the_command_line_alone(command: Command, tmp_path: Path, where: str) -> None:
    (tmp_path / "conf" / where).mkdir(parents=True)
    text = {"model": "_target_: encoders.making.build.pretrained\npath: nowhere\ntrust_remote_code: true\n",
            "experiment": "# @package _global_\nmodel:\n  trust_remote_code: true\n"}[where]
    (tmp_path / "conf" / where / "evil.yaml").write_text(text)
    given = ["--config-dir", str(tmp_path / "conf"), f"{where}=evil", "model.path=nowhere", "++model.package=null"]
    done = command("train", *given)
    assert done.code == 2 and "model.trust_remote_code: runs code" in done.err, done.err
    done = command("train", *given, "model.trust_remote_code=true")
    assert done.code == 2 and "nowhere: no such model folder" in done.err, done.err


@pytest.mark.parametrize(("text", "key"), [
    ("loop:\n  batchsize: 3\n", "loop.batchsize"), ("losses: 3\n", "losses"), ("loss:\n  scal: 3\n", "loss.scal"),
    ("loss:\n  sampler:\n    shuffle: 1\n", "loss.sampler.shuffle"), ("data:\n  lang: zh\n", "data.lang"),
    ("model:\n  hiden: 3\n", "model.hiden"),
    ("suite:\n  mine:\n    _target_: eval.sts.ScoredPairs\n    pth: x\n", "suite.mine.pth"),
    ("model:\n  dropot: 0\n", "model.dropot"),
    ("loss:\n  _target_: os.system\n", "loss._target_"), ("resume:\n  deep: 1\n", "resume"),
])
def test_an_unknown_key_in_an_experiment_is_an_error(command: Command, tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\n" + text)
    done = command("train", "--config-dir", str(tmp_path / "conf"), "experiment=mine", *TINY, "loop.max_steps=1")
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert done.code == 2 and len(errors) == 1 and key in errors[0], done.err
    assert "Traceback" not in done.err


def test_bad_rows_are_skipped_and_listed(command: Command, tmp_path: Path) -> None:
    rows = [f"text {i},words {i},{i % 6}" for i in range(40)]
    rows[3:6] = ["x,y,7", 'x,"y,1', "x,,1"]
    (tmp_path / "p.csv").write_text("sentence1,sentence2,score\n" + "\n".join([*rows, "x,y,z,1"]) + "\n")
    arguments = ["loss=cosine", "data=p.csv", "data.score_range=[0,5]", *TINY, "loop.max_steps=1", "hydra.run.dir=run"]
    assert "line 5 (row 4)" in command("train", *arguments).err
    done = command("train", *arguments, "data.on_bad_row=skip")
    assert done.code == 0, done.err
    listed = (tmp_path / "run" / "rejected.csv").read_text().splitlines()
    assert listed[0] == "file,line,row,reason,text" and len(listed) == 5
    for line, part in zip(listed[1:], ("outside 0 to 5", "never closed", "is empty", "4 cells"), strict=True):
        assert part in line
    assert "did you mean 'skip'" in command("train", *arguments, "data.on_bad_row=skp", "hydra.run.dir=other").err


def test_a_bomb_of_many_lines_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    from sentence_forge.data_readers.formats import packed, parquet
    from sentence_forge.data_readers.formats.files import read_rows

    monkeypatch.setattr(packed, "MOST_UNPACKED", 1 << 20)
    monkeypatch.setattr(parquet, "MOST_UNPACKED", 1 << 20)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"title\n" + b"the same\n" * 3_000_000))
    pq.write_table(pa.table({"title": pa.array(["the same"] * 3_000_000)}), tmp_path / "a.parquet")
    for name in ("a.csv.gz", "a.parquet"):
        with pytest.raises(UserError, match="zip bomb"):
            sum(1 for _ in read_rows(tmp_path / name, ["title"]))


# --- what leaves the machine --------------------------------------------------------------------------------------

LISTEN = """
import json, os, sys
sys.path[:0] = [{tests!r}]
from faults import listen
heard = listen()
from importlib import import_module
def run(name, *arguments):
    sys.argv = [name, *arguments]
    try:
        code = import_module("sentence_forge." + name + ".cli").main()
    except SystemExit as leaving:
        code = leaving.code
    assert not code, (name, code)
tiny = {tiny!r}
run("train", "loss=softmax", *tiny, "loop.max_steps=2", "loop.checkpoint_every=1", "hydra.run.dir=run")
run("train", "resume=run", "loop.max_steps=3")
run("export", "model=run", "corpus=titles.csv", "out=news")
open("titles.csv", "a").write("one more title\\n")
run("export", "only=index", "corpus=titles.csv", "out=news")
run("search", "news", "a title", "--json")
run("search", "news", "--verify")
json.dump(heard, open("heard.json", "w"))
"""


def test_nothing_is_fetched_and_nothing_unpickled(tmp_path: Path) -> None:
    """Training, resuming, exporting, indexing and searching with local paths, every socket and pickle listened to."""
    (tmp_path / "titles.csv").write_text("title\n" + "".join(f"title number {i}\n" for i in range(30)))
    script = LISTEN.format(tests=str(Path(__file__).parent), tiny=TINY)
    (tmp_path / "home").mkdir()
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env=_environment() | {"HOME": str(tmp_path / "home")})
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [file.name for file in (tmp_path / "home").rglob("*") if "onnxruntime" in file.name]
    assert not reports, "ONNX Runtime, whose sockets Python can't hear, gathers reports to its makers"
    heard = json.loads((tmp_path / "heard.json").read_text())
    assert not [each for each in heard if each.startswith("socket")]
    assert not heard, sorted(set(heard))


def _environment() -> dict[str, str]:
    quiet = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    kept = {key: value for key, value in os.environ.items() if key not in quiet}
    return kept | {"PYTHONPATH": str(ROOT)}
