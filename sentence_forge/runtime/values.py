"""Check config values against the type hints of the function that takes them, and dimensions against a model's."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from sentence_forge.runtime.errors import UserError, brief

_SAID = {bool: "true or false", int: "a whole number", float: "a number", str: "text (in quotes)",
         Path: "a path", types.NoneType: "null"}
_NUMBERS = {int: " of whole numbers", float: " of numbers"}


def check_value(value: Any, hint: Any, key: str) -> None:  # noqa: ANN401 - what YAML holds, and a type
    """Check a value against an annotation.

    Args:
        value: what YAML holds.
        hint: of numbers, text, true or false, null, sequences and mappings, or several of these; any other takes
            everything.
        key: for the error.

    Raises:
        UserError: it is of another type; says which to give.
    """
    if not _fits(value, hint):
        raise UserError(f"{key}: is {'null' if value is None else brief(repr(value))}; give {_said(hint)}")


def check_dims(dims: Sequence[int], dim: int, key: str) -> tuple[int, ...]:
    """Return the dimensions that a user wants vectors cut to, the largest first.

    Args:
        dims: as given.
        dim: of the uncut vectors.
        key: the config key that they were given by, for the error.

    Raises:
        UserError: there is none, one repeats, or one is no whole number from 1 to ``dim``.
    """
    for each in dims:
        if not isinstance(each, int) or isinstance(each, bool) or each < 1:
            raise UserError(f"{key}: {each!r} is no number of dimensions; give whole numbers from 1 to {dim}")
        if each > dim:
            raise UserError(f"{key}: {each} is more than the model's {dim} dimensions; give numbers from 1 to {dim}")
    if not dims or len(set(dims)) < len(dims):
        raise UserError(f"{key}: {list(dims)} must hold at least one number and none twice, such as [{dim},{dim // 2}]")
    return tuple(sorted(dims, reverse=True))


def check_seed(seed: int) -> None:
    """Refuse a seed that NumPy's generators don't take.

    Raises:
        UserError: it is negative, or above 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed: is {seed}; give a whole number from 0 to {2**32 - 1}")


def check_shares(shares: Sequence[Any], key: str, otherwise: str = "") -> None:
    """Refuse what is no share.

    Args:
        shares: as given.
        key: the config key that they were given by, for the error.
        otherwise: what else the key takes, for the error.

    Raises:
        UserError: one is no number from 0 to 1.
    """
    for share in shares:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise UserError(f"{key}: is {brief(str(share))}; give a number from 0 to 1{otherwise}")


def _fits(value: Any, hint: Any) -> bool:  # noqa: ANN401
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin in _SAID:
        return isinstance(value, origin)
    if origin in (Sequence, list):
        of = [each for each in get_args(hint) if each in _NUMBERS]  # of texts and layers their taker says more
        return isinstance(value, list | tuple) and all(_fits(each, kind) for kind in of for each in value)
    return isinstance(value, Mapping) if origin in (Mapping, dict) else True


def _said(hint: Any) -> str:  # noqa: ANN401
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return " or ".join(map(_said, get_args(hint)))
    if origin in (Sequence, list):
        return "a list" + "".join(_NUMBERS.get(each, "") for each in get_args(hint))
    return "keys and values, as {a: ..., b: ...}" if origin in (Mapping, dict) else _SAID.get(hint, str(hint))
