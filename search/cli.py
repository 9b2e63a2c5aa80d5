"""``python -m search DIR [QUERY]``: top-k by cosine, in the terminal or as JSON lines."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.one_name import drop_short_names

if TYPE_CHECKING:
    from sentence_forge.search.engine import Index
    from sentence_forge.search.marks import Marks

_BATCH = 256


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m search --help")


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parse = _Parser(prog="python -m search", description="Search an exported index by cosine similarity.",
                    epilog="Without a query: one line of standard input each, or a prompt if it is a terminal.")
    parse.add_argument("dir", metavar="DIR", help="the export's output folder, or its index folder")
    parse.add_argument("query", metavar="QUERY", nargs="?", help="what to look for")
    parse.add_argument("-k", type=int, metavar="N", help="hits a query, or pairs (default 10; with --mine 1000)")
    parse.add_argument("--exact", action="store_true", help="scan every vector instead of asking the fast index")
    parse.add_argument("--dim", type=int, metavar="N", help="compare the first N numbers of the vectors alone, and "
                       "scan all of them (loss=matryoshka trains vectors to be cut)")
    parse.add_argument("--json", action="store_true", help="print one JSON object a line")
    parse.add_argument("--queries", metavar="FILE", help="read queries from FILE, one a line (UTF-8; - is stdin)")
    mode = parse.add_mutually_exclusive_group()
    mode.add_argument("--pairs", action="store_true", help="print the most similar pairs of different titles")
    mode.add_argument("--verify", action="store_true", help="check every file and promise of the index")
    mode.add_argument("--mine", metavar="OUT.csv", help="write triplets with hard negatives from this index, for "
                      "python -m train loss=mnrl data=OUT.csv")
    parse.add_argument("--pairs-from", metavar="FILE", help="with --mine: the pairs to find negatives for (anchor, "
                       "positive; or sentence1, sentence2, score; or NLI's columns); without it, the index's own most "
                       "similar titles")
    parse.add_argument("--least-score", type=float, metavar="S", help="with --pairs-from and scores: from which on a "
                       "pair is a positive")
    parse.add_argument("--negatives", type=int, default=1, metavar="N", help="with --mine: a pair (default 1)")
    parse.add_argument("--margin", type=float, default=0.05, metavar="M", help="with --mine: titles whose cosine is "
                       "above (1 - M) times the positive's are taken to be true, too, and left out (default 0.05)")
    parse.add_argument("--range-min", type=int, default=0, metavar="R", help="with --mine: pass over so many of the "
                       "nearest that are left (default 0)")
    parse.add_argument("--range-max", type=int, default=100, metavar="R", help="with --mine: look at so many of the "
                       "nearest titles (default 100)")
    parse.add_argument("--against", metavar="OLD", help="show what this index finds otherwise than OLD; QUERY may be "
                       "a file of queries, and without one titles are drawn")
    parse.add_argument("--html", metavar="FILE", default="search-changes.html",
                       help="with --against: the page to write (default %(default)s)")
    parse.add_argument("--repeats", action="store_true", help="with --pairs: count equal titles as pairs too")
    return parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input or a damaged index, 130 for Ctrl-C."""
    drop_short_names()
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        _run(_parse(argv))
        sys.stdout.flush()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has what it wanted (head, less); let the interpreter's last flush go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    args = parser().parse_intermixed_args(argv)  # DIR --against OLD QUERY: an option between the two
    args.k = (1000 if args.mine else 10) if args.k is None else args.k
    if args.k < 1:
        raise UserError(f"-k {args.k}: must be 1 or more")
    mode = next((name for name in ("pairs", "verify", "mine") if getattr(args, name)), None)
    if args.query is not None and (args.queries or mode):
        other = "queries" if args.queries else mode
        raise UserError(f"--{other} takes no query, but {args.query!r} was given; leave one of them out")
    for name in ("queries", "against"):
        if getattr(args, name) and mode:
            raise UserError(f"--{name} can't be joined with --{mode}; leave one of them out")
    if mode != "mine":
        for name in ("pairs_from", "least_score", "negatives", "margin", "range_min", "range_max"):
            if getattr(args, name) != parser().get_default(name):
                raise UserError(f"--{name.replace('_', '-')} goes with --mine only")
    if args.dim is not None and (mode or args.against):
        raise UserError(f"--dim can't be joined with --{mode or 'against'}; leave one of them out")
    if args.repeats and not args.pairs:
        raise UserError("--repeats goes with --pairs only")
    return args


