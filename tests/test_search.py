"""An open index is searched: pairs, queries, cuts, and the command line as typed."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpora import WordEncoder, build, titles_like, unit_vectors

from sentence_forge.encoders.similarity import normalise
from sentence_forge.eval.report.formatting import width_of
from sentence_forge.runtime.errors import UserError
from sentence_forge.search import cli
from sentence_forge.search.display import cut, hits_table, pairs_table, times_line
from sentence_forge.search.index import Index
from sentence_forge.search.pairs import most_similar_pairs

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(("count", "dim", "k"), [(2500, 96, 50), (40, 8, 10_000), (2, 4, 1), (300, 3, 700)])
def test_pairs_are_those_of_brute_force(count: int, dim: int, k: int) -> None:
    vectors = unit_vectors(count, dim)
    rows = np.arange(count)
    scores, left, right = most_similar_pairs(vectors, rows, k)
    cosines = (vectors.astype(np.float64) @ vectors.T)[np.triu_indices(count, 1)]
    np.testing.assert_allclose(scores, np.sort(cosines)[::-1][:k], atol=1e-6)
    assert (left < right).all()
    assert len(set(zip(left.tolist(), right.tolist(), strict=True))) == len(scores)
    np.testing.assert_allclose(scores, np.einsum("nd,nd->n", vectors[left], vectors[right]), atol=1e-6)


def test_pairs_of_many_rows_are_found_cell_by_cell() -> None:
    vectors, draw = unit_vectors(4000, 48), np.random.default_rng(5)
    twins = draw.permutation(4000)[:60].reshape(30, 2)
    vectors[twins[:, 1]] = normalise(vectors[twins[:, 0]] + 0.03 * draw.standard_normal((30, 48)))
    scores, left, right = most_similar_pairs(vectors, np.arange(4000), 30, exact_up_to=1000)
    expected = most_similar_pairs(vectors, np.arange(4000), 30)
    assert {frozenset(pair) for pair in zip(left.tolist(), right.tolist(), strict=True)} == {
        frozenset(pair) for pair in twins.tolist()}
    np.testing.assert_array_equal(scores, expected[0])


def test_pairs_leave_word_for_word_repeats_out_unless_asked(tmp_path: Path) -> None:
    build(tmp_path, ["storm hits coast", "opera opens", "storm hits coast", "storm hits the coast"])
    with Index.open(tmp_path, WordEncoder()) as index:
        best = index.pairs(1)[0]
        assert (best.id1, best.id2) == ("1", "4")
        twin = index.pairs(1, repeats=True)[0]
        assert (twin.id1, twin.id2) == ("1", "3") and twin.score == pytest.approx(1)
        assert index.repeated_rows == 1


def test_queries_that_cannot_be_answered_are_refused(tmp_path: Path) -> None:
    build(tmp_path, ["storm hits", "opera opens"])
    with pytest.raises(UserError, match="another model"):
        Index.open(tmp_path, WordEncoder("other"))
    with Index.open(tmp_path, WordEncoder()) as index:
        for bad in (np.zeros(32), np.full(32, np.nan), np.full(32, np.inf)):
            with pytest.raises(UserError, match="row 0"):
                index.search_vectors(bad, 1)
        with pytest.raises(UserError, match="dimensions"):
            index.search_vectors(np.ones(31), 1)
        with pytest.raises(UserError, match="k=0"):
            index.search(["storm"], 0)
        with pytest.raises(UserError, match="is empty"):
            index.search(["storm", " "])
        with pytest.raises(UserError, match=r"query: is bytes, not a string; decode it first"):
            index.search([b"storm"])
        with pytest.raises(UserError, match=r"query: 'storm \\udcff' holds a lone surrogate"):
            index.search(["storm \udcff"])
        for texts, kind in (("storm", "str"), (None, "NoneType")):
            with pytest.raises(UserError, match=f"texts: takes a list of texts, .* not {kind}"):
                index.search(texts)
        with pytest.raises(UserError, match="k='3': must be a whole number"):
            index.search(["storm"], k="3")
        assert len(index.search(["storm"], k=np.int64(1))[0]) == 1
        assert len(index.search(["storm"], 99)[0]) == 2
        assert index.search([]) == []
    for ask in (lambda: index.search(["storm"]), lambda: index.search_vectors(np.ones(32)), lambda: index.pairs(1)):
        with pytest.raises(UserError, match="the index is closed"):
            ask()
    with pytest.raises(UserError, match="folder: takes an export's folder, not None"):
        Index.open(None)
    with Index.open(tmp_path) as index, pytest.raises(UserError, match="is no export"):
        index.search(["storm"])


def test_a_cut_is_what_brute_force_finds_among_the_first_numbers(tmp_path: Path) -> None:
    titles = titles_like(500)
    build(tmp_path, titles)
    vectors, query = WordEncoder().encode(titles), WordEncoder().encode(["storm election report 7"])[0]
    with Index.open(tmp_path, WordEncoder()) as index:
        for dim in (8, 20, 32):
            cut = normalise(vectors[:, :dim])
            cosines = cut @ (query[:dim] / np.linalg.norm(query[:dim]))
            hits = index.search(["storm election report 7"], 10, dim=dim)[0]
            np.testing.assert_allclose([hit.score for hit in hits], np.sort(cosines)[::-1][:10], atol=1e-6)
            np.testing.assert_allclose([cosines[int(hit.id) - 1] for hit in hits], [hit.score for hit in hits],
                                       atol=1e-6)
        assert index.search(["storm"], 5, dim=8) != index.search(["storm"], 5)
        for dim in (0, 33):
            with pytest.raises(UserError, match=f"dim {dim}: the index's vectors have 32 numbers; give 1 to 32"):
                index.search(["storm"], dim=dim)


def test_a_thread_gets_the_cut_that_it_asked_for_whatever_another_stores(tmp_path: Path) -> None:
    class Crossed(Index):
        """Where a cut is stored another thread stores its own, of 4 numbers, at once."""

        _cut = property(lambda self: self.__dict__.get("last"),
                        lambda self, cut: self.__dict__.update(last=None if cut is None else cut[:, :4]))

    build(tmp_path, titles_like(20))
    with Crossed.open(tmp_path, WordEncoder()) as index:
        assert index.cut(8).shape == (20, 8) and index.cut(4).shape == (20, 4)


def test_open_takes_the_export_folder_too(tmp_path: Path) -> None:
    build(tmp_path / "index", ["storm hits"])
    with Index.open(str(tmp_path), WordEncoder()) as index:
        assert index.search(["storm"])[0][0].id == "1"
        assert index.vectors.dtype == np.float32 and index.vectors.shape == (1, 32)
    with pytest.raises(UserError, match="no such folder"):
        Index.open(tmp_path / "nowhere")


def run(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "search", *arguments], capture_output=True, text=True, input=text,
                          cwd=ROOT, check=False)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an export folder's own encoder be the word encoder: the model itself is tested elsewhere."""
    monkeypatch.setattr("sentence_forge.search.text_search.load_query_encoder",
                        lambda export, fingerprint: WordEncoder())


