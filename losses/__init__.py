"""Losses: maths on sentence embeddings. One file and one YAML each."""

from sentence_forge.runtime.one_name import refuse_short_name

refuse_short_name(__name__)
