"""YAML of somebody else (``--config-dir``, a run that is gone on with) decides on no code that runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
from conftest import Done

from sentence_forge.runtime import trust
from sentence_forge.runtime.errors import UserError

TEXTS = [f"a storm hits coast {number}" for number in range(30)]

Command = Callable[..., Done]
# makes a file when Hydra or logging instantiates it, which must never happen
OPEN = "_target_: builtins.open\n{pad}file: RAN\n{pad}mode: w"
HANDLER = "class: logging.FileHandler\n{pad}filename: RAN"


def node(path: str, leaf: str) -> str:
    """Return YAML of a dotted path that ends in a leaf of several lines."""
    names = path.split(".")
    lines = [f"{'  ' * depth}{name}:" for depth, name in enumerate(names)]
    pad = "  " * len(names)
    return "\n".join(lines) + f"\n{pad}{leaf.format(pad=pad)}\n"


NODES = {
    "callback": node("hydra.callbacks.evil", OPEN),
    "callback in a list": "hydra: {callbacks: {evil: {_target_: builtins.list, of: [{_target_: builtins.open}]}}}\n",
    "launcher": "hydra: {launcher: {_target_: builtins.dict}}\n",
    "sweeper": "hydra: {sweeper: {_target_: builtins.dict}}\n",
    "handler of job_logging": node("hydra.job_logging.handlers.evil", HANDLER),
    "factory in job_logging": "hydra: {job_logging: {formatters: {x: {(): builtins.open, file: RAN, mode: w}}}}\n",
    "filter of job_logging": "hydra: {job_logging: {filters: {x: {(): builtins.open, file: RAN, mode: w}}}}\n",
    "handler of hydra_logging": node("hydra.hydra_logging.handlers.evil", HANDLER),
    "version of job_logging": "hydra: {job_logging: {version: 1, root: {handlers: [evil]}}}\n",
    "environment": "hydra: {job: {env_set: {LD_PRELOAD: evil.so}}}\n",
    "environment to copy": "hydra: {job: {env_copy: [HOME]}}\n",
    "folder to change to": "hydra: {job: {chdir: true}}\n",
    "folder of Hydra's files": "hydra: {output_subdir: ../../elsewhere}\n",
    "a group of job_logging": "defaults: [{override /hydra/job_logging: evil}]\n",
    "a group of launchers": "defaults: [{override /hydra/launcher: evil}]\n",
    "a group of sweepers": "defaults: [{override /hydra/sweeper: evil}]\n",
    "a group of callbacks": "defaults: [/hydra/callbacks: evil]\n",
    "plugins": "plugins: [subprocess]\n",
    "plugins and a target": "plugins: [subprocess]\nloss: {_target_: subprocess.getoutput, cmd: touch RAN}\n",
    "a target of Python's": "suite: {evil: {_target_: subprocess.getoutput, cmd: touch RAN}}\n",
    "a function of ours": "suite: {evil: {_target_: train.checkpoint.prune, run: ., keep: 1}}\n",
    "trust in a list": "suite: {evil: {_target_: eval.tasks.sts.ScoredPairs, models: [{trust_remote_code: true}]}}\n",
}
OVERRULED = ("folder of Hydra's files", "a group of job_logging")  # by our own primary config, which comes last
QUICK = ["loss=cosine", "model=mini", "data=file", "data.path=nowhere.csv"]  # ends at the data, whatever came before


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    folder = tmp_path / "conf"
    groups = {"launcher": node("x", OPEN), "sweeper": node("x", OPEN), "callbacks": node("x", OPEN),
              "job_logging": "version: 1\nhandlers:\n  evil:\n    class: logging.FileHandler\n    filename: RAN\n"}
    for group, text in groups.items():
        (folder / "hydra" / group).mkdir(parents=True)
        (folder / "hydra" / group / "evil.yaml").write_text(text)
    (folder / "experiment").mkdir()
    (folder / "experiment" / "evil.yaml").write_text("# @package _global_\nhydra: {job: {chdir: true}}\n")
    (folder / "experiment" / "fine.yaml").write_text(
        "# @package _global_\nhydra: {run: {dir: mine}, sweep: {dir: many}, sweeper: {params: {seed: '1,2'}}}\n"
        "loop: {epochs: 1}\n")
    return folder


def refused(done: Done, what: str) -> None:
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert done.code == 2 and len(errors) == 1 and "Traceback" not in done.err, (what, done.err)
    assert re.search("type it|command line alone|_target_|hydra/callbacks" if what not in OVERRULED else "nowhere.csv",
                     errors[0]), (what, errors)
    assert not Path("RAN").exists() and not Path("elsewhere").exists(), what


@pytest.mark.parametrize("name", NODES)
def test_a_node_of_an_experiment_runs_nothing(command: Command, conf: Path, name: str) -> None:
    text = NODES[name]
    (conf / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{text}")
    given = QUICK[:2] if "suite" in text else QUICK  # a suite is built after the data
    refused(command("train", "--config-dir", "conf", "experiment=evil", *given), name)


@pytest.mark.parametrize("typed", [
    ["hydra/launcher=evil"], ["hydra/job_logging=evil"], ["+hydra/callbacks=evil"],  # typed, but what it means is YAML
    ["-m", "experiment=evil,fine"], ["-m", "experiment=fine,evil"], ["experiment=evil", "--multirun"],
    ["--config-name", "whole"], ["--config-name=whole", "seed=3"],
])
def test_no_other_way_in(command: Command, conf: Path, typed: list[str]) -> None:
    (conf / "whole.yaml").write_text("defaults: [train, _self_]\n" + NODES["callback"])
    done = command("train", "--config-dir", "conf", *typed, *QUICK)
    assert done.code == 2 and "Traceback" not in done.err and not Path("RAN").exists(), done.err


def test_the_search_path_as_a_way_in(command: Command, conf: Path) -> None:
    refused(command("train", f"hydra.searchpath=[file://{conf}]", "experiment=evil", *QUICK), "searchpath")


def test_names_of_folders_and_sweeps_may_come_from_yaml(command: Command, conf: Path) -> None:
    done = command("train", "--config-dir", "conf", "experiment=fine", *QUICK)
    assert done.code == 2 and "nowhere.csv" in done.err and "hydra" not in done.err, done.err


def test_what_is_typed_is_taken(command: Command, conf: Path, tmp_path: Path) -> None:
    typed = ["hydra.job.chdir=true", "+hydra.job.env_set.SEEN=yes"]
    done = command("train", "--config-dir", "conf", "experiment=fine", *QUICK, *typed)
    assert "nowhere.csv" in done.err and "hydra." not in done.err, done.err


def test_a_run_to_go_on_with_brings_no_plugins(command: Command, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.yaml").write_text(
        "plugins: [subprocess]\ndata: {_target_: subprocess.getoutput, cmd: touch RAN}\n"
        "model: {_target_: encoders.build.pretrained, path: x}\nloss: {}\n")
    done = command("train", "resume=theirs")
    assert done.code == 2 and "theirs/config.yaml: plugins: is [subprocess]" in done.err, done.err
    assert "type 'plugins=[subprocess]' if you trust it" in done.err
    assert not Path("RAN").exists()
    assert "plugins: is" not in command("train", "resume=theirs", "plugins=[subprocess]", "data={}").err


def test_trust_is_found_at_any_depth() -> None:
    deep = {"suite": {"a": [{"b": {"trust_remote_code": 1}}]}}
    with pytest.raises(UserError, match=r"suite\.a\.0\.b\.trust_remote_code: runs code"):
        trust.check_trust(deep, [])
    trust.check_trust(deep, ["+suite.a.0.b.trust_remote_code=true"])


def test_a_model_that_brings_its_code_trains_to_the_end_and_goes_on(command: Command, tmp_path: Path) -> None:
    """As one of the hub does: its config is of a kind that transformers doesn't have."""
    own = tiny_models.make("bert", tmp_path / "own", TEXTS)
    (own / "configuration_own.py").write_text(
        "from transformers import BertConfig\n\n\nclass OwnConfig(BertConfig):\n    model_type = 'own'\n")
    (own / "modeling_own.py").write_text(
        "from transformers import BertModel\n\nfrom .configuration_own import OwnConfig\n\n\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n")
    config = json.loads((own / "config.json").read_text())
    config |= {"model_type": "own", "architectures": ["OwnModel"],
               "auto_map": {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}}
    (own / "config.json").write_text(json.dumps(config))
    (tmp_path / "titles.csv").write_text("\n".join(["title", *TEXTS]), encoding="utf-8")
    shape = ["loss=mnrl", "model=own", "data=titles.csv", "data.dev_path=titles.csv", "loop.batch_size=8",
             "loop.max_steps=1", "loop.projector=0", "hydra.run.dir=run"]
    asked = "wants to run code of its own; if you trust it, type model.trust_remote_code=true"
    done = command("train", *shape)
    assert done.code == 2 and asked in done.err and "Traceback" not in done.err, done.err
    done = command("train", *shape, "model.trust_remote_code=true")
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "report" / "report.json").exists()
    done = command("train", "resume=run", "loop.max_steps=2", "model.trust_remote_code=true")
    assert done.code == 0, done.err
    done = command("train", "resume=run", "loop.max_steps=3", "model.trust_remote_code=false")
    assert done.code == 2 and asked in done.err, done.err
