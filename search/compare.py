"""``python -m search.compare NEW OLD``: what another model finds in a corpus, as lines, JSON and a page."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.process import Parser, run
from sentence_forge.search.display import print_json, print_lines, terminal_width
from sentence_forge.search.queries import read_queries

if TYPE_CHECKING:
    from sentence_forge.search.index import Index

_SHOWN = 5  # queries in the terminal; the page has all


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parse = Parser(prog="python -m search.compare", description="Ask two indexes of one corpus the same queries, and "
                   "show which hits entered, left or moved.")
    parse.add_argument("new", metavar="NEW", help="an export's output folder, or its index folder")
    parse.add_argument("old", metavar="OLD", help="the one to compare it with")
    parse.add_argument("query", metavar="QUERY", nargs="?", help="a query, or a file of queries, one a line; without "
                       "it titles of NEW are drawn")
    parse.add_argument("-k", type=int, metavar="N", default=10, help="hits a query (default %(default)s)")
    parse.add_argument("--queries", metavar="FILE", help="read queries from FILE, one a line (UTF-8; - is stdin)")
    parse.add_argument("--exact", action="store_true", help="scan every vector instead of asking the fast index")
    parse.add_argument("--json", action="store_true", help="print one JSON object a query")
    parse.add_argument("--html", metavar="FILE", help="the page to write, in the place of one that is there (default: "
                       "changes.html in a new folder below outputs/compare)")
    return parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 for Ctrl-C."""
    return run(lambda: _compare(parser().parse_intermixed_args(argv)), logging.WARNING)


def _compare(args: argparse.Namespace) -> None:
    from sentence_forge.search.index import Index

    if args.k < 1:
        raise UserError(f"-k {args.k}: must be 1 or more")
    if args.query is not None and args.queries:
        raise UserError(f"--queries takes no query, but {args.query!r} was given; leave one of them out")
    with Index.open(args.new) as new, Index.open(args.old) as old:
        _show(new, old, args)


def _show(new: Index, old: Index, args: argparse.Namespace) -> None:
    from sentence_forge.runtime.files import make_folder, write_atomic
    from sentence_forge.runtime.locks import new_folder
    from sentence_forge.search.changes import (
        as_json,
        as_lines,
        changes,
        drawn_queries,
        same_rows,
        side_by_side,
        summary,
    )
    from sentence_forge.search.page import page

    file = args.queries or (args.query if args.query and Path(args.query).is_file() else None)
    queries = list(read_queries(file)) if file else [args.query] if args.query else drawn_queries(new)
    if args.html is not None:  # before the work
        if Path(args.html).is_dir():
            raise UserError(f"--html {args.html}: is a folder; name a file in it")
        make_folder(Path(args.html).absolute().parent)
    found = changes(new, old, queries, args.k, exact=args.exact)
    note = "" if same_rows(new, old) else "The two hold other rows; hits are matched by title."
    if not (args.query or args.queries):
        note = f"{len(queries)} titles drawn by chance are the queries. {note}".strip()
    width = terminal_width()
    if args.json:
        for change in found:
            print_json(as_json(change))
    elif width is None:
        print_lines(line for change in found for line in as_lines(change))
    else:
        for change in sorted(found, key=lambda change: change.overlap)[:_SHOWN]:
            print_lines(["", *side_by_side(change, width)])
    html = args.html or f"{new_folder(time.strftime('outputs/compare/%Y-%m-%d_%H-%M-%S'))}/changes.html"
    write_atomic(Path(html), page(found, args.k, args.new, args.old, note))
    sys.stderr.write("\n".join([*([note] if note else []), *summary(found, args.k), f"page: {html}", ""]))


if __name__ == "__main__":
    sys.exit(main())
