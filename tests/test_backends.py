"""OpenVINO: the same vectors in fp32, taken where it is faster, named by what it made, and quiet about its use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Done
from corpora import titles_like

import sentence_forge as sf
from sentence_forge.encoders.backends import has_openvino
from sentence_forge.encoders.encoder import load_encoder
from sentence_forge.encoders.making.build import from_scratch
from sentence_forge.encoders.onnx import OnnxEncoder
from sentence_forge.export.ray_cluster import _Worker
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.places import open_index

TITLES = [*dict.fromkeys(titles_like(60))]
LONG = [" ".join(TITLES), "", TITLES[0]]
Command = Callable[..., Done]
needs_openvino = pytest.mark.skipif(not has_openvino(),  # found without an import, which would tell its makers
                                    reason="openvino is not installed: pip install 'sentence-forge[openvino]'")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    from_scratch(lambda: TITLES, hidden=64, layers=2, heads=2, vocabulary=200).save_pretrained(
        str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SENTENCE_FORGE_DATA", raising=False)
        sf.export(str(model), out=out)
    return out


@pytest.fixture
def out(exported: Path, tmp_path: Path) -> Path:
    """An export of its own, with no corpus yet."""
    return Path(shutil.copytree(exported, tmp_path / "out"))


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SENTENCE_FORGE_DATA", raising=False)
    file = tmp_path / "titles.csv"
    file.write_text("\n".join(["title", *TITLES]) + "\n", encoding="utf-8")
    return file


def manifest(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text(encoding="utf-8"))


def in_another_process(code: str, *arguments: str, home: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False,
                          cwd=home, timeout=120, env={**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home)})
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_openvino
def test_an_index_by_openvino_holds_fp32_and_is_asked_without_it(command: Command, model: Path, corpus: Path,
                                                                 tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = command("export", f"model={model}", f"corpus={corpus}", f"out={out}", "backend=openvino")
    assert done.code == 0 and "the corpus is encoded by OpenVINO" in done.err, done.err
    about = manifest(out)
    assert about["openvino"]["used"] and about["openvino"]["max_difference"] < 1e-5
    torch = load_encoder(out / "model", device="cpu")
    made = OnnxEncoder(out, backend="openvino").encode([*TITLES, *LONG])  # in bf16 it would be off by 1e-2
    np.testing.assert_allclose(made, torch.encode([*TITLES, *LONG]), atol=1e-5)
    with Index.open(out) as index:
        assert index.fingerprint == f"{about['fingerprint']}-openvino"
        unit = made[:len(TITLES)] / np.linalg.norm(made[:len(TITLES)], axis=1, keepdims=True)
        np.testing.assert_allclose(index.vectors, unit, atol=1e-6)

    answer = in_another_process(
        "import sys; from sentence_forge.search import cli; cli.main(); "
        "assert not {'openvino', 'torch'} & set(sys.modules)", str(out), TITLES[7], "-k", "1", "--json", home=tmp_path)
    (hit,) = json.loads(answer)["hits"]
    assert hit["title"] == TITLES[7] and hit["score"] == pytest.approx(1, abs=1e-5)

    corpus.write_text(corpus.read_text(encoding="utf-8") + "a title that is new\n", encoding="utf-8")
    other = command("export", "only=index", f"corpus={corpus}", f"out={out}", "backend=onnxruntime")
    assert other.code == 2 and "is by OpenVINO; leave backend= out" in other.err, other.err
    done = command("export", "only=index", f"corpus={corpus}", f"out={out}")
    assert done.code == 0 and f"1 titles encoded, {len(TITLES)} reused" in done.err, done.err
    with pytest.raises(UserError, match="the index is fp32 by OpenVINO and the encoder fp32"):
        index_corpus(out / "index", ["1"], [TITLES[0]], OnnxEncoder(out))
    for encoder in (OnnxEncoder(out, backend="openvino"), torch):
        with Index.open(out, encoder) as index:
            assert index.search([TITLES[7]], k=1)[0][0].title == TITLES[7]
    assert command("search", str(out), "--verify").code == 0
    worker = _Worker(out, f"{about['fingerprint']}-openvino", gpu=False)  # of a cluster
    worker.ready(loads=True)
    assert worker._encoder is not None and worker._encoder.fingerprint.endswith("-openvino")


@needs_openvino
def test_several_threads_may_encode_at_a_time(out: Path) -> None:
    encoder = OnnxEncoder(out, backend="openvino")
    expected = encoder.encode([*TITLES, *LONG])
    wrong: list[object] = []

    def encode() -> None:
        try:
            for _ in range(4):
                wrong.extend([1] * int(np.abs(encoder.encode([*TITLES, *LONG]) - expected).max() > 1e-6))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=encode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@needs_openvino
@pytest.mark.parametrize(("gain", "titles", "used"), [(0.0, 1, True), (1e9, 1, False), (0.0, 1000, False)])
def test_auto_takes_it_where_it_is_faster_over_a_corpus_worth_trying(command: Command, out: Path, corpus: Path,
                                                                     monkeypatch: pytest.MonkeyPatch, gain: float,
                                                                     titles: int, used: bool) -> None:
    monkeypatch.setattr("sentence_forge.export.backend.LEAST_GAIN", gain)
    monkeypatch.setattr("sentence_forge.export.backend.LEAST_TITLES", titles)
    done = command("export", "only=index", f"corpus={corpus}", f"out={out}")
    assert done.code == 0, done.err
    about, tried = manifest(out)["openvino"], titles == 1
    assert about["used"] is used and ("titles_per_second" in about) is tried
    assert ("the corpus is encoded by OpenVINO" in done.err) is used
    assert ("the corpus is encoded by ONNX Runtime" in done.err) is (tried and not used)
    with Index.open(out) as index:
        assert index.fingerprint.endswith("-openvino") is used
    monkeypatch.setattr("sentence_forge.export.backend.LEAST_GAIN", 0.0 if gain else 1e9)  # the trial would say other
    done = command("export", "only=index", f"corpus={corpus}", f"out={out}")
    assert done.code == 0 and "encodes" not in done.err and manifest(out)["openvino"] == about, done.err


@needs_openvino
def test_a_database_keeps_it_too(command: Command, out: Path, corpus: Path, url: str) -> None:
    to = ["to=postgres", f"to.url={url}"]
    done = command("export", "only=index", f"corpus={corpus}", f"out={out}", "backend=openvino", *to)
    assert done.code == 0 and "generation 1" in done.err, done.err
    corpus.write_text(corpus.read_text(encoding="utf-8") + "a title that is new\n", encoding="utf-8")
    done = command("export", "only=index", f"corpus={corpus}", f"out={out}", *to)
    assert done.code == 0 and f"1 titles encoded, {len(TITLES)} reused" in done.err, done.err
    with open_index(url) as index:
        assert index.fingerprint.endswith("-openvino") and index.generation == 1
        assert index.search([TITLES[7]], k=1)[0][0].title == TITLES[7]


def test_without_it_one_line_says_what_to_install(command: Command, out: Path, corpus: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    given = ["only=index", f"corpus={corpus}", f"out={out}"]
    done = command("export", *given, "backend=openvino")
    assert done.code == 2 and done.err.count("error:") == 1 and "Traceback" not in done.err
    assert "pip install 'sentence-forge[openvino]'" in done.err and "without backend=" in done.err
    done = command("export", *given)
    assert done.code == 0, done.err
    assert manifest(out)["openvino"] == {"used": False}
    with pytest.raises(UserError, match=r"pip install 'sentence-forge\[openvino\]'"):
        OnnxEncoder(out, backend="openvino")


def test_what_it_cannot_compute_is_refused_before_the_indexing(command: Command, out: Path, corpus: Path) -> None:
    (out / "manifest.json").write_text(json.dumps(manifest(out) | {"onnx": {}}), encoding="utf-8")
    done = command("export", "only=index", f"corpus={corpus}", f"out={out}", "backend=openvino")
    assert done.code == 2 and "backend=openvino: there is no ONNX of this model" in done.err, done.err
    assert not (out / "index").exists()


BF16 = """
import sys, numpy as np
from test_backends import TITLES, _Worker, Index, OnnxEncoder, Path, load_encoder, manifest
out = Path(sys.argv[1])
whole, made = load_encoder(out / "model", device="cpu").encode(TITLES), OnnxEncoder(out, "bf16", "openvino")
assert 1e-4 < np.abs(made.encode(TITLES) - whole).max() < 0.1 and manifest(out)["bf16"]["mean_cosine"] > 0.99
with Index.open(out) as index:
    assert index.fingerprint == made.fingerprint == f"{manifest(out)['fingerprint']}-bf16-openvino"
    assert index.search([TITLES[7]], k=1)[0][0].title == TITLES[7]
    assert not index.encoder.fingerprint.endswith(("-bf16", "-openvino"))
