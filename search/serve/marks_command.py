"""``python -m search marks DIR``: how many marks there are, and files of them to train on and to test with."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import make_folder
from sentence_forge.runtime.process import Parser, run
from sentence_forge.search.display import print_json, print_lines
from sentence_forge.search.generation import index_folder, marks_folder
from sentence_forge.search.serve.judged import held_out, judged, test_file, write
from sentence_forge.search.serve.marks import FILE, Marks


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parse = Parser(prog="python -m search marks", description="Count the marks that people gave on the page of python "
                   "-m search serve, or write them to train on. A fixed tenth of the queries goes into another file, "
                   "to test with.")
    parse.add_argument("dir", metavar="DIR", help="the export's output folder, or its index folder")
    parse.add_argument("--export", metavar="FILE.csv", help="the file to write; one that is there is replaced")
    parse.add_argument("--as", dest="form", choices=("triplets", "pairs"), default="triplets", help="what to write: a "
                       "query, a right hit and a wrong hit for loss=mnrl and triplet, or a query, a hit and a score "
                       "for loss=cosine and cosent (default %(default)s)")
    parse.add_argument("--json", action="store_true", help="print what was found or done as a JSON object")
    return parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 for Ctrl-C."""
    return run(lambda: _marks(parser().parse_args(argv)), logging.WARNING)


def _marks(args: argparse.Namespace) -> None:
    given = Path(args.dir)  # an export whose index is in a database has marks and no index
    folder = given if (given / FILE).is_file() else marks_folder(index_folder(given))
    if not (folder / FILE).is_file():
        raise UserError(f"{args.dir}: has no marks yet; give some on the page of python -m search serve {args.dir}")
    marks = Marks(folder)
    try:
        if args.export is None:
            _count(marks, as_json=args.json)
        else:
            _export(marks, args)
    finally:
        marks.close()


def _count(marks: Marks, *, as_json: bool) -> None:
    counts, found = marks.counts(), judged(marks.all())
    tested = sum(held_out(query) for query in found.queries)
    if as_json:
        print_json({**counts, "queries": len(found.queries), "test_queries": tested, "disputed": found.disputed})
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    print_lines([f"{sum(counts.values()):,} marks ({kinds}) on {len(found.queries):,} queries, {tested:,} of them to "
                 f"test with"])


def _export(marks: Marks, args: argparse.Namespace) -> None:
    file = Path(args.export).expanduser()
    if file.suffix != ".csv":
        raise UserError(f"{args.export}: must end in .csv")
    make_folder(file.parent)
    done, test = write(marks.all(), file, args.form), test_file(file)
    if args.json:
        print_json({"file": str(file), "test_file": str(test), "as": args.form, **done._asdict()})
        return
    print_lines([f"{file}: {done.rows:,} {args.form} of {done.queries:,} queries",
                 f"{test}: {done.test_rows:,} judgements of {done.test_queries:,} queries"])
    if done.one_sided:
        sys.stderr.write(f"{done.one_sided:,} queries have no right or no wrong hit and give no triplet; --as pairs "
                         "takes them, too\n")
    if done.disputed:
        sys.stderr.write(f"{done.disputed:,} texts are left out: as many labellers say one thing as another\n")
    loss = "mnrl" if args.form == "triplets" else "cosine"
    sys.stderr.write(f"train on them: python -m train loss={loss} model={Path(args.dir) / 'model'} data={file}\n"
                     f"test with them: python -m eval model=<run> baseline={Path(args.dir) / 'model'} suite=marks "
                     f"file={test}\n")
