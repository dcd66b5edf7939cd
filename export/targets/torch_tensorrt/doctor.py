"""What the doctor knows of Torch-TensorRT beside what a board must know: its rules and targets, and all the others."""

from edge.doctor.facts import MachineFacts, Rule
from edge.doctor.rules import RULES as EDGE_RULES
from edge.doctor.targets import TARGETS as EDGE_TARGETS
from edge.doctor.targets import Capability, TargetDoctor, gpu_lacks
from export.targets.torch_tensorrt import versions


def _fault(found: MachineFacts, target: str) -> "str | None":
    """What keeps the versions from working together, by the table that `compress export` goes by."""
    libraries = (found.distributions[name] for name in versions.LIBRARIES[target] if name in found.distributions)
    return versions.fault(
        target,
        versions.InstalledVersions(
            torch=found.modules["torch"].version if "torch" in found.modules else None,
            cuda=found.fact("torch", "cuda") is not None,
            wheel=found.distributions.get(target),
            other_wheel=found.distributions.get(versions.OTHER[target]),
            library=next(libraries, None),
            jetpack=next(iter(found.jetpack), None),
        ),
    )


def _rule(target: str) -> Rule:
    """A wheel that is installed beside what it does not work with. A fault reads `what; fix`."""
    return Rule(
        f"{target}-pair",
        when=lambda found: target in found.distributions and _fault(found, target) is not None,
        says=lambda found: (_fault(found, target) or "").partition("; ")[0],
        fix=lambda found: (_fault(found, target) or "").partition("; ")[2],
        explains=("torch_tensorrt",),
    )


def _target(name: str) -> TargetDoctor:
    def answer(found: MachineFacts) -> Capability:
        lacks = _fault(found, name) or gpu_lacks(found)
        if not lacks and not found.usable("torch_tensorrt"):
            lacks = f"import torch_tensorrt fails ({found.modules['torch_tensorrt'].fault})"
        return Capability("no", lacks) if lacks else Capability("yes", f"{found.written('torch_tensorrt')} on this GPU")

    return TargetDoctor(name, ("cuda",), answer, answer)


#: Pairs first: they explain an import that fails.
RULES = (*(_rule(target) for target in versions.OTHER), *EDGE_RULES)
TARGETS = (*EDGE_TARGETS, *(_target(target) for target in versions.OTHER))
