"""Text to vectors: the one place that knows tokens."""
