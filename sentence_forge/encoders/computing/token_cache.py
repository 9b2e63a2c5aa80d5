"""A cache of tokens on disk: a large data set is tokenised in its first run only, and read by memory map."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sentence_forge.encoders.computing.tokens import Tokens, joined
from sentence_forge.runtime.cache import cached
from sentence_forge.runtime.errors import UserError

log = logging.getLogger(__name__)

LEAST = 20_000
"""Texts; fewer are tokenised in about a second."""

_BLOCK = 8192
Tokenize = Callable[[Sequence[str]], Tokens]


def tokenize_once(texts: Sequence[str], tokenize: Tokenize, tokenizer: str | None, *, least: int = LEAST) -> Tokens:
    """Return the tokens of ``texts``, memory-mapped from the cache, where they are put if they aren't there.

    The cache's key is the tokenizer's hash and the hash of the texts in their order. Below ``least`` texts, or if the
    cache can't be written, the tokens are made in memory; else only one block of them is in memory at a time.

    Args:
        texts: any number of them; gone through once or twice, front to back.
        tokenize: a block's texts to their tokens.
        tokenizer: a hash of everything that decides the tokens, see ``tokenizer_hash``; None turns the cache off.
        least: texts from which the cache is used.
    """
    if tokenizer is None or len(texts) < least:
        return joined(tokenize(block) for block in blocks(texts))
    key = hashlib.sha256(f"{tokenizer} {_hash(texts)}".encode()).hexdigest()
    made: list[Path] = []

    def make(folder: Path) -> dict[str, Any]:
        made.append(folder)
        return _write(folder, map(tokenize, blocks(texts)))

    try:
        folder = cached("tokens", key, make)
        if not made:
            log.info("tokens: from %s", folder)
        return _open(folder)
    except (UserError, OSError, ValueError, KeyError) as error:
        log.warning("tokens are not cached: %s", error)
        return joined(tokenize(block) for block in blocks(texts))


def tokenizer_hash(tokenizer: Any, **about: Any) -> str | None:  # noqa: ANN401 - of transformers or tokenizers
    """Return the hex sha256 of a tokenizer and of everything else that decides the ids; None for one in Python.

    Args:
        tokenizer: one of transformers with a fast version, or one of tokenizers.
        **about: everything else that decides, JSON-ready: the maximum length, a prompt.
    """
    from tokenizers import Tokenizer, __version__

    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(backend, Tokenizer):
        return None
    spelled = json.loads(backend.to_str())
    spelled.update(padding=None, truncation=None)  # set by whoever called last; `about` tells how texts are cut
    about |= {name: getattr(tokenizer, name, None) for name in ("truncation_side", "split_special_tokens")}
    content = json.dumps([spelled, about, __version__], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def blocks(texts: Iterable[str], size: int = _BLOCK) -> Iterator[list[str]]:
    """Yield the texts in lists of ``size``, the last of which may be shorter."""
    left = iter(texts)
    while block := list(islice(left, size)):
        yield block


def _hash(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        spelled = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(spelled) + spelled)
    return digest.hexdigest()


def _write(folder: Path, made: Iterable[Tokens]) -> dict[str, Any]:
    """Write the tokens of one block after the other."""
    tokens, texts, truncated = 0, 0, 0
    with ExitStack() as stack:
        ids = stack.enter_context((folder / "ids.npy").open("wb"))
        offsets = stack.enter_context((folder / "offsets.npy").open("wb"))
        _header(ids, np.dtype(np.int32), 0)
        _header(offsets, np.dtype(np.int64), 0)
        np.zeros(1, dtype=np.int64).tofile(offsets)
        for part in made:
            part.ids.astype(np.int32, copy=False).tofile(ids)
            (part.offsets[1:] + tokens).tofile(offsets)
            tokens, texts, truncated = tokens + len(part.ids), texts + len(part), truncated + part.truncated
        _header(ids, np.dtype(np.int32), tokens)
        _header(offsets, np.dtype(np.int64), texts + 1)
    return {"texts": texts, "tokens": tokens, "truncated": truncated}


def _header(file: BinaryIO, dtype: np.dtype, length: int) -> None:
    """Write an array's header at the file's start; NumPy leaves room in it for a first axis that grows."""
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": (length,)})


def _open(folder: Path) -> Tokens:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    # as a plain array: indexing a memmap by many numbers costs more than by an array over the same memory
    ids = np.asarray(np.load(folder / "ids.npy", mmap_mode="r", allow_pickle=False))
    offsets = np.asarray(np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False))
    return Tokens(ids, offsets, manifest["truncated"])
