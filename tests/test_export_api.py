"""sf.export from Python does what the command does, and never ends the process or touches the caller's logging."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import Done
from corpora import titles_like
from sentence_transformers import SentenceTransformer

import sentence_forge as sf
from sentence_forge.configs import schema
from sentence_forge.encoders.making.build import from_scratch
from sentence_forge.export.run import run, unfinished

TITLES = titles_like(60)
Command = Callable[..., Done]


def state_of_the_process() -> tuple[object, ...]:
    names = ("", "sentence_forge", "torch.onnx._internal.exporter._registration", "faiss")
    return ([(logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in names],
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)], list(sys.argv))


@pytest.fixture(scope="module")
def encoder() -> sf.Encoder:
    return sf.Encoder(from_scratch(lambda: TITLES, hidden=32, layers=1, heads=2, vocabulary=120))


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "titles.csv"
    file.write_text("headline\n" + "\n".join(TITLES) + "\n")
    return file


def test_an_encoder_is_exported_indexed_and_searched(encoder: sf.Encoder, corpus: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # a caller that set up no logging
    before, weights = state_of_the_process(), encoder.encode(TITLES[:3])
    made = sf.export(encoder, corpus=corpus, out="news", **{"corpus.column": "headline"})
    assert state_of_the_process() == before
    about = json.loads(Path("news/manifest.json").read_text())
    assert made.folder == Path("news") and about["state"] == "finished"
    assert "mean_cosine" in (about["onnx"] | about["onnx_left_out"])["int8"]  # it was written, by a library that logs
    assert made.index.search([TITLES[7]], k=1)[0][0].title == TITLES[7]
    np.testing.assert_array_equal(encoder.encode(TITLES[:3]), weights)
    assert made.index.fingerprint == encoder.fingerprint
    corpus.write_text(corpus.read_text() + "a new title\n")
    again = sf.export(corpus=corpus, out="news", only="index", **{"corpus.column": "headline"})
    assert "a new title" in again.index.titles and "a new title" not in made.index.titles

    for name, model in (("run", SimpleNamespace(folder=Path("news"))), ("given", encoder)):  # as a training returns it
        sf.export(model, out=name, dim=8)
        assert sf.load(name).dim == 8 and encoder.dim == 32
    assert sf.load("run").fingerprint == sf.load("given").fingerprint


def test_verify_checks_the_export_too(encoder: sf.Encoder, corpus: Path, command: Command) -> None:
    made = sf.export(encoder, corpus=corpus, out="news", **{"corpus.column": "headline"})
    assert command("search", "news", "--verify").code == 0
    onnx, manifest = made.folder / "model.onnx", made.folder / "manifest.json"
    data = onnx.read_bytes()
    for file, damaged, said in [(onnx, None, "is not the file the export wrote"),
                                (onnx, data[:-9] + b"x" + data[-8:], "is not the file the export wrote"),
                                (manifest, b"{", "is not readable JSON"), (manifest, None, "is no export")]:
        intact = file.read_bytes()
        file.unlink() if damaged is None else file.write_bytes(damaged)
        plain, verified = command("search", "news", TITLES[0]), command("search", "news", "--verify")
        assert (plain.code, verified.code) == (2, 2) and said in plain.err and said in verified.out
        assert "news: 1 problem found" in verified.err
        file.write_bytes(intact)
    other = from_scratch(lambda: TITLES, hidden=32, layers=2, heads=2, vocabulary=120)
    tokenizer = Path("news/model/tokenizer.json").read_bytes()
    other.save_pretrained("news/model", create_model_card=False)
    Path("news/model/tokenizer.json").write_bytes(tokenizer)  # which the ONNX file shares
    verified = command("search", "news", "--verify")
    assert verified.code == 2 and "the index is of another model" in verified.out
    (made.folder / "index").rename("alone")
    assert command("search", "alone", "--verify").code == 0


@pytest.mark.parametrize(("words", "keywords"), [
    (["model=nowhere/x/y", "out=o"], {"model": "nowhere/x/y", "out": "o"}),
    (["model=M", "corpus=none.csv", "out=o"], {"model": "M", "corpus": "none.csv", "out": "o"}),
    (["model=M", "corpus=titles.csv", "corpus.column=titel", "out=o"],
     {"model": "M", "corpus": "titles.csv", "corpus.column": "titel", "out": "o"}),
    (["model=M", "out=titles.csv"], {"model": "M", "out": "titles.csv"}),
    (["model=M", "out=/proc/x"], {"model": "M", "out": "/proc/x"}),
    (["model=M", f"out={'x' * 300}"], {"model": "M", "out": "x" * 300}),
    (["out=o"], {"out": "o"}),
    (["model=M", "out=o", "dim=99"], {"model": "M", "out": "o", "dim": 99}),
    (["model=M", "out=o", "precison=int8"], {"model": "M", "out": "o", "precison": "int8"}),
    (["only=index", "out=o", "corpus=titles.csv"], {"only": "index", "out": "o", "corpus": "titles.csv"}),
    (["model=M", "out=o", "corpus.most_lost=7"], {"model": "M", "out": "o", "corpus.most_lost": 7}),
])
def test_bad_input_is_the_command_s_line(words: list[str], keywords: dict, corpus: Path, encoder: sf.Encoder,
                                         command: Command) -> None:
    encoder.model.save_pretrained("M", create_model_card=False)
    before = state_of_the_process()
    with pytest.raises(sf.UserError) as raised:
        sf.export(**keywords)
    assert state_of_the_process() == before
    typed = command("export", *words)
    assert typed.code == 2 and f"error: {raised.value}\n" in typed.err
    assert not Path("o").exists()


def test_an_encoder_in_half_precision_is_refused(encoder: sf.Encoder, corpus: Path) -> None:
    from sentence_forge.encoders.encoder import in_bf16

    with pytest.raises(sf.UserError, match="holds float32 weights"):
        sf.export(in_bf16(encoder), out="o")
    assert next(encoder.model.parameters()).dtype == torch.float32


def test_of_two_exports_into_one_folder_the_one_that_finished_stays(encoder: sf.Encoder, corpus: Path) -> None:
    settings = schema.Export(out="both", corpus=schema.Corpus(path="titles.csv", column="headline"))

    class Overtaken:
        """An encoder that takes so long to load that another export ends meanwhile."""

        ended = False

        @property
        def model(self) -> SentenceTransformer:
            if not self.ended:
                self.ended = True
                run(settings, encoder)
            return slow

    slow = from_scratch(lambda: TITLES, hidden=32, layers=1, heads=2, vocabulary=110)
    with pytest.raises(sf.UserError, match="both: holds a finished export"):
        run(settings, Overtaken())
    about = json.loads(Path("both/manifest.json").read_text())
    assert about["state"] == "finished" and about["fingerprint"] == encoder.fingerprint
    with sf.Index.open("both") as index:
        assert index.search([TITLES[5]], k=1)[0][0].title == TITLES[5]


@pytest.mark.parametrize("left", [[".lock"], [".lock", ".tmp-manifest.json-99999999"], []])
def test_an_export_killed_before_its_first_manifest_goes_on(left: list[str], encoder: sf.Encoder,
                                                            tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in left:
        (tmp_path / "out" / name).touch()
    assert unfinished(tmp_path / "out") is None
    (tmp_path / "out" / "thesis.txt").touch()
    with pytest.raises(sf.UserError, match="exists and is no export"):
        unfinished(tmp_path / "out")


def test_a_corpus_that_lost_many_rows_stops_and_the_old_index_stays(encoder: sf.Encoder, corpus: Path,
                                                                   command: Command) -> None:
    made = sf.export(encoder, corpus=corpus, out="news", **{"corpus.column": "headline"})
    old = list(made.index.titles)
    shorter = ['" "' if row % 5 == 0 else title for row, title in enumerate(TITLES)]
    corpus.write_text("headline\n" + "\n".join(shorter) + "\n")
    words = ["only=index", "corpus=titles.csv", "corpus.column=headline", "out=news"]
    done = command("export", *words)
    assert done.code == 2 and "12 of the index's 60 rows, by their ids, are not in it any more" in done.err
    assert "12 of its rows can't be indexed; line 2: column headline: is empty" in done.err
    assert "; if that is meant, type corpus.most_lost=1" in done.err
    with sf.Index.open("news") as index:
        assert list(index.titles) == old
    assert command("export", *words, "corpus.most_lost=0.2").code == 0
    with sf.Index.open("news") as index:
        assert len(index.titles) == 48


def test_an_index_keeps_its_column_of_ids_unless_all_rows_may_go(encoder: sf.Encoder, corpus: Path,
                                                                 command: Command) -> None:
    corpus.write_text("number,headline\n" + "".join(f"{row + 9},{title}\n" for row, title in enumerate(TITLES)))
    column = {"corpus.column": "headline"}
    sf.export(encoder, corpus=corpus, out="news", **column, **{"corpus.id_column": "number"})
    sf.export(encoder, corpus=corpus, out="by_row", **column)
    words, number = ["only=index", "corpus=titles.csv", "corpus.column=headline"], "corpus.id_column=number"
    done = command("export", *words, "out=news")  # most of the rows' numbers are ids of other rows
    assert done.code == 2 and f"corpus.id_column=null: the index of news was made with {number}; give that" in done.err
    assert command("export", *words, "out=news", number).code == 0
    done = command("export", *words, "out=by_row", number)
    assert done.code == 2 and "was made with corpus.id_column=null; give that" in done.err
    assert command("export", *words, "out=by_row", number, "corpus.most_lost=1").code == 0
    corpus.write_text("number,headline\n" + "".join(f"n{row},{title}\n" for row, title in enumerate(TITLES)))
    done = command("export", *words, "out=by_row", number)  # the same column with other ids
    assert done.code == 2 and ("60 of the index's 60 rows, by their ids, are not in it any more; give the corpus."
                               "id_column= that the index was made with, or, if that is meant") in done.err
