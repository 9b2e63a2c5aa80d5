"""The precision an encoder computes in, told by the end of its fingerprint."""

from __future__ import annotations

INT8 = "-int8"  # the model's ONNX file with int8 weights
BF16 = "-bf16"  # the model with bf16 weights


def precision_of(fingerprint: str) -> str:
    """Return fp32, int8 or bf16."""
    return next((suffix[1:] for suffix in (INT8, BF16) if fingerprint.endswith(suffix)), "fp32")


def asking(fingerprint: str) -> str:
    """Return the fingerprint of what encodes queries for vectors of this one.

    That is itself, but for bf16, which is for many texts on a GPU: its queries are encoded in fp32, by the same
    weights before their rounding, so that they need no GPU and no torch.
    """
    return fingerprint.removesuffix(BF16)


def same_model(one: str, other: str) -> bool:
    """Whether two fingerprints are of the same model, whatever the precision."""
    return _bare(one) == _bare(other)


def _bare(fingerprint: str) -> str:
    return fingerprint.removesuffix(INT8).removesuffix(BF16)
