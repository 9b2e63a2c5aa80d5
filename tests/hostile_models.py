"""Model folders that would run code, or read outside themselves, if a loader believed them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Make = Callable[[Path, Path], None]
"""Changes a copy of a good folder; what runs would write the file given second."""


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.canary)!r}, 'w').close()",)


def code(canary: Path) -> str:
    return (f"open({str(canary)!r}, 'w').close()\n"
            "from torch import nn\n"
            "class Evil(nn.Module):\n    @classmethod\n    def load(cls, *a, **k): return cls()\n"
            "class EvilConfig: pass\nclass EvilModel: pass\nclass EvilTokenizer: pass\n")


def change(file: Path, **values: object) -> None:
    about = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**about, **values}))


def module(kind: str, path: str = "9_Evil", keep: bool = True) -> Make:
    def make(folder: Path, canary: Path) -> None:
        modules = json.loads((folder / "modules.json").read_text()) if keep else []
        (folder / "9_Evil").mkdir()
        for place in (folder, folder / "9_Evil"):
            (place / "evil.py").write_text(code(canary))
        (folder / "9_Evil" / "config.json").write_text("{}")
        modules.append({"idx": len(modules), "name": "9", "path": path, "type": kind})
        (folder / "modules.json").write_text(json.dumps(modules))
    return make


def outside(path: str) -> Make:
    """A Dense layer whose weights, sound ones, lie outside."""
    def make(folder: Path, canary: Path) -> None:
        elsewhere = folder.parent / "outside"
        _dense(elsewhere, canary, pickled=False)
        given = path.format(outside=elsewhere)
        _add(folder, given, "sentence_transformers.models.Dense")
    return make


def dense(activation: str = "torch.nn.modules.linear.Identity", pickled: bool = False) -> Make:
    def make(folder: Path, canary: Path) -> None:
        _dense(folder / "2_Dense", canary, activation, pickled)
        _add(folder, "2_Dense", "sentence_transformers.models.Dense")
    return make


def _dense(folder: Path, canary: Path, activation: str = "torch.nn.modules.linear.Identity",
           pickled: bool = True) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(
        {"in_features": 32, "out_features": 8, "bias": True, "activation_function": activation}))
    if pickled:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(canary)))
    else:
        save_file({"linear.weight": torch.zeros(8, 32), "linear.bias": torch.zeros(8)}, folder / "model.safetensors")


def _add(folder: Path, path: str, kind: str) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": len(modules), "name": str(len(modules)), "path": path, "type": kind})
    (folder / "modules.json").write_text(json.dumps(modules))


def config(name: str = "config.json", **values: object) -> Make:
    def make(folder: Path, canary: Path) -> None:
        for file in ("evil.py", "modeling_evil.py", "configuration_evil.py", "tokenization_evil.py"):
            (folder / file).write_text(code(canary))
        change(folder / name, **values)
    return make


def pickled(*names: str, instead: bool = True, **arguments: object) -> Make:
    """Weights, or other files, that are pickles."""
    def make(folder: Path, canary: Path) -> None:
        if instead:
            (folder / "model.safetensors").unlink()
        for name in names:
            (folder / name).write_bytes(pickle.dumps(Payload(canary)))
        if arguments:
            change(folder / "sentence_bert_config.json", model_args=arguments)
    return make


def zipped(folder: Path, canary: Path) -> None:
    """As torch itself writes it."""
    (folder / "model.safetensors").unlink()
    torch.save({"a": Payload(canary)}, folder / "pytorch_model.bin")


def shards(index: str, shard: str) -> Make:
    def make(folder: Path, canary: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder.parent / "secret.bin").write_bytes(pickle.dumps(Payload(canary)))
        weights = {"embeddings.word_embeddings.weight": shard}
        (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weights}))
    return make


def kept(which: Callable[[str], bool]) -> Make:
    """Some of the weights only: what lacks would be random."""
    def make(folder: Path, canary: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        save_file({name: tensor for name, tensor in weights.items() if which(name)}, folder / "model.safetensors",
                  metadata={"format": "pt"})
    return make


def both(*steps: Make) -> Make:
    def make(folder: Path, canary: Path) -> None:
        for step in steps:
            step(folder, canary)
    return make


def plain(step: Make) -> Make:
    """The same without ``modules.json``: a transformers checkpoint."""
    def make(folder: Path, canary: Path) -> None:
        (folder / "modules.json").unlink()
        step(folder, canary)
    return make


def no_list(folder: Path, canary: Path) -> None:
    (folder / "modules.json").write_text('{"type": "os.system"}')


BERT = "sentence_bert_config.json"
MODEL = {"AutoConfig": "configuration_evil.EvilConfig", "AutoModel": "modeling_evil.EvilModel"}
TOKENIZER = {"AutoTokenizer": ["tokenization_evil.EvilTokenizer", None]}

CASES: dict[str, Make] = {
    "a million layers": config(num_hidden_layers=10**6),
    "a module of its own": module("evil.Evil"),
    "a module of its own in the folder's root": module("evil.Evil", path=""),
    "a module of its own alone": module("evil.Evil", path="", keep=False),
    "module os.system": module("os.system"),
    "module builtins.eval": module("builtins.eval"),
    "module subprocess.Popen": module("subprocess.Popen"),
    "module pickle.loads": module("pickle.loads"),
    "a function of the library's as a module": module("sentence_transformers.util.import_from_string"),
    "another module through the library": module("sentence_transformers.models.os.system"),
    "a path that climbs out": outside("../outside"),
    "a path that climbs out half-way": outside("1_Pooling/../../outside"),
    "an absolute path": outside("{outside}"),
    "a path with backslashes": outside("..\\outside"),
    "a path that is a URL": outside("file://{outside}"),
    "modules.json is no list": no_list,
    "auto_map beside a known type": config(auto_map=MODEL),
    "auto_map of an unknown type": config(auto_map=MODEL, model_type="evil"),
    "auto_map of another repository": config(auto_map={"AutoModel": "evil/repo--modeling_evil.EvilModel"},
                                                 model_type="evil"),
    "auto_map without modules.json": plain(config(auto_map=MODEL, model_type="evil")),
    "auto_map beside a known type without modules.json": plain(config(auto_map=MODEL)),
    "a tokenizer of its own": config("tokenizer_config.json", auto_map=TOKENIZER, tokenizer_class="EvilTokenizer"),
    "a tokenizer of its own without modules.json": plain(
        config("tokenizer_config.json", auto_map=TOKENIZER, tokenizer_class="EvilTokenizer")),
    "pickled weights": pickled("pytorch_model.bin"),
    "pickled weights as torch zips them": zipped,
    "pickled weights without modules.json": plain(pickled("pytorch_model.bin")),
    "pickled weights and weights_only off": pickled("pytorch_model.bin", weights_only=False),
    "zipped weights and weights_only off": both(zipped, config(BERT, model_args={"weights_only": False})),
    "weights_only off by another name": both(zipped, config(BERT, model_kwargs={"weights_only": False})),
    "trust in the folder itself": both(config(auto_map=MODEL, model_type="evil"), config(
        BERT, config_args={"trust_remote_code": True}, model_args={"trust_remote_code": True})),
    "a pickle named safetensors": pickled("model.safetensors"),
    "a pickle beside good weights": pickled("training_args.bin", "optimizer.pt", "pytorch_model.bin", instead=False),
    "pickled shards outside": shards("pytorch_model.bin.index.json", "../secret.bin"),
    "shards outside": shards("model.safetensors.index.json", "../secret.bin"),
    "a pickled Dense": dense(pickled=True),
    "Dense activation os.system": dense("os.system"),
    "Dense activation torch.hub.load": dense("torch.hub.load"),
    "Dense activation through torch": dense("torch.serialization.os.system"),
    "attention from the hub": config(_attn_implementation="evil/kernel"),
    "attention from the hub, passed on": config(BERT, model_args={"attn_implementation": "evil/kernel"}),
    "a router to a module of its own": both(module("sentence_transformers.models.Router"), config(
        "9_Evil/router_config.json", types={"a": "evil.Evil"}, structure={"query": ["a"]}, parameters={})),
    "a tokenizer at an absolute path": config(BERT, tokenizer_args={"tokenizer_file": "/etc/hostname"}),
    "weights by a path that climbs out": config(BERT, model_args={"gguf_file": "../../secret/model.gguf"}),
    "settings that are a pipe": lambda folder, canary: _pipe(folder / "config.json"),
    "prompts that are a pipe": lambda folder, canary: _pipe(folder / "config_sentence_transformers.json"),
    "a tokenizer that is a pipe": lambda folder, canary: _pipe(folder / "tokenizer.json"),
    "weights that are a pipe": lambda folder, canary: _pipe(folder / "model.safetensors"),
    "a prompt without end": config("config_sentence_transformers.json", prompts={"query": "x" * 30_000_000}),
    "prompts that are numbers": config("config_sentence_transformers.json", prompts={"query": 7}),
    "weights without tensors": kept(lambda name: False),
    "weights of the embeddings alone": kept(lambda name: name.startswith("embeddings")),
    "weights that lack one tensor": kept(lambda name: name != "encoder.layer.0.output.dense.weight"),
    "modules that are a device": lambda folder, canary: _device(folder / "modules.json"),
}


def _pipe(file: Path) -> None:
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def _device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def make(name: str, good: Path, folder: Path) -> Path:
    """Make a hostile folder from a good one; returns the file that must not appear."""
    shutil.copytree(good, folder)
    canary = folder.parent / "it-ran"
    CASES[name](folder, canary)
    return canary
