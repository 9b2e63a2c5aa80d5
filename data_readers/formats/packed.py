"""Read the bytes of a file, unpacked where it is packed: .gz, .bz2, .xz, .zst, or .zip with one file in it."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, BinaryIO, Protocol

from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PACKINGS = (".gz", ".bz2", ".xz", ".zst", ".zip")
"""How the name of a packed file ends."""

MOST_UNPACKED = 1 << 29
"""Bytes that a packed file may become whatever its size; beyond, ``MOST_RATIO`` counts."""

MOST_RATIO = 200
"""Times its size that a packed file may become; text packs to a third or a tenth, a bomb to a thousandth."""

_MAGIC = {
    b"\x1f\x8b": "is gzip; let its name end in .gz",
    b"\x28\xb5\x2f\xfd": "is packed by zstd; let its name end in .zst",
    b"PK\x03\x04": "is a zip archive or a spreadsheet; let its name end in .zip or .xlsx",
    b"PAR1": "is Parquet; let its name end in .parquet",
    b"\xd0\xcf\x11\xe0": "is an old or a protected spreadsheet; save it as .xlsx without a password, or as CSV UTF-8",
}


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def inner_name(path: Path) -> PurePath:
    """Return the name of the file that is packed in ``path``, or of ``path`` itself where it isn't packed.

    Raises:
        UserError: a .zip that holds none or several, or is no .zip.
    """
    packing = path.suffix.lower()
    if packing == ".zip":
        with unpacking(path), zipfile.ZipFile(path) as archive:
            return PurePath(_only_member(path, archive).filename)
    return PurePath(path.stem) if packing in PACKINGS else path


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file for reading, unpacked.

    Raises:
        UserError: missing, unreadable, cut short or damaged, another format by its first bytes, or unpacked far larger
            than text can be.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(unpacking(path))
        raw: io.BufferedReader = stack.enter_context(path.open("rb"))
        if (packing := path.suffix.lower()) in PACKINGS:
            stream = _unpacked(path, raw, packing, stack)
            raw = stack.enter_context(io.BufferedReader(_Counted(path, stream), 1 << 20))
        for magic, what in _MAGIC.items():
            if raw.peek(4)[:4].startswith(magic):
                raise UserError(f"{path}: {'what is packed in it ' if packing in PACKINGS else ''}{what}")
        yield raw


@contextlib.contextmanager
def unpacking(path: Path) -> Iterator[None]:
    """Turn what reading a packed file can raise into one line."""
    kind = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower(), path.suffix[1:].lower())
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except EOFError:
        raise UserError(f"{path}: the {kind} stream is cut short; copy or download it again") from None
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{path}: not {kind}, or damaged ({error}); copy or download it again") from None
    except OSError as error:
        if path.suffix.lower() in (".bz2", ".zst") and error.errno is None:
            raise UserError(f"{path}: not {kind}, cut short or damaged ({error}); copy or download it again") from None
        raise UserError(f"{path}: can't be read ({error.strerror or error})") from None


def _unpacked(path: Path, raw: BinaryIO, packing: str, stack: contextlib.ExitStack) -> _Readable:
    if packing == ".gz":
        return stack.enter_context(gzip.GzipFile(fileobj=raw))
    if packing == ".bz2":
        return stack.enter_context(bz2.BZ2File(raw))
    if packing == ".xz":
        return stack.enter_context(lzma.LZMAFile(raw))
    if packing == ".zip":
        archive = stack.enter_context(zipfile.ZipFile(raw))
        return stack.enter_context(archive.open(_only_member(path, archive)))
    import pyarrow

    return stack.enter_context(pyarrow.CompressedInputStream(pyarrow.PythonFile(raw), "zstd"))


def _only_member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    found = [member for member in archive.infolist() if not member.is_dir() and not
             member.filename.startswith("__MACOSX/") and not PurePath(member.filename).name.startswith(".")]
    if len(found) != 1:
        names = ", ".join(member.filename for member in found[:5]) or "none"
        raise UserError(f"{path}: must hold one file, but holds {len(found)} ({names}); unpack it and give one of them")
    if found[0].flag_bits & 1:
        raise UserError(f"{path}: is protected by a password; unpack it and give the file in it")
    return found[0]


class _Counted(io.RawIOBase):
    """A stream that stops with an error where it unpacks to more than a sound file can hold."""

    def __init__(self, path: Path, stream: _Readable) -> None:
        self._path, self._stream, self._count = path, stream, 0
        self._most = max(MOST_UNPACKED, MOST_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self._stream.read(len(view))
        view[: len(data)] = data
        self._count += len(data)
        if self._count > self._most:
            raise UserError(f"{self._path}: unpacks to more than {self._most:,} bytes, over {MOST_RATIO} times its "
                            "size: a zip bomb? If it is sound, unpack it and give the unpacked file")
        return len(data)
