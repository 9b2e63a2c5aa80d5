"""``python -m search DIR [QUERY]``: the most similar titles of an index, in the terminal or as JSON lines."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.process import Parser, check_stdout, run
from sentence_forge.search.display import print_json, print_lines, terminal_width
from sentence_forge.search.places import PLACE, is_address, open_index
from sentence_forge.search.queries import batches, read_queries

if TYPE_CHECKING:
    from sentence_forge.search.text_search import TextSearch

_COMMANDS = {"serve": "serve.command", "marks": "serve.marks_command", "check": "serve.check"}
_COMMANDS_NOW = {"--mine": "mine", "--against": "compare"}


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parse = Parser(prog="python -m search", description="Search an exported index by cosine similarity.",
                   epilog="Without a query: one line of standard input each, or a prompt if it is a terminal. See also "
                   "python -m search serve (a page and an API), python -m search.mine (hard negatives to train on) "
                   "and python -m search.compare (what another model finds instead).")
    parse.add_argument("dir", metavar="DIR", help=PLACE)
    parse.add_argument("query", metavar="QUERY", nargs="?", help="what to look for")
    parse.add_argument("-k", type=int, metavar="N", default=10, help="hits a query, or pairs (default %(default)s)")
    parse.add_argument("--exact", action="store_true", help="scan every vector instead of asking the fast index")
    parse.add_argument("--dim", type=int, metavar="N", help="compare the first N numbers of the vectors alone, and "
                       "scan all of them (for models trained with dims=, whose vectors may be cut)")
    parse.add_argument("--filter", metavar="CONDITION", action="append", default=[], help="only rows whose kept column "
                       "meets it, such as source=x or 'date>=2026-01-01'; may be given several times")
    parse.add_argument("--json", action="store_true", help="print one JSON object a line")
    parse.add_argument("--queries", metavar="FILE", help="read queries from FILE, one a line (UTF-8; - is stdin)")
    mode = parse.add_mutually_exclusive_group()
    mode.add_argument("--pairs", action="store_true", help="print the most similar pairs of different titles")
    mode.add_argument("--verify", action="store_true", help="check every file and promise of the index, and "
                      "the export's model")
    parse.add_argument("--model", metavar="FOLDER", help="of a database's index: the export whose model made it, where "
                       "it isn't where the load has noted")
    parse.add_argument("--generation", type=int, metavar="N", help="of a database's index: search the vectors of this "
                       "model; 0 lists all")
    parse.add_argument("--switch", action="store_true", help="with --generation: have everybody search that one")
    parse.add_argument("--repeats", action="store_true", help="with --pairs: count equal titles as pairs too")
    return parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input or a damaged index, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in _COMMANDS:
        return import_module(f"sentence_forge.search.{_COMMANDS[arguments[0]]}").main(arguments[1:])
    for flag, command in _COMMANDS_NOW.items():
        if any(argument.partition("=")[0] == flag for argument in arguments):
            return _forward(arguments, flag, command)
    return run(lambda: _search(_parse(arguments)), logging.WARNING)


def _forward(arguments: list[str], flag: str, command: str) -> int:
    """Run the command that an old flag became: ``DIR --mine OUT.csv`` is ``python -m search.mine DIR OUT.csv``."""
    old = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    old.add_argument("dir", nargs="?")
    old.add_argument(flag, dest="value", nargs="?")
    known, rest = old.parse_known_args(arguments)
    sys.stderr.write(f"{flag} is a command of its own now: python -m search.{command} --help; the flag goes with the "
                     "next release\n")
    return import_module(f"sentence_forge.search.{command}").main([*filter(None, (known.dir, known.value)), *rest])


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    args = parser().parse_intermixed_args(argv)
    if args.k < 1:
        raise UserError(f"-k {args.k}: must be 1 or more")
    mode = next((name for name in ("pairs", "verify") if getattr(args, name)), None)
    if args.query is not None and (args.queries or mode):
        other = "queries" if args.queries else mode
        raise UserError(f"--{other} takes no query, but {args.query!r} was given; leave one of them out")
    if mode and (args.queries or args.dim is not None):
        name = "queries" if args.queries else "dim"
        raise UserError(f"--{name} can't be joined with --{mode}; leave one of them out")
    if args.switch and (not args.generation or mode or args.query is not None or args.queries):
        raise UserError("--switch goes with --generation N, and with no query")
    if (args.generation is not None or args.switch) and not is_address(args.dir):
        raise UserError("--generation: is for an index in a database; a folder has one model")
    if args.repeats and not args.pairs:
        raise UserError("--repeats goes with --pairs only")
    return args


def _search(args: argparse.Namespace) -> None:
    check_stdout()
    if args.switch or args.generation == 0:
        from sentence_forge.search.postgres.generations import listed, switch_to

        print_lines(switch_to(args.dir, args.generation) if args.switch else listed(args.dir))
        return
    if args.verify:
        _verify(args.dir, as_json=args.json)
        return
    with open_index(args.dir, model=args.model, generation=args.generation) as index:
        if args.pairs:
            _pairs(index, args)
        elif args.query is not None:
            _answer(index, [args.query], args)
        elif args.queries or not sys.stdin.isatty():
            for batch in batches(read_queries(args.queries)):
                _answer(index, batch, args)
        else:
            _prompt(index, args)


def _answer(index: TextSearch, queries: Sequence[str], args: argparse.Namespace) -> None:
    """Search and print; a batch's times are shared out evenly among its queries."""
    from sentence_forge.search.display import hits_table, times_line

    index.prepare(exact=args.exact, dim=args.dim)  # loading is not what the times are about
    begun = time.perf_counter()
    vectors = index.encode(queries)
    encoded = time.perf_counter()
    with index.reading():
        found = index.hits(*index.search_vectors(vectors, args.k, exact=args.exact, dim=args.dim, where=args.filter))
        rows = len(index)
    encode_ms = (encoded - begun) * 1000 / len(queries)
    search_ms = (time.perf_counter() - encoded) * 1000 / len(queries)
    width = terminal_width()
    thresholds = index.thresholds if args.dim is None else None  # which are cosines of uncut vectors
    for query, hits in zip(queries, found, strict=True):
        if args.json:
            cut = {} if args.dim is None else {"dim": args.dim}
            marks = [{} if thresholds is None else {"mark": thresholds.of(hit.score)} for hit in hits]
            print_json({"query": query, **cut,
                        "took_ms": {"encode": round(encode_ms, 3), "search": round(search_ms, 3)},
                        "hits": [hit.as_json() | mark for hit, mark in zip(hits, marks, strict=True)]})
        else:
            print_lines([times_line(query, len(hits), rows, encode_ms, search_ms, width),
                         *hits_table(hits, width, thresholds)])


