"""The INT8 dialect of the target `reference`: signed levels everywhere, integer biases, every tensor quantized."""

from compress.quantization.grids import Int8Dialect

REFERENCE_INT8 = Int8Dialect(unsigned=False, integer_bias=True, half_scales=False, fuses=False)
