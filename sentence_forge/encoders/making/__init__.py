"""Make a SentenceTransformer: find its weights, check them, build its modules."""
