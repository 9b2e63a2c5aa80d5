"""Losses: maths on sentence embeddings. One file and one YAML each."""
