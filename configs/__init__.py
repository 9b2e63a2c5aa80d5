"""YAML groups, one file a real choice; the fixed skeleton is typed in ``schema``."""
