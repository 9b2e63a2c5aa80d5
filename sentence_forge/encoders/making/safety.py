"""Refuse model folders that would run code or reach files outside them, before any library reads them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any

from sentence_forge.encoders.making.weights import locate, routed
from sentence_forge.runtime.errors import UserError

_OWN_MODULES = "sentence_transformers."
_LARGEST = 1 << 26  # bytes of a JSON file with settings
_LONGEST_PROMPT = 10_000  # characters, which each text of a role begins with
_MOST_LAYERS = 10_000  # of a model; each is made before weights are looked for, which takes for ever in a crafted one
_SHARDS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def vet(folder: Path, *, trust_remote_code: bool = False, adapters: bool = True) -> None:
    """Refuse a folder that leaves itself by ``modules.json`` or a weight index, brings code along, or can't be read.

    Args:
        folder: a sentence-transformers or transformers folder.
        trust_remote_code: lets it bring code; never lets it leave the folder.
        adapters: whether it may be adapters to another model, which is then looked at, too.

    Raises:
        UserError: names the file and what it wants.
    """
    for file in folder.rglob("*.safetensors"):  # the library says that they are missing
        if file.is_file() and not os.access(file, os.R_OK):
            raise UserError(f"{file}: may not be read by you; change its rights (chmod a+r), or copy it as its owner")
    parts = [folder, *_vet_modules(folder, _read(folder / "modules.json"), trust_remote_code)]
    _vet_prompts(folder / "config_sentence_transformers.json")
    for part in parts:
        _vet_kinds(part)
        adapter = _read(part / "adapter_config.json")
        if adapter is not None:
            base = adapter.get("base_model_name_or_path") if isinstance(adapter, dict) else None
            if not adapters or not isinstance(base, str):
                raise UserError(f"{part / 'adapter_config.json'}: names no base model for its adapters")
            vet(locate(base).folder, trust_remote_code=trust_remote_code, adapters=False)
        for file in (part / "config.json", *sorted(part.glob("sentence_*_config.json"))):
            about = _read(file)
            if not trust_remote_code:
                _vet_attention(file, about)
            if file.name != "config.json":
                _vet_arguments(file, about)
            layers = about.get("num_hidden_layers") if isinstance(about, dict) else None
            if isinstance(layers, int) and layers > _MOST_LAYERS:
                raise UserError(f"{file}: num_hidden_layers is {layers:,}; at most {_MOST_LAYERS:,} are built")
        for name in _SHARDS:
            index = _read(part / name)
            shards = index.get("weight_map") if isinstance(index, dict) else None
            for shard in set(map(str, shards.values())) if isinstance(shards, dict) else ():
                _inside(part / name, shard)


def _vet_modules(folder: Path, modules: Any, trust_remote_code: bool) -> list[Path]:  # noqa: ANN401 - what JSON holds
    """Return the folders of a model's modules, those inside routers included."""
    if modules is None:
        return []
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise UserError(f"{folder / 'modules.json'}: is no list of modules")
    parts = []
    for module in modules:
        part, kind = folder / _inside(folder / "modules.json", module.get("path", "")), str(module.get("type", ""))
        inner = routed(part, kind)
        parts += [part, *(part / _inside(part, name) for name in inner)]
        for each in (kind, *inner.values()):
            if not each.startswith(_OWN_MODULES) and not trust_remote_code:
                raise UserError(f"{folder / 'modules.json'}: wants to run code of its own ({each}); if you trust it, "
                                "type model.trust_remote_code=true")
    return parts


def _vet_kinds(part: Path) -> None:
    """Refuse pipes and devices, which a library would wait for or read without end."""
    for each in sorted(part.iterdir()) if part.is_dir() else ():
        if each.exists() and not (each.is_file() or each.is_dir()):
            raise UserError(f"{each}: is no ordinary file, so it is not read")


def _vet_prompts(file: Path) -> None:
    """Refuse prompts that are no texts, or too long for memory once they stand before each text."""
    about = _read(file)
    prompts = about.get("prompts") if isinstance(about, dict) else None
    for name, prompt in prompts.items() if isinstance(prompts, dict) else ():
        if prompt is not None and (not isinstance(prompt, str) or len(prompt) > _LONGEST_PROMPT):
            raise UserError(f"{file}: its prompt {name[:80]!r} is no text of at most {_LONGEST_PROMPT:,} characters")


def _vet_attention(file: Path, about: Any) -> None:  # noqa: ANN401 - what JSON holds
    """Refuse an attention kernel by a hub's name: transformers would fetch and run it."""
    for name, value in about.items() if isinstance(about, dict) else ():
        if name.lstrip("_") in ("attn_implementation", "experts_implementation") and "/" in str(value):
            raise UserError(f"{file}: {name} is a kernel from the hub ({value}), code that is; if you trust it, type "
                            "model.trust_remote_code=true")
        _vet_attention(file, value)


def _vet_arguments(file: Path, about: Any) -> None:  # noqa: ANN401 - what JSON holds
    """Refuse arguments of a library's loaders that are paths to elsewhere: other weights, another tokenizer."""
    for value in about.values() if isinstance(about, dict) else about if isinstance(about, list) else ():
        if isinstance(value, str) and (value.startswith(("/", "\\")) or ".." in PurePosixPath(value).parts):
            _inside(file, value)
        _vet_arguments(file, value)


def _read(file: Path) -> Any:  # noqa: ANN401 - what JSON holds
    try:
        about = file.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > _LARGEST:
            raise UserError(f"{file}: is no ordinary file of at most {_LARGEST >> 20} MiB, so it is not read")
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: can't be read ({type(error).__name__})") from None


def _inside(file: Path, given: Any) -> str:  # noqa: ANN401 - what JSON holds
    """Return a path that stays in its folder.

    Looked at as written and not resolved: the hub's cache is made of links to elsewhere.
    """
    path = PurePosixPath(str(given).replace("\\", "/"))
    if not isinstance(given, str) or path.is_absolute() or ".." in path.parts or ":" in given or "\0" in given:
        raise UserError(f"{file}: names {str(given)[:80]!r}, which is outside the model's folder")
    return given
