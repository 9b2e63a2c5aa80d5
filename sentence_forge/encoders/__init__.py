"""Turn texts into vectors; no other package handles tokens."""
