"""Fingerprints: a sha256 of everything that decides a model's vectors, with suffixes for precision and backend.

Two encoders with the same fingerprint give the same vectors, so an index is only searched by an encoder of its own
fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from sentence_forge.encoders.backends import ONNXRUNTIME, OPENVINO

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from sentence_forge.encoders.computing.chain import Chain

INT8 = "-int8"  # suffix: the model's ONNX file with int8 weights
BF16 = "-bf16"  # suffix: the model with bf16 weights
BY_OPENVINO = "-openvino"  # suffix after these: computed by OpenVINO; without it by torch or ONNX Runtime

# The entries of a transformers config that change vectors while all weights keep their shapes. The other entries show
# in the shapes, or describe who wrote the config.
_DECIDING = ("hidden_act", "hidden_activation", "activation", "num_attention_heads", "num_heads", "n_heads",
             "num_key_value_heads", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "rms_norm_eps",
             "position_embedding_type", "local_attention", "global_attn_every_n_layers", "sliding_window", "is_decoder")


def fingerprint(model: SentenceTransformer) -> str:
    """Return the hex sha256 of a model's weights, tokenizer, modules, lengths and prompts.

    The folder's name and place don't count, and neither does the library version that wrote it. An encoder that
    computes in another precision than the weights' adds a suffix, ``INT8`` or ``BF16``, and one that OpenVINO computes
    adds ``BY_OPENVINO``.
    """
    import torch

    from sentence_forge.encoders.computing.chain import chains_of

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    chains = chains_of(model)
    if chains["query"] == chains["document"]:
        about = _described(chains["document"])
    else:
        about = {"chains": {str(role): _described(chain) for role, chain in chains.items()}}
    about |= {"prompts": dict(model.prompts), "default_prompt": model.default_prompt_name}
    if model.truncate_dim is not None:
        about["truncate_dim"] = model.truncate_dim
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _described(chain: Chain) -> dict[str, Any]:
    """Return what decides a chain's vectors beside its weights."""
    from sentence_transformers.base.modules.module import Module

    plain = not (chain.words or chain.bag)  # the first module's config adds nothing
    modules = [[type(module).__name__, module.get_config_dict() if isinstance(module, Module) else {}]
               for module in chain.modules[1 if plain else 0:]]
    config = getattr(getattr(chain.first, "auto_model", None), "config", None)
    return {
        "modules": modules,
        "config": {name: getattr(config, name) for name in _DECIDING if hasattr(config, name)},
        "tokenizer": _tokenizer(chain.tokenizer),
        "max_length": chain.max_length if chain.static else getattr(chain.first, "max_seq_length", None),
    }


def _tokenizer(tokenizer: Any) -> dict[str, Any]:  # noqa: ANN401 - of transformers, tokenizers, sentence-transformers
    """Return everything that decides a tokenizer's ids."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(backend, "to_str"):  # written in Rust
        return json.loads(backend.to_str()) | {"padding": None, "truncation": None}  # each call sets these anew
    options = {name: value for name, value in sorted(getattr(tokenizer, "init_kwargs", vars(tokenizer)).items())
               if isinstance(value, bool | int | str | list | set) and not name.endswith(("_file", "_or_path"))}
    options = {name: sorted(value) if isinstance(value, set) else value for name, value in options.items()}
    return {"class": type(tokenizer).__name__, "vocabulary": list(tokenizer.get_vocab()), "options": options}


def precision_of(fingerprint: str) -> str:
    """Return the precision that a fingerprint names: ``fp32``, ``int8`` or ``bf16``.

    >>> precision_of("1a2b-int8"), precision_of("1a2b-openvino")
    ('int8', 'fp32')
    """
    bare = fingerprint.removesuffix(BY_OPENVINO)
    return next((suffix[1:] for suffix in (INT8, BF16) if bare.endswith(suffix)), "fp32")


def backend_of(fingerprint: str) -> str:
    """Return what computes an exported file for a fingerprint, as ``encoders.backends`` calls it.

    >>> backend_of("1a2b-openvino"), backend_of("1a2b-int8")
    ('openvino', 'onnxruntime')
    """
    return OPENVINO if fingerprint.endswith(BY_OPENVINO) else ONNXRUNTIME


def query_fingerprint(fingerprint: str) -> str:
    """Return the fingerprint of the encoder to use for queries against an index with this fingerprint.

    It is the same one, except for what is for encoding many texts: bf16 and OpenVINO. Queries of such an index are
    encoded by the same weights in fp32 through ONNX Runtime, which starts sooner and is on every machine. OpenVINO's
    vectors in fp32 are the same: an export holds them to ONNX Runtime's as it holds those to torch's.

    >>> query_fingerprint("1a2b-bf16-openvino")
    '1a2b'
    """
    return fingerprint.removesuffix(BY_OPENVINO).removesuffix(BF16)


def same_model(one: str, other: str) -> bool:
    """Whether two fingerprints are of the same model in whatever precision, by whatever backend."""
    return _of_weights(one) == _of_weights(other)


def _of_weights(fingerprint: str) -> str:
    return fingerprint.removesuffix(BY_OPENVINO).removesuffix(INT8).removesuffix(BF16)
