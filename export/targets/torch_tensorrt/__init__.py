"""Programs of Torch-TensorRT, for a process that has torch."""
