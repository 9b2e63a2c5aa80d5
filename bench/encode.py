"""Encoding titles, from raw strings, beside sentence-transformers' own ``encode``; in turn, wall-clock.

``python -m bench.encode DIR [--count 2000]``: DIR is what ``python -m export corpus=... out=DIR`` wrote.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.lines import interleaved, line, median


def main() -> None:
    """Print titles a second of our torch path, ONNX fp32 and ONNX int8, each with its ratio to the peer."""
    parser = argparse.ArgumentParser(prog="python -m bench.encode", description=__doc__)
    parser.add_argument("export", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    from encoders.encoder import load_encoder
    from encoders.onnx import OnnxEncoder, read_export
    from search.engine import Index

    with Index.open(arguments.export) as index:
        titles = [index.titles[row] for row in range(min(arguments.count, len(index.titles)))]
    encoder = load_encoder(arguments.export / "model", device="cpu")
    arms = {"torch": encoder.encode}
    for precision in read_export(arguments.export)["onnx"]:
        arms[f"onnx {precision}"] = OnnxEncoder(arguments.export, precision).encode
    arms["peer"] = lambda texts: encoder.model.encode(texts, batch_size=32, show_progress_bar=False)
    calls = [lambda arm=arm: arm(titles) for arm in arms.values()]
    interleaved(calls, 1)
    speeds = {name: [len(titles) / taken for taken in times]
              for name, times in zip(arms, interleaved(calls, arguments.repeats), strict=True)}
    for name in list(arms)[:-1]:
        line(f"encode, {name}", median(speeds[name]), "titles/s", peer="sentence-transformers encode, batch 32",
             peer_value=median(speeds["peer"]), spread=[round(min(speeds[name])), round(max(speeds[name]))])


if __name__ == "__main__":
    main()