@pytest.mark.usefixtures("in_process")
def test_cli_json_gives_one_object_a_query(tmp_path: Path, capfd: pytest.CaptureFixture[str],
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "index", ["storm hits", "京津冀 秋冬", "opera opens"])
    assert cli.main([str(tmp_path), "京津冀", "-k", "2", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert set(answer) == {"query", "took_ms", "hits"} and set(answer["took_ms"]) == {"encode", "search"}
    assert answer["query"] == "京津冀"
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2]
    assert answer["hits"][0]["id"] == "2" and answer["hits"][0]["title"] == "京津冀 秋冬"
    (tmp_path / "queries.txt").write_bytes("\ufeffstorm\n\nopera\r\n".encode())
    assert cli.main([str(tmp_path), "--queries", str(tmp_path / "queries.txt"), "--json", "-k1", "--exact"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(line["query"], line["hits"][0]["id"]) for line in lines] == [("storm", "1"), ("opera", "3")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"opera\nstorm\n")))
    assert cli.main([str(tmp_path), "-k1"]) == 0
    shown = capfd.readouterr().out.splitlines()
    assert [line.split("\t")[2:] for line in shown[1::2]] == [["3", "opera opens"], ["1", "storm hits"]]
    assert "encode" in shown[0] and "search" in shown[0] and "3 titles" in shown[0]
    assert cli.main([str(tmp_path), "storm hits", "--dim", "5", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["dim"] == 5 and answer["hits"][0]["id"] == "1"


def test_cli_as_typed(tmp_path: Path) -> None:
    build(tmp_path / "index", ["storm hits coast", "storm hits the coast", "opera opens", "opera opens"])
    pairs = run(str(tmp_path), "--pairs", "-k", "1")
    assert pairs.returncode == 0 and pairs.stdout.split("\t")[1::2] == ["1", "2"]
    assert "1 row repeats" in pairs.stderr
    as_json = json.loads(run(str(tmp_path), "--pairs", "-k", "1", "--json", "--repeats").stdout)
    assert (as_json["id1"], as_json["id2"]) == ("3", "4")
    assert run(str(tmp_path), "--verify").returncode == 0
    cut = run(str(tmp_path), "opera", "--dim", "384")  # refused before an encoder is looked for
    assert (cut.returncode, cut.stderr) == (2, "error: dim 384: the index's vectors have 32 numbers; give 1 to 32\n")
    (tmp_path / "index" / "rejected-1.csv").write_bytes(b"x")
    damaged = run(str(tmp_path), "--verify")
    assert damaged.returncode == 2 and "rejected-1.csv" in damaged.stdout and damaged.stderr.startswith("error: ")


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "required: DIR"),
    (("nowhere", "query"), "nowhere: no such folder"),
    (("tests", "query"), "tests: holds no finished index"),
    (("tests", "-k", "x"), "invalid int value: 'x'"),
    (("tests", "-k", "0"), "-k 0: must be 1 or more"),
    (("tests", "query", "--pairs"), "--pairs takes no query"),
    (("tests", "--pairs", "--dim", "9"), "--dim can't be joined with --pairs"),
    (("tests", "--jsn"), "unrecognized arguments: --jsn"),
])
def test_cli_errors_are_one_line_and_exit_2(arguments: tuple[str, ...], message: str,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


HARM = "\x1b]0;pwned\x07\x1b[2Jstorm \x9b31m\u202egnp.exe\u2028\x85 \u2066end"


@pytest.mark.usefixtures("in_process")
def test_titles_and_queries_steer_no_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build(tmp_path / "index", [HARM, f"{HARM} again"], ids=["1", HARM])
    said = []
    for arguments in (["storm"], [HARM], ["--pairs"], [HARM, "--json"], ["--pairs", "--json"]):
        assert cli.main([str(tmp_path), *arguments]) == 0
        said.append(capfd.readouterr().out)
    assert json.loads(said[-2])["query"] == json.loads(said[-1])["title1"] == HARM
    with Index.open(tmp_path, WordEncoder()) as index:
        for width in (40, 200):
            said += [*hits_table(index.search([HARM])[0], width), *pairs_table(index.pairs(), width),
                     times_line(HARM, 1, 2, 0.1, 0.1, width)]
    for shown in said:
        plain = re.sub(r"\x1b\[[0-2]?m", "", shown)  # bold and dim are ours
        assert "storm" in plain or "pwned" in plain
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", plain), plain


def test_cli_names_the_file_and_line_that_is_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path / "index", ["storm hits"])
    (tmp_path / "queries.txt").write_bytes("storm\n京".encode("gbk"))
    assert cli.main([str(tmp_path), "--queries", str(tmp_path / "queries.txt")]) == 2
    assert "queries.txt, line 2: is not UTF-8" in capsys.readouterr().err


def test_a_query_imports_nothing_heavy(tmp_path: Path) -> None:
    build(tmp_path, titles_like(60), fast_from=50)
    script = (f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n"
              "from sentence_forge.search import cli\n"
              "assert not {'numpy', 'faiss', 'pyarrow'} & set(sys.modules), 'for --help'\n"
              "import numpy as np\nfrom sentence_forge.search.index import Index\n"
              f"index = Index.open({str(tmp_path)!r})\n"
              "index.hits(*index.search_vectors(np.ones(32), 3))\n"
              "heavy = {'torch', 'sentence_transformers', 'transformers', 'pandas', 'datasets', 'scipy'}\n"
              "print(sorted(heavy & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help_is_there() -> None:
    done = run("--help")
    assert done.returncode == 0 and "--exact" in done.stdout and done.stderr == ""


def test_wide_characters_count_as_two_cells() -> None:
    assert width_of("京津冀 PM2.5") == 12
    assert cut("京津冀秋冬大气", 8) == "京津冀…"
    assert width_of(cut("京津冀秋冬大气", 8)) <= 8
    assert cut("short", 8) == "short"
