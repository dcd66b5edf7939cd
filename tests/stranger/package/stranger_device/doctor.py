"""Whether a machine can build and run the target `reference`."""

from edge.doctor.facts import Capability, MachineFacts, TargetDoctor


def build(facts: MachineFacts) -> Capability:
    """What writes the graph is what every target needs."""
    lacks = facts.exporter_lacks
    return Capability("no", lacks) if lacks else Capability("yes", facts.written("onnx"))


def run(facts: MachineFacts) -> Capability:
    """onnx brings its own reference implementation."""
    if not facts.usable("onnx"):
        return Capability("no", f"onnx is not installed; {facts.pip('install onnx')}")
    return Capability("yes", f"{facts.written('onnx')} on the processor")


REFERENCE_DOCTOR = TargetDoctor(build, run, module="onnx", remedy=lambda: "python3 -m pip install onnx")
