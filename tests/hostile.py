"""Files as people, spreadsheets, crashes and attackers leave them, each with what a strict reader must make of it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Hostile:
    """A file and what reading its column ``title`` gives.

    Args:
        name: what is wrong with it.
        data: its bytes.
        good: (line, cell) of each row that must be read.
        bad: (line, part of the reason) of each row that must be named bad.
        error: part of the one-line error when the file as a whole is refused; then good and bad are empty.
        suffix: how its name ends.
    """

    name: str
    data: bytes
    good: list[tuple[int, str]] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    error: str | None = None
    suffix: str = ".csv"


def parquet(**columns: pa.Array) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def zipped(**files: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return sink.getvalue()


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


def _bad_utf8_array() -> pa.Array:
    """An array of strings of which the second is not UTF-8, as some writers leave them."""
    raw = pa.array([b"ok", b"caf\xe9"], pa.binary())
    return pa.Array.from_buffers(pa.string(), 2, raw.buffers())


def _two_same_names() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["title", "title"]), sink)
    return sink.getvalue()


_TEN_MB = "x" * 10_000_000
_TITLES = b"id,title\n" + b"".join(b"%d,title %d\n" % (i, i) for i in range(5000))
_PACKED = gzip.compress(_TITLES, mtime=0)
_FLIPPED = bytearray(_PACKED)
_FLIPPED[-6] ^= 1  # in the checksum

CASES = [
    # csv: read right
    Hostile("titles that look like nulls and numbers", b"title\nNA\nnull\n007\n1e5\nNone\nnan\n-\n",
            good=[(2, "NA"), (3, "null"), (4, "007"), (5, "1e5"), (6, "None"), (7, "nan"), (8, "-")]),
    Hostile("BOM before the header", b"\xef\xbb\xbftitle,id\na,1\n", good=[(2, "a")]),
    Hostile("BOM before a quoted header", b'\xef\xbb\xbf"title",id\na,1\n', good=[(2, "a")]),
    Hostile("Windows line ends", b"id,title\r\n1,a\r\n2,b\r\n", good=[(2, "a"), (3, "b")]),
    Hostile("old Mac line ends", b"id,title\r1,a\r2,b\r", good=[(2, "a"), (3, "b")]),
    Hostile("no line end at the end", b"id,title\n1,a", good=[(2, "a")]),
    Hostile("blank lines are no rows", b"\nid,title\n\n1,a\n\n\n2,b\n\n", good=[(4, "a"), (7, "b")]),
    Hostile("line breaks inside a cell", b'id,title\n1,"a\nb\r\nc"\n2,d\n', good=[(2, "a\nb\r\nc"), (5, "d")]),
    Hostile("quotes and commas inside", b'id,title\n1,"he said ""no"", twice"\n', good=[(2, 'he said "no", twice')]),
    Hostile("quote inside a bare cell", b'id,title\n1,5" pipe\n', good=[(2, '5" pipe')]),
    Hostile("empty cell", b'id,title\n1,\n2,""\n', good=[(2, ""), (3, "")]),
    Hostile("ten-megabyte cell", b"title\n" + _TEN_MB.encode() + b"\nb\n", good=[(2, _TEN_MB), (3, "b")]),
    Hostile("unicode line separator is text", "title\na\u2028b\x85c\n".encode(), good=[(2, "a\u2028b\x85c")]),
    Hostile("upper-case suffix", b"title\na\n", good=[(2, "a")], suffix=".CSV"),
    # csv: one bad row costs one row
    Hostile("a cell too many", b"id,title\n1,a\n2,b, c\n3,d\n", good=[(2, "a"), (4, "d")], bad=[(3, "3 cells")]),
    Hostile("a cell too few", b"id,title\n1\n2,b\n", good=[(3, "b")], bad=[(2, "1 cells")]),
    Hostile("quote never closed", b'id,title\n1,a\n2,"b\n3,c\n4,d\n', good=[(2, "a"), (4, "c"), (5, "d")],
            bad=[(3, "never closed")]),
    Hostile("quote closed by a later row's", b'id,title\n1,"a\n2,b\n3,"c"\n', good=[(3, "b"), (4, "c")],
            bad=[(2, "never closed")]),
    Hostile("every quote open", b'title\n"a\n"b\n"c\n', bad=[(2, "never closed"), (3, "never closed"),
                                                            (4, "never closed")]),
    Hostile("text behind a closing quote", b'id,title\n1,"a" b\n2,c\n', good=[(3, "c")], bad=[(2, "not doubled")]),
    Hostile("NUL in a cell", b"id,title\n1,a\0b\n2,c\n", good=[(3, "c")], bad=[(2, "NUL")]),
    Hostile("NUL in another column is not ours", b"id,title\n1\0,a\n", good=[(2, "a")]),
    Hostile("one byte that is not UTF-8", "id,title\n1,caf\udce9\n2,ü\n".encode(errors="surrogateescape"),
            good=[(3, "ü")], bad=[(2, "0xe9")]),
    Hostile("one letter of Windows-1252", b"id,title\n1,caf\xe9\n2,c\n", good=[(2, "café"), (3, "c")]),
    Hostile("UTF-8 cut in a character", "title\na\n京".encode()[:-1], good=[(2, "a")], bad=[(3, "not UTF-8")]),
    Hostile("surrogate halves in UTF-8 (CESU)", b"title\n\xed\xa0\xbd\xed\xb8\x80\n", bad=[(2, "not UTF-8")]),
    # csv: refused
    Hostile("empty file", b"", error="is empty"),
    Hostile("only a BOM", b"\xef\xbb\xbf", error="is empty"),
    Hostile("only blank lines", b"\n\r\n\n", error="is empty"),
    Hostile("header only", b"id,title\n", error="no rows"),
    Hostile("duplicate header", b"title,id,title\na,1,b\n", error="column 'title' stands twice"),
    Hostile("no such column", b"id,titel,text,content\n1,a,b,c\n", error="titel"),
    Hostile("header's quote never closed", b'id,"title\n1,a\n', error="header can't be read"),
    Hostile("too few GBK characters to tell", b"title\n" + "京津冀\n".encode("gbk"), error="could be gb18030 ("),
    Hostile("bytes of no encoding", b"title\n\xff\xfe\x81 \x8d\x90\n", error="save the file as UTF-8"),
    Hostile("a spreadsheet named .csv", b"PK\x03\x04rest", error="spreadsheet"),
    Hostile("gzip named .csv", _PACKED, error="is gzip"),
    Hostile("Parquet named .csv", parquet(title=pa.array(["a"])), error="is Parquet"),
    Hostile("a line of twenty megabytes", b"title\n" + b"x" * 20_000_000 + b"\n", error="longer than"),
    Hostile("unknown suffix", b"title\na\n", error="can't tell the format", suffix=".xls"),
    Hostile("csv named .xlsx", b"title\na\n", error="no .xlsx workbook", suffix=".xlsx"),
    Hostile("zip of something else named .xlsx", zipped(a=b"title\n"), error="no .xlsx workbook", suffix=".xlsx"),
    Hostile("an old spreadsheet named .csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), error="old"),
    # gzip
    Hostile("gzip", gzip.compress(b"title\na\n"), good=[(2, "a")], suffix=".csv.gz"),
    Hostile("two gzip members", gzip.compress(b"title\na\n") + gzip.compress(b"b\n"), good=[(2, "a"), (3, "b")],
            suffix=".csv.gz"),
    Hostile("gzip cut short", _PACKED[: len(_PACKED) // 2], error="cut short", suffix=".csv.gz"),
    Hostile("gzip without its last byte", _PACKED[:-1], error="cut short", suffix=".csv.gz"),
    Hostile("gzip with a wrong checksum", bytes(_FLIPPED), error="damaged", suffix=".csv.gz"),
    Hostile("csv named .gz", b"title\na\n", error="not gzip", suffix=".csv.gz"),
    Hostile("zlib named .gz", zlib.compress(_TITLES), error="not gzip", suffix=".csv.gz"),
    Hostile("zip bomb of one line", gzip.compress(b"title\n" + b"\0" * 100_000_000), error="longer than",
            suffix=".csv.gz"),
    Hostile("packed Parquet", gzip.compress(b"x"), error="can't tell the format", suffix=".parquet.gz"),
    # zip and other packings
    Hostile("zip with one file", zipped(**{"a.csv": b"title\na\n", "__MACOSX/a.csv": b"x"}), good=[(2, "a")],
            suffix=".zip"),
    Hostile("zip with two files", zipped(**{"a.csv": b"title\n", "b.csv": b"title\n"}), error="holds 2 (a.csv, b.csv)",
            suffix=".zip"),
    Hostile("zip cut short", zipped(**{"a.csv": _TITLES})[:-30], error="not zip", suffix=".zip"),
    Hostile("csv named .zip", b"title\na\n", error="not zip", suffix=".zip"),
    Hostile("zip of a picture", zipped(**{"a.png": b"x"}), error="can't tell the format", suffix=".zip"),
    Hostile("zip of a line of NULs", zipped(**{"a.csv": b"title\n" + bytes(100_000_000)}), error="longer than",
            suffix=".zip"),
    Hostile("bzip2", bz2.compress(b"title\na\n"), good=[(2, "a")], suffix=".csv.bz2"),
    Hostile("bzip2 cut short", bz2.compress(_TITLES)[:-30], error="cut short", suffix=".csv.bz2"),
    Hostile("csv named .bz2", b"title\na\n", error="not bz2", suffix=".csv.bz2"),
    Hostile("xz", lzma.compress(b"title\na\n"), good=[(2, "a")], suffix=".csv.xz"),
    Hostile("xz cut short", lzma.compress(_TITLES)[:-30], error="cut short", suffix=".csv.xz"),
    Hostile("zstd", zstd(b"title\na\n"), good=[(2, "a")], suffix=".csv.zst"),
    Hostile("csv named .zst", b"title\na\n", error="not zstd", suffix=".csv.zst"),
    Hostile("zstd cut short", zstd(_TITLES)[:-30], error="cut short", suffix=".csv.zst"),
    # tsv
    Hostile("quotes are text in tsv", b'id\ttitle\n1\t"a\n2\tb"c\n', good=[(2, '"a'), (3, 'b"c')], suffix=".tsv"),
    Hostile("commas are text in .txt", b"id\ttitle\n1\ta, b\n", good=[(2, "a, b")], suffix=".txt"),
    Hostile("a tab too many", b"id\ttitle\n1\ta\tb\n2\tc\n", good=[(3, "c")], bad=[(2, "3 cells")], suffix=".tsv"),
    # jsonl
    Hostile("JSON lines", b'{"title": "a", "n": 1}\n\n{"title": "\\u4eac"}\n', good=[(1, "a"), (3, "京")],
            suffix=".jsonl"),
    Hostile("numbers as they are spelled", b'{"title": 1e5}\n{"title": 1.50}\n{"title": 12345678901234567890}\n',
            good=[(1, "1e5"), (2, "1.50"), (3, "12345678901234567890")], suffix=".jsonl"),
    Hostile("a bad line", b'{"title": "a"}\n{"title": "b"\n{"title": "c"}\n', good=[(1, "a"), (3, "c")],
            bad=[(2, "not JSON")], suffix=".jsonl"),
    Hostile("a last line cut short", b'{"title": "a"}\n{"title": "The t', good=[(1, "a")],
            bad=[(2, "not JSON (Unterminated string); it is cut short")], suffix=".jsonl"),
    Hostile("null, true, a list, missing", b'{"title": "a"}\n{"title": null}\n{"title": true}\n{"title": ["x"]}\n{}\n',
            good=[(1, "a")], bad=[(2, "null"), (3, "true"), (4, '["x"]'), (5, "missing")], suffix=".jsonl"),
    Hostile("a line that is no object", b'{"title": "a"}\n["b"]\n', good=[(1, "a")], bad=[(2, "not a JSON object")],
            suffix=".jsonl"),
    Hostile("a key twice", b'{"title": "a"}\n{"title": "b", "title": "c"}\n', good=[(1, "a")], bad=[(2, "twice")],
            suffix=".jsonl"),
    Hostile("NaN", b'{"title": "a"}\n{"title": NaN}\n', good=[(1, "a")], bad=[(2, "NaN")], suffix=".jsonl"),
    Hostile("a lone surrogate", b'{"title": "a"}\n{"title": "\\ud800"}\n', good=[(1, "a")], bad=[(2, "surrogate")],
            suffix=".jsonl"),
    Hostile("an escaped NUL", b'{"title": "a"}\n{"title": "\\u0000"}\n', good=[(1, "a")], bad=[(2, "NUL")],
            suffix=".jsonl"),
    Hostile("nested past the stack", b'{"title": "a"}\n{"title": ' + b"[" * 100_000 + b"\n", good=[(1, "a")],
            bad=[(2, "not JSON")], suffix=".jsonl"),
    Hostile("one array over the file", b'[{"title": "a"},\n {"title": "b"}]\n', good=[(1, "a"), (2, "b")],
            suffix=".json"),
    Hostile("an array of strings", b'["a", "b",\n"c"]', good=[(1, "a"), (1, "b"), (2, "c")], suffix=".json"),
    Hostile("an array never closed", b'[{"title": "a"},\n', error="line 2: not JSON", suffix=".json"),
    Hostile("an array with a bad element", b'[{"title": "a"}, {"title": null}, 5]', good=[(1, "a"), (1, "5")],
            bad=[(1, "null")], suffix=".json"),
    Hostile("two arrays", b'["a"]\n["b"]\n', error="more after the end", suffix=".jsonl"),
    Hostile("an array without commas", b'["a" "b"]\n', error="neither comma nor ]", suffix=".json"),
    Hostile("an empty array", b"[]", error="is empty", suffix=".json"),
    Hostile("empty jsonl", b"\n\n", error="is empty", suffix=".jsonl"),
    Hostile("jsonl without the key", b'{"heading": "a", "summary": "b"}\n', error="heading, summary", suffix=".jsonl"),
    # parquet
    Hostile("Parquet", parquet(title=pa.array(["NA", "b"])), good=[(2, "NA"), (3, "b")], suffix=".parquet"),
    Hostile("dictionary-encoded Parquet", parquet(title=pa.array(["a", "a"]).dictionary_encode()),
            good=[(2, "a"), (3, "a")], suffix=".parquet"),
    Hostile("numbers in Parquet", parquet(title=pa.array([7, -1])), good=[(2, "7"), (3, "-1")], suffix=".parquet"),
    Hostile("floats in Parquet", parquet(title=pa.array([0.1, 1e300])), good=[(2, "0.1"), (3, "1e+300")],
            suffix=".parquet"),
    Hostile("null in Parquet", parquet(title=pa.array(["a", None])), good=[(2, "a")], bad=[(3, "null")],
            suffix=".parquet"),
    Hostile("bad UTF-8 in Parquet", parquet(title=_bad_utf8_array()), good=[(2, "ok")], bad=[(3, "0xe9")],
            suffix=".parquet"),
    Hostile("lists in Parquet", parquet(title=pa.array([["a"]])), error="holds lists", suffix=".parquet"),
    Hostile("lists in JSON", b'{"title": ["a"]}\n', error="holds lists", suffix=".jsonl"),
    Hostile("structs in Parquet", parquet(title=pa.array([{"a": "a"}])), error="holds struct", suffix=".parquet"),
    Hostile("dates in Parquet", parquet(title=pa.array([0], pa.date32())), error="holds date", suffix=".parquet"),
    Hostile("Parquet with a name twice", _two_same_names(), error="stands twice", suffix=".parquet"),
    Hostile("Parquet without rows", parquet(title=pa.array([], pa.string())), error="no rows", suffix=".parquet"),
    Hostile("Parquet cut short", parquet(title=pa.array(["a"] * 1000))[:-10], error="not Parquet", suffix=".parquet"),
    Hostile("csv named .parquet", b"title\na\n", error="not Parquet", suffix=".parquet"),
    Hostile("empty Parquet", b"", error="not Parquet", suffix=".parquet"),
]
