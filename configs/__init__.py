"""YAML groups, one file a real choice; the fixed skeleton is typed in ``schema``."""

from sentence_forge.runtime.one_name import refuse_short_name

refuse_short_name(__name__)
