"""Fine-tune sentence embeddings, see whether they got better, export them, index a corpus and search it."""
