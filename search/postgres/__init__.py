"""An index in PostgreSQL with pgvector: loaded by an export, searched as one in a folder is."""
