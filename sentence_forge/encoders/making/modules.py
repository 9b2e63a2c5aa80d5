"""Change the modules of a model behind its transformer: pooling, dense layers, normalisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from torch import nn

from sentence_forge.runtime.errors import UserError, one_of

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh, "identity": nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU,
}
# The field's other spellings of sentence-transformers' modes.
POOLINGS = {**{mode: mode for mode in Pooling.POOLING_MODES}, "mean_sqrt_len": "mean_sqrt_len_tokens",
            "weighted_mean": "weightedmean", "last_token": "lasttoken"}


def pooling_mode(name: str) -> Any:  # noqa: ANN401 - a Literal of ST's
    """Return sentence-transformers' name of a pooling.

    Raises:
        UserError: there is no such pooling.
    """
    if name not in POOLINGS:
        raise UserError(f"model.pooling: there is no {name!r}; {one_of(POOLINGS, name)}")
    return POOLINGS[name]


def with_pooling(modules: list[nn.Module], pooling: str | None) -> list[nn.Module]:
    """Return the modules with another pooling; None leaves it.

    Raises:
        UserError: there is no such pooling, or none to change.
    """
    if pooling is None:
        return modules
    if not any(isinstance(module, Pooling) for module in modules):
        raise UserError(f"model.pooling={pooling}: this model has no pooling to change")
    mode = pooling_mode(pooling)
    return [Pooling(module.embedding_dimension, pooling_mode=mode, include_prompt=module.include_prompt)
            if isinstance(module, Pooling) else module for module in modules]


def drop_layers(model: SentenceTransformer, kept: Sequence[int] | None) -> None:
    """Drop all but some layers of a model's transformer, in place; None keeps them all.

    Such a copy is what a student begins from, as DistilBERT does (Sanh et al. 2019).

    Args:
        model: its first module is a transformer.
        kept: numbers of layers from 0, in their order.

    Raises:
        UserError: it has no such layers, or shares one layer's weights among all.
    """
    if kept is None:
        return
    inner: Any = model[0].auto_model if isinstance(model[0], Transformer) else None
    config: Any = getattr(inner, "config", None)
    count: int = getattr(config, "num_hidden_layers", 0)
    found = [(holder, name, each) for holder in (inner.modules() if count else ())
             for name, each in holder.named_children() if isinstance(each, nn.ModuleList) and len(each) == count]
    if len(found) != 1:
        raise UserError(f"model.keep_layers={list(kept)}: this model has no list of layers to choose from")
    if not kept or sorted(set(kept)) != list(kept) or not 0 <= kept[0] <= kept[-1] < count:
        raise UserError(f"model.keep_layers={list(kept)}: give some of 0 to {count - 1}, each once and in their order")
    holder, name, layers = found[0]
    setattr(holder, name, nn.ModuleList(layers[number] for number in kept))
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):  # which of them attend locally, as ModernBERT has it
        config.layer_types = [config.layer_types[number] for number in kept]


def with_dense(modules: list[nn.Module], dense: Sequence[Mapping[str, Any]], seed: int) -> list[nn.Module]:
    """Return the modules with new dense layers before the normalisation.

    Args:
        modules: of a model.
        dense: each ``{out_features, activation}``.
        seed: of the layers' weights.

    Raises:
        UserError: a layer that can't be made.
    """
    if not dense:
        return modules
    tail = [module for module in modules if isinstance(module, Normalize)]
    body = [module for module in modules if not isinstance(module, Normalize)]
    width = SentenceTransformer(modules=body, device="cpu").get_embedding_dimension()
    assert width is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in dense:
            _check_dense(layer)
            activation = str(layer.get("activation", "tanh"))
            if activation not in ACTIVATIONS:
                raise UserError(f"model.dense: no activation {activation!r}; {one_of(ACTIVATIONS, activation)}")
            body.append(Dense(width, layer["out_features"], activation_function=ACTIVATIONS[activation]()))
            width = layer["out_features"]
    return body + tail


def _check_dense(layer: Any) -> None:  # noqa: ANN401 - what YAML holds
    if not isinstance(layer, Mapping) or "out_features" not in layer:
        raise UserError(f"model.dense: {layer!r} is no layer; give {{out_features: <size>, activation: tanh}}")
    for name in layer:
        if name not in ("out_features", "activation"):
            near = one_of(("out_features", "activation"), str(name))
            raise UserError(f"model.dense: there is no key {name!r}; {near}")
    size = layer["out_features"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise UserError(f"model.dense: out_features is {size!r}; give a whole number above 0")


def with_normalize(modules: list[nn.Module], normalize: bool | None) -> list[nn.Module]:
    """Return the modules with a normalisation at the end, or without any; None leaves them."""
    has = any(isinstance(module, Normalize) for module in modules)
    if normalize is None or normalize == has:
        return modules
    return [*modules, Normalize()] if normalize else [m for m in modules if not isinstance(m, Normalize)]
