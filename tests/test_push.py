"""Pushing an export to the hub: a fake one on loopback, and what goes wrong, each in one line."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sentence_forge.data_readers.training_hashes import FILE as TRAINING_TEXTS
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.encoders.making.build import from_scratch
from sentence_forge.export.model import write_model
from sentence_forge.runtime.files import write_json

ROOT = Path(__file__).parent.parent


class Hub(ThreadingHTTPServer):
    """As much of the hub as a push speaks to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.refuses: int | None = None
        self.created: dict = {}
        self.files: dict[str, bytes] = {}


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Authorization"] == "Bearer hf_test"
        if self.server.refuses is not None:
            return self._send(self.server.refuses, {"error": "You don't have the rights"})
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            return self._send(200, {"url": f"{self.server.url}/me/news"})
        if self.path == "/api/models/me/news/preupload/main":
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for file in json.loads(body)["files"]]
            return self._send(200, {"files": files})
        if self.path == "/api/models/me/news/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self._send(200, {"success": True, "commitOid": "0" * 40,
                                    "commitUrl": f"{self.server.url}/me/news/commit/0"})
        return self._send(200, {"errors": [], "warnings": []})  # of the card's YAML

    def _send(self, code: int, about: dict) -> None:
        content = json.dumps(about).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "out"
    out.mkdir()
    model = from_scratch(lambda: ["some words", "and more"], vocabulary=50, hidden=8, layers=1, heads=1)
    encoder = Encoder(model)
    write_model(encoder, None, out)
    (out / "model" / TRAINING_TEXTS).write_bytes(b"hashes")
    write_json(out / "manifest.json", {"state": "finished", "fingerprint": encoder.fingerprint, "onnx": {}})
    return out


def export(*arguments: str, endpoint: str = "http://127.0.0.1:9", token: str | None = "hf_test", offline: str = "0",
           home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": offline, "HF_HOME": str(home)}
    environment.pop("HF_TOKEN", None)
    if token:
        environment["HF_TOKEN"] = token
    done = subprocess.run([sys.executable, "-m", "export", *arguments], cwd=ROOT, env=environment, text=True,
                          capture_output=True, check=False, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_the_folder_and_its_card_arrive(exported: Path, hub: Hub, tmp_path: Path) -> None:
    done = export("only=push", f"out={exported}", "push=me/news", endpoint=hub.url, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert hub.created == hub.created | {"name": "news", "organization": "me"}
    assert hub.created.get("private", hub.created.get("visibility")) in (True, "private")  # by the client's version
    here = {file.relative_to(exported / "model").as_posix(): file.read_bytes()
            for file in (exported / "model").rglob("*") if file.is_file() and file.name != TRAINING_TEXTS}
    card = here.pop("README.md").decode()
    assert hub.files.pop("README.md").decode() == card.replace('"this folder"', '"me/news"') != card
    assert hub.files == here
    assert done.stderr.index("model.safetensors") < done.stderr.index("pushed: ")  # what goes is said first
    assert f"pushed: {hub.url}/me/news" in done.stderr and f"without {TRAINING_TEXTS}" in done.stderr


def test_a_dry_run_only_says_it(exported: Path, hub: Hub, tmp_path: Path) -> None:
    done = export("only=push", f"out={exported}", "push=me/news", "push_dry_run=true", "push_private=false",
                  endpoint=hub.url, token=None, offline="1", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "model.safetensors" in done.stderr and "would go to" in done.stderr and "PUBLIC if it is new" in done.stderr
    assert not hub.created and not hub.files


def test_what_goes_wrong_is_one_line_and_loses_nothing(exported: Path, hub: Hub, tmp_path: Path) -> None:
    before = sorted(file.name for file in exported.rglob("*"))
    push = ["only=push", f"out={exported}", "push=me/news"]
    hub.refuses = 403
    for done, said in (
        (export(*push, endpoint=hub.url, home=tmp_path), "try again by python -m export only=push"),
        (export(*push, home=tmp_path), "try again by python -m export only=push"),
        (export(*push, token=None, home=tmp_path), "hf auth login"),
        (export(*push, offline="1", home=tmp_path), "HF_HUB_OFFLINE"),
        (export("model=minilm", f"out={tmp_path / 'new'}", "push=not a name", home=tmp_path), "give push="),
        (export("only=push", f"out={exported}", home=tmp_path), "push: is needed"),
        (export("only=push", f"out={tmp_path}", "push=me/news", home=tmp_path), "no manifest"),
        (export(*push, "model=minilm", home=tmp_path), "only=push takes the model"),
    ):
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: ") and done.stderr.count("error: ") == 1, done.stderr
    assert sorted(file.name for file in exported.rglob("*")) == before and not (tmp_path / "new").exists()
