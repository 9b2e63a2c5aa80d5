"""Files in the encodings that people have them in: found by their bytes, said in one line, refused in doubt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Done

from sentence_forge.data_readers.formats.reading import Reading
from sentence_forge.data_readers.titles import read_corpus
from sentence_forge.runtime.errors import UserError

Command = Callable[..., Done]

TEXTS = {
    "Chinese": ["今天北方多地下起大雪", "新学校九月开学", "央行宣布下调利率", "列车晚点两个小时", "球队主场获胜"],
    "Taiwan": ["颱風接近東部海岸", "總統接見外國訪客", "學生要求降低學費", "火車誤點兩個小時", "醫院缺少護理人員"],
    "Japanese": ["大雪のため電車が止まった", "新しい学校が開校する", "首相は会見を開いた", "チームがホームで勝った"],
    "Korean": ["눈이 많이 내려 기차가 멈췄다", "새 학교가 문을 열었다", "대통령이 회견을 열었다", "팀이 홈에서 이겼다"],
    "Russian": [
        "Из-за снега остановились поезда",
        "Новая школа открыта в сентябре",
        "Команда выиграла дома",
        "Цены растут",
    ],
    "French": [
        "La neige a bloqué les trains",
        "Une école ouvrira à la rentrée",
        "L'équipe a gagné",
        "Où va le prix du blé ?",
    ],
    "German": ["Der Schnee hält Züge auf", "Größere Schulen öffnen", "Die Bürger wählen früher", "Straße gesperrt"],
    "Polish": [
        "Śnieg zatrzymał pociągi",
        "Nowa szkoła w Łodzi",
        "Drużyna wygrała u siebie",
        "Żołnierze wrócili",
        "Święto",
    ],
}
ENCODINGS = [
    ("Chinese", "utf-8"),
    ("Chinese", "utf-8-sig"),
    ("Chinese", "gb18030"),
    ("Chinese", "gbk"),
    ("Chinese", "utf-16"),
    ("Chinese", "utf-16-le"),
    ("Chinese", "utf-16-be"),
    ("Taiwan", "big5"),
    ("Japanese", "shift_jis"),
    ("Japanese", "euc_jp"),
    ("Japanese", "iso2022_jp"),
    ("Korean", "euc_kr"),
    ("Russian", "cp1251"),
    ("Russian", "koi8_r"),
    ("French", "cp1252"),
    ("German", "cp1252"),
    ("French", "utf-16-le"),
    ("Polish", "cp1250"),
    ("Russian", "utf-32"),
]


def corpus(path: Path, titles: list[str], encoding: str, *, before: int = 0) -> list[str]:
    """Write a CSV of titles, with rows of ASCII before them; return all."""
    titles = [*(f"plain title {number}" for number in range(before)), *titles]
    path.write_bytes(
        "".join(["id,title\r\n", *(f"{at},{title}\r\n" for at, title in enumerate(titles))]).encode(encoding)
    )
    return titles


@pytest.mark.parametrize("before", [0, 60_000], ids=["at once", "late"])
@pytest.mark.parametrize(("language", "encoding"), ENCODINGS)
def test_the_encoding_is_found_and_said(
    language: str, encoding: str, before: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "titles.csv"
    titles = corpus(path, TEXTS[language], encoding, before=before)
    found = read_corpus(path)
    assert list(found.titles) == titles
    assert not found.rejected
    said = [record.getMessage() for record in caplog.records if "is read as" in record.getMessage()]
    assert len(said) == (0 if encoding.startswith("utf-8") else 1)
    assert all("corpus.encoding=" in line for line in said)


@pytest.mark.parametrize("encoding", ["gb18030", "cp1252"])
def test_the_encoding_of_training_and_test_files_is_found_too(encoding: str, command: Command, tmp_path: Path) -> None:
    text = TEXTS["Chinese" if encoding == "gb18030" else "French"]
    rows = [f"{one},{two},{(at + other) % 6}\n" for at, one in enumerate(text) for other, two in enumerate(text)]
    for name in ("train.csv", "dev.csv", "test.csv"):
        (tmp_path / name).write_bytes(("sentence1,sentence2,score\n" + "".join(rows)).encode(encoding))
    done = command(
        "train",
        "loss=cosine",
        "data=train.csv",
        "data.dev_path=dev.csv",
        "suite=test.csv",
        *TINY,
        "loop.max_steps=1",
        "hydra.run.dir=run",
    )
    assert done.code == 0, done.err
    for name in ("train.csv", "dev.csv", "test.csv"):
        assert f"{name}: is read as {encoding}" in done.err
    found = json.loads((tmp_path / "run" / "environment.json").read_text())["data_found"]
    assert found["train.csv"] == found["dev.csv"] == {"encoding": encoding, "score_range": [0.0, 5.0]}


def test_an_encoding_that_cannot_be_told_is_refused_with_what_to_type(tmp_path: Path) -> None:
    path = tmp_path / "titles.csv"
    path.write_bytes("id,title\n1,京津冀\n".encode("gbk"))
    with pytest.raises(
        UserError, match=r"could be gb18030 \(.*京津冀\).* or .*; give corpus\.encoding=gb18030"
    ) as caught:
        read_corpus(path)
    assert "\n" not in str(caught.value)
    assert read_corpus(path, reading=Reading(encoding="gbk")).titles == ["京津冀"]
    assert len(read_corpus(path, reading=Reading(encoding="utf-8")).rejected) == 1
    for name in ("gb18031", "rot13", "base64"):
        with pytest.raises(UserError, match=f"corpus.encoding={name}: there is no such encoding"):
            read_corpus(path, reading=Reading(encoding=name))


def test_a_row_that_is_damaged_costs_one_row_in_any_encoding(tmp_path: Path) -> None:
    path = tmp_path / "titles.csv"
    lines = [title.encode("gb18030") for title in TEXTS["Chinese"] * 3]
    path.write_bytes(b"\n".join([b"title", *lines[:9], lines[9] + b"\xff", *lines[10:]]) + b"\n")
    found = read_corpus(path, reading=Reading(encoding="gb18030"))
    assert found.titles == [title for at, title in enumerate(TEXTS["Chinese"] * 3) if at != 9]
    assert [(bad.line, "is not gb18030 (byte 0xff" in bad.reason) for bad in found.rejected] == [(11, True)]
