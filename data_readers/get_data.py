"""``python -m data_readers.get_data allnli stsb``: fetch the released files, resumable and checked."""

from __future__ import annotations

import argparse
import gzip
import re
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NamedTuple

from sentence_forge.runtime.cache import folder_of
from sentence_forge.runtime.disk import naming_a_full_disk, size
from sentence_forge.runtime.errors import UserError, one_of
from sentence_forge.runtime.files import fsync, sha256_file, write_atomic, writer_lock

_BLOCK = 1 << 20
_SECONDS = 60  # without a byte before a connection counts as broken


class Release(NamedTuple):
    """A file as it was released.

    Args:
        file: its name.
        urls: where it is to be had, in the order in which they are tried.
        sha256: of the whole file; None where it isn't known before the first fetch.
    """

    file: str
    urls: tuple[str, ...]
    sha256: str | None = None


RELEASES = {
    "allnli": Release("AllNLI.tsv.gz", (
        "https://public.ukp.informatik.tu-darmstadt.de/reimers/sentence-transformers/datasets/AllNLI.tsv.gz",
        "https://sbert.net/datasets/AllNLI.tsv.gz")),
    "stsb": Release("stsbenchmark.tsv.gz", ("https://sbert.net/datasets/stsbenchmark.tsv.gz",),
                    "aa3ae9b0060fdab8a7239df4bed7668086b4181e7cf6e921d086a70f9e42c17e"),
}
"""What can be fetched, by name."""


def fetched(name: str) -> Path | None:
    """Return the file of a data set that was fetched; None where it wasn't."""
    path = folder_of("data") / RELEASES[name].file if name in RELEASES else None
    return path if path is not None and path.is_file() else None


def fetch(name: str, to: Path, *, mirror: str | None = None, sha256: str | None = None) -> Path:
    """Return the file of a data set, fetched into ``to`` where it isn't there.

    What a broken connection left goes on from where it stopped (HTTP Range, if the server takes it and has still the
    same file). A file is there only when it came whole: its length is the server's, its gzip stream ends well, its
    sha256 is the expected one. That stands beside it in ``<file>.sha256`` and is held against it at each later call.

    Args:
        name: a key of ``RELEASES``.
        to: a folder.
        mirror: the URL of a folder that has the file, to look there instead.
        sha256: the expected one instead of the known one, if there is one.

    Raises:
        UserError: the file can't be had or is not the expected one; one line says which and why.
    """
    if name not in RELEASES:
        raise UserError(f"{name}: no such data set to fetch; {one_of(RELEASES, name)}")
    release = RELEASES[name]
    path = to / release.file
    expected = sha256 or release.sha256
    with writer_lock(to):
        if path.is_file():
            _check_kept(path, sha256, release.sha256)
            return path
        part = path.with_name(f"{path.name}.part")
        _download_from_any(name, release.urls if mirror is None else [f"{mirror.rstrip('/')}/{release.file}"], part)
        found = _checked(part, expected)
        write_atomic(path.with_name(f"{path.name}.sha256"), f"{found}  {path.name}\n")
        fsync(part)
        part.rename(path)
        _about(part).unlink(missing_ok=True)
        fsync(to)
    return path


def _download_from_any(name: str, urls: Sequence[str], part: Path) -> None:
    """Fetch a file into ``part`` from the first URL that gives it, where a piece was begun from that piece's."""
    begun = _about(part).read_text(encoding="utf-8").partition("\n")[0] if _about(part).exists() else None
    failed, kept = [], ""
    for url in sorted(urls, key=lambda url: url != begun):
        try:
            return _download(url, part)
        except (OSError, HTTPException, ValueError) as error:
            failed.append(f"{url} ({_why(error)})")
        if part.exists() and (done := part.stat().st_size):  # which another URL would begin anew
            kept = f"; the same command goes on from {size(done)}, --from <URL> takes another mirror"
            break
    raise UserError(f"{name}: can't be fetched from {', '.join(failed)}{kept}")


