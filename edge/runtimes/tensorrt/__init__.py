"""TensorRT 10 and 11 and TensorRT-RTX: one code path, the dialect read off the library that is loaded.

numpy, the library and, for device memory, libcudart by ctypes. Importing this package imports none of them.
"""
