"""Compute vectors: texts to tokens, tokens through the model, on any device."""
