"""Every class, flag, member and method of TensorRT that `edge/runtimes/tensorrt` touches, read off its source."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "edge" / "runtimes" / "tensorrt"

#: What a name stands for in a file; a whole module's attributes are its classes and enumerations.
MODULE = ""
RECEIVERS = {
    "preflight.py": {"trt": MODULE, "runtime": "Runtime"},
    "library.py": {"self.module": MODULE, "module": MODULE},
    "build.py": {
        "trt": MODULE,
        "module": MODULE,
        "library.module": MODULE,
        "builder": "Builder",
        "network": "INetworkDefinition",
        "config": "IBuilderConfig",
        "parser": "OnnxParser",
        "refused": "ParserError",
        "profile": "IOptimizationProfile",
        "tensor": "ITensor",
        "timings": "ITimingCache",
        "runtime": "Runtime",
        "loaded": "ICudaEngine",
        "inspector": "EngineInspector",
    },
    "runner.py": {
        "trt.module": MODULE,
        "runtime": "Runtime",
        "engine": "ICudaEngine",
        "settings": "IRuntimeConfig",
        "strategy": "DynamicShapesKernelSpecializationStrategy",
        "self._engine": "ICudaEngine",
        "self._context": "IExecutionContext",
    },
}
#: Of TensorRT-RTX alone, and asked of it alone.
RTX_ONLY = re.compile(
    r"ComputeCapability|EngineValidity|EngineInvalidityDiagnostics|get_engine_validity|compute_capabilit(y|ies)|"
    r"DynamicShapesKernelSpecializationStrategy|kernel_specialization|create_runtime_config|RuntimeConfig"
)


@dataclass(frozen=True)
class Use:
    """`Class.member`, and with how many arguments it is called; None where it is not called."""

    name: str
    arguments: "int | None"
    where: str

    @property
    def rtx_only(self) -> bool:
        return RTX_ONLY.search(self.name) is not None


def uses() -> list[Use]:
    """Each once, in the order of its name."""
    found = {use for file, receivers in RECEIVERS.items() for use in _of_file(SOURCE / file, receivers)}
    return sorted(found, key=lambda use: (use.name, use.where))


def arities(doc: str) -> list[tuple[int, int]]:
    """Fewest and most arguments beside self of each signature that pybind11 wrote into a docstring."""
    signatures = re.findall(r"^(?:\d+\. )?\w+\((.*)\) -> ", doc, re.MULTILINE)
    counted = []
    for text in signatures:
        if text.startswith("*args"):
            continue
        parameters = [part for part in _split(text) if not part.startswith("self:")]
        counted.append((sum("=" not in part for part in parameters), len(parameters)))
    return counted


def _split(text: str) -> list[str]:
    """At the commas that no bracket encloses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _of_file(path: Path, receivers: dict[str, str]) -> Iterator[Use]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or id(node) in inner:
            continue  # of a chain the longest
        written = ast.unparse(node)
        for receiver, stands_for in receivers.items():
            if not written.startswith(f"{receiver}."):
                continue
            name = written.removeprefix(f"{receiver}.")
            name = f"{stands_for}.{name}" if stands_for else name
            name = name.split(".__")[0]  # what Python itself adds
            call = called.get(id(node))
            plain = call is not None and not any(isinstance(given, ast.Starred) for given in call.args)
            yield Use(name, len(call.args) + len(call.keywords) if plain and call else None, path.name)
