"""From a verb's body to what the verb is about: few functions, as `benchmarks/ways.py` counts them."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.ways import ROOT, WAYS, Arrived, Tracer, lines, traced

#: The most functions of ours on the stack at the heart of each verb, its body counted.
FRAMES = {"distill": 12, "export": 10, "verify": 8, "attack": 10}
#: The most calls into the modules of stages from others until then; what they share of folders counts.
STAGES = {"distill": 11, "export": 6, "verify": 6, "attack": 10}


@pytest.mark.parametrize("way", WAYS)
def test_the_ways_are_straight(way: str, chain: SimpleNamespace, tmp_path: Path) -> None:
    stages = {"teacher": chain.teacher, "student": chain.student, "quantized": chain.quantized}
    stages |= {"exported/onnx": chain.e, "attack-set": chain.a}
    found = traced(way, lines(stages, tmp_path)[way], ROOT, whole=False)
    assert found["frames"] <= FRAMES[way], found["path"]
    assert found["stages"] <= STAGES[way], found["entries"]


def test_the_tracer_sees_ours_and_not_what_lies_between(tmp_path: Path) -> None:
    """A verb that goes to a stage through a library, which comes back once for something that it left."""
    files = {
        "compress/cli/verify.py": "def verify(stage, through):\n    through(stage)\n    stage.__globals__['rest']()\n",
        "compress/stages/verify.py": "def stage(reader):\n    return reader()\ndef rest():\n    pass\n",
        "edge/reader.py": "def infer():\n    return 1\n",
        "library.py": "def through(stage, infer):\n    return stage(infer)\n",
    }
    names: dict[str, dict] = {}
    for file, text in files.items():
        names[file] = {"__name__": file}
        exec(compile(text, str(tmp_path / file), "exec"), names[file])
    verify, stage, infer, through = (
        names[file][name] for file, name in zip(files, ("verify", "stage", "infer", "through"), strict=True)
    )
    tracer = Tracer("verify", tmp_path)
    tracer.follow(lambda: verify(stage, lambda stage: through(stage, infer)))
    assert tracer.way == ["compress.cli.verify:verify", "compress.stages.verify:stage", "edge.reader:infer"]
    assert tracer.entries == {"compress.stages.verify": 2, "edge.reader": 1}
    left = Tracer("verify", tmp_path, whole=False)
    assert left.follow(lambda: verify(stage, lambda stage: through(stage, infer))) is None
    assert left.way == tracer.way and left.entries == {"compress.stages.verify": 1, "edge.reader": 1}
    assert issubclass(Arrived, BaseException) and not issubclass(Arrived, Exception)
