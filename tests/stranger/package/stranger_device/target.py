"""The target `reference`."""

from edge.core.targets import Target

REFERENCE = Target(
    "reference",
    "ONNX for onnx.reference: numpy alone, slow, for any processor",
    runtime="onnx-reference",
    dialect="reference",
    grid="stranger.dialect:REFERENCE_INT8",
    precisions=("float32",),
    candidates=("float32", "int8"),
    emitter="stranger.emission:emit_reference",
    opener="stranger_device.runner:open_stage",
    doctor="stranger_device.doctor:REFERENCE_DOCTOR",
    device_package="stranger_device",
)
