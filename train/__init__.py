"""Training: the assembly of a run, the loop, and what they stand on."""
