"""What the doctor knows of Torch-TensorRT: which versions go together, and what it can do here."""

from edge.doctor.facts import Capability, MachineFacts, Rule, TargetDoctor
from export.targets.torch_tensorrt import versions


def _fault(facts: MachineFacts, target: str) -> "str | None":
    """What keeps the versions from working together, by the table that `compress export` goes by."""
    libraries = (facts.distributions[name] for name in versions.LIBRARIES[target] if name in facts.distributions)
    return versions.fault(
        target,
        versions.InstalledVersions(
            torch=facts.modules["torch"].version if "torch" in facts.modules else None,
            cuda=facts.fact("torch", "cuda") is not None,
            wheel=facts.distributions.get(target),
            other_wheel=facts.distributions.get(versions.OTHER[target]),
            library=next(libraries, None),
            jetpack=next(iter(facts.jetpack), None),
        ),
    )


def _rule(target: str) -> Rule:
    """A wheel that is installed beside what it does not work with. A fault reads `what; fix`."""
    return Rule(
        f"{target}-pair",
        when=lambda facts: target in facts.distributions and _fault(facts, target) is not None,
        says=lambda facts: (_fault(facts, target) or "").partition("; ")[0],
        fix=lambda facts: (_fault(facts, target) or "").partition("; ")[2],
        explains=("torch_tensorrt",),
    )


def _doctor(target: str) -> TargetDoctor:
    def answer(facts: MachineFacts) -> Capability:
        lacks = _fault(facts, target) or facts.gpu_lacks
        if not lacks and not facts.usable("torch_tensorrt"):
            lacks = f"import torch_tensorrt fails ({facts.modules['torch_tensorrt'].fault})"
        return Capability("no", lacks) if lacks else Capability("yes", f"{facts.written('torch_tensorrt')} on this GPU")

    return TargetDoctor(
        answer,
        answer,
        module="torch_tensorrt",
        remedy=lambda: versions.command(target),
        rules=(_rule(target),),
        blocked_by=("driver-behind-torch",),
    )


TORCH_TENSORRT = _doctor(versions.TORCH_TENSORRT)
TORCH_TENSORRT_RTX = _doctor(versions.TORCH_TENSORRT_RTX)
