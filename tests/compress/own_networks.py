"""A user's module with three networks, as docs/networks.md has it, and their way to a verified file by flags alone."""

import re
import shlex
from pathlib import Path

from compress.cli.execute import execute

NETWORKS = ("cnn", "groupnorm", "vit")
DOCUMENT = Path(__file__).parents[2] / "docs" / "networks.md"
BRIEF = "--epochs 1 --set attack.steps=1 --set validate_steps=1 --set test_steps=1 --set optimizer=adamw"


def write_module(folder: Path) -> None:
    """`mynets.py`, of the document's own text, in `folder`."""
    (module,) = re.findall(r"```python\n(# mynets\.py\n.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (folder / "mynets.py").write_text(module, encoding="utf-8")


def to_a_verified_file(network: str, teacher: Path, out: Path) -> Path:
    """Student, QAT, INT8 file, attack set, statement, a command each in the working directory; gives the last one."""
    for line in (
        f"distill --teacher {teacher} --student mynets:{network} --method vgap --floor 0 {BRIEF} --out {out}/s",
        f"quantize {out}/s {BRIEF} --out {out}/q",
        f"export {out}/q --target onnx --out {out}/e",
        f"attack {out}/s --quantized {out}/q --exported {out}/e --images 20 --ensemble none --steps 2 --restarts 1 "
        f"--out {out}/a",
        f"verify {out}/e --attack-set {out}/a --set square_queries=5 --set decision_queries=5 "
        f"--set latency.warmup=1 --set latency.samples=5 --out {out}/v",
    ):
        assert execute(shlex.split(line)) == 0, line
    return out / "v"