worker = _Worker(out, made.fingerprint, gpu=False)
worker.ready(loads=True)
print("all of it")
"""


@needs_openvino
def test_bf16_is_computed_only_where_it_is_asked_for(model: Path, corpus: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    # In processes of their own: on a virtual machine with AMX, once its tiles had been used here, the next signal that
    # this process sent itself ended it (SIGSEGV while the kernel delivered it).
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-m", "sentence_forge.export", f"model={model}", f"corpus={corpus}",
                           f"out={out}", "backend=openvino", "precision=bf16"], capture_output=True, text=True,
                          check=False, cwd=tmp_path, timeout=120)
    if "does not multiply in bf16" in done.stderr:
        assert done.returncode == 2
        pytest.skip("this processor does not multiply in bf16")
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    assert in_another_process(BF16, str(out), home=tmp_path) == "all of it\n"


@needs_openvino
def test_its_makers_are_told_nothing(tmp_path: Path) -> None:
    said = in_another_process(
        "import sys, threading\n"
        "heard = []\n"
        "sys.addaudithook(lambda event, _: heard.append(event) if event.startswith(('socket.', 'urllib.')) else None)\n"
        "from sentence_forge.encoders.backends import openvino\n"
        "openvino().Core()\n"
        "reporting = [name for name, module in sys.modules.items() if module and 'openvino_telemetry' in name]\n"
        "print(heard, reporting, threading.active_count())", home=tmp_path)
    assert said == "[] [] 1\n" and not list(tmp_path.iterdir())
