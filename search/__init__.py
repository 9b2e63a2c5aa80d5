"""Rows and vectors on disk, the index that answers from them, and the command line in front of it."""
