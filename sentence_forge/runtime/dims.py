"""To how many numbers vectors may be cut, asked for by a person."""

from __future__ import annotations

from collections.abc import Sequence

from sentence_forge.runtime.errors import UserError


def check_dims(dims: Sequence[int], dim: int, key: str) -> tuple[int, ...]:
    """Return ``dims``, the largest first.

    Raises:
        UserError: there is none, one repeats, or one is no whole number from 1 to ``dim``; the message names ``key``.
    """
    for each in dims:
        if not isinstance(each, int) or isinstance(each, bool) or each < 1:
            raise UserError(f"{key}: {each!r} is no number of dimensions; give whole numbers from 1 to {dim}")
        if each > dim:
            raise UserError(f"{key}: {each} is more than the model's {dim} dimensions; give numbers from 1 to {dim}")
    if not dims or len(set(dims)) < len(dims):
        raise UserError(f"{key}: {list(dims)} must hold at least one number and none twice, such as [{dim},{dim // 2}]")
    return tuple(sorted(dims, reverse=True))
