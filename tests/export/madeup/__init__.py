"""What a package brings that adds a target: the object, its INT8 dialect, emitter, opener and doctor."""

from edge.core.targets import Target

TARGET = Target(
    "madeup",
    "a graph in a dialect of its own, executed by the reference evaluator of ONNX",
    runtime="reference",
    dialect="madeup",
    grid="tests.export.madeup.writing:GRID",
    emitter="tests.export.madeup.writing:emit",
    opener="tests.export.madeup.running:open_stage",
    doctor="tests.export.madeup.running:DOCTOR",
    precisions=("float32",),
    candidates=("float32", "int8"),
    device_package="tests.export.madeup",
)
#: The same without INT8.
PLAIN = Target(
    "plain",
    "floats alone",
    runtime="reference",
    emitter="tests.export.madeup.writing:emit",
    opener="tests.export.madeup.running:open_stage",
    doctor="tests.export.madeup.running:DOCTOR",
)
