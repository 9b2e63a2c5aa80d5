"""Write a model as one ONNX file, from token ids to sentence vectors, and measure how near it comes to torch."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import Tensor, nn

from sentence_forge.encoders.computing.chain import Chain
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.encoders.making.static import PaddedMean
from sentence_forge.runtime.disk import is_full

log = logging.getLogger(__name__)
OPSET = 20
NOT_WRITTEN = {"xlnet": "XLNet"}  # model_type to name: the dynamo exporter fails on these
MOST_DIFFERENCE = 1e-4  # of a coordinate, between torch and ONNX; fp32 kernels differ by about 1e-6


class Unavailable(Exception):
    """There is no ONNX of this model, or not here; says why."""


class _Vectors(nn.Module):
    """All modules of a model as one graph: transformer, pooling and the layers after it."""

    def __init__(self, chain: Chain, dim: int | None) -> None:
        super().__init__()
        first, *rest = chain.modules
        self.chain = nn.ModuleList([PaddedMean(first) if isinstance(first, StaticEmbedding) else first, *rest])
        self.dim = dim

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        for module in self.chain:
            features = module(features)
        return features["sentence_embedding"][:, : self.dim]


def check_writable(encoder: Encoder) -> str:
    """Return the family of a model; refuse one of which it is known without trying that it can't be written.

    Raises:
        Unavailable: says why.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise Unavailable("the onnx extra is not installed (pip install 'sentence-forge[onnx]')") from None
    chain = encoder.forward.chains["document"]
    if encoder.forward.asymmetric:
        raise Unavailable("its queries go through other modules than its documents, and one file holds one side only")
    family = str(getattr(chain.config, "model_type", "static" if chain.static else type(chain.first).__name__))
    if family in NOT_WRITTEN:
        raise Unavailable(f"torch's exporter can't write {NOT_WRITTEN[family]}")
    if not chain.static and getattr(chain.tokenizer, "backend_tokenizer", None) is None:
        raise Unavailable("this model's tokenizer has no fast version, which queries without torch need")
    return family


def write_onnx(encoder: Encoder, file: Path) -> None:
    """Write ``encoder`` as ``file``: int64 ``input_ids`` and ``attention_mask`` ``[batch, length]`` to float32 vectors.

    Raises:
        Unavailable: the onnx extra is missing, or the exporter can't trace this model.
    """
    family, chain = check_writable(encoder), encoder.forward.chains["document"]
    device, training = encoder.model.device, encoder.model.training
    example = torch.arange(5, 19).view(2, 7)
    batch, length = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("length", min=2)
    shapes = {0: batch, 1: length}
    try:
        with _quiet(), torch.inference_mode(False):
            torch.onnx.export(
                _Vectors(chain, encoder.model.cpu().eval().truncate_dim), (example, torch.ones_like(example)), file,
                dynamo=True, input_names=["input_ids", "attention_mask"], output_names=["sentence_embedding"],
                opset_version=OPSET, dynamic_shapes={"input_ids": shapes, "attention_mask": shapes},
                external_data=False, verbose=False)
    except Exception as error:
        file.unlink(missing_ok=True)
        if is_full(error):
            raise  # with room it can be written, and an export without would stay without
        raise Unavailable(f"torch's exporter can't write this {family} model: {plain_reason(error)}") from error
    finally:
        encoder.model.to(device).train(training)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow what the exporter prints: its progress, warnings of its own future, that torchvision is absent."""
    said = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = said.level
    said.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        said.setLevel(level)


def plain_reason(error: Exception) -> str:
    """Return the first sentence of a library's error, without the colours and the advice meant for its developers."""
    said = re.sub(r"\x1b?\[[0-9;]*m", "", str(error)).partition("Next steps:")[0].strip()
    return (said or type(error).__name__).splitlines()[0]


def agreement(reference: np.ndarray, made: np.ndarray) -> dict[str, Any]:
    """Return how near two encoders' vectors of the same texts are: float ``[n, dim]`` both."""
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(made, axis=1)
    cosines = (reference.astype(np.float64) * made).sum(axis=1) / norms
    return {"texts": len(made), "max_difference": float(np.abs(reference - made).max()),
            "min_cosine": float(cosines.min()), "mean_cosine": float(cosines.mean())}
