"""Index a corpus of titles and search it; find near-duplicates; change a title and index again.

``python examples/search_a_corpus.py`` takes about twenty seconds on two cores, offline.
"""

# %% A corpus is a file with a column `title`
import csv

import sentence_forge as sf
from sentence_forge.data_readers.sample import sample_path

MODEL = "minilm"  # or a run, a folder, a hub id
TITLES = sample_path("en", "titles")  # yours: TITLES = Path("titles.csv")

sf.export(MODEL, corpus=TITLES, out="news")

# %% Search it
with sf.Index.open("news") as index:
    for hit in index.search(["interest rates stay where they are"], k=5)[0]:
        print(f"{hit.score:.3f}  {hit.id:>3}  {hit.title}")

    print("\nnear-duplicates")
    for pair in index.pairs(3):
        print(f"{pair.score:.3f}  {pair.title1}\n       {pair.title2}")

    print(f"\nvectors for your own code: {index.vectors.shape}, {index.vectors.dtype}")

# %% The corpus changes: one title more. Only what is new is encoded, and readers see the old index or the new
with TITLES.open(encoding="utf-8", newline="") as file:
    rows = [row[:1] for row in csv.reader(file)]
with open("titles.csv", "w", encoding="utf-8", newline="") as file:
    csv.writer(file).writerows([*rows, ["Smugglers hid cocaine under crates of pineapples, customs officers say"]])

sf.export(corpus="titles.csv", out="news", only="index")
with sf.Index.open("news") as index:
    print("\nfound now:", index.search(["cocaine among pineapples"], k=1)[0][0].title)
