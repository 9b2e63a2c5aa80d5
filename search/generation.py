"""A generation is one complete state of the index on disk; this module reads them and switches to a new one.

Generation N is ``rows-N.parquet`` (id, title, sha of the title; live rows in corpus order), ``vectors-N.npy`` (one
unit vector a row), ``index-N.faiss`` (where a fast index pays), ``rejected-N.csv``, and ``manifest-N.json``, which is
written last, names every file with its sha256, and is checksummed itself. Of very many rows there are several of the
first three, ``rows-N.0.parquet``, ``rows-N.1.parquet`` and so on (`search.shards`). Files are never changed once a
manifest names them, so readers need no lock. The newest valid manifest is used, the one before it is a fallback.

An index may come from somebody else, with any files and a manifest that fits them. So the content of a file is checked
before it is used.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.runtime.errors import UnreadableError, UserError
from sentence_forge.runtime.files import check_link, fsync, remove, sha256_file, write_atomic
from sentence_forge.runtime.manifests import sealed, unsealed
from sentence_forge.search.shards import Shard, known_shards, read_shards, shards_in

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

NO_INDEX = "holds no finished index; make one with python -m export model=... corpus=... out=..."
SEGMENTS = "segments"
_FILE = re.compile(r"manifest-(\d+)\.json|rows-\d+(\.\d+)?\.parquet|vectors-\d+(\.\d+){0,2}\.npy"
                   r"|index-\d+(\.\d+){0,2}\.faiss|rejected-\d+\.csv")
_STAGED = re.compile(r"(\.tmp-)+(manifest-\d+\.json|rejected(-\d+\.csv)?)(-\d+)+")
_ATTEMPTS = 100  # of a reader, where a writer replaces one generation after the other


@dataclass(frozen=True)
class Generation:
    """A manifest that passed its checks, and the paths of its files."""

    folder: Path
    number: int
    manifest: Mapping[str, Any]
    path: Path = field(init=False)  # of the manifest
    rejected: Path = field(init=False)  # the corpus's rows that could not be indexed, with line and reason

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.folder / f"manifest-{self.number}.json")
        object.__setattr__(self, "rejected", self.folder / f"rejected-{self.number}.csv")

    @property
    def shards(self) -> list[Shard]:
        """Its rows, a part in each; their order is that of the corpus."""
        return shards_in(self.folder, self.number, self.manifest)

    @property
    def kept(self) -> list[str]:
        """The names of the corpus's further columns that the rows hold."""
        return list(self.manifest.get("kept", []))

    @property
    def kept_columns(self) -> list[str]:
        """What the columns of ``kept`` are called in the file of rows."""
        return [f"kept-{place}" for place in range(len(self.kept))]

    @property
    def data(self) -> list[Path]:
        """All files but the manifest, there or not."""
        return [self.rejected, *(file for shard in self.shards for file in shard.files)]

    def damaged(self) -> list[Path]:
        """Return the files whose bytes are no longer those that were committed; reads all of them."""
        files = self.manifest["files"]
        return [self.folder / name for name in files
                if not (self.folder / name).is_file() or sha256_file(self.folder / name) != files[name]["sha256"]]

    def read_rows(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of the rows, each in one chunk; see `search.checked.read_columns`."""
        return read_shards(self.shards, columns)


def check_links(folder: Path) -> None:
    """Check that links in an index lead nowhere where writing and removing would hurt.

    Raises:
        UserError: ``folder`` is a link to a folder with other files, or its ``segments`` is a link.
    """
    check_link(folder, rf"{_FILE.pattern}|rejected\.csv|{SEGMENTS}")
    if (folder / SEGMENTS).is_symlink():
        raise UserError(f"{folder / SEGMENTS}: is a link, and would be written to; remove it")


def index_folder(folder: str | Path) -> Path:
    """Return the folder that holds an index's manifests, given it or the export's output folder.

    Raises:
        UserError: there is no index.
    """
    if "://" in str(folder):
        raise UserError(f"{folder}: this is for an export's folder; a database can be searched, asked for --pairs, "
                        "served and mined")
    folder = Path(folder)
    index = folder / "index" if (folder / "index").is_dir() else folder
    if not index.is_dir():
        raise UserError(f"{folder}: no such folder")
    if not numbers(index):
        raise UserError(f"{folder}: {NO_INDEX}")
    return index


def marks_folder(index: Path) -> Path:
    """Return where the marks of an index are: in its export's folder, or in its own where it is in none."""
    return index.parent if (index.parent / "manifest.json").is_file() else index


def numbers(folder: Path) -> list[int]:
    """Return the numbers of all manifests in ``folder``, valid or not, newest first."""
    if not folder.is_dir():
        return []
    found = (_FILE.fullmatch(path.name) for path in folder.iterdir())
    return sorted((int(match[1]) for match in found if match and match[1]), reverse=True)


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
    found = Generation(folder, number, manifest)
    if not _is_ours(found):
        raise UserError(f"{path}: damaged, it is not the manifest of this generation")
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != expected["bytes"]:
            raise UserError(f"{file}: missing or cut short")
    return found


def _is_ours(generation: Generation) -> bool:
    """Return whether a manifest has the keys and types of ours, and names this generation's files alone."""
    about = generation.manifest
    if not known_shards(about):
        return False
    files, kept, counts = about.get("files"), about.get("kept", []), [about.get(key) for key in ("dim", "distinct")]
    needed = {generation.rejected.name}
    for shard in generation.shards:
        needed |= {shard.rows.name, shard.vectors.name, *([] if shard.about is None else [shard.fast.name])}
    return (isinstance(kept, list) and all(isinstance(name, str) for name in kept)
            and about.get("generation") == generation.number and isinstance(about.get("fingerprint"), str)
            and all(type(count) is int and 0 < count < 2**40 for count in counts)
            and isinstance(files, dict) and needed <= set(files) <= {path.name for path in generation.data}
            and all(isinstance(each, dict) and {"bytes", "sha256"} <= each.keys() for each in files.values()))


def newest(folder: Path) -> Generation | None:
    """Return the newest valid generation in ``folder``; None where nothing was ever committed.

    A damaged one is skipped, with a warning in the log.

    Raises:
        UserError: there are manifests and none is valid, or the system doesn't give one now.
    """
    for _ in range(_ATTEMPTS):
        present, problem = numbers(folder), ""
        for number in present:
            try:
                return read_generation(folder, number)
            except UnreadableError:
                raise
            except UserError as error:
                if (folder / f"manifest-{number}.json").exists():  # else a writer has replaced it meanwhile
                    problem = str(error)
                    log.warning("%s; going back to the generation before it", problem)
        if not present:
            return None
        if problem and numbers(folder) == present:
            break
    raise UserError(f"{folder}: no manifest is intact ({problem}); index the corpus again in a new folder")


def commit(generation: Generation) -> Generation:
    """Make ``generation``, whose data files are written, the newest: fsync them, then write its manifest.

    When this returns, the switch is on the disk.
    """
    data = [path for path in generation.data if path.exists()]
    for path in data:
        fsync(path)
    fsync(generation.folder)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in data}
    write_atomic(generation.path, sealed({**generation.manifest, "generation": generation.number, "files": files}))
    return read_generation(generation.folder, generation.number)


