"""Export: a model as a folder and as ONNX, and a corpus indexed with it."""
