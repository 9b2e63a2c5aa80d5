"""Fetching the released files from a server that behaves, breaks off, forgets, or lies."""

from __future__ import annotations

import gzip
import hashlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sentence_forge.data_readers import get_data

ROWS = "".join(f"train\tSNLI\tx\tpremise {n} {hashlib.sha256(str(n).encode()).hexdigest()}\th\tneutral\n"
               for n in range(20_000))
CONTENT = gzip.compress(f"split\tdataset\tfilename\tsentence1\tsentence2\tlabel\n{ROWS}".encode(), mtime=0)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """What the server holds and does, and what it was asked."""

    url = ""

    def __init__(self) -> None:
        self.content = CONTENT
        self.break_after: int | None = None  # bytes of a body
        self.ranges = True
        self.length = True
        self.asked: list[str | None] = []
        self.paths: list[str] = []
        self.gone: list[str] = []  # paths of which it has nothing


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.asked.append(asked)
            state.paths.append(self.path)
            if not self.path.endswith("/AllNLI.tsv.gz") or self.path in state.gone:
                return self.send_error(404)
            begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and state.ranges else 0
            total = len(state.content)
            if begin >= total:
                return self.send_error(416)
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{total - 1}/{total}")
            if state.length:
                self.send_header("Content-Length", str(total - begin))
            self.send_header("ETag", hashlib.sha256(state.content).hexdigest())
            self.end_headers()
            body = state.content[begin:]
            self.wfile.write(body if state.break_after is None else body[: state.break_after])
            return None

        def log_message(self, *_: object) -> None:
            pass

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{serving.server_port}/mirror"
    yield state
    serving.shutdown()
    thread.join()
    serving.server_close()


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command as typed, its folder in ``tmp_path``."""
    monkeypatch.setenv("SENTENCE_FORGE_CACHE", str(tmp_path))

    def typed(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["get_data", *(arguments or ("allnli",)), "--from", server.url])
        code = get_data.main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return typed


def test_a_file_comes_whole_and_is_found_by_its_name(run: Run, server: Server, tmp_path: Path) -> None:
    assert get_data.fetched("allnli") is None or tmp_path not in get_data.fetched("allnli").parents
    code, said = run()
    path = tmp_path / "data" / "AllNLI.tsv.gz"
    assert (code, said) == (0, f"{path}  sha256 {SHA256}\n")
    assert path.read_bytes() == CONTENT
    assert get_data.fetched("allnli") == path
    assert path.with_name("AllNLI.tsv.gz.sha256").read_text() == f"{SHA256}  AllNLI.tsv.gz\n"  # as sha256sum writes it
    assert sorted(file.name for file in path.parent.glob("*")) == [".lock", "AllNLI.tsv.gz", "AllNLI.tsv.gz.sha256"]
    assert run()[0] == 0
    assert len(server.asked) == 1  # what is there is not fetched again


def test_a_broken_connection_goes_on_where_it_stopped(run: Run, server: Server, tmp_path: Path) -> None:
    server.break_after = 100_000
    for part in range(1, 3):
        code, said = run()
        assert code == 2
        assert said.startswith("error: allnli: can't be fetched from http://127.0.0.1") and said.count("\n") == 1
        assert f"broken off after {part}00.0 kB of" in said
    server.break_after = None
    assert run()[0] == 0
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]
    assert (tmp_path / "data" / "AllNLI.tsv.gz").read_bytes() == CONTENT


@pytest.mark.parametrize("gone", [False, True])
def test_a_piece_is_gone_on_with_from_the_mirror_it_came_from(gone: bool, server: Server, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where that is the second one, since the first had nothing."""
    paths = [f"/{name}/AllNLI.tsv.gz" for name in "ab"]
    monkeypatch.setitem(get_data.RELEASES, "allnli", get_data.Release(
        "AllNLI.tsv.gz", tuple(server.url.replace("/mirror", path) for path in paths)))
    server.break_after, server.gone = 100_000, paths[:1] if gone else []
    with pytest.raises(get_data.UserError, match=r"the same command goes on from 100\.0 kB, --from <URL> takes"):
        get_data.fetch("allnli", tmp_path)
    server.break_after, server.gone = None, []
    assert get_data.fetch("allnli", tmp_path).read_bytes() == CONTENT
    assert server.paths == [*paths, paths[1]] if gone else server.paths == [paths[0], paths[0]]
    assert server.asked[-1] == "bytes=100000-"


@pytest.mark.parametrize("change", ["ranges", "content", "shorter"])
def test_a_piece_that_cant_be_gone_on_with_is_fetched_anew(change: str, run: Run, server: Server,
                                                           tmp_path: Path) -> None:
    server.break_after = 100_000
    assert run()[0] == 2
    server.break_after = None
    if change == "ranges":
        server.ranges = False
    else:
        text = b"split\n" * 9 if change == "shorter" else gzip.decompress(CONTENT).replace(b"premise", b"PREMISE")
        server.content = gzip.compress(text)
    assert run()[0] == 0
    assert (tmp_path / "data" / "AllNLI.tsv.gz").read_bytes() == server.content


def test_without_a_length_the_gzip_stream_tells_that_it_was_cut(run: Run, server: Server, tmp_path: Path) -> None:
    server.length, server.break_after = False, 50_000
    code, said = run()
    assert code == 2
    assert "AllNLI.tsv.gz: what came is no whole gzip file" in said
    assert not (tmp_path / "data" / "AllNLI.tsv.gz").exists()
    server.break_after = None
    assert run()[0] == 0


def test_another_file_than_the_expected_is_refused(run: Run, server: Server, tmp_path: Path) -> None:
    code, said = run("allnli", "--sha256", "0" * 64)
    assert (code, SHA256 in said) == (2, True)
    assert not list((tmp_path / "data").glob("AllNLI*"))
    assert run("allnli", "--sha256", SHA256)[0] == 0
    path = tmp_path / "data" / "AllNLI.tsv.gz"
    path.write_bytes(CONTENT[:-1])
    code, said = run()
    assert code == 2
    assert re.fullmatch(rf"error: {path}: its sha256 is \w+, not {SHA256}; remove it and fetch it again\n", said)


def test_what_cant_be_had_is_one_line(run: Run, server: Server) -> None:
    assert run("stsb") == (2, f"error: stsb: can't be fetched from {server.url}/stsbenchmark.tsv.gz (the server says "
                              "404 Not Found)\n")
    assert run("allnlu") == (2, "error: allnlu: no such data set to fetch; did you mean 'allnli'?\n")
    server.url = "http://127.0.0.1:9/mirror"
    assert "refused" in run()[1]
