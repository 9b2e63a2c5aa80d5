"""Manifests: JSON files that hold their own checksum, and that of every file they name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentence_forge.runtime.errors import UserError, damaged
from sentence_forge.runtime.files import sha256_file, write_atomic

MANIFEST = "manifest.json"


def files_below(folder: Path) -> list[str]:
    """Return the sorted relative POSIX paths of all files below ``folder`` except its manifest."""
    found = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return sorted(name for name in found if name != MANIFEST)


def sealed(value: Mapping[str, Any]) -> str:
    """Return an object as canonical JSON that holds its own sha256, so that any flipped bit is found."""
    content = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    signed = {**value, "sha256": hashlib.sha256(content.encode()).hexdigest()}
    return json.dumps(signed, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def unsealed(path: Path) -> dict[str, Any]:
    """Return the object that ``sealed`` wrote to ``path``.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it can't be read, or differs from its checksum.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is no file")
        text = path.read_bytes()
        value = json.loads(text)
        intact = text == sealed({key: item for key, item in value.items() if key != "sha256"}).encode()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise damaged(path, error) from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: unreadable ({type(error).__name__})") from None
    if not intact:
        raise UserError(f"{path}: damaged, it differs from its own checksum")
    return value


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Write ``manifest.json``: ``about`` plus size and sha256 of every file in ``folder``. Write it last."""
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
             for name in files_below(folder)}
    write_atomic(folder / MANIFEST, sealed({**about, "files": files}))


def read_manifest(folder: Path, *, hashed: bool = True) -> dict[str, Any]:
    """Return a folder's manifest after checking it and every file that it names.

    Args:
        folder: the folder.
        hashed: whether files are read to compare their sha256; else their sizes alone are compared.

    Raises:
        UserError: the manifest is missing or damaged, or a file is missing or differs.
    """
    path = folder / MANIFEST
    try:
        manifest = unsealed(path)
    except FileNotFoundError:
        raise UserError(f"{folder}: has no {MANIFEST}, so it was never finished") from None
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(each, dict) for each in files.values()):
        raise UserError(f"{path}: names no files, so it is no manifest of ours")
    for name, expected in files.items():
        file = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{path}: names a file outside its folder ({name})")
        if not file.is_file():
            raise UserError(f"{file}: missing, though the manifest names it")
        try:
            intact = file.stat().st_size == expected.get("bytes") and (
                not hashed or sha256_file(file) == expected.get("sha256"))
        except OSError as error:
            raise damaged(file, error) from None
        if not intact:
            raise UserError(f"{file}: damaged, its bytes differ from the manifest's sha256")
    return manifest