def _pairs(index: TextSearch, args: argparse.Namespace) -> None:
    from sentence_forge.search.display import pairs_table

    pairs, thresholds = index.pairs(args.k, repeats=args.repeats), index.thresholds
    if args.json:
        for pair in pairs:
            print_json(pair._asdict() | ({} if thresholds is None else {"mark": thresholds.of(pair.score)}))
        return
    print_lines(pairs_table(pairs, terminal_width(), thresholds))
    if thresholds is not None:
        same = sum(thresholds.of(pair.score) == "same" for pair in pairs)
        sys.stderr.write(f"{same:,} of these mean the same, from cosine {thresholds.same:.3f} (precision "
                         f"{100 * thresholds.precision:.0f} %, recall {100 * thresholds.recall:.0f} % on "
                         f"{thresholds.measured_on})\n")
    repeated = index.repeated_rows
    if repeated and not args.repeats:
        sys.stderr.write(f"{repeated:,} {'row repeats' if repeated == 1 else 'rows repeat'} an earlier title word for "
                         "word; --repeats counts those pairs too\n")


def _verify(folder: str, *, as_json: bool) -> None:
    from sentence_forge.search.verify import verify

    problems = verify(folder)
    if as_json:
        print_json({"whole": not problems, "problems": problems})
    elif not problems:
        print_lines([f"{folder}: every file, row and vector is as it should be"])
    else:
        print_lines(problems)
    if problems:
        many = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        raise UserError(f"{folder}: {many} found; export the model or index the corpus again")


def _prompt(index: TextSearch, args: argparse.Namespace) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() its editing and history

    sys.stderr.write(f"{len(index):,} titles; type a query, an empty line leaves\n")
    while True:
        try:
            query = input("search> ").strip()
        except EOFError:
            sys.stdout.write("\n")
            return
        if not query:
            return
        try:
            _answer(index, [query], args)
        except UserError as error:
            sys.stderr.write(f"error: {error}\n")
        sys.stdout.flush()
