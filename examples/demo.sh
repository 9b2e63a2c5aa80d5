#!/bin/sh
# The main job on the embedded data: train, export, re-index, search. Stops at the first step that fails.
# demo.sh: English, MiniLM.  demo.sh zh MODEL: Chinese, from MODEL: a folder, a hub id, or a name such as e5_small.
set -eu
bin="${VENV:-.venv}/bin/python"
language="${1:-en}"
run="outputs/demo/run-$language-$(date +%Y%m%d-%H%M%S)"
news="outputs/demo/news-$language-$(date +%Y%m%d-%H%M%S)"
titles="data_readers/sample/$language/titles.csv"
corpus="outputs/demo/titles-$language.csv"
mkdir -p outputs/demo

case $language in
en) model=minilm
    added="Smugglers hid cocaine under crates of pineapples, customs officers say,crime"
    first="drugs hidden among fruit" second="interest rates stay where they are" ;;
zh) model="${2:-}"
    if [ -z "$model" ]; then
        echo "error: MODEL: is not given; type demo.sh zh <folder of a Chinese model, or a name such as e5_small>" >&2
        exit 2
    fi
    added="海关在一批菠萝底下查获四十公斤毒品,社会"
    first="水果里藏毒" second="考大学报志愿" ;;
*) echo "error: $language: there is no such demonstration; give en or zh" >&2; exit 2 ;;
esac

step() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}

step "$bin" -m train experiment=quick model="$model" data.language="$language" hydra.run.dir="$run"
step "$bin" -m export model="$run" corpus="$titles" out="$news"
# a corpus that changed: one title more, one less
"$bin" - "$titles" "$corpus" "$added" <<'PYTHON'
import csv, sys
rows = list(csv.reader(open(sys.argv[1], encoding="utf-8", newline="")))
rows = rows[:-1] + [sys.argv[3].rsplit(",", 1)]
csv.writer(open(sys.argv[2], "w", encoding="utf-8", newline="")).writerows(rows)
PYTHON
step "$bin" -m export only=index corpus="$corpus" out="$news"
step "$bin" -m search "$news" "$first" -k 5
step "$bin" -m search "$news" "$second" -k 5
step "$bin" -m search "$news" --pairs -k 5

cat <<EOF

Done.
  report   $run/report/report.html
  curves   $bin -m tensorboard.main --logdir outputs/demo
  index    $news
Next:
  $bin -m search serve $news --open                      a page over it: search, mark hits, train on them
  $bin -m search $news                                   ask more
  $bin -m train model='$model' loss=cosine data.language=$language                     another loss: softmax, triplet, batch_hard
  $bin -m train model='$model' loss=cosine data=pairs.csv               your own pairs
  $bin -m export model=$run corpus=titles.csv out=mine   your own titles
EOF
