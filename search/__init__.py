"""Rows and vectors on disk, the index that answers from them, and the command line in front of it."""

from sentence_forge.runtime.one_name import refuse_short_name

refuse_short_name(__name__)
