"""Engines of TensorRT and TensorRT-RTX, built from the graph in their dialect."""
