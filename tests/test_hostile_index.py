"""An index that is damaged, or was made by somebody who means harm: refused in a line, and nothing else is touched."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import WordEncoder, answers_equal_brute_force, build, titles_like
from faults import end_at_last

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.manifests import sealed, unsealed
from sentence_forge.search.codes import sub_quantisers
from sentence_forge.search.fast import FastIndex
from sentence_forge.search.index import Index
from sentence_forge.search.segments import segment_folder, text_hashes, write_segment
from sentence_forge.search.verify import verify

ROWS, DIM = 60, 32
TITLES = titles_like(ROWS)


def reseal(folder: Path, **changed: object) -> None:
    """Let the manifest fit whatever the files hold now."""
    path = folder / "manifest-1.json"
    about = unsealed(path) | changed
    del about["sha256"]
    for name in about["files"]:
        data = (folder / name).read_bytes()
        about["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(sealed(about), encoding="utf-8")


def write_numbers(offset: int, form: str, value: int) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        data = bytearray(file.read_bytes())
        struct.pack_into(form, data, offset, value)
        file.write_bytes(data)
    return change


def another(factory: str, rows: int = ROWS, dim: int = DIM) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        vectors = np.random.default_rng(1).standard_normal((max(rows, ROWS), dim), np.float32)
        index.train(vectors)
        index.add(vectors[:rows])
        faiss.write_index(index, str(file))
    return change


def on_disk(file: Path) -> None:
    """Lists that lie in a file of somebody else's, which FAISS would resize as it opens this one."""
    index = faiss.index_factory(DIM, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT)
    vectors = np.random.default_rng(1).standard_normal((ROWS, DIM), np.float32)
    index.train(vectors)
    lists = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(file.parent.parent / "victim"))
    index.replace_invlists(lists)
    index.add(vectors)
    faiss.write_index(index, str(file))
    (file.parent.parent / "victim").write_text("precious\n" * 10)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "index"
    build(folder, TITLES, fast_from=40)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "index")


@pytest.mark.parametrize("change", [
    write_numbers(8, "<q", 10**12), write_numbers(8, "<q", ROWS + 1), write_numbers(8, "<q", -1),
    write_numbers(4, "<i", 100_000), another("PQ16x4fs", 10), another("PQ4x4fs", ROWS, 8), another("HNSW8,Flat"),
    another("PQ8x4fs"), on_disk, lambda file: file.write_bytes(b"IxPQ" + bytes(5000)),
    lambda file: file.write_bytes(b""), lambda file: file.write_bytes(file.read_bytes()[:-1]),
    write_numbers(69, "<I", 0x7FC00000),  # a centroid that is NaN
])
def test_another_fast_index_is_named_and_every_vector_scanned(change: Callable[[Path], None], folder: Path,
                                                              caplog: pytest.LogCaptureFixture) -> None:
    with Index.open(folder, WordEncoder()) as index:
        right = index.search(["storm report 7"], exact=True)
    change(folder / "index-1.faiss")
    reseal(folder)
    with Index.open(folder, WordEncoder()) as index:
        assert index.search(["storm report 7"]) == index.search(["storm report 7"]) == right
    assert len(caplog.messages) == 1 and "index-1.faiss: is not a fast index of these vectors" in caplog.text
    (problem,) = verify(folder)
    assert problem.startswith(f"{folder / 'index-1.faiss'}: is not a fast index")
    build(folder, TITLES[1:], fast_from=40)
    victim = folder.parent / "victim"
    assert not victim.exists() or victim.read_text() == "precious\n" * 10
    with Index.open(folder, WordEncoder()) as index:
        assert index.fast is not None and list(index.titles) == TITLES[1:]
    assert verify(folder) == [problem]  # of the generation that is left to fall back on


