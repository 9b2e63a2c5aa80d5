"""``python -m search.mine DIR OUT.csv``: triplets with hard negatives from an index, to train on."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.process import Parser, run
from sentence_forge.search.display import print_json
from sentence_forge.search.places import PLACE, open_index


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parse = Parser(prog="python -m search.mine", description="Write triplets with hard negatives from an index, for "
                   "python -m train loss=mnrl data=OUT.csv")
    parse.add_argument("dir", metavar="DIR", help=PLACE)
    parse.add_argument("out", metavar="OUT.csv", help="the file to write")
    parse.add_argument("--pairs-from", metavar="FILE", help="the pairs to find negatives for (anchor, positive; or "
                       "sentence1, sentence2, score; or NLI's columns); without it, the most similar titles of DIR")
    parse.add_argument("--least-score", type=float, metavar="S", help="with --pairs-from and scores: from which on a "
                       "pair is a positive")
    parse.add_argument("-k", type=int, metavar="N", default=1000, help="without --pairs-from: how many of the index's "
                       "pairs (default %(default)s)")
    parse.add_argument("--negatives", type=int, default=1, metavar="N", help="a pair (default %(default)s)")
    parse.add_argument("--margin", type=float, default=0.05, metavar="M", help="titles whose cosine is above (1 - M) "
                       "times the positive's are taken to be positives, too, and left out (default %(default)s)")
    parse.add_argument("--range-min", type=int, default=0, metavar="R", help="pass over so many of the nearest that "
                       "are left (default %(default)s)")
    parse.add_argument("--range-max", type=int, default=100, metavar="R", help="look at so many of the nearest titles "
                       "(default %(default)s)")
    parse.add_argument("--exact", action="store_true", help="scan every vector instead of asking the fast index")
    parse.add_argument("--model", metavar="FOLDER", help="of a database's index: the export whose model made it, where "
                       "it isn't where the load has noted")
    parse.add_argument("--json", action="store_true", help="print what was done as a JSON object")
    return parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 for Ctrl-C."""
    return run(lambda: _mine(parser().parse_intermixed_args(argv)), logging.WARNING)


def _mine(args: argparse.Namespace) -> None:
    from sentence_forge.search.mining import mine, near_duplicates, read_pairs, write_triplets

    if args.k < 1:
        raise UserError(f"-k {args.k}: must be 1 or more")
    out = _new_csv(args.out)
    with open_index(args.dir, model=args.model) as index, index.reading():
        pairs = (read_pairs(Path(args.pairs_from), args.least_score) if args.pairs_from
                 else near_duplicates(index, args.k))
        found = mine(index, pairs, negatives=args.negatives, margin=args.margin, range_min=args.range_min,
                     range_max=args.range_max, exact=args.exact)
    if not found.rows:
        raise UserError(f"none of {len(pairs):,} pairs has {args.negatives} negatives left; a smaller --margin or a "
                        "larger --range-max leaves more")
    write_triplets(out, found.rows)
    if args.json:
        print_json({"file": str(out), "triplets": len(found.rows), "pairs": len(pairs),
                    "false_negatives": found.false_negatives, "without": found.without})
    sys.stderr.write(f"{len(found.rows):,} triplets from {len(pairs):,} pairs; {found.false_negatives:,} titles left "
                     f"out as likely positives, {found.without:,} pairs without enough negatives\n")
    if len({row[0] for row in found.rows}) > 1:  # else nothing could be held out
        sys.stderr.write(f"train on them: python -m train loss=mnrl data={out}\n")


def _new_csv(path: str) -> Path:
    """Return ``path`` as a file that may be written.

    Raises:
        UserError: it is there already, is no ``.csv``, or its folder isn't there.
    """
    file = Path(path).expanduser()
    if file.exists():
        raise UserError(f"{path}: is there already, and would be overwritten; give a new name (pairs to mine for are "
                        f"given as --pairs-from {path})")
    if file.suffix != ".csv":
        raise UserError(f"{path}: must end in .csv")
    if not file.absolute().parent.is_dir():
        raise UserError(f"{path}: its folder isn't there; make it first")
    return file


if __name__ == "__main__":
    sys.exit(main())
