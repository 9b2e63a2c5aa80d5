"""Encode any number of texts: sorted by length, in batches of a token budget, into one array that is written in place.

A block of texts is tokenised at a time, in a thread while the block before it is computed on. Memory beyond the output
is that of two blocks' tokens and two batches, whatever the number of texts.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sentence_forge.encoders.computing.tokens import Tokens
from sentence_forge.runtime.disk import naming_a_full_disk

Vectors = npt.NDArray[np.float32]
# Starts to compute the vectors of a batch and returns a function that waits for them; a GPU computes in between.
Start = Callable[[Tokens], Callable[[], Vectors]]
T = TypeVar("T")

TEXTS_A_BLOCK = 8192
IN_MEMORY = 1 << 30  # bytes; a larger output is mapped from a file


def encode_texts(texts: Iterable[str], dim: int, tokenize: Callable[[Sequence[str]], Tokens], start: Start, *,
                 tokens_a_batch: int, equal_lengths: bool = False, out: Vectors | None = None,
                 progress: Callable[[int], None] | None = None, texts_a_block: int = TEXTS_A_BLOCK,
                 in_memory: int = IN_MEMORY) -> Vectors:
    """Return the vectors of ``texts``, float32 ``[n, dim]``, in their order.

    Args:
        texts: a sequence, or any iterable with ``out``; without a length and without ``out`` it is read into a list.
        dim: size of a vector.
        tokenize: a block's texts to their tokens; must be free to run in another thread.
        start: computes a batch.
        tokens_a_batch: most tokens, padding included, in a batch (one text may exceed it).
        equal_lengths: whether the texts of a batch must have one length.
        out: where the vectors go, float32 ``[n, dim]``, such as ``numpy.lib.format.open_memmap(...)``; by default new
            memory, or above ``in_memory`` bytes the map of a file without a name in ``$TMPDIR``.
        progress: called with the number of texts encoded since its last call.
        texts_a_block: texts tokenised at a time.
        in_memory: bytes.

    Raises:
        TypeError: ``texts`` is one string.
        ValueError: ``out`` has not one row a text.
        UserError: the disk has no room for the mapped file.
    """
    if isinstance(texts, str):
        raise TypeError("encode takes a list of texts, not one string")
    if out is None:
        texts = texts if isinstance(texts, Sized) else list(texts)
        out = new_vectors(len(texts), dim, in_memory)
    done = 0
    for block in encode_blocks(_blocks(texts, out, texts_a_block), tokenize, start, tokens_a_batch=tokens_a_batch,
                               equal_lengths=equal_lengths, progress=progress):
        done += len(block)
    if done != len(out):
        raise ValueError(f"out has {len(out)} rows for {done} texts")
    return out


def encode_blocks(blocks: Iterable[tuple[Sequence[str], Vectors]], tokenize: Callable[[Sequence[str]], Tokens],
                  start: Start, *, tokens_a_batch: int, equal_lengths: bool = False,
                  progress: Callable[[int], None] | None = None) -> Iterator[Vectors]:
    """Encode block after block, each into its own rows, and yield a block's rows when they are complete.

    While the caller works on a block, the next one is being tokenised and its first batch computed.
    """
    for rows, batch, wait, is_last in _one_ahead(
            _batches(blocks, tokenize, start, tokens_a_batch, equal_lengths)):
        rows[batch] = wait()
        if progress:
            progress(len(batch))
        if is_last:
            yield rows


def batches_by_length(lengths: npt.NDArray[np.int64], tokens_a_batch: int, *,
                      equal_lengths: bool = False) -> Iterator[npt.NDArray[np.int64]]:
    """Yield positions in ``lengths`` (tokens a text), longest first, cut where a batch's padded size meets the budget.

    With ``equal_lengths`` it is cut where the length changes, too.

    Longest first, so that running out of memory shows at once.
    """
    order = np.argsort(-lengths, kind="stable")
    begin = 0
    while begin < len(order):
        end = begin + max(1, tokens_a_batch // max(1, int(lengths[order[begin]])))
        if equal_lengths:
            end = begin + int((lengths[order[begin:end]] == lengths[order[begin]]).sum())
        yield order[begin:end]
        begin = end


def new_vectors(count: int, dim: int, in_memory: int = IN_MEMORY) -> Vectors:
    """Return float32 ``[count, dim]`` to be written: in memory, or above ``in_memory`` bytes a file's map.

    Raises:
        UserError: the disk has no room for the file.
    """
    size = 4 * count * dim
    if size <= in_memory:
        return np.empty((count, dim), np.float32)
    with naming_a_full_disk(Path(tempfile.gettempdir(), "vectors"), size), tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):  # else a disk that fills up later would kill the process (SIGBUS)
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        return np.memmap(file, np.float32, "r+", shape=(count, dim))


def with_rows(blocks: Iterable[Sequence[str]], dim: int) -> Iterator[tuple[Sequence[str], Vectors]]:
    """Yield each block of texts with new float32 ``[n, dim]`` memory for its vectors."""
    return ((texts, np.empty((len(texts), dim), np.float32)) for texts in blocks)


def _blocks(texts: Iterable[str], out: Vectors, size: int) -> Iterator[tuple[Sequence[str], Vectors]]:
    texts = iter(texts)
    begin = 0
    while block := list(islice(texts, size)):
        rows = out[begin:begin + len(block)]
        if len(rows) < len(block):
            raise ValueError(f"out has {len(out)} rows, and there are more texts")
        yield block, rows
        begin += len(block)


def _batches(blocks: Iterable[tuple[Sequence[str], Vectors]], tokenize: Callable[[Sequence[str]], Tokens], start: Start,
             tokens_a_batch: int, equal_lengths: bool,
             ) -> Iterator[tuple[Vectors, npt.NDArray[np.int64], Callable[[], Vectors], bool]]:
    """Yield each batch that was started: its block's rows, its places in them, a wait function, whether it is last."""
    for tokens, rows in _tokenized(blocks, tokenize):
        left = len(tokens)
        for batch in batches_by_length(tokens.lengths, tokens_a_batch, equal_lengths=equal_lengths):
            left -= len(batch)
            yield rows, batch, start(tokens.take(batch)), left == 0


def _tokenized(blocks: Iterable[tuple[Sequence[str], Vectors]],
               tokenize: Callable[[Sequence[str]], Tokens]) -> Iterator[tuple[Tokens, Vectors]]:
    """Yield each block's tokens; the next block's are made in a thread meanwhile: the Rust tokenizer needs no GIL."""
    blocks = iter(blocks)
    first = next(blocks, None)
    if first is None:
        return
    tokens, rows = tokenize(first[0]), first[1]
    with ThreadPoolExecutor(1) as thread:  # which starts with its first work: one block takes none
        for texts, into in blocks:
            coming = thread.submit(tokenize, texts)
            yield tokens, rows
            tokens, rows = coming.result(), into
        yield tokens, rows


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield ``items``, each when the next one has been made."""
    made = list(islice(items, 1))
    for item in items:
        yield made.pop()
        made.append(item)
    yield from made
