"""``python -m export``."""

from sentence_forge.export.cli import main

main()
