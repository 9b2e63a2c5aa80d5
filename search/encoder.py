"""The query's encoder: what it must offer, that it fits the index, and where it is loaded from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sentence_forge.encoders.precision import precision_of, same_model
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.roles import Role


class TextEncoder(Protocol):
    """Texts to vectors, with a name for exactly this way of doing it."""

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides the vectors: weights, tokenizer, pooling, prompts, precision."""
        ...

    def encode(self, texts: Sequence[str], *, role: Role | None = None) -> npt.NDArray[np.float32]:
        """Return one vector a text, float32 [len(texts), dim], in the order given.

        Models with prompts put that of the role before the texts.
        """
        ...


@runtime_checkable
class BlockEncoder(Protocol):
    """An encoder that goes from block to block without a pause between them."""

    @property
    def dim(self) -> int:
        """Size of a vector."""
        ...

    def encode_blocks(self, blocks: Iterable[tuple[Sequence[str], npt.NDArray[np.float32]]], *,
                      role: Role | None = None,
                      progress: Callable[[int], None] | None = None) -> Iterator[npt.NDArray[np.float32]]:
        """Encode blocks of texts, each into its own rows [n, dim], and yield these as they are finished."""
        ...


def check_fingerprint(index: Path, of_index: str, of_encoder: str) -> None:
    """Refuse an encoder other than the one that made the index.

    Raises:
        UserError: the fingerprints differ.
    """
    if of_index == of_encoder:
        return
    if same_model(of_index, of_encoder):
        raise UserError(f"{index}: the index is {precision_of(of_index)} and the encoder {precision_of(of_encoder)}; "
                        "search it with its own, or index the corpus again in another folder (out=)")
    raise UserError(f"{index}: the index is of another model (its fingerprint is {of_index[:12]}, this model's "
                    f"{of_encoder[:12]}); search it with its own model, or index the corpus again in another "
                    "folder (out=)")


def load_query_encoder(export: Path, fingerprint: str) -> TextEncoder:
    """Load the encoder of ``fingerprint`` from an export folder: an ONNX file of it, else its model through torch.

    Raises:
        UserError: the folder is no export, or one of another model.
    """
    if not (export / "manifest.json").is_file():
        raise UserError(f"{export}: is no export, so there is no model to encode a query with; "
                        "search the export's folder, or give Index.open an encoder")
    from sentence_forge.encoders.onnx import OnnxEncoder, read_export

    about = read_export(export)
    for precision, file in (about.get("onnx") or {}).items():
        if file["fingerprint"] == fingerprint:
            return OnnxEncoder(export, precision)
    check_fingerprint(export, fingerprint, about["fingerprint"])
    from sentence_forge.encoders.encoder import load_encoder

    return load_encoder(export / "model")
