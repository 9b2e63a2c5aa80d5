"""Files as people have them: separators, spreadsheets, column names; found out, and said in one line."""

from __future__ import annotations

import codecs
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import Done

from sentence_forge.data_readers.cleaning import CLEANINGS, Cleaner
from sentence_forge.data_readers.csv_writer import write_csv
from sentence_forge.data_readers.file import FileSource
from sentence_forge.data_readers.formats.files import open_rows, read_rows
from sentence_forge.data_readers.formats.reading import Reading
from sentence_forge.data_readers.formats.rows import Row
from sentence_forge.data_readers.titles import read_corpus
from sentence_forge.runtime.errors import UserError

Command = Callable[..., Done]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'id;title\n1;Regen, Wind\n2;"Schnee; Eis"\n'),
        ("a.csv", "id\ttitle\n1\tRegen, Wind\n2\tSchnee; Eis\n"),
        ("a.csv", "id|title\n1|Regen, Wind\n2|Schnee; Eis\n"),
        ("a.csv", 'sep=;\r\nid;title\r\n1;Regen, Wind\r\n2;"Schnee; Eis"\r\n'),
        ("a.tsv", 'id,title\n1,"Regen, Wind"\n2,Schnee; Eis\n'),
        ("a.txt", 'id;title\n1;Regen, Wind\n2;"Schnee; Eis"\n'),
    ],
)
def test_the_separator_is_found_whatever_the_suffix(
    name: str, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / name).write_text(text)
    found = read_corpus(tmp_path / name, id_column="id")
    assert (found.ids, found.titles) == (["1", "2"], ["Regen, Wind", "Schnee; Eis"])
    assert "separated by" in caplog.text and "corpus.separator=" in caplog.text
    first = 3 if text.startswith("sep=") else 2
    assert [row.line for row in read_rows(tmp_path / name, ["title"])] == [first, first + 1]


def test_a_separator_in_the_titles_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("title\nRain; snow\nWind | storm; hail\n")
    assert read_corpus(tmp_path / "a.csv").titles == ["Rain; snow", "Wind | storm; hail"]
    (tmp_path / "b.csv").write_text("id,title\n1,Rain; snow\n2,Wind; storm\n")
    assert read_corpus(tmp_path / "b.csv").titles == ["Rain; snow", "Wind; storm"]
    (tmp_path / "c.csv").write_text("id^title\n1^Rain\n")
    assert read_corpus(tmp_path / "c.csv", reading=Reading(separator="^")).titles == ["Rain"]
    with pytest.raises(UserError, match=r"corpus\.separator=ab: is no separator"):
        Reading(separator="ab", key="corpus")


def test_decimal_commas_belong_to_semicolons(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sentence1;sentence2;score\na;b;4,5\nc;d;0\ne;f;2,25\n")
    source = FileSource(tmp_path / "a.csv", dev_path=tmp_path / "a.csv")
    assert source.read("pair_score", "train")["score"][:] == [0.9, 0.0, 0.45]


def workbook(path: Path, sheets: dict[str, list[list[object]]]) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_a_workbook(tmp_path: Path) -> None:
    from datetime import datetime

    path = workbook(
        tmp_path / "a.xlsx",
        {
            "新闻": [
                [" 标题 ", "编号", "日期", None],
                ["大雪", 7.0, datetime(2024, 5, 1), None],
                [None, None],
                ["=1+1 是二", 8],
                [None, 9],
                ["一", 2, 3, "over"],
                [12.5, "x"],
            ],
            "other": [["title"], ["b"]],
            "empty": [],
        },
    )
    found = read_corpus(path, id_column="编号")
    assert list(zip(found.ids, found.titles, strict=True)) == [("7", "大雪"), ("x", "12.5")]
    assert [(bad.line, bad.reason) for bad in found.rejected] == [
        (4, "column 标题: is empty"),
        (5, "column 标题: is empty"),
        (6, "has 4 cells where the header has 3"),
    ]
    assert read_corpus(path, reading=Reading(sheet="other")).titles == ["b"]
    with pytest.raises(UserError, match="has no sheet 'othr'; did you mean 'other'"):
        read_corpus(path, reading=Reading(sheet="othr"))
    with pytest.raises(UserError, match=r"its sheet is empty \(corpus\.sheet="):
        read_corpus(path, reading=Reading(sheet="empty"))
    rows = [list(row.values) for row in read_rows(path, ["日期"]) if isinstance(row, Row)]
    assert rows[0] == ["2024-05-01"]


def test_without_openpyxl_a_workbook_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "a.xlsx", {"a": [["title"], ["b"]]})
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UserError, match=r"a\.xlsx: reading \.xlsx needs openpyxl; pip install"):
        open_rows(path)