@pytest.mark.parametrize("dim", [1, 2, 15, 32, 97])
def test_the_frame_is_that_of_faiss_for_any_dimension(dim: int, tmp_path: Path) -> None:
    vectors = np.random.default_rng(dim).standard_normal((77, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    another(f"PQ{sub_quantisers(dim)}x4fs", 77, dim)(tmp_path / "file")
    assert FastIndex.load(tmp_path / "file", vectors, {"k_factor": 20}).codes.ntotal == 77


def fuzz(folder: Path, count: int, seed: int = 0) -> int:
    """Search with ``count`` changed FAISS files, each in a fork of its own group; return how many were taken for ours.

    Raises:
        AssertionError: a search ended otherwise than with hits or a ``UserError``, or a file was touched.
    """
    vectors = np.load(folder / "vectors-1.npy")
    intact = (folder / "index-1.faiss").read_bytes()
    about = unsealed(folder / "manifest-1.json")["fast"]
    around, taken = sorted(folder.parent.rglob("*")), 0
    for first in range(0, count, 100):
        child = os.fork()
        if not child:  # a crash must be seen, not felt
            status = 255
            try:
                end_at_last()
                faiss.omp_set_num_threads(1)
                status = sum(_one(folder, vectors, about, intact, random.Random(f"{seed} {number}"))
                             for number in range(first, min(first + 100, count)))
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert 0 <= status <= 100, f"files {first} to {first + 99}: exit status {status}"
        taken += status
    assert sorted(folder.parent.rglob("*")) == around
    return taken


def _one(folder: Path, vectors: np.ndarray, about: dict, intact: bytes, draw: random.Random) -> bool:
    data = bytearray(intact)
    for _ in range(draw.choice((1, 1, 2, 4))):
        data[draw.randrange(min(len(data), 400) if draw.random() < 0.8 else len(data))] = draw.randrange(256)
    if draw.random() < 0.1:
        del data[draw.randrange(len(data)):]
    try:
        fast = FastIndex.load(folder / "none", vectors, about, np.frombuffer(bytes(data), np.uint8))
    except UserError:
        return False
    scores, rows = fast.search(vectors[:3].copy(), 10)
    assert np.isfinite(scores).all() and rows.min() >= 0 and rows.max() < len(vectors)
    return True


def test_no_changed_fast_index_crashes_or_touches_a_file(folder: Path) -> None:
    assert 0 < fuzz(folder, 300) < 300


def change_rows(file: Path, *columns: str, **changed: Sequence) -> None:
    table = pq.read_table(file)
    for name, values in changed.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table.select(columns or table.column_names), file)


@pytest.mark.parametrize(("change", "about", "said"), [
    (lambda f: (f / "vectors-1.npy").write_bytes(b"\x93NUMPY" + bytes(200)), {}, "vectors-1.npy: damaged"),
    (lambda f: (f / "vectors-1.npy").write_bytes(b"PK\3\4" + bytes(200)), {}, "vectors-1.npy: damaged"),
    (lambda f: (f / "vectors-1.npy").write_bytes(b""), {}, "vectors-1.npy: "),
    (lambda f: np.save(f / "vectors-1.npy", np.ones((ROWS, DIM))), {}, "float64 (60, 32), but the manifest says"),
    (lambda f: np.save(f / "vectors-1.npy", np.ones(DIM, np.float32)), {}, "holds float32 (32,)"),
    (lambda f: np.save(f / "vectors-1.npy", np.ones((3, DIM), np.float32)), {}, "holds float32 (3, 32)"),
    (lambda f: (f / "rows-1.parquet").write_bytes(b"PAR1" + bytes(99) + b"PAR1"), {}, "rows-1.parquet: damaged"),
    (lambda f: change_rows(f / "rows-1.parquet", "id", "sha"), {}, "rows-1.parquet: damaged"),
    (lambda f: change_rows(f / "rows-1.parquet", title=list(range(ROWS))), {}, "rows-1.parquet: damaged"),
    (lambda f: change_rows(f / "rows-1.parquet", title=[None, *TITLES[1:]]), {}, "rows-1.parquet: damaged"),
    (lambda f: None, {"rows": 10**6}, "rows-1.parquet: damaged"),
    (lambda f: None, {"rows": "many"}, "is not the manifest of this generation"),
    (lambda f: None, {"fast": {"k_factor": -1}}, "is not the manifest of this generation"),
    (lambda f: None, {"fast": [1]}, "is not the manifest of this generation"),
    (lambda f: None, {"fingerprint": None}, "is not the manifest of this generation"),
])
def test_files_that_hold_something_else_are_refused_in_a_line(
        change: Callable[[Path], object], about: dict, said: str, folder: Path) -> None:
    change(folder)
    reseal(folder, **about)
    with pytest.raises(UserError) as raised:
        Index.open(folder, WordEncoder())
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert any(said in problem for problem in verify(folder))


def test_a_manifest_names_no_file_elsewhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    about = unsealed(folder / "manifest-1.json")
    reseal(folder, files=about["files"] | {"../victim": {}})
    with pytest.raises(UserError, match="is not the manifest of this generation"):
        Index.open(folder)


# --- links --------------------------------------------------------------------------------------------------------


def thesis(tmp_path: Path) -> dict[Path, str]:
    for chapter in ("1", "2"):
        (tmp_path / "thesis" / chapter).mkdir(parents=True)
        (tmp_path / "thesis" / chapter / "text").write_text("precious")
    return all_files(tmp_path / "thesis")


def all_files(folder: Path) -> dict[Path, str]:
    return {file: file.read_text() if file.is_file() else "" for file in folder.rglob("*")}


def test_segments_that_is_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    before = thesis(tmp_path)
    (folder / "segments").symlink_to("../thesis")
    with pytest.raises(UserError, match="segments: is a link, and would be written to; remove it"):
        build(folder, TITLES[1:])
    assert all_files(tmp_path / "thesis") == before


@pytest.mark.parametrize("name", [
    "segments/{segment}", "segments/.tmp-x-1", ".tmp-segments", "vectors-2.npy", "rows-2.parquet", "index-2.faiss",
    "rejected-2.csv", "rejected.csv", ".tmp-rejected-{pid}", ".tmp-manifest-2.json-{pid}", "manifest-2.json",
    "vectors-9.npy", ".tmp-.tmp-rejected-{pid}-{pid}", ".tmp-rejected-2.csv-{pid}", ".tmp-rejected-99999999",
])
@pytest.mark.parametrize("target", ["thesis", "thesis/1/text"])
def test_no_link_is_followed_where_an_index_writes_and_removes(name: str, target: str, folder: Path,
                                                               tmp_path: Path) -> None:
    before = thesis(tmp_path)
    new = [*TITLES[1:], "storm"]
    segment = segment_folder(folder, text_hashes(["storm"])).name
    link = folder / name.format(segment=segment, pid=os.getpid())
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / target)
    build(folder, new, fast_from=40)
    assert all_files(tmp_path / "thesis") == before
    answers_equal_brute_force(folder, [str(row) for row in range(1, ROWS + 1)], new)


