"""Is the fine-tuned model better than the one it began from, by how much, and how sure is that?

``python examples/is_it_better.py`` takes about twenty seconds on two cores, offline.
"""

# %% Train on the sample's graded pairs
import sentence_forge as sf

MODEL = "minilm"

run = sf.train("loss=cosine", "data=sample", f"model={MODEL}", "loop.epochs=2")

# %% Measure it beside the untouched model, on dev rows of four kinds
report = sf.evaluate(run, baseline=MODEL, suite="sample_all")
print(report)  # in a notebook, `report` alone shows the page

# %% The same as numbers: the paired difference with its 95 % interval, task by task
for name, gain in report.json["baseline"]["tasks"].items():
    low, high = gain["delta_ci95"]
    sure = "yes" if low > 0 or high < 0 else "no"
    print(f"{name}: {100 * gain['delta']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}], sure: {sure}")

# %% Keep the page, with the pairs that the model gets most wrong
print(report.save("evaluation"))
