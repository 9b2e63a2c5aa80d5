"""Files to rows: a strict reader, the corpus of titles, and sources of training data in one of six shapes."""

from sentence_forge.runtime.one_name import refuse_short_name

refuse_short_name(__name__)