def remove_files(folder: Path, number: int) -> None:
    """Remove whatever a writer has left of generation ``number``, which has no manifest."""
    ours = re.compile(rf"(rows|vectors|index|rejected)-{number}(\.\d+){{0,2}}\.(parquet|npy|faiss|csv)")
    for path in folder.iterdir() if folder.is_dir() else ():
        if ours.fullmatch(path.name):
            remove(path)


def prune(folder: Path) -> None:
    """Remove all files but those of the newest generation and of the newest intact one before it.

    The leftovers of killed writers are removed, too. Only the holder of the writer's lock may call this.
    """
    kept: list[Generation] = []
    for number in numbers(folder):
        try:
            generation = read_generation(folder, number)
        except UnreadableError:
            raise
        except UserError:
            continue
        # An older one is hashed: it would be no fallback if its vectors were damaged.
        if len(kept) < 2 and not (kept and generation.damaged()):
            kept.append(generation)
    keep = {name for generation in kept for name in (generation.path.name, *generation.manifest["files"])}
    # Manifests first: one that names files already gone would look damaged to whoever opens it meanwhile.
    for path in sorted(folder.iterdir(), key=lambda path: path.suffix != ".json"):
        if (_FILE.fullmatch(path.name) and path.name not in keep) or _STAGED.fullmatch(path.name):
            remove(path)
