"""The encoder of an export: its ONNX file and a tokenizer, without torch, so that the first query is answered soon."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from sentence_forge.encoders.backends import ONNXRUNTIME, OPENVINO, Compute, compute_by
from sentence_forge.encoders.computing.tokens import Tokens, flat_tokens, refuse_what_is_no_text
from sentence_forge.encoders.corpus import encode_blocks, encode_texts, with_rows
from sentence_forge.encoders.fingerprint import BF16, BY_OPENVINO
from sentence_forge.encoders.protocol import Role, TextEncoder
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import sha256_file

TOKENIZER = "model/tokenizer.json"
TOKENS_A_BATCH = 640


class OnnxEncoder(TextEncoder):
    """Texts to vectors through an export's ONNX file.

    Args:
        export: the export's folder; its ``manifest.json`` names the file, its sha256 and how texts become tokens.
        precision: fp32 or int8; with OpenVINO also bf16, which is computed from the fp32 file.
        backend: what computes, see ``encoders.backends``.

    Raises:
        UserError: the export has no such file, or one that is not what its manifest says; or this machine can't compute
            so.
    """

    def __init__(self, export: Path, precision: str = "fp32", backend: str = ONNXRUNTIME) -> None:
        bf16 = precision == "bf16"
        about = read_export(export).get("onnx", {}).get("fp32" if bf16 else precision)
        if about is None:
            raise UserError(f"{export}: holds no {precision} ONNX model; export it again with the onnx extra installed")
        check_files(export, about["files"])
        self.fingerprint: str = about["fingerprint"] + BF16 * bf16 + BY_OPENVINO * (backend == OPENVINO)
        self.name = str(export)
        self.dim: int = about["dim"]
        self._vectors = OnnxVectors(export / about["file"], export / TOKENIZER, about, backend=backend, bf16=bf16)

    def role_key(self, role: Role | None) -> str:
        """Return a key of how texts of this role are encoded: roles with equal keys give equal vectors."""
        return self._vectors.prompt(role)

    def count_tokens(self, texts: Sequence[str], *, role: Role | None = None) -> int:
        """Return how many tokens are read of the texts, special tokens and prompts included."""
        return len(self._vectors.tokenize(texts, role).ids)

    def encode(self, texts: Iterable[str], *, role: Role | None = None, out: np.ndarray | None = None,
               progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Return float32 ``[n, dim]`` vectors, in the texts' order; see ``encoders.corpus.encode_texts``."""
        return self._vectors(texts, role=role, out=out, progress=progress)

    def encode_blocks(self, blocks: Iterable[Sequence[str]], *, role: Role | None = None,
                      progress: Callable[[int], None] | None = None) -> Iterator[np.ndarray]:
        """Encode blocks of texts and yield each one's float32 ``[n, dim]``; the next is being encoded meanwhile."""
        return encode_blocks(with_rows(blocks, self.dim), functools.partial(self._vectors.tokenize, role=role),
                             self._vectors.start, tokens_a_batch=self._vectors.tokens_a_batch,
                             equal_lengths=self._vectors.equal_lengths, progress=progress)


class OnnxVectors:
    """An ONNX file with its tokenizer, used for queries and, while exporting, to measure the file.

    Args:
        file: int64 ``input_ids`` and ``attention_mask`` ``[batch, length]`` to float32 ``[batch, dim]``.
        tokenizer: a ``tokenizer.json``.
        how: ``dim``, ``max_length``, ``prompts`` by role, ``special_tokens``, ``pad_id``, ``left_padding``; newer
            exports also have ``truncation_side``, and ``equal_lengths``: whether a batch may hold one length only.
        tokens_a_batch: most tokens, padding included, in a batch; few, so that their activations stay in the cache.
        backend: what computes, see ``encoders.backends``.
        bf16: whether OpenVINO computes in bf16.
    """

    def __init__(self, file: Path, tokenizer: Path, how: Mapping[str, Any], *,
                 tokens_a_batch: int = TOKENS_A_BATCH, backend: str = ONNXRUNTIME, bf16: bool = False) -> None:
        self.tokens_a_batch = tokens_a_batch
        self.equal_lengths = bool(how.get("equal_lengths"))
        self._how = how
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        if how["max_length"] is not None:
            self._tokenizer.enable_truncation(how["max_length"], direction=how.get("truncation_side", "right"))
        self._tokenizer.no_padding()
        self.compute: Compute = compute_by(backend, file, bf16=bf16)

    def __call__(self, texts: Iterable[str], *, role: Role | None = None, out: np.ndarray | None = None,
                 progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Return float32 ``[n, dim]`` vectors, in the texts' order."""
        return encode_texts(texts, self._how["dim"], functools.partial(self.tokenize, role=role), self.start,
                            tokens_a_batch=self.tokens_a_batch, equal_lengths=self.equal_lengths, out=out,
                            progress=progress)

    def prompt(self, role: Role | None = None) -> str:
        """Return the prompt that is put before a text of this role."""
        return self._how["prompts"][role or "default"]

    def tokenize(self, texts: Sequence[str], role: Role | None = None) -> Tokens:
        """Return the texts' tokens, cut at the model's length, with the role's prompt before them.

        Raises:
            UserError: a text that no tokenizer takes.
        """
        refuse_what_is_no_text(texts)
        before = self.prompt(role)
        made = self._tokenizer.encode_batch_fast([before + text for text in texts] if before else list(texts),
                                                 add_special_tokens=self._how["special_tokens"])
        return flat_tokens(made, self._how["max_length"])

    def start(self, tokens: Tokens) -> Callable[[], np.ndarray]:
        """Compute a batch; return what hands its vectors over."""
        lengths = tokens.lengths
        columns = np.arange(max(1, lengths.max()))  # static embeddings may find no token in a text
        real = columns < lengths[:, None]
        if self._how["left_padding"]:
            real = real[:, ::-1]
        ids = np.full(real.shape, self._how["pad_id"], dtype=np.int64)
        ids[real] = tokens.ids
        return self.compute({"input_ids": ids, "attention_mask": real.astype(np.int64)})


def check_files(export: Path, files: Mapping[str, str]) -> None:
    """Check that an export's files are those that its manifest names, each with its sha256.

    Raises:
        UserError: one is missing or has other bytes.
    """
    for name, expected in files.items():
        if not (export / name).is_file() or sha256_file(export / name) != expected:
            raise UserError(f"{export / name}: is not the file the export wrote; export the model again")


def read_export(export: Path) -> dict[str, Any]:
    """Return an export's manifest.

    Raises:
        UserError: there is none, or it is not one of ours.
    """
    try:
        about = json.loads((export / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{export}: is no export (it has no manifest.json)") from None
    except ValueError:
        raise UserError(f"{export / 'manifest.json'}: is not readable JSON; export the model again") from None
    if not isinstance(about, dict) or not {"state", "fingerprint"} <= about.keys():
        raise UserError(f"{export / 'manifest.json'}: is not an export's (it has no state and fingerprint)")
    return about
