"""``python -m search serve DIR``: a page and an API over an index."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Sequence

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.process import Parser, run
from sentence_forge.search.places import PLACE, open_index

TOKEN = "SENTENCE_FORGE_TOKEN"


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parse = Parser(prog="python -m search serve", description="Show an index as a page to search and to mark hits on, "
                   "and answer other programs (GET /api has a list). Needs the serve extra.")
    parse.add_argument("dir", metavar="DIR", help=PLACE)
    parse.add_argument("--model", metavar="FOLDER", help="of a database's index: the export whose model made it, where "
                       "it isn't where the load has noted")
    parse.add_argument("--host", default="127.0.0.1", help="the address to listen on (default %(default)s: this "
                       "machine alone)")
    parse.add_argument("--port", type=int, default=8080, help="0 takes a free one (default %(default)s)")
    parse.add_argument("--token", default=os.environ.get(TOKEN) or None, help=f"who asks must give it; needed beyond "
                       f"this machine. Other users see a command's words: ${TOKEN} is safer")
    parse.add_argument("--rate", type=float, default=500, metavar="N", help="requests a second from one address; 0 is "
                       "no limit (default %(default)g)")
    parse.add_argument("--against", metavar="OLD", help="another model's index of the same corpus: where the two "
                       "differ is proposed for marking first")
    parse.add_argument("--work", metavar="FOLDER", default="outputs/serve", help="where trainings that are started on "
                       "the page go (default %(default)s)")
    parse.add_argument("--open", action="store_true", help="show the page in the browser")
    return parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 for Ctrl-C."""
    return run(lambda: _serve(parser().parse_args(argv)))


def _serve(args: argparse.Namespace) -> None:
    if args.token is not None and len(args.token) < 8:
        raise UserError("--token: is too short to keep anybody out; give 8 characters or more")
    if not _is_local(args.host) and args.token is None:
        raise UserError(f"--host {args.host}: others could ask this server; give --token, or set ${TOKEN}")
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port {args.port}: must be 0 to 65535")
    if args.rate < 0:
        raise UserError(f"--rate {args.rate:g}: must be 0 or more")
    try:
        import uvicorn

        from sentence_forge.search.serve.app import make_app
        from sentence_forge.search.serve.guard import Impatient, Limits
    except ModuleNotFoundError as missing:
        raise UserError(f"search serve needs {missing.name}; pip install 'sentence-forge[serve]'") from None
    listening = _listen(args.host, args.port)
    for library in ("uvicorn.error", "faiss.loader"):
        logging.getLogger(library).setLevel(logging.WARNING)
    with listening:
        other = None if args.against is None else open_index(args.against)
        app = make_app(args.dir, model=args.model, token=args.token, limits=Limits(rate=args.rate), other=other,
                       work=args.work)
        config = uvicorn.Config(app, http=Impatient, log_config=None, access_log=False, server_header=False,
                                proxy_headers=False, limit_concurrency=1000, timeout_keep_alive=30,
                                timeout_graceful_shutdown=5)
        address = _address(args.host, listening)
        sys.stderr.write(f"{address}   Ctrl-C ends it\n")
        sys.stderr.flush()
        if args.open:
            import webbrowser

            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[listening])


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=1024)
        # Connections inherit it; without, an answer's second packet would wait 40 ms for the first one's receipt.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, UnicodeError) as error:  # such as of 0.0.0..0, which can be no name
        raise UserError(f"{host}:{port}: can't listen there ({getattr(error, 'strerror', error)}); give "
                        "another --port or --host") from None


def _address(host: str, listening: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listening.getsockname()[1]}/"