def test_lines_arrays_and_packed_files(tmp_path: Path) -> None:
    titles = ["Rain, again", '雪, "heute"\tund morgen', "title three"]
    text = "".join(f"{title}\n" for title in titles)
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "a.json").write_text(json.dumps(titles))
    (tmp_path / "b.json").write_text(json.dumps([{"headline": title} for title in titles], indent=1))
    (tmp_path / "a.txt.zst").write_bytes(pa.compress(text.encode(), codec="zstd", asbytes=True))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/", "")
        archive.writestr("folder/a.txt", text)
    for name in ("a.txt", "a.json", "b.json", "a.txt.zst", "a.zip"):
        assert read_corpus(tmp_path / name).titles == titles, name


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        ("标题,编号\n大雪,1\n".encode(), ".csv"),
        (b'{"title": "\xe5\xa4\xa7\xe9\x9b\xaa"}\n', ".json"),
        ("大雪\n".encode(), ".txt"),
    ],
)
def test_the_standard_input(data: bytes, suffix: str, tmp_path: Path) -> None:
    code = (
        "from sentence_forge.data_readers.titles import read_corpus; found = read_corpus('-'); "
        "print(ascii(found.titles), found.rows)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=data, capture_output=True, check=False, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() == f"{['大雪']!a} 1", suffix


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("Title,id", "Title"),
        ("新闻标题,编号", "新闻标题"),
        ("题目,title_id", "题目"),
        ("HEADLINE ,n", "HEADLINE "),
        ("sentence,label", "sentence"),
        ("标题,内容", "标题"),
        ("whatever,n", "whatever"),
    ],
)
def test_the_titles_column_has_a_well_known_name_or_is_the_only_one_of_texts(
    header: str, column: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / "a.csv").write_text(f"{header}\nRain in the north,17\n大雪,b2\n")
    found = read_corpus(tmp_path / "a.csv")
    assert (found.column, found.titles) == (column, ["Rain in the north", "大雪"])
    assert f"{column!r} as title (corpus.column= names others)" in caplog.text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("text,content\nRain falls,it rains\n", "corpus.column=text or corpus.column=content"),
        ("one,two\nRain falls,it rains\n", "corpus.column=one or corpus.column=two"),
        ("1,Rain falls in the north of the land\n2,Snow\n", "'corpus.header=[title,column2]'"),
        ("Rain falls in the north today.\nSnow falls.\n", "'corpus.header=[title]'"),
    ],
)
def test_what_is_not_clear_is_asked_for(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError) as caught:
        read_corpus(tmp_path / "a.csv")
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,Rain falls\n2,Snow\n")
    assert read_corpus(tmp_path / "a.csv", reading=Reading(header=["id", "title"])).titles == ["Rain falls", "Snow"]
    (tmp_path / "b.csv").write_text("".join(f"a {at},b {at},{at % 6}\n" for at in range(12)))
    with pytest.raises(UserError, match=r"data\.header=\[sentence1,sentence2,score\]"):
        FileSource(tmp_path / "b.csv").shapes()
    source = FileSource(tmp_path / "b.csv", header=["sentence1", "sentence2", "score"])
    assert len(source.read("pair_score", "train")) + len(source.read("pair_score", "dev")) == 12


