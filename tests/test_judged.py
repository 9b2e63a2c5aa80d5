"""A test over one's own queries and judgements: against brute force and scikit-learn, three formats, bad files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import ndcg_score
from test_eval import WordSum

from sentence_forge.encoders.making.build import from_scratch
from sentence_forge.eval.evaluate import evaluate
from sentence_forge.eval.ranking import rank
from sentence_forge.eval.report.report import Report
from sentence_forge.eval.tasks.judged import JudgedRetrieval
from sentence_forge.eval.tasks.marked import marked_measures
from sentence_forge.runtime.errors import UserError

QUERIES = {f"q{number}": f"w{number} w{number + 1}" for number in range(12)}
CORPUS = {f"d{number}": f"w{number} w{number + 7} w{2 * number}" for number in range(40)}
GRADES = {(f"q{query}", f"d{document}"): float((query + document) % 4) for query in range(11)
          for document in (query, query + 1, (query * 5) % 40, 39 - query)}


def write_table(path: Path, rows: list[tuple] | None = None) -> Path:
    rows = rows or [(QUERIES[query], CORPUS[document], f"{grade:g}") for (query, document), grade in GRADES.items()]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("query", "title", "grade"), *rows])
    return path


def write_beir(folder: Path, split: str = "test") -> Path:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, texts in (("corpus", CORPUS), ("queries", QUERIES)):
        lines = [json.dumps({"_id": key, "text": text.split(" ", 1)[1], "title": text.split(" ", 1)[0]}
                            if name == "corpus" else {"_id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{document}\t{grade:g}"
                                             for (query, document), grade in GRADES.items())]
    (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_llama(path: Path, **changed: object) -> Path:
    relevant = {query: [document for (of, document), grade in GRADES.items() if of == query and grade > 0]
                for query in QUERIES}
    about = {"queries": QUERIES, "corpus": CORPUS, "relevant_docs": relevant, "mode": "text"} | changed
    path.write_text(json.dumps(about), encoding="utf-8")
    return path


def by_loops(documents: list[str], grades: Callable[[str, str], float]) -> dict[str, list[float]]:
    encode = WordSum().encode
    found: dict[str, list[float]] = {"ndcg@10": [], "mrr@10": [], "recall@1": [], "recall@10": []}
    for query in QUERIES.values():
        u = encode([query])[0].astype(float)
        scored = [(round(float(u @ v / np.sqrt((u @ u) * (v @ v))), 6), text) for text, v in
                  zip(documents, encode(documents).astype(float), strict=True)]
        order = [text for _, text in sorted(scored, key=lambda pair: (-pair[0], grades(query, pair[1])))]
        worth = [grades(query, text) for text in order]
        if not any(worth):
            continue
        best = sorted(worth, reverse=True)
        found["ndcg@10"].append(sum(grade / np.log2(at + 2) for at, grade in enumerate(worth[:10]))
                                / sum(grade / np.log2(at + 2) for at, grade in enumerate(best[:10])))
        found["mrr@10"].append(next((1 / (at + 1) for at, grade in enumerate(worth[:10]) if grade > 0), 0.0))
        for k in (1, 10):
            found[f"recall@{k}"].append(sum(grade > 0 for grade in worth[:k]) / sum(grade > 0 for grade in worth))
    return found


def test_measures_are_those_of_loops_in_every_format(tmp_path: Path) -> None:
    keys = {text: key for key, text in [*QUERIES.items(), *CORPUS.items()]}

    def grade(query: str, document: str) -> float:
        return GRADES.get((keys[query], keys[document]), 0.0)

    table = write_table(tmp_path / "judged.csv")
    beir, llama = write_beir(tmp_path / "beir"), write_llama(tmp_path / "pairs.json")
    judged = list(dict.fromkeys(CORPUS[document] for _, document in GRADES))
    for path, documents, graded in ((table, judged, grade), (beir, list(CORPUS.values()), grade),
                                    (llama, list(CORPUS.values()), lambda *pair: float(grade(*pair) > 0))):
        row = evaluate(WordSum(), {"mine": JudgedRetrieval(path=str(path))}, None, resamples=200).json["tasks"]["mine"]
        expected = by_loops(documents, graded)
        for measure, values in expected.items():
            assert row[measure] == pytest.approx(np.mean(values), abs=1e-9), (path, measure)
            low, high = row[f"{measure}_ci95"]
            assert low <= row[measure] <= high and low < high
        assert row["n"] == len(expected["ndcg@10"]) < 12 and row["documents"] == len(documents)
        worst = row["missed"][0]
        assert worst["ndcg"] == pytest.approx(min(expected["ndcg@10"]), abs=1e-5) and worst["query"] in keys


def test_ndcg_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    for size in (5, 10, 60):
        queries, documents = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
                              for vectors in (rng.normal(size=(7, 6)), rng.normal(size=(size, 6))))
        grades = rng.integers(0, 4, (7, size)).astype(float)
        grades[:, 0] = 2
        found = rank(queries, documents, lambda chunk, grades=grades: (grades[chunk], None)).measures["ndcg@10"]
        assert found.mean() == pytest.approx(ndcg_score(grades, queries @ documents.T, k=10), abs=1e-9)


@pytest.mark.parametrize(("right", "near"), [(2, 1), (1, None), (5, 2.5)])
def test_near_hits_are_neither_right_nor_wrong(right: float, near: float | None) -> None:
    vectors = np.eye(4)
    marks = [{0: right, 1: 0, 2: near}, {1: right, 3: 0, 0: near}, {2: near, 3: 0}]  # the last has no right hit
    grades = [{document: grade for document, grade in each.items() if grade is not None} for each in marks]
    found = marked_measures(vectors[:3], vectors, grades, np.argsort(-(vectors[:3] @ vectors.T), kind="stable"))
    assert found["average_precision"].tolist() == [1, 1] and len(found["precision@5"]) == 3


def test_a_collapsed_model_and_one_that_knows_roles(tmp_path: Path) -> None:
    class Collapsed(WordSum):
        def encode(self, texts: list[str]) -> np.ndarray:
            return np.ones((len(texts), 8), np.float32)

    class ByRole(WordSum):
        """Finds nothing unless queries are encoded as queries and documents as documents."""

        def role_key(self, role: str | None) -> str:
            return str(role)

        def encode(self, texts: list[str], *, role: str | None = None) -> np.ndarray:
            sign = {"query": 1, "document": 1}.get(str(role), -1)
            return sign * super().encode(texts)

    task = {"mine": JudgedRetrieval(path=str(write_beir(tmp_path / "beir")))}
    collapsed = evaluate(Collapsed(), task, None, resamples=20).json["tasks"]["mine"]
    assert collapsed["ndcg@10"] == collapsed["mrr@10"] == collapsed["recall@10"] == 0
    assert (evaluate(ByRole(), task, None, resamples=20).json["average"]
            == evaluate(WordSum(), task, None, resamples=20).json["average"] > 0.3)


def test_every_measure_is_paired_with_the_baseline(tmp_path: Path) -> None:
    task = {"mine": JudgedRetrieval(path=str(write_beir(tmp_path / "beir")))}
    before = evaluate(WordSum(seed=3), task, None, resamples=300)
    report = Report(evaluate(WordSum(), task, None, resamples=300, baseline=before))
    old = report.json["baseline"]["tasks"]["mine"]
    for name in ("mrr@10", "recall@1", "recall@10", "recall@100"):
        gain = old["also"][name]
        assert gain["delta"] == pytest.approx(report.json["tasks"]["mine"][name] - before.json["tasks"]["mine"][name])
        assert gain["delta_ci95"][0] <= gain["delta"] <= gain["delta_ci95"][1]
    same = evaluate(WordSum(seed=3), task, None, resamples=300, baseline=before).json["baseline"]["tasks"]["mine"]
    assert same["delta"] == 0 and same["also"]["mrr@10"]["delta_ci95"] == [0, 0]
    page = report.save(tmp_path / "out").read_text(encoding="utf-8")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    for form in (page, text):
        assert "nDCG@10" in form and "recall@100" in form and "ueries that miss most" in form


@pytest.mark.parametrize(("rows", "says"), [
    ([("a", "b", "1"), ("a", "c", "x")], r"line 3 .*column grade: 'x' is not a number"),
    ([("a", "b", "1"), ("a", " ", "1")], r"line 3 .*column title: is empty"),
    ([("a", "b", "1"), ("a", "c", "-1")], r"row 2, column grade: -1 is below 0"),
    ([("a", "b", "1"), ("a", "b", "2")], r"row 2: gives 'b' the grade 2 for 'a', an earlier row 1"),
    ([("a", "b", "1"), ("c", "d", "0")], r"1 of 2 queries have a document with a grade above 0"),
])
def test_bad_tables_are_named(tmp_path: Path, rows: list[tuple], says: str) -> None:
    with pytest.raises(UserError, match=r"judged\.csv.*" + says):
        JudgedRetrieval(path=str(write_table(tmp_path / "judged.csv", rows))).read(None)


def test_bad_folders_and_json_are_named(tmp_path: Path) -> None:
    def refuses(says: str, path: Path, **settings: object) -> None:
        with pytest.raises(UserError, match=says):
            JudgedRetrieval(path=str(path), **settings).read(None)

    beir = write_beir(tmp_path / "beir", "dev")
    assert JudgedRetrieval(path=str(beir)).read(None).path == "beir"  # the only judgements there are
    write_beir(tmp_path / "beir", "train")
    refuses(r"there is no test\.tsv; give suite\.mine\.split=; there are: dev, train", beir)
    with (beir / "qrels" / "dev.tsv").open("a") as file:
        file.write("q1\tnowhere\t1\n")
    refuses(r"dev\.tsv, row 43: 'nowhere' is no _id in corpus\.jsonl", beir, split="dev")
    with (beir / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d1", "title": "", "text": "again"}\n')
    refuses(r"corpus\.jsonl, row 41: the _id 'd1' stands twice", beir, split="train")
    (tmp_path / "empty").mkdir()
    refuses(r"empty: a folder of judgements needs corpus\.jsonl", tmp_path / "empty")
    refuses("no such file", tmp_path / "nowhere.csv")
    refuses(r"no column 'relevance'; there are: query, title, grade; say which .*suite\.mine\.columns=",
            write_table(tmp_path / "a.csv"), columns=["query", "title", "relevance"])
    path = tmp_path / "a.json"
    refuses(r"relevant_docs\.q1: 'nowhere' is no key of corpus", write_llama(path, relevant_docs={"q1": ["nowhere"]}))
    refuses(r"relevant_docs\.q99: is no key of queries", write_llama(path, relevant_docs={"q99": ["d1"]}))
    refuses(r"queries\.q1: is no text", write_llama(path, queries={"q1": 3}))
    refuses("needs the objects queries, corpus, relevant_docs", write_llama(path, corpus=[]))
    path.write_text('{"queries": {\n')
    refuses("line 2: is no JSON", path)


def test_as_typed(command: Callable, tmp_path: Path) -> None:
    from_scratch(lambda: [*QUERIES.values(), *CORPUS.values()], hidden=32, layers=1, heads=2).save(str(tmp_path / "m"))
    write_table(tmp_path / "judged.csv")
    write_beir(tmp_path / "beir")
    done = command("eval", "model=m", "baseline=m", "suite=mine", "file=judged.csv", "resamples=50", "output=out")
    assert done.code == 0, done.err
    about = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert about["tasks"]["mine"]["measure"] == "ndcg@10" and about["baseline"]["tasks"]["mine"]["delta"] == 0
    assert "nDCG@10" in done.err
    done = command("eval", "model=m", "suite=mine", "data_dir=beir", "resamples=50", "output=beir-out")
    assert done.code == 0, done.err
    done = command("eval", "model=m", "suite=mine", "data_dir=null", "output=none")
    assert done.code == 2 and "suite=mine: give file=" in done.err
