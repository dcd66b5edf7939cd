"""ONNX Runtime, on the processor or an NVIDIA GPU."""