@pytest.mark.parametrize(
    ("header", "shape"),
    [
        ("句子1,句子2,分数", "pair_score"),
        ("Sentence 1,Sentence_2,Similarity", "pair_score"),
        ("前提,假设,标签", "pair_class"),
        ("标题,标签", "labelled_text"),
        ("Query,Pos,Neg", "triplet"),
        ("问题,答案", "pair"),
        ("新闻标题,日期", "titles"),
        ("Überschrift", "titles"),
    ],
)
def test_training_columns_have_well_known_names(header: str, shape: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(header + "\n")
    assert FileSource(tmp_path / "a.csv").shapes()[0] == shape


def test_two_sentences_and_a_label_are_asked_about(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "sentence1,sentence2,label\n" + "".join(f"a {at},b {at},{at % 2}\n" for at in range(12))
    )
    with pytest.raises(UserError, match=r"data\.columns\.score=label for a score"):
        FileSource(tmp_path / "a.csv").shapes()
    found = FileSource(tmp_path / "a.csv", columns={"score": "label"})
    assert set(found.read("pair_score", "train")["score"]) == {0.0, 1.0}


def test_cleaning_is_off_by_default_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    raw = ["Tom &amp; <b>Jerry</b>", "ＡＢＣ　１", "zero\u200bwidth", "nul\0char", "two  blanks", "a < b > c"]
    (tmp_path / "a.csv").write_text("title\n" + "\n".join(raw) + "\n")
    untouched = read_corpus(tmp_path / "a.csv")
    assert untouched.titles == [title for title in raw if "\0" not in title]
    assert "corpus.clean" not in caplog.text
    cleaned = read_corpus(tmp_path / "a.csv", clean=["all"])
    assert cleaned.titles == ["Tom & Jerry", "ABC 1", "zerowidth", "nulchar", "two blanks", "a < b > c"]
    assert not cleaned.rejected
    for name, count in (("tags", 1), ("entities", 1), ("width", 1), ("invisible", 1), ("nul", 1), ("blanks", 1)):
        assert f"corpus.clean={name}: changed {count} titles" in caplog.text
    with pytest.raises(UserError, match=r"corpus\.clean: there is no 'tag'; did you mean 'tags'"):
        Cleaner(["tag"])
    assert set(Cleaner(["all"]).names) == set(CLEANINGS)


def test_cells_that_a_spreadsheet_would_compute_are_text_there_and_come_back(tmp_path: Path) -> None:
    cells = ["=1+1", "+49 30", "-tis", "@home", "\tx", "'=quoted", "''-", "'tis", "a=b", "", 'say "no", twice', "-"]
    write_csv(tmp_path / "a.csv", ["title", "n"], [(cell, -at) for at, cell in enumerate(cells)])
    lines = (tmp_path / "a.csv").read_text().splitlines()[1:]
    assert not [line for line in lines if line.lstrip('"')[:1] in tuple("=+@\t") or line.startswith(("-", '"-'))]
    assert lines[1].endswith(",-1")  # a number stays one
    assert [row.values[0] for row in read_rows(tmp_path / "a.csv", ["title"]) if isinstance(row, Row)] == cells
    (tmp_path / "b.csv").write_text("title,n\n'-ism' is a word,1\n\"'@home', he said\",2\n")
    assert read_corpus(tmp_path / "b.csv").titles == ["'-ism' is a word", "'@home', he said"]  # a person's own quotes


def test_no_kind_of_file_gives_a_traceback(tmp_path: Path) -> None:
    """Every start that a file may have, under every suffix."""
    heads = [
        b"",
        b"\0" * 64,
        bytes(range(256)),
        b"PK\x03\x04" + b"x" * 99,
        b"PAR1" * 9,
        b"%PDF-1.7\n\xe2\xe3\n",
        b"{",
        b"[",
        b"[[1]]",
        b"\x89PNG\r\n\x1a\n" + bytes(40),
        codecs.BOM_UTF16_LE + b"a",
        codecs.BOM_UTF16_BE + b"\xd8\x00\xd8",
        codecs.BOM_UTF32_LE + b"abc",
        b"\x1b$B" + b"\x7f" * 9,
        b"\x1f\x8b\x08" + b"x" * 20,
        b"\xd0\xcf\x11\xe0" + bytes(99),
        b"title\n\xff\xfe\xfd\n",
        "标题\n大雪".encode("gbk"),
        b"sep=;",
        b'"',
        b"\xef\xbb\xbf",
        b"\x28\xb5\x2f\xfd" + b"x" * 9,
        b"BZh9" + b"x" * 30,
        b"\xfd7zXZ\0" + b"x" * 30,
        b"a;b|c\td,e\n1\n",
    ]
    for suffix in (
        ".csv",
        ".tsv",
        ".txt",
        ".json",
        ".jsonl",
        ".xlsx",
        ".parquet",
        ".zip",
        ".csv.gz",
        ".json.zst",
        ".txt.bz2",
        ".tsv.xz",
        ".doc",
        "",
    ):
        for number, head in enumerate(heads):
            path = tmp_path / f"{number}{suffix}"
            path.write_bytes(head)
            for act in (lambda path=path: read_corpus(path), lambda path=path: FileSource(path).shapes()):
                try:
                    act()
                except UserError as error:
                    assert "\n" not in str(error), (suffix, head)
            path.unlink()
