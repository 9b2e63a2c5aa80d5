"""Train on a CSV of scored pairs, and use the model.

``python examples/train_on_a_csv.py`` takes about ten seconds on two cores, offline. The cells (``# %%``) open as a
notebook in VS Code, Spyder and, by Jupytext, in Jupyter.
"""

# %% Your file: its columns are sentence1, sentence2 and score, from 0 (unrelated) to 5 (the same)
import sentence_forge as sf
from sentence_forge.data_readers.sample import sample_path

MODEL = "minilm"  # or "bert", a folder, a hub id
PAIRS = sample_path("en", "sts_train")  # yours: PAIRS = "pairs.csv"

rows = sf.read(PAIRS)
print(f"{len(rows)} pairs, the first: {rows[0]}")

# %% Train: the words are those of `python -m train`
run = sf.train("loss=cosine", f"data={PAIRS}", f"model={MODEL}", "loop.epochs=1")
print(f"the run is in {run.folder}, its report in {run.folder / 'report' / 'report.html'}")

# %% Use it, here or by any program that reads a sentence-transformers folder
one, other, far = run.model.encode(["A man is eating.", "Somebody eats.", "The train was late."])
print(f"near {one @ other:.2f}, far {one @ far:.2f}")

# %% A row that can't be right is an error that says where and what to do
with open("broken.csv", "w", encoding="utf-8") as file:
    file.write("sentence1,sentence2,score\nA man eats.,Somebody eats.,high\n")
try:
    sf.train("loss=cosine", "data=broken.csv")
except sf.UserError as error:
    print(f"refused: {error}")
