"""``python -m train``."""

from sentence_forge.train.cli import main

main()
