"""Training: the assembly of a run, the loop, and what they stand on."""

from sentence_forge.runtime.one_name import callable_package, refuse_short_name

refuse_short_name(__name__)
callable_package(__name__, "train")