def _download(url: str, part: Path) -> None:
    """Fetch a file into ``part``, going on after what is there if it is a piece of the same file."""
    begun = part.stat().st_size if part.exists() and _about(part).exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "sentence-forge"})
    if begun:
        request.add_header("Range", f"bytes={begun}-")
    try:
        answer = urllib.request.urlopen(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the range is beyond the file's end, so what is here is no piece of it
            raise
        _drop(part)
        return _download(url, part)
    with answer:
        total = _total(answer)
        about = f"{url}\n{total}\n{answer.headers.get('ETag') or answer.headers.get('Last-Modified')}\n"
        goes_on = answer.status == 206 and begun
        if goes_on and (_about(part).read_text(encoding="utf-8") != about or _first(answer) != begun):
            _drop(part)
            return _download(url, part)
        write_atomic(_about(part), about)
        done = begun if goes_on else 0
        needs = None if total is None else total - done
        with naming_a_full_disk(part, needs), part.open("ab" if goes_on else "wb") as file:
            while block := answer.read(_BLOCK):
                file.write(block)
                done += len(block)
                _tell(part.stem, done, total)
    if total is not None and done != total:
        raise OSError(f"broken off after {size(done)} of {size(total)}")
    return None


def _about(part: Path) -> Path:
    """Return the file that says what ``part`` is a piece of."""
    return part.with_name(f"{part.name}.about")


def _drop(part: Path) -> None:
    part.unlink()
    _about(part).unlink(missing_ok=True)


def _total(answer: HTTPResponse) -> int | None:
    """Return the length of the whole file, where the server says it."""
    if answer.status == 206:
        whole = (answer.headers.get("Content-Range") or "").rpartition("/")[2]
        return int(whole) if whole.isdigit() else None
    length = answer.headers.get("Content-Length") or ""
    return int(length) if length.isdigit() else None


def _first(answer: HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range") or "")
    return int(match[1]) if match else None


def _checked(part: Path, expected: str | None) -> str:
    """Return the sha256 of a file that came whole; one that didn't is removed, since no more of it can come."""
    try:
        with gzip.open(part) as file:
            while file.read(_BLOCK):
                pass
    except (OSError, EOFError, zlib.error) as error:
        _drop(part)
        raise UserError(f"{part.stem}: what came is no whole gzip file ({error}); fetch it again, or from elsewhere by "
                        "--from") from None
    found = sha256_file(part)
    if expected is not None and found != expected:
        _drop(part)
        raise UserError(f"{part.stem}: sha256 is {found}, but {expected} was expected; fetch it again, or take it as "
                        f"it is by --sha256 {found}")
    return found


def _check_kept(path: Path, told: str | None, known: str | None) -> None:
    """Refuse a file that is not, or no longer, what was fetched; what is only known now is written beside it."""
    beside = path.with_name(f"{path.name}.sha256")
    recorded = beside.read_text(encoding="utf-8").split()[:1] if beside.is_file() else []
    found = sha256_file(path)
    expected = told or next(iter(recorded), known) or found
    if found != expected:
        raise UserError(f"{path}: its sha256 is {found}, not {expected}; remove it and fetch it again")
    if not recorded:
        write_atomic(beside, f"{found}  {path.name}\n")


def _tell(name: str, done: int, total: int | None) -> None:
    if sys.stderr.isatty():
        share = f" of {size(total)}, {done / total:.0%}" if total else ""
        sys.stderr.write(f"\r{name}: {size(done)}{share}\x1b[K{chr(10) if done == total else ''}")


def _why(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server says {error.code} {error.reason}"
    reason = getattr(error, "reason", None) or error
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__


def main() -> int:
    """Fetch what is named on the command line; see ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m data_readers.get_data",
                                     description="Fetch released data sets: resumable, and checked by sha256.")
    parser.add_argument("names", nargs="+", metavar="name", help=", ".join(RELEASES))
    parser.add_argument("--to", type=Path, default=folder_of("data"),
                        help="folder; %(default)s, where data=<name> looks")
    parser.add_argument("--from", dest="mirror", metavar="URL", help="the folder of a mirror that has the files")
    parser.add_argument("--sha256", help="the file must have this one (of a single name)")
    arguments = parser.parse_args()
    sha256 = arguments.sha256
    if sha256 is not None and (len(arguments.names) > 1 or not re.fullmatch("[0-9a-f]{64}", sha256)):
        parser.error("--sha256 takes 64 hexadecimal digits, and is for a single name")
    try:
        for name in arguments.names:
            path = fetch(name, arguments.to.expanduser(), mirror=arguments.mirror, sha256=sha256)
            sys.stdout.write(f"{path}  sha256 {sha256_file(path)}\n")
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
