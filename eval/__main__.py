"""``python -m eval``."""

from sentence_forge.eval.cli import main

main()