def _run(args: argparse.Namespace) -> None:
    from sentence_forge.search.engine import Index

    if args.verify:
        _verify(Path(args.dir), as_json=args.json)
        return
    with Index.open(args.dir) as index:
        if args.against:
            with Index.open(args.against) as old:
                _against(index, old, args)
        elif args.pairs:
            _pairs(index, args)
        elif args.mine:
            _mine(index, args)
        elif args.query is not None:
            _answer(index, [args.query], args)
        elif args.queries or not sys.stdin.isatty():
            for batch in _batches(_queries(args.queries)):
                _answer(index, batch, args)
        else:
            _prompt(index, args)


def _answer(index: Index, queries: Sequence[str], args: argparse.Namespace) -> None:
    """Search and print; a batch's times are shared out evenly among its queries."""
    from sentence_forge.search.table import hits_table, times_line

    index.prepare(exact=args.exact, dim=args.dim)  # loading is not what the times are about
    begun = time.perf_counter()
    vectors = index.encode(queries)
    encoded = time.perf_counter()
    found = index.hits(*index.search_vectors(vectors, args.k, exact=args.exact, dim=args.dim))
    encode_ms = (encoded - begun) * 1000 / len(queries)
    search_ms = (time.perf_counter() - encoded) * 1000 / len(queries)
    width = _width()
    marks = index.marks if args.dim is None else None  # which are of whole vectors' cosines
    for query, hits in zip(queries, found, strict=True):
        if args.json:
            cut = {} if args.dim is None else {"dim": args.dim}
            _json({"query": query, **cut, "took_ms": {"encode": round(encode_ms, 3), "search": round(search_ms, 3)},
                   "hits": [hit._asdict() | _mark(marks, hit.score) for hit in hits]})
        else:
            _lines([times_line(query, len(hits), len(index.ids), encode_ms, search_ms, width),
                    *hits_table(hits, width, marks)])


def _mark(marks: Marks | None, score: float) -> dict[str, str]:
    return {} if marks is None else {"mark": marks.of(score)}


def _against(index: Index, old: Index, args: argparse.Namespace) -> None:
    from sentence_forge.runtime.files import write_atomic
    from sentence_forge.search.compare import (
        as_json,
        as_lines,
        changes,
        drawn_queries,
        same_rows,
        side_by_side,
        summary,
    )
    from sentence_forge.search.compare_page import page

    given = args.queries or (args.query if args.query and Path(args.query).is_file() else None)
    queries = list(_queries(given)) if given else [args.query] if args.query else drawn_queries(index)
    found = changes(index, old, queries, args.k, exact=args.exact)
    note = "" if same_rows(index, old) else "The two hold other rows; hits are matched by title."
    if not (args.query or args.queries):
        note = f"{len(queries)} titles drawn by chance are the queries. {note}".strip()
    width = _width()
    if args.json:
        for change in found:
            _json(as_json(change))
    elif width is None:
        _lines(line for change in found for line in as_lines(change))
    else:
        for change in sorted(found, key=lambda change: change.overlap)[:5]:
            _lines(["", *side_by_side(change, width)])
    write_atomic(Path(args.html), page(found, args.k, args.dir, args.against, note))
    sys.stderr.write("\n".join([*([note] if note else []), *summary(found, args.k), f"page: {args.html}", ""]))


