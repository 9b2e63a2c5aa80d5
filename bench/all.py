"""The CPU set: every bench that has something to stand beside, into ``bench/results/<kind>``, and the plot.

``python -m bench.all [NAME ...] [--results FOLDER]`` runs all, or those named; three quarters of an hour on two
idle cores, of which ``train`` takes half an hour and goes on where it was cut.
``gpu``, which needs no data, and ``int8`` are run only where they are named. Titles are exported once into
``outputs/bench``, where a later run finds them; remove that folder to export anew. The data is the folder
$SENTENCE_FORGE_DATA. A bench that fails is named at the end; the others run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.results import Results, results_of_this_kind

EXPORTS = Path("outputs", "bench")
CORPORA = {"en": ("news_en_all", 20_000), "zh": ("news_zh_all", 2_000)}
BENCHES: dict[str, Sequence[str]] = {
    "startup": ["startup"],
    "train": ["train"],
    "agreement": ["agreement"],
    "encode_en": ["encode", str(EXPORTS / "en"), "--count", "1000"],
    "encode_zh": ["encode", str(EXPORTS / "zh"), "--count", "1000"],
    "search": ["search", str(EXPORTS / "en")],
    "reindex": ["reindex", str(EXPORTS / "en")],
    "most_similar_pair": ["most_similar_pair"],
    "products": ["products"],
    "checkpoint": ["checkpoint"],
    "intervals": ["intervals"],
    "gpu": ["gpu"],
    "int8": ["int8", str(EXPORTS / "en")],
}
NAMED_ONLY = ("gpu", "int8")


def main() -> int:
    """Run the benches and draw the plot; return how many failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.all", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--results", type=Path, help="folder; bench/results/<kind of machine>")
    given = parser.parse_args()
    names = given.names or [name for name in BENCHES if name not in NAMED_ONLY]
    if unknown := set(names) - set(BENCHES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(BENCHES)}")
    if names != ["gpu"] and not Path(os.environ.get("SENTENCE_FORGE_DATA") or "none").is_dir():
        sys.exit("error: set SENTENCE_FORGE_DATA to the folder of public data")
    results = given.results or results_of_this_kind()
    failed = []
    for name in names:
        module, *arguments = BENCHES[name]
        for language in CORPORA:
            if str(EXPORTS / language) in arguments:
                export(language)
        begun = time.monotonic()
        command = [sys.executable, "-m", f"bench.{module}", *arguments]
        if name == "train":  # keeps its own lines, a case at a time
            code = subprocess.run([*command, "--results", str(results)], check=False).returncode
        else:
            code = record(name, command, results)
        if code:
            failed.append(name)
        sys.stderr.write(f"{name}: {time.monotonic() - begun:.0f} s\n")
    from bench.plot import draw

    sys.stderr.writelines(f"{file}\n" for file in draw(results))
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}\n")
    return len(failed)


def record(name: str, command: Sequence[str], into: Path) -> int:
    """Run a bench, pass its output on, keep its lines in ``<into>/<name>.json``, and return its exit code."""
    results = Results(into / f"{name}.json", " ".join(["python", *command[1:]]))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for row in running.stdout:
            sys.stdout.write(row)
            sys.stdout.flush()
            if row.startswith("{"):
                results.add(json.loads(row))
    return running.returncode


def export(language: str) -> None:
    """Export a corpus of titles by MiniLM, unless that was done before."""
    name, count = CORPORA[language]
    out = EXPORTS / language
    if (out / "manifest.json").is_file():
        return
    corpus = Path(os.environ["SENTENCE_FORGE_DATA"], name, "corpus.csv.gz")
    # without the public data the export measures its encoders on the sample's pairs, which is quicker
    environment = {key: value for key, value in os.environ.items() if key != "SENTENCE_FORGE_DATA"}
    subprocess.run([sys.executable, "-m", "export", "model=minilm", f"corpus={corpus}", f"corpus.limit={count}",
                    f"out={out}"], check=True, env=environment)


if __name__ == "__main__":
    sys.exit(main())
