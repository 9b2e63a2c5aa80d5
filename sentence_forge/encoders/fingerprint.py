"""What makes two encoders the same: sha256 of everything that moves a vector."""

from __future__ import annotations

import hashlib
import json

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.module import Module
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from sentence_forge.encoders.static import length_limit

# Of a transformer's config, what moves a vector while every weight stays as it is; the rest is in the shapes, or says
# who wrote it.
_DECIDING = ("hidden_act", "hidden_activation", "activation", "num_attention_heads", "num_heads", "n_heads",
             "num_key_value_heads", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "rms_norm_eps",
             "position_embedding_type", "local_attention", "global_attn_every_n_layers", "sliding_window", "is_decoder")


def fingerprint(model: SentenceTransformer) -> str:
    """Return the hex sha256 of a model's weights, tokenizer, modules, lengths and prompts.

    Neither the folder's name nor its place counts, nor the version that wrote it. What computes in another precision
    than the weights' adds its own: ``encoders.precision``.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    modules = []
    for module in list(model.children())[1:]:
        modules.append([type(module).__name__, module.get_config_dict() if isinstance(module, Module) else {}])
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    about = {
        "modules": modules,
        "config": {name: getattr(config, name) for name in _DECIDING if hasattr(config, name)},
        "tokenizer": json.loads(getattr(model.tokenizer, "backend_tokenizer", model.tokenizer).to_str()),
        "max_length": length_limit(model[0]) if isinstance(model[0], StaticEmbedding) else model.max_seq_length,
        "prompts": dict(model.prompts),
        "default_prompt": model.default_prompt_name,
    }
    if model.truncate_dim is not None:
        about["truncate_dim"] = model.truncate_dim
    about["tokenizer"].update(padding=None, truncation=None)  # set by whoever called last, given anew at each call
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    return digest.hexdigest()