def _pairs(index: Index, args: argparse.Namespace) -> None:
    from sentence_forge.search.table import pairs_table

    pairs = index.pairs(args.k, repeats=args.repeats)
    if args.json:
        for pair in pairs:
            _json(pair._asdict() | _mark(index.marks, pair.score))
        return
    _lines(pairs_table(pairs, _width(), index.marks))
    if (marks := index.marks) is not None:
        same = sum(marks.of(pair.score) == "same" for pair in pairs)
        sys.stderr.write(f"{same:,} of these mean the same, from cosine {marks.same:.3f} (precision "
                         f"{100 * marks.precision:.0f} %, recall {100 * marks.recall:.0f} % on {marks.measured_on})\n")
    repeated = index.repeated_rows
    if repeated and not args.repeats:
        sys.stderr.write(f"{repeated:,} {'row repeats' if repeated == 1 else 'rows repeat'} an earlier title word for "
                         "word; --repeats counts those pairs too\n")


def _mine(index: Index, args: argparse.Namespace) -> None:
    from sentence_forge.search.mining import mine, near_duplicates, new_csv, read_pairs, write_triplets

    out = new_csv(args.mine, "--mine")
    pairs = (read_pairs(Path(args.pairs_from), args.least_score) if args.pairs_from
             else near_duplicates(index, args.k))
    found = mine(index, pairs, negatives=args.negatives, margin=args.margin, range_min=args.range_min,
                 range_max=args.range_max, exact=args.exact)
    if not found.rows:
        raise UserError(f"--mine: none of {len(pairs):,} pairs has {args.negatives} negatives left; a smaller --margin "
                        "or a larger --range-max leaves more")
    write_triplets(out, found.rows)
    if args.json:
        _json({"file": str(out), "triplets": len(found.rows), "pairs": len(pairs),
               "false_negatives": found.false_negatives, "without": found.without})
    sys.stderr.write(f"{len(found.rows):,} triplets from {len(pairs):,} pairs; {found.false_negatives:,} titles left "
                     f"out as likely positives, {found.without:,} pairs without enough negatives\n")
    if len({row[0] for row in found.rows}) > 1:  # else nothing could be held out
        sys.stderr.write(f"train on them: python -m train loss=mnrl data={out}\n")


def _verify(folder: Path, *, as_json: bool) -> None:
    from sentence_forge.search.verify import verify

    problems = verify(folder)
    if as_json:
        _json({"whole": not problems, "problems": problems})
    elif not problems:
        _lines([f"{folder}: every file, row and vector is as it should be"])
    else:
        _lines(problems)
    if problems:
        raise UserError(f"{folder}: {len(problems)} problem{'s' * (len(problems) > 1)} found; index the corpus again")


def _prompt(index: Index, args: argparse.Namespace) -> None:
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() its editing and history

    sys.stderr.write(f"{len(index.ids):,} titles; type a query, an empty line leaves\n")
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


def _queries(path: str | None) -> Iterator[str]:
    """Yield the lines of a file, or of standard input; empty ones are left out."""
    if path in (None, "-"):
        yield from _decoded("stdin", sys.stdin.buffer)
        return
    try:
        with Path(path).open("rb") as file:
            yield from _decoded(path, file)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _decoded(name: str, file: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise UserError(f"{name}, line {number}: is not UTF-8; save it as UTF-8") from None
        if text:
            yield text


def _batches(queries: Iterable[str]) -> Iterator[list[str]]:
    queries = iter(queries)
    while batch := list(islice(queries, _BATCH)):
        yield batch


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _json(value: object) -> None:
    _lines([json.dumps(value, ensure_ascii=False)])


def _lines(lines: Iterable[str]) -> None:
    # Bytes, so that a terminal or pipe set to another encoding can't fail on a title.
    sys.stdout.flush()
    sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
    sys.stdout.buffer.flush()
