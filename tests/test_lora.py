"""LoRA: only adapters train, a resumed run is exact, and every folder that is written is merged."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Done
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from sentence_forge.encoders.encoder import Encoder, load_encoder
from sentence_forge.encoders.making import lora
from sentence_forge.encoders.making.build import from_scratch, pretrained
from sentence_forge.runtime.errors import UserError

pytest.importorskip("peft", reason="peft is not installed: pip install 'sentence-forge[lora]'")
Command = Callable[..., Done]
TEXTS = [f"some words of text {number}" for number in range(40)]
SMALL = ["loss=softmax", "loop.batch_size=16", "loop.projector=0", "loop.learning_rate=1e-2", "model.lora.r=4"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    from_scratch(lambda: TEXTS, vocabulary=200, hidden=32, layers=2, heads=2).save_pretrained(
        str(folder), create_model_card=False)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_only_adapters_and_what_is_behind_them_train(base: Path, command: Command, tmp_path: Path) -> None:
    done = command("train", *SMALL, f"model={base}", "model.dense=[{out_features: 8, activation: tanh}]",
                   "model.lora.targets=[query]", "loop.max_steps=4", "hydra.run.dir=run")
    assert done.code == 0, done.err
    said = re.search(r"lora: rank 4, ([\d,]+) of [\d,]+ weights train", done.err)
    assert said and said[1] == str(2 * 2 * 4 * 32 + 8 * 32 + 8)  # A and B in two layers; the Dense
    before, after = weights(base), weights(tmp_path / "run" / "model")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"encoder.layer.{layer}.attention.self.query.weight" for layer in (0, 1)}
    dense = [load_file(tmp_path / "run" / each / "2_Dense" / "model.safetensors") for each in ("untouched", "model")]
    assert not torch.equal(dense[0]["linear.weight"], dense[1]["linear.weight"])
    delta = after["encoder.layer.0.attention.self.query.weight"] - before["encoder.layer.0.attention.self.query.weight"]
    assert torch.linalg.matrix_rank(delta, atol=1e-5) <= 4


def test_a_resumed_run_ends_where_an_unbroken_one_does(base: Path, command: Command, tmp_path: Path) -> None:
    long = [*SMALL, f"model={base}", "loop.max_steps=8", "loop.checkpoint_every=4", "loop.keep=9"]
    assert command("train", *long, "hydra.run.dir=whole").code == 0
    assert command("train", *long, "hydra.run.dir=broken").code == 0
    broken = tmp_path / "broken"
    shutil.rmtree(broken / "report")
    shutil.rmtree(broken / "checkpoints" / "step-8")
    done = command("train", "resume=broken")
    assert done.code == 0, done.err
    for name in ("lora", "model/model", "model/loss", "optimizer"):
        one, two = (load_file(tmp_path / run / "checkpoints" / "step-8" / f"{name}.safetensors")
                    for run in ("whole", "broken"))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one), name
    kept = load_file(tmp_path / "whole" / "checkpoints" / "step-8" / "lora.safetensors")
    assert any(tensor.abs().sum() > 0 for name, tensor in kept.items() if ".lora_B." in name)
    one, two = (SentenceTransformer(str(tmp_path / run / "model"), device="cpu") for run in ("whole", "broken"))
    np.testing.assert_array_equal(one.encode(TEXTS), two.encode(TEXTS))


def test_merging_keeps_the_vectors_and_leaves_no_trace_of_peft(base: Path, command: Command, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    model = lora.add(pretrained(str(base)), {"r": 2, "alpha": 8, "targets": None})
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter)
    model.eval()
    plain = lora.merged(model)
    np.testing.assert_allclose(plain.encode(TEXTS), model.encode(TEXTS), atol=1e-6)
    np.testing.assert_allclose(Encoder(model).encode(TEXTS), model.encode(TEXTS), atol=1e-5)  # however it is computed
    assert not np.allclose(plain.encode(TEXTS), pretrained(str(base)).encode(TEXTS), atol=1e-3)
    assert plain.state_dict().keys() == pretrained(str(base)).state_dict().keys() and lora.adapted(model)
    plain.save_pretrained(str(tmp_path / "plain"), create_model_card=False)
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # the slow half of an export, and not the point here
    assert command("export", "model=plain", "out=one").code == 0
    about = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert {load_encoder(tmp_path / each).fingerprint for each in ("plain", "one/model")} == {about["fingerprint"]}
    for name in [each for each in sys.modules if each.partition(".")[0] == "peft"]:
        monkeypatch.setitem(sys.modules, name, None)  # not installed
    stock = SentenceTransformer(str(tmp_path / "one" / "model"), device="cpu")
    np.testing.assert_allclose(stock.encode(TEXTS), plain.encode(TEXTS), atol=1e-6)


def test_adapters_of_stock_peft_are_merged_on_loading(base: Path, command: Command, tmp_path: Path) -> None:
    from peft import LoraConfig

    stock = SentenceTransformer(str(base), device="cpu")
    stock.add_adapter(LoraConfig(r=2, target_modules=["query", "value"]))
    for name, parameter in stock.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter)
    stock.eval()
    stock.save_pretrained(str(tmp_path / "adapters"), create_model_card=False)
    assert (tmp_path / "adapters" / "adapter_model.safetensors").is_file()
    pretrained(str(tmp_path / "adapters")).save_pretrained(str(tmp_path / "out"), create_model_card=False)
    exported = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(exported.encode(TEXTS), stock.encode(TEXTS), atol=1e-6)
    hostile = tmp_path / "adapters" / "adapter_config.json"
    about = json.loads(hostile.read_text())
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "config.json").write_text('{"model_type": "bert", "attn_implementation": "some/kernel"}')
    for named, said in (("evil", "kernel from the hub"), ("adapters", "adapters"), ("nowhere", "nowhere")):
        hostile.write_text(json.dumps(about | {"base_model_name_or_path": str(tmp_path / named)}))
        refused = command("export", "model=adapters", "out=refused")
        assert refused.code == 2 and said in refused.err and "Traceback" not in refused.err


@pytest.mark.parametrize(("settings", "said"), [
    (["model.lora.r=0"], "model.lora.r: is 0"), (["model.lora.r=2.5"], "model.lora.r: is 2.5"),
    (["model.lora.r=4", "model.lora.alpha=0"], "model.lora.alpha: is 0"),
    (["model.lora.r=4", "model.lora.targets=[querry]"], "did you mean 'query'"),
    (["+model.lora.rank=4"], "there are: alpha, r, targets"),
    (["model.lora.rang=4"], "model.lora.rang: there is no such key"),
])
def test_what_no_adapter_can_be_is_refused(base: Path, command: Command, settings: list[str], said: str) -> None:
    done = command("train", f"model={base}", *settings, "loop.max_steps=1", "hydra.run.dir=run")
    assert done.code == 2 and said in done.err and "Traceback" not in done.err, done.err


def test_a_model_that_takes_no_adapters_names_the_key_as_typed(command: Command) -> None:
    done = command("train", "model=mini", "model.lora.r=8")
    assert done.code == 2 and "error: model.lora.r: there is no such key" in done.err, done.err


def test_without_peft_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        lora.check({"r": 8})
    assert lora.check({"r": None}) is False and lora.check(None) is False
