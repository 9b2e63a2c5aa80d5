"""``python -m search``."""

from __future__ import annotations

import sys

from sentence_forge.search.cli import main

sys.exit(main())
