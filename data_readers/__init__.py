"""Files to rows: a strict reader, the corpus of titles, and sources of training data in one of six shapes."""
