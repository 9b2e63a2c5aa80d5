"""``python -m search serve``: a page and an API over an index, with marks that people give to its hits."""
