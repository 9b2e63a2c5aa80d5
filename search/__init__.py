"""The search index: made from a corpus, kept on disk, and searched from Python and the command line."""

from sentence_forge.runtime.one_name import refuse_short_name

refuse_short_name(__name__)
