"""Export: a model as a folder and as ONNX, and a corpus indexed with it."""

from sentence_forge.runtime.one_name import callable_package, refuse_short_name

refuse_short_name(__name__)
callable_package(__name__, "export")
