"""The ONNX graph that every target starts from, in floating point and INT8, and the target onnx itself."""
