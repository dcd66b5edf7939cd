"""Engines of TensorRT-RTX: what they differ in from those of TensorRT."""
