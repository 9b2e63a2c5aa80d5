"""Measurements against what a user would use instead; each prints JSON lines."""