def test_an_index_may_lie_elsewhere_but_not_among_other_files(tmp_path: Path) -> None:
    before = thesis(tmp_path)
    (tmp_path / "index").symlink_to("thesis")
    with pytest.raises(UserError, match="index: is a link to thesis, which holds files that are not ours"):
        build(tmp_path / "index", TITLES)
    assert all_files(tmp_path / "thesis") == before
    (tmp_path / "disk").mkdir()
    (tmp_path / "other").symlink_to("disk")
    for titles in (TITLES, TITLES[1:]):
        build(tmp_path / "other", titles)
    assert (tmp_path / "other").is_symlink()
    answers_equal_brute_force(tmp_path / "other", [str(row) for row in range(1, ROWS)], TITLES[1:])


def test_a_crafted_segment_is_encoded_again(folder: Path) -> None:
    hashes = text_hashes(["storm hits"])
    write_segment(folder, hashes, np.ones((1, DIM), np.float32), "words" * 8)
    segment = segment_folder(folder, hashes)
    for name, content in (("vectors.npy", b"\x93NUMPY"), ("rows.parquet", b"PAR1")):
        (segment / name).write_bytes(content)
    about = unsealed(segment / "manifest.json")
    del about["sha256"]
    for name in about["files"]:
        data = (segment / name).read_bytes()
        about["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (segment / "manifest.json").write_text(sealed(about))
    assert build(folder, ["storm hits"]).seen == ["storm hits"]
    answers_equal_brute_force(folder, ["1"], ["storm hits"])
