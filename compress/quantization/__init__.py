"""What quantization costs in robust accuracy, layer by layer, and which layers are left in floating point for it."""
