"""Train a model: the stages of a run, from its config to its report, and the training loop."""

from sentence_forge.runtime.one_name import callable_package, refuse_short_name

refuse_short_name(__name__)
callable_package(__name__, "train")
