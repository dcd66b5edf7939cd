"""The targets that a stage can be exported for, and the devices that execute them. Standard library only."""

TARGETS = {
    "onnx": "ONNX for ONNX Runtime: float, or INT8 (U8 activations) from a quantized stage",
    "tensorrt": "a TensorRT engine, 10.x or 11.x; without a GPU here, deferred: built on the device",
    "tensorrt-rtx": "a TensorRT-RTX engine for desktop RTX GPUs, built ahead of time on any x86-64 machine",
    "torch-tensorrt": "a Torch-TensorRT program (.ep), for a process that has torch",
    "torch-tensorrt-rtx": "the same on TensorRT-RTX",
}

#: Runtimes that an INT8 graph is laid out for, and the targets that read that layout.
RUNTIMES = {
    "onnx": ("onnx",),
    "tensorrt": ("tensorrt", "tensorrt-rtx", "torch-tensorrt", "torch-tensorrt-rtx"),
}

PRECISIONS = {
    "auto": "int8 from a quantized stage; else fp16 for TensorRT targets, float32 for onnx",
    "int8": "8-bit integers where the stage quantizes; the rest fp16 for TensorRT targets, float32 for onnx",
    "float32": "IEEE single precision throughout",
    "fp16": "IEEE half precision, float32 in and out",
    "bf16": "bfloat16, float32 in and out",
}

DEVICES = {
    "cpu": "this machine's processor, through ONNX Runtime",
    "cuda": "this machine's NVIDIA GPU",
    "jetson": "an NVIDIA Jetson: this machine, or one reached by --host",
}

#: The targets that each device executes.
EXECUTED = {
    "cpu": ("onnx",),
    "cuda": tuple(TARGETS),
    "jetson": ("onnx", "tensorrt"),
}
