"""Detect a text file's encoding from all of its bytes: UTF-8, UTF-16, GB18030, Windows-1252 and their like."""

from __future__ import annotations

import codecs
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sentence_forge.data_readers.formats.alphabets import plausibility
from sentence_forge.data_readers.formats.reading import Reading
from sentence_forge.data_readers.formats.rows import MAX_CELL, shown
from sentence_forge.runtime.errors import UserError

_BLOCK = 1 << 20
_MOST_SAMPLED = 1 << 16  # bytes of lines that are not UTF-8, spread over the file
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
         codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# how much rarer each is; of two that read a file alike, the first is taken
_CANDIDATES = {
    "cp1252": 0.0, "gb18030": 0.0, "big5": 0.0, "big5hkscs": 0.0, "cp932": 0.0, "euc_jp": 0.0, "cp949": 0.0,
    "cp1251": 0.0, "koi8_r": 0.0, "koi8_u": 0.0, "cp1250": 0.05, "iso8859_2": 0.1, "cp1254": 0.1, "cp1253": 0.1,
    "cp1257": 0.15, "cp1255": 0.15, "cp1256": 0.15, "cp874": 0.15, "iso8859_15": 0.15, "iso8859_5": 0.15,
    "iso8859_7": 0.15, "cp866": 0.15, "mac_roman": 0.15, "cp850": 0.15}
_LEAST_PLAUSIBLE, _LEAST_LEAD = 0.75, 0.04
_ISO_2022_JP = re.compile(rb"\x1b\$[@B]")


@dataclass
class _Evidence:
    """What a pass over a file found: its first bytes, and the lines that are not ASCII."""

    start: bytes = b""
    utf8: int = 0  # lines that are UTF-8
    other: int = 0  # lines that are not
    cut: bool = False  # the last line ends within a character of UTF-8
    escapes: bool = False  # those of ISO-2022-JP, which is ASCII otherwise
    sample: list[bytes] = field(default_factory=list)  # of the lines that are not UTF-8


def encoding_of(path: Path, raw: BinaryIO, reading: Reading) -> str:
    """Return the encoding of a text as Python names it; any but UTF-8 is named in the log.

    A byte order mark decides. Else a text is UTF-8 if the lines are that are not ASCII, or more than half of them (the
    others are then bad rows). Else charset-normalizer says which encodings are possible. Of these the one is taken
    whose characters all belong to one language's alphabet, if it is well ahead of the next.

    Args:
        path: for errors.
        raw: the bytes from the start; they are read to their end.
        reading: its ``encoding`` overrides what would be found.

    Raises:
        UserError: there is no such encoding, or several are possible, which the message names.
    """
    if reading.encoding is not None:
        try:
            b"a".decode(reading.encoding)
        except (LookupError, ValueError):
            raise UserError(f"{reading.key}.encoding={reading.encoding}: there is no such encoding; Python knows "
                            "utf-8, utf-16, gb18030, big5, cp1252, cp1251, shift_jis, euc_kr and others") from None
        return reading.encoding
    found = _examined(raw)
    name = next((name for bom, name in _BOMS.items() if found.start.startswith(bom)), None) or _utf16(found.start)
    if name is None and found.escapes and not found.other:
        name = "iso2022_jp"
    if name is None and (found.other <= found.utf8 or (found.cut and found.other == 1)):
        name = "utf-8"
    if name is None:
        name = _most_plausible(path, found.sample, found.other, reading)
    if not name.startswith("utf-8"):
        logging.getLogger(__name__).info("%s: is read as %s, by its bytes%s", path, name, reading.hint("encoding"))
    return name


def _examined(raw: BinaryIO) -> _Evidence:
    found = _Evidence()
    while block := raw.read(_BLOCK):
        block += raw.readline(MAX_CELL)  # up to the end of a line
        found.start = found.start or block[:4096]
        if block.isascii():
            found.escapes = found.escapes or _ISO_2022_JP.search(block) is not None
            continue
        lines = [line for line in block.split(b"\n") if not line.isascii()]
        other = [] if _is_utf8(block) else [line for line in lines if not _is_utf8(line)]
        found.utf8 += len(lines) - len(other)
        found.other += len(other)
        found.sample += [line[:4096] for line in other if len(line) <= 4096 or not found.sample]
        while sum(map(len, found.sample)) > _MOST_SAMPLED and len(found.sample) > 1:
            del found.sample[1::2]  # so that what is left is still spread over the file
        found.cut = bool(other) and block.endswith(other[-1]) and _is_utf8(other[-1], final=False)
    return found


def _is_utf8(line: bytes, *, final: bool = True) -> bool:
    try:  # halves of surrogate pairs are bad rows of a file that is UTF-8 otherwise
        codecs.utf_8_decode(line, "surrogatepass", final)
    except UnicodeDecodeError:
        return False
    return True


def _utf16(start: bytes) -> str | None:
    """Return UTF-16's name where, without a mark, nearly every NUL is in the same half of the characters."""
    start = start[: len(start) // 2 * 2]
    if re.match(rb"[\t\r\n -~]{4}", start):
        return None  # a text of single bytes that holds NULs
    even, odd = start[::2].count(0), start[1::2].count(0)
    if even + odd < max(3, len(start) // 50) or min(even, odd) * 20 > even + odd:
        return None
    name = "utf-16-le" if odd > even else "utf-16-be"
    try:
        text = codecs.getincrementaldecoder(name)().decode(start)
    except UnicodeDecodeError:
        return None
    return name if re.search(r"[\r\n]", text) else None


def _most_plausible(path: Path, sample: list[bytes], lines: int, reading: Reading) -> str:
    from charset_normalizer import from_bytes

    data, order = b"\n".join(sample), list(_CANDIDATES)
    texts: dict[str, tuple[float, str]] = {}
    for match in from_bytes(data, cp_isolation=order):
        for name in (match.encoding, *match.could_be_from_charset):
            text = data.decode(name)
            if text not in texts or order.index(name) < order.index(texts[text][1]):
                texts[text] = plausibility(text) - match.chaos - _CANDIDATES[name], name
    ranked = sorted(((score, name, text) for text, (score, name) in texts.items()), reverse=True)
    if ranked and ranked[0][0] >= _LEAST_PLAUSIBLE:
        lead = ranked[0][0] - (ranked[1][0] if len(ranked) > 1 else 0)
        if lead >= _LEAST_LEAD:
            return ranked[0][1]
    possible = " or ".join(f"{name} ({shown(text.partition(chr(10))[0])[-20:].strip()})"
                           for _, name, text in ranked[:3])
    told = f"but could be {possible}" if possible else "and no other encoding that is known here"
    best = ranked[0][1] if ranked else "cp1252"
    typed = f"give {reading.key}.encoding={best} or whichever it is (utf-8 makes {lines} bad rows), or "
    raise UserError(f"{path}: is not UTF-8, {told}; {typed if reading.key else ''}save the file as UTF-8")
