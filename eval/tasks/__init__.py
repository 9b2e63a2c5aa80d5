"""The tasks of an evaluation: each reads rows of its own kind and scores an encoder on them."""
