"""Data sets by their usual names, in the formats in which they are released, and the hub's layout."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from conftest import TINY, Done
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from sentence_forge.configs import schema
from sentence_forge.data_readers.source import Source
from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError

ROOT = Path(__file__).parent.parent
Command = Callable[..., Done]


def source(name: str, *overrides: str) -> Source:
    """The source that ``data=<name>`` with these overrides makes."""
    schema.register()
    with initialize_config_module("sentence_forge.configs", version_base="1.3"):
        config = compose("train", [f"data={name}", *overrides])
    return targets.build(OmegaConf.to_container(config.data, resolve=True), "data")


def rows(found: Source, shape: str, split: str = "train") -> list[tuple]:
    dataset = found.read(shape, split)
    return list(zip(*(dataset[name] for name in dataset.column_names if name != "row"), strict=True))


def tsv(path: Path, header: Sequence[str], *lines: Sequence[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    text = "".join("\t".join(cells) + "\n" for cells in (header, *lines))
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def jsonl(path: Path, *objects: Mapping) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects), encoding="utf-8")


ALLNLI = ("split", "dataset", "filename", "sentence1", "sentence2", "label")


def allnli(path: Path, groups: int = 3) -> None:
    lines = []
    for split in ("train", "dev", "test"):
        for number in range(groups):
            premise = f'A {split} "quoted premise {number}'  # a lone quote is a character like any other
            for label in ("entailment", "neutral", "contradiction"):
                lines.append((split, "SNLI", "snli.jsonl", premise, f"{split} {label} {number}", label))
    tsv(path, ALLNLI, *lines)


def test_the_released_allnli(tmp_path: Path) -> None:
    allnli(tmp_path / "AllNLI.tsv.gz")
    found = source("allnli", f"data.path={tmp_path / 'AllNLI.tsv.gz'}")
    assert found.shapes() == ["pair_class", "triplet", "pair"]
    assert rows(found, "pair_class")[:2] == [('A train "quoted premise 0', "train entailment 0", "entailment"),
                                             ('A train "quoted premise 0', "train neutral 0", "neutral")]
    assert len(rows(found, "pair_class")) == len(rows(found, "pair_class", "dev")) == 9
    assert rows(found, "triplet", "dev")[0] == ('A dev "quoted premise 0', "dev entailment 0", "dev contradiction 0")
    assert rows(found, "pair", "dev") == [(f'A dev "quoted premise {n}', f"dev entailment {n}") for n in range(3)]


def test_the_reverse_sample_is_for_training_and_for_triplets(tmp_path: Path) -> None:
    allnli(tmp_path / "AllNLI.tsv.gz")
    found = source("allnli", f"data.path={tmp_path / 'AllNLI.tsv.gz'}", "data.reverse=true")
    assert rows(found, "triplet")[:3] == [
        ('A train "quoted premise 0', "train entailment 0", "train contradiction 0"),
        ("train entailment 0", 'A train "quoted premise 0', "train contradiction 0"),
        ('A train "quoted premise 1', "train entailment 1", "train contradiction 1")]
    assert found.read("triplet", "train")["row"][:3] == [1, 1, 4]
    assert len(rows(found, "triplet", "dev")) == 3
    with pytest.raises(UserError, match=r"data\.reverse: .* read as pair_class"):
        found.read("pair_class", "train")


def test_the_released_stsb(tmp_path: Path) -> None:
    header = ("split", "genre", "dataset", "year", "sid", "score", "sentence1", "sentence2")
    tsv(tmp_path / "stsbenchmark.tsv.gz", header,
        ("train", "news", "MSRpar", "2012", "1", "3.800", 'He said "no', "He said no"),
        ("dev", "news", "MSRpar", "2012", "2", "5.000", "a", "b"), ("test", "news", "x", "2012", "3", "0", "c", "d"))
    found = source("stsb", f"data.path={tmp_path / 'stsbenchmark.tsv.gz'}")
    assert found.shapes() == ["pair_score"]
    assert rows(found, "pair_score") == [('He said "no', "He said no", pytest.approx(0.76))]
    assert rows(found, "pair_score", "dev") == [("a", "b", 1.0)]
    assert [file.name for file in found.paths()] == ["stsbenchmark.tsv.gz"]


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of how ``sentence-transformers/all-nli`` lies on the hub."""
    import datasets
    from datasets import ClassLabel, Dataset, Features, Value

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "all-nli"
    text = Value("string")
    label = ClassLabel(names=["entailment", "neutral", "contradiction"])
    subsets = {
        "pair-class": (Features({"premise": text, "hypothesis": text, "label": label}),
                       [("p", "follows", 0), ("p", "unsaid", 1), ("p", "wrong", 2), ("p", "follows, too", 0),
                        ("p", "wrong, too", 2)]),
        "triplet": (Features({"anchor": text, "positive": text, "negative": text}),
                    [("p", "follows", "wrong"), ("p", "follows", "wrong, too"), ("p", "follows, too", "wrong"),
                     ("p", "follows, too", "wrong, too")]),
        "pair": (Features({"anchor": text, "positive": text}), [("p", "follows")]),
        "pair-score": (Features({"sentence1": text, "sentence2": text, "score": Value("float64")}),
                       [("p", "follows", 1.0), ("p", "unsaid", 0.5)]),
    }
    card = "configs:\n"
    for name, (features, lines) in subsets.items():
        card += f"- config_name: {name}\n  data_files:\n"
        for split in ("train", "dev", "test"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            columns = zip(*((f"{split} {line[0]}", *line[1:]) for line in lines), strict=True)
            made = Dataset.from_dict(dict(zip(features, map(list, columns), strict=True)), features=features)
            made.to_parquet(str(folder / name / f"{split}-00000-of-00001.parquet"))
            card += f"  - split: {split}\n    path: {name}/{split}-*\n"
    (folder / "README.md").write_text(f"---\n{card}---\n")
    return folder


def test_the_hub_gives_what_the_released_file_gives(hub_folder: Path, tmp_path: Path) -> None:
    found = source("allnli", f"data.path={hub_folder}")
    lines = [(split, "SNLI", "x", f"{split} p", hypothesis, label) for split in ("train", "dev", "test")
             for hypothesis, label in (("follows", "entailment"), ("unsaid", "neutral"), ("wrong", "contradiction"),
                                       ("follows, too", "entailment"), ("wrong, too", "contradiction"))]
    tsv(tmp_path / "AllNLI.tsv.gz", ALLNLI, *lines)
    released = source("allnli", f"data.path={tmp_path / 'AllNLI.tsv.gz'}")
    assert found.shapes() == released.shapes() == ["pair_class", "triplet", "pair"]
    for shape in found.shapes():
        for split in ("train", "dev"):
            assert rows(found, shape, split) == rows(released, shape, split)
    assert rows(found, "triplet") == [("train p", "follows", "wrong"), ("train p", "follows, too", "wrong, too")]
    assert all(file.is_file() for file in found.paths())
    with pytest.raises(UserError, match=r"all-nli: can't be read through datasets .*data\.path="):
        source("allnli", f"data.path={hub_folder}", "data.hub.subset=pairs").shapes()


def test_a_set_with_several_subsets_names_them(hub_folder: Path) -> None:
    with pytest.raises(UserError, match=r"all-nli: has several subsets, so data\.subset= is needed; there are: "
                                        r"pair-class, triplet, pair, pair-score$"):
        source("hub", f"data.path={hub_folder}").shapes()


def test_the_hubs_stsb_calls_dev_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "stsb" / "data"
    folder.mkdir(parents=True)
    for split, score in (("train", 0.76), ("validation", 1.0), ("test", 0.0)):
        datasets.Dataset.from_dict({"sentence1": [split], "sentence2": ["b"], "score": [score]}).to_parquet(
            str(folder / f"{split}-00000-of-00001.parquet"))
    found = source("stsb", f"data.path={tmp_path / 'stsb'}")
    assert rows(found, "pair_score") == [("train", "b", 0.76)]
    assert rows(found, "pair_score", "dev") == [("validation", "b", 1.0)]


def test_any_set_of_the_hub(hub_folder: Path) -> None:
    found = source("hub", f"data.path={hub_folder}", "data.subset=pair-class", "data.pair_label=neutral")
    assert found.shapes() == ["pair_class", "triplet", "pair"]
    assert rows(found, "pair") == [("train p", "unsaid")]
    assert len(rows(found, "triplet")) == 2


def test_bad_rows_of_the_hub_are_named(hub_folder: Path) -> None:
    from datasets import Dataset

    Dataset.from_dict({"anchor": ["a", "b"], "positive": ["c", None]}).to_parquet(
        str(hub_folder / "pair" / "train-00000-of-00001.parquet"))
    hub = "hub", f"data.path={hub_folder}", "data.subset=pair"
    with pytest.raises(UserError, match=r"all-nli/pair/train, line 3 \(row 2\): column positive: is null"):
        source(*hub).read("pair", "train")
    skipping = source(*hub, "data.on_bad_row=skip")
    assert rows(skipping, "pair") == [("a", "c")]
    assert [len(bad) for bad in skipping.rejected().values()] == [1]


NLI = ("entailment", "neutral", "contradiction", "-")


@pytest.mark.parametrize(("name", "files"), [
    ("snli", ("snli_1.0_train.jsonl", "snli_1.0_dev.jsonl", "snli_1.0_test.jsonl")),
    ("mnli", ("multinli_1.0_train.jsonl", "multinli_1.0_dev_matched.jsonl", "multinli_1.0_dev_mismatched.jsonl"))])
def test_snli_and_multinli_as_released(name: str, files: tuple[str, ...], tmp_path: Path) -> None:
    for file in files:
        lines = [{"annotator_labels": [label], "gold_label": label, "pairID": f"{n}", "sentence1": f"premise of {file}",
                  "sentence1_parse": "(ROOT)", "sentence2": f"said {n}"} for n, label in enumerate(NLI)]
        jsonl(tmp_path / file, *lines)
        tsv(tmp_path / file.replace("jsonl", "txt"), list(lines[0]), *([str(cell) for cell in line.values()]
                                                                       for line in lines))
    (tmp_path / "README.txt").write_text("released")
    found = source(name, f"data.path={tmp_path}")
    assert [file.name for file in found.paths()] == list(files[:2])
    assert rows(found, "pair_class", "dev") == [(f"premise of {files[1]}", f"said {n}", label)
                                                for n, label in enumerate(NLI[:3])]
    assert rows(found, "triplet") == [(f"premise of {files[0]}", "said 0", "said 2")]
    text, dev = tmp_path / files[0].replace("jsonl", "txt"), tmp_path / files[1]
    one = source(name, f"data.path={text}", f"data.dev_path={dev}")
    assert len(rows(one, "pair_class")) == 3


def test_sick_gives_its_score_and_its_label(tmp_path: Path) -> None:
    header = ("pair_ID", "sentence_A", "sentence_B", "entailment_label", "relatedness_score", "SemEval_set")
    tsv(tmp_path / "SICK.txt", header, ("1", "a", "b", "NEUTRAL", "4.5", "TRAIN"),
        ("2", "c", "d", "ENTAILMENT", "5", "TRIAL"), ("3", "e", "f", "CONTRADICTION", "1", "TEST"))
    (tmp_path / "readme.txt").write_text("SICK")
    found = source("sick", f"data.path={tmp_path}")
    assert found.shapes() == ["pair_class", "triplet", "pair", "pair_score"]
    assert rows(found, "pair_class") == [("a", "b", "neutral")]
    assert rows(found, "pair_score") == [("a", "b", 0.875)]
    assert rows(found, "pair_score", "dev") == [("c", "d", 1.0)]
    semeval = tmp_path / "semeval"
    header = ("pair_ID", "sentence_A", "sentence_B", "relatedness_score", "entailment_judgment")
    tsv(semeval / "SICK_train.txt", header, ("1", "a", "b", "1", "NEUTRAL"))
    tsv(semeval / "SICK_trial.txt", header, ("1", "c", "d", "3", "CONTRADICTION"))
    found = source("sick", f"data.path={semeval}")
    assert rows(found, "pair_class", "dev") == [("c", "d", "contradiction")]
    assert rows(found, "pair_score") == [("a", "b", 0.0)]


def test_a_split_column_that_names_no_dev_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,part\na,x,train\nb,y,test\n")
    found = source("file", f"data.path={tmp_path / 'a.csv'}", "data.split_column=part")
    with pytest.raises(UserError, match=r"a\.csv \(dev\): column part: no row is dev or .*; it holds test, train"):
        found.read("labelled_text", "dev")
    with pytest.raises(UserError, match="no column 'parts'; did you mean 'part'"):
        source("file", f"data.path={tmp_path / 'a.csv'}", "data.split_column=parts").read("labelled_text", "train")


BINARY = {  # name: header, a row of label 0, one of label 1, and the positive's two texts
    "qqp": (("id", "qid1", "qid2", "question1", "question2", "is_duplicate"), ("0", "1", "2", "how", "what?", "0"),
            ("1", "3", "4", "why", "why so", "1"), "duplicate"),
    "mrpc": (("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"), ("0", "1", "2", "how", "what?"),
             ("1", "3", "4", "why", "why so"), "paraphrase"),
}


@pytest.mark.parametrize("name", BINARY)
def test_glue_paraphrases_serve_every_loss_on_pairs(name: str, tmp_path: Path) -> None:
    header, other, same, label = BINARY[name]
    tsv(tmp_path / "train.tsv", header, other, same)
    tsv(tmp_path / "dev.tsv", header, same)
    tsv(tmp_path / "test.tsv", ("index", *header[1:]), other)
    found = source(name, f"data.path={tmp_path}")
    assert found.shapes() == ["pair_class", "pair", "pair_score"]
    assert rows(found, "pair_class") == [("how", "what?", "different"), ("why", "why so", label)]
    assert rows(found, "pair_score") == [("how", "what?", 0.0), ("why", "why so", 1.0)]
    assert rows(found, "pair") == [("why", "why so")]


@pytest.mark.parametrize(("name", "first", "second"), [("rte", "sentence1", "sentence2"),
                                                       ("qnli", "question", "sentence")])
def test_glue_entailment(name: str, first: str, second: str, tmp_path: Path) -> None:
    for split in ("train", "dev"):
        tsv(tmp_path / f"{split}.tsv", ("index", first, second, "label"), ("0", "a", "b", "not_entailment"),
            ("1", "c", "d", "entailment"))
    found = source(name, f"data.path={tmp_path}")
    assert found.shapes() == ["pair_class", "pair"]
    assert rows(found, "pair", "dev") == [("c", "d")]


def test_glue_mnli(tmp_path: Path) -> None:
    for file in ("train", "dev_matched", "dev_mismatched"):
        tsv(tmp_path / f"{file}.tsv", ("index", "sentence1", "sentence2", "gold_label"),
            ("0", f"a {file}", "b", "neutral"))
    assert rows(source("mnli", f"data.path={tmp_path}"), "pair_class", "dev") == [("a dev_matched", "b", "neutral")]


def test_clue_nli(tmp_path: Path) -> None:
    for file in ("train.50k", "train.10k", "dev"):
        jsonl(tmp_path / f"{file}.json", *({"level": "easy", "sentence1": f"前提 {file}", "sentence2": f"假设{n}",
                                            "label": label, "label0": label} for n, label in enumerate(NLI)))
    found = source("ocnli", f"data.path={tmp_path}")
    assert rows(found, "pair_class") == [("前提 train.50k", f"假设{n}", label) for n, label in enumerate(NLI[:3])]
    jsonl(tmp_path / "train.json", {"sentence1": "一", "sentence2": "二", "label": "neutral"})
    assert rows(source("cmnli", f"data.path={tmp_path}"), "pair_class") == [("一", "二", "neutral")]


def test_clue_pairs_and_titles(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        jsonl(tmp_path / "afqmc" / f"{split}.json",
              {"sentence1": "花呗能关吗", "sentence2": "怎么关花呗", "label": "1"},
              {"sentence1": "一", "sentence2": "二", "label": "0"})
        jsonl(tmp_path / "tnews" / f"{split}.json",
              {"label": "108", "label_desc": "news_edu", "sentence": "上课时学生手机响", "keywords": ""})
        jsonl(tmp_path / "iflytek" / f"{split}.json", {"label": "11", "label_des": "薅羊毛", "sentence": "领券"})
    found = source("afqmc", f"data.path={tmp_path / 'afqmc'}")
    assert rows(found, "pair_score", "dev") == [("花呗能关吗", "怎么关花呗", 1.0), ("一", "二", 0.0)]
    assert rows(found, "pair") == [("花呗能关吗", "怎么关花呗")]
    for name, expected in {"tnews": ("上课时学生手机响", "news_edu"), "iflytek": ("领券", "薅羊毛")}.items():
        assert rows(source(name, f"data.path={tmp_path / name}"), "labelled_text") == [expected]


def test_labels_get_names_or_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("premise,hypothesis,label\na,b,yes\nc,d,no\ne,f,?\ng,h,x\n")
    file = tmp_path / "a.csv"
    given = f"data.path={file}", f"data.dev_path={file}", "data.labels={yes: same, no: other, ?: null}"
    with pytest.raises(UserError, match=r"line 5 \(row 4\), column label: label 'x' is not one of yes, no, \?"):
        source("file", *given).read("pair_class", "train")
    found = source("file", *given, "data.on_bad_row=skip", "data.pair_label=same")
    assert rows(found, "pair_class") == [("a", "b", "same"), ("c", "d", "other")]
    assert rows(found, "pair") == [("a", "b")]
    with pytest.raises(UserError, match=r"data\.labels:? is 'yes'; give a list"):
        source("file", *given[:2], "data.labels=yes")


def test_a_named_set_trains_as_typed(command: Command, tmp_path: Path) -> None:
    allnli(tmp_path / "AllNLI.tsv.gz", groups=30)
    done = command("train", "loss=mnrl", "data=allnli", "data.path=AllNLI.tsv.gz", "data.reverse=true", *TINY,
                   "loop.max_steps=2", "hydra.run.dir=run")
    assert done.code == 0, done.err
    assert "60 training rows (triplet), 30 for dev" in done.err


def test_what_is_not_here_says_how_to_get_it_before_torch(tmp_path: Path) -> None:
    code = """
import sys
from sentence_forge.train.cli import main
try:
    main()
finally:
    heavy = {"torch", "datasets", "sentence_transformers"} & set(sys.modules)
    assert not heavy, heavy
"""
    environment = {"SENTENCE_FORGE_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code, "data=allnli"], env=environment | {"PYTHONPATH": str(ROOT)},
                          cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: data=allnli: sentence-transformers/all-nli: is not in the cache of datasets")
    assert "data.path=" in done.stderr
    assert done.stderr.count("\n") == 1
