"""What the doctor knows of TensorRT and TensorRT-RTX: their support matrices, JetPack's, and what they can do here."""

from edge.doctor.facts import Capability, MachineFacts, Rule, TargetDoctor, between
from edge.runtimes.tensorrt.library import remedy

TENSORRT_WHEELS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11")
LEAST_SM = 7.5  # TensorRT-RTX: Turing


def _newest_wheel(facts: MachineFacts) -> "str | None":
    """The TensorRT wheel that needs CUDA 13."""
    return next((name for name in ("tensorrt-cu13", "tensorrt-rtx-cu13") if facts.has(name)), None)


def _jetson_tensorrt(facts: MachineFacts) -> str:
    """JetPack's own TensorRT in the place of pip's."""
    wheels = " ".join(name for name in TENSORRT_WHEELS if name in facts.distributions) or "tensorrt"
    return f"{facts.pip(f'uninstall -y {wheels}')} && sudo apt-get install python3-libnvinfer"


def _tensorrt_provider(facts: MachineFacts) -> bool:
    """Whether this ONNX Runtime is a build with the TensorRT provider."""
    providers = facts.fact("onnxruntime", "providers")
    return facts.has("onnxruntime-gpu") if providers is None else "TensorrtExecutionProvider" in providers


RULES = (
    Rule(
        "onnxruntime-before-tensorrt-11",
        when=lambda facts: (
            facts.version("tensorrt") >= (11,)
            and between(facts.version("onnxruntime"), (0,), (1, 27))
            and _tensorrt_provider(facts)
        ),
        says=lambda facts: (
            f"{facts.written('onnxruntime')} beside {facts.written('tensorrt')}: its TensorRT provider knows "
            f"TensorRT 10 at most, 1.27 is the first for 11"
        ),
        fix=lambda facts: facts.pip("install --upgrade 'onnxruntime-gpu>=1.27'"),
    ),
    Rule(
        "tensorrt-too-old",
        when=lambda facts: between(facts.version("tensorrt"), (0,), (10,)),
        says=lambda facts: f"{facts.written('tensorrt')} is too old: networks here are strongly typed, from 10.0 on",
        fix=lambda facts: (
            "update the board to JetPack 6.2 or newer: https://developer.nvidia.com/embedded/jetpack"
            if facts.jetpack
            else facts.pip("install --upgrade tensorrt")
        ),
        explains=("tensorrt",),
    ),
    Rule(
        "tensorrt-11-on-jetpack-6",
        when=lambda facts: bool(facts.jetpack) and facts.jetpack < (7,) and facts.version("tensorrt") >= (11,),
        says=lambda facts: (
            f"{facts.written('tensorrt')} on JetPack {facts.jetson and facts.jetson['jetpack']}: JetPack 6 stays on "
            f"TensorRT 10, its own is 10.3"
        ),
        fix=_jetson_tensorrt,
        explains=("tensorrt",),
    ),
    Rule(
        "tensorrt-11-on-jetpack-7",
        when=lambda facts: (
            facts.jetpack >= (7, 0)
            and facts.version("tensorrt") >= (11,)
            and (facts.version("tensorrt") < (11, 4, 1) or facts.jetpack < (7, 2, 2))
        ),
        says=lambda facts: (
            f"{facts.written('tensorrt')} on JetPack {facts.jetson and facts.jetson['jetpack']}: TensorRT 11 serves "
            f"boards from 11.4.1 and JetPack 7.2.2 on"
        ),
        fix=_jetson_tensorrt,
        explains=("tensorrt",),
    ),
    Rule(
        "driver-behind-tensorrt",
        when=lambda facts: bool(facts.gpu.devices and _newest_wheel(facts)) and facts.driver_behind("13"),
        says=lambda facts: (
            f"{_newest_wheel(facts)} needs CUDA 13, driver {facts.gpu.driver} serves {facts.gpu.cuda} at most"
        ),
        fix=lambda facts: "sudo apt-get install nvidia-driver-580",
        explains=("tensorrt", "tensorrt_rtx"),
    ),
    Rule(
        "opset-20-at-most",
        when=lambda facts: between(facts.version("tensorrt"), (10,), (10, 9)),
        says=lambda facts: f"{facts.written('tensorrt')} reads ONNX opset 20 at most, 21 from 10.9 on",
        fix=lambda facts: "compress export MODEL --target tensorrt --opset 20 --out DIR",
        limit=True,
    ),
    Rule(
        "tensorrt-untested",
        when=lambda facts: facts.version("tensorrt") >= (12,),
        says=lambda facts: f"{facts.written('tensorrt')} is newer than 11.x, which this was written for",
        fix=lambda facts: facts.pip("install 'tensorrt<12'"),
        limit=True,
    ),
)


def _library_lacks(facts: MachineFacts, target: str) -> "str | None":
    mend = remedy(target)
    if facts.jetson and target == "tensorrt":
        mend = (
            "it is part of JetPack: sudo apt-get install python3-libnvinfer, and run the system's python3 "
            "(or a venv made with --system-site-packages)"
        )
    return facts.import_lacks(target.replace("-", "_"), mend)


def _tensorrt_build(facts: MachineFacts) -> Capability:
    lacks = _library_lacks(facts, "tensorrt") or facts.gpu_lacks
    if not lacks and facts.fact("tensorrt", "builder") is False:
        lacks = f"{facts.written('tensorrt')} is the lean runtime, which has no builder"
    without = facts.exporter_lacks
    if lacks and without:
        return Capability("no", without)
    if lacks:
        return Capability("deferred", f"ONNX and recipe here, engine there: {lacks}")
    rest = f"from an exported folder; exporting a stage: {without}" if without else "on this GPU"
    return Capability("yes", f"{facts.written('tensorrt')} {rest}")


def _rtx_run(facts: MachineFacts) -> Capability:
    lacks = facts.gpu_lacks or _library_lacks(facts, "tensorrt-rtx")
    old = [str(device["name"]) for device in facts.gpu.devices if float(device["sm"]) < LEAST_SM]
    if not lacks and len(old) == len(facts.gpu.devices):
        lacks = f"{', '.join(old) or 'this board'}: TensorRT-RTX serves desktop GPUs from SM {LEAST_SM} on"
    return Capability.unless(lacks, facts.written("tensorrt_rtx"))


TENSORRT = TargetDoctor(
    _tensorrt_build,
    lambda facts: Capability.unless(facts.gpu_lacks or _library_lacks(facts, "tensorrt"), facts.written("tensorrt")),
    module="tensorrt",
    remedy=lambda: remedy("tensorrt"),
    rules=RULES,
    blocked_by=(
        "tensorrt-too-old",
        "tensorrt-11-on-jetpack-6",
        "tensorrt-11-on-jetpack-7",
        "driver-behind-tensorrt",
    ),
)
TENSORRT_RTX = TargetDoctor(
    lambda facts: Capability.unless(
        facts.exporter_lacks or _library_lacks(facts, "tensorrt-rtx"),
        f"{facts.written('tensorrt_rtx')}, ahead of time: no GPU is needed",
    ),
    _rtx_run,
    module="tensorrt_rtx",
    remedy=lambda: remedy("tensorrt-rtx"),
    blocked_by=("driver-behind-tensorrt",),
)
