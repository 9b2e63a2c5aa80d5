"""One complete state of the index on disk, and the switch from one to the next.

Generation N is ``rows-N.parquet`` (id, title, sha of the title; live rows in corpus order), ``vectors-N.npy`` (one
unit vector a row), ``index-N.faiss`` (where a fast index pays), ``rejected-N.csv``, and ``manifest-N.json``, which is
written last, names every file with its sha256, and is checksummed itself. Files are never changed once a manifest
names them, so readers need no lock. The newest valid manifest wins and the one before is kept to fall back on.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import fsync, sha256_file, write_atomic
from sentence_forge.runtime.manifests import sealed, unsealed

log = logging.getLogger(__name__)

_FILE = re.compile(r"(manifest-(\d+)\.json|rows-\d+\.parquet|vectors-\d+\.npy|index-\d+\.faiss|rejected-\d+\.csv)$")


@dataclass(frozen=True)
class Generation:
    """A manifest that passed its checks: what it says and where its files are."""

    folder: Path
    number: int
    manifest: Mapping[str, Any]

    @property
    def rows(self) -> Path:
        """Parquet: id (string), title (string), sha (16 bytes)."""
        return self.folder / f"rows-{self.number}.parquet"

    @property
    def vectors(self) -> Path:
        """npy: float32 [rows, dim], unit length."""
        return self.folder / f"vectors-{self.number}.npy"

    @property
    def fast(self) -> Path:
        """The FAISS index, if ``manifest["fast"]`` isn't None."""
        return self.folder / f"index-{self.number}.faiss"

    @property
    def rejected(self) -> Path:
        """The corpus's rows that could not be indexed, with line and reason."""
        return self.folder / f"rejected-{self.number}.csv"

    @property
    def path(self) -> Path:
        """The manifest."""
        return self.folder / f"manifest-{self.number}.json"

    def damaged(self) -> list[Path]:
        """Return the files whose bytes are no longer those that were committed; reads all of them."""
        files = self.manifest["files"]
        return [self.folder / name for name in files
                if not (self.folder / name).is_file() or sha256_file(self.folder / name) != files[name]["sha256"]]

    def ids(self) -> list[str]:
        """Read the rows' ids."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.rows) as file:
            return file.read(columns=["id"])["id"].to_pylist()


def numbers(folder: Path) -> list[int]:
    """Return the numbers of all manifests in ``folder``, valid or not, newest first."""
    if not folder.is_dir():
        return []
    found = (_FILE.match(path.name) for path in folder.iterdir())
    return sorted((int(match[2]) for match in found if match and match[2]), reverse=True)


def read_generation(folder: Path, number: int) -> Generation:
    """Return generation ``number`` after checking its manifest's checksum and its files' presence and sizes.

    The files' sha256 are left to ``--verify``: hashing them would cost more than all else a query does.

    Raises:
        UserError: the manifest is damaged or doesn't fit its files.
    """
    path = folder / f"manifest-{number}.json"
    try:
        manifest = unsealed(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a newer one has replaced it meanwhile") from None
    if manifest.get("generation") != number:
        raise UserError(f"{path}: damaged, it is the manifest of another generation")
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != expected["bytes"]:
            raise UserError(f"{file}: missing or cut short")
    return Generation(folder, number, manifest)


def newest(folder: Path) -> Generation | None:
    """Return the newest valid generation in ``folder``; None where nothing was ever committed.

    A damaged one is passed over, with a warning in the log.

    Raises:
        UserError: there are manifests and none is valid.
    """
    present = numbers(folder)
    problem = ""
    for number in present:
        try:
            found = read_generation(folder, number)
        except UserError as error:
            problem = str(error)
            log.warning("%s; going back to the generation before it", problem)
            continue
        return found
    if present:
        raise UserError(f"{folder}: no manifest is whole ({problem}); index the corpus again in a new folder")
    return None


def commit(generation: Generation, about: Mapping[str, Any]) -> Generation:
    """Make ``generation``, whose data files are written, the newest: fsync them, then write its manifest.

    When this returns, the switch is on the disk.
    """
    data = [path for path in (generation.rows, generation.vectors, generation.fast, generation.rejected)
            if path.exists()]
    for path in data:
        fsync(path)
    fsync(generation.folder)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in data}
    write_atomic(generation.path, sealed({**about, "generation": generation.number, "files": files}))
    return read_generation(generation.folder, generation.number)


def prune(folder: Path) -> None:
    """Remove all files but those of the newest generation, and of the one before it that is whole.

    What killed writers left goes too. To be called by the writer only.
    """
    kept: list[Generation] = []
    for number in numbers(folder):
        with contextlib.suppress(UserError):
            generation = read_generation(folder, number)
            # To fall back on damaged vectors would be no help, so an older one is looked at byte by byte.
            if len(kept) < 2 and not (kept and generation.damaged()):
                kept.append(generation)
    keep = {name for generation in kept for name in (generation.path.name, *generation.manifest["files"])}
    # Manifests first: one that names files already gone would look damaged to whoever opens it meanwhile.
    for path in sorted(folder.iterdir(), key=lambda path: path.suffix != ".json"):
        if (_FILE.match(path.name) and path.name not in keep) or (path.name.startswith(".tmp-") and path.is_file()):
            path.unlink()
