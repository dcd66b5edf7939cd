"""What the doctor knows of ONNX Runtime: the pairs that do not work, by its release notes, and what can be done."""

from edge.doctor.facts import Capability, MachineFacts, Rule, TargetDoctor, between

#: Instructions that add U8 × S8 products without saturating at 16 bits.
WIDE_ADD = ("avx512_vnni", "avx_vnni", "amx_int8")


RULES = (
    Rule(
        "onnxruntime-twice",
        when=lambda facts: {"onnxruntime", "onnxruntime-gpu"} <= {*facts.distributions},
        says=lambda facts: (
            f"onnxruntime {facts.distributions['onnxruntime']} and onnxruntime-gpu "
            f"{facts.distributions['onnxruntime-gpu']} share one folder: the one installed last overwrote the other"
        ),
        fix=lambda facts: (
            f"{facts.pip('uninstall -y onnxruntime onnxruntime-gpu')} && "
            f"{facts.pip('install onnxruntime-gpu' if facts.has_gpu else 'install onnxruntime')}"
        ),
        explains=("onnxruntime",),
    ),
    Rule(
        "onnxruntime-before-numpy-2",
        when=lambda facts: facts.version("numpy") >= (2,) and between(facts.version("onnxruntime"), (0,), (1, 19)),
        says=lambda facts: (
            f"{facts.written('onnxruntime')} beside {facts.written('numpy')}: built against NumPy 1, 1.19 is the first "
            f"for NumPy 2"
        ),
        fix=lambda facts: facts.pip("install 'numpy<2'" if facts.jetson else "install --upgrade onnxruntime"),
        explains=("onnxruntime",),
    ),
    Rule(
        "int8-saturates",
        when=lambda facts: (
            facts.has("onnxruntime") and "avx2" in (isa := facts.host["isa"] or ()) and not {*isa} & {*WIDE_ADD}
        ),
        says=lambda facts: (
            "this processor has no VNNI: ONNX Runtime adds U8 × S8 products in 16 bits there, which saturate, so an "
            "INT8 model computes other logits than on a board"
        ),
        fix=lambda facts: "compress export STUDENT --target onnx --precision float32 --out DIR",
        limit=True,
    ),
)


def _onnx_run(facts: MachineFacts) -> Capability:
    providers = facts.fact("onnxruntime", "providers") or ()
    where = "processor and GPU" if "CUDAExecutionProvider" in providers and facts.has_gpu else "processor"
    lacks = facts.import_lacks("onnxruntime", facts.pip("install onnxruntime"))
    return Capability.unless(lacks, f"{facts.written('onnxruntime')} on the {where}")


ONNX = TargetDoctor(
    lambda facts: Capability.unless(facts.exporter_lacks, f"{facts.written('torch')}, {facts.written('onnx')}"),
    _onnx_run,
    module="onnxruntime",
    remedy=lambda: "python3 -m pip install onnxruntime (or give --python, one that has it)",
    rules=RULES,
    blocked_by=("onnxruntime-before-numpy-2",),
)
