#!/bin/sh
# The main job on the embedded data: train, export, re-index, search. Stops at the first step that fails.
set -eu
bin="${VENV:-.venv}/bin/python"
run="outputs/demo/run-$(date +%Y%m%d-%H%M%S)"
news="outputs/demo/news-$(date +%Y%m%d-%H%M%S)"
titles=data_readers/sample/en/titles.csv
corpus="outputs/demo/titles.csv"
mkdir -p outputs/demo

step() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}

step "$bin" -m train experiment=quick hydra.run.dir="$run"
step "$bin" -m export model="$run" corpus=$titles out="$news"
# a corpus that changed: one title more, one less
"$bin" - "$titles" "$corpus" <<'PYTHON'
import csv, sys
rows = list(csv.reader(open(sys.argv[1], encoding="utf-8", newline="")))
rows = rows[:-1] + [["Smugglers hid cocaine under crates of pineapples, customs officers say", "crime"]]
csv.writer(open(sys.argv[2], "w", encoding="utf-8", newline="")).writerows(rows)
PYTHON
step "$bin" -m export only=index corpus="$corpus" out="$news"
step "$bin" -m search "$news" "drugs hidden among fruit" -k 5
step "$bin" -m search "$news" "interest rates stay where they are" -k 5
step "$bin" -m search "$news" --pairs -k 5

cat <<EOF

Done.
  report   $run/report/report.html
  curves   $bin -m tensorboard.main --logdir outputs/demo
  index    $news
Next:
  $bin -m search serve $news --open                      a page over it: search, mark hits, train on them
  $bin -m search $news                                   ask more
  $bin -m train loss=cosine                              another loss: softmax, triplet, batch_hard
  $bin -m train loss=cosine data=pairs.csv               your own pairs
  $bin -m export model=$run corpus=titles.csv out=mine   your own titles
EOF
