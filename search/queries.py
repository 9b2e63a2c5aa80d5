"""Queries: read from a file or standard input, one a line in UTF-8, and checked before they are encoded."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import BinaryIO

from sentence_forge.runtime.errors import UserError

_BATCH = 256


def read_queries(path: str | None) -> Iterator[str]:
    """Yield the lines of a file, or of standard input where ``path`` is None or ``-``; empty lines are left out.

    Raises:
        UserError: the file can't be read or is not UTF-8.
    """
    if path in (None, "-"):
        yield from _decoded("stdin", sys.stdin.buffer)
        return
    try:
        with Path(path).open("rb") as file:
            yield from _decoded(path, file)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def batches(queries: Iterable[str]) -> Iterator[list[str]]:
    """Yield lists of queries that are encoded and searched together."""
    queries = iter(queries)
    while batch := list(islice(queries, _BATCH)):
        yield batch


def check_texts(texts: object) -> None:
    """Refuse what is no list of texts, such as one string.

    Raises:
        UserError: says what was given instead.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Collection):
        raise UserError(f"texts: takes a list of texts, such as ['winter air'], not {type(texts).__name__}")


def check_k(k: object) -> None:
    """Refuse a number of hits that is none.

    Raises:
        UserError: ``k`` is no whole number, or below 1.
    """
    if not isinstance(k, Integral):
        raise UserError(f"k={k!r}: must be a whole number, 1 or more")
    if int(k) < 1:
        raise UserError(f"k={k}: must be 1 or more")


def check_text(text: str, role: str) -> None:
    """Refuse what no tokenizer takes.

    Raises:
        UserError: the text is blank, no string, or no valid Unicode.
    """
    if not isinstance(text, str):
        raise UserError(f"{role}: is {type(text).__name__}, not a string; decode it first")
    if not text.strip():
        raise UserError(f"{role}: is empty; type some words")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{role}: {text[:80]!r} holds a lone surrogate, as of bytes that are not UTF-8, which no "
                        "tokenizer takes; give it as UTF-8") from None


def _decoded(name: str, file: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise UserError(f"{name}, line {number}: is not UTF-8; save it as UTF-8") from None
        if text:
            yield text
