"""What makes two encoders the same: sha256 of everything that moves a vector."""

from __future__ import annotations

import hashlib
import json

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.module import Module


def fingerprint(model: SentenceTransformer, precision: str = "fp32") -> str:
    """Return the hex sha256 of a model's weights, tokenizer, modules, lengths, prompts and precision.

    Neither the folder's name nor its place counts, nor the version that wrote it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    modules = []
    for module in list(model.children())[1:]:
        modules.append([type(module).__name__, module.get_config_dict() if isinstance(module, Module) else {}])
    about = {
        "modules": modules,
        "tokenizer": json.loads(model.tokenizer.backend_tokenizer.to_str()),
        "max_length": model.max_seq_length,
        "prompts": dict(model.prompts),
        "default_prompt": model.default_prompt_name,
        "precision": precision,
    }
    about["tokenizer"].update(padding=None, truncation=None)  # set by whoever called last, given anew at each call
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    return digest.hexdigest()
