"""How straight the ways of the code are: frames from a verb's body to its heart, and how often modules are entered.

    python benchmarks/ways.py [--checkout DIR] [--way distill …] [--note "…"]

A run of configs/tiny.yaml is made, then four verbs are called on it, in a process each, traced:

    distill  to the first gradient through the student     export  to the first node written for INT8
    verify   to the first `infer`                           attack  to the first step of APGD

`frames` counts the functions of compress/, export/ and edge/ that are on the stack there, the verb's body the first of
them; libraries between them do not count. `entries` counts, over the whole call of the verb, the calls into a module
that come from another one (properties and methods too), `stages` those into the modules of stages and what they share.
`--checkout` traces another checkout: what is looked for is named by file and function names that the old layout and
the new one share. About two minutes. Appends to benchmarks/results/ways.jsonl.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "ways.jsonl"
TINY = ROOT / "configs" / "tiny.yaml"
PACKAGES = ("compress", "export", "edge")
PARTS = ("teacher", "teacher_import", "distill", "quantize", "attack", "evaluate", "analyze", "verify")
#: Names of the libraries' functions that are looked for.
HEARTS = ("grad", "backward", "make_node")
WAYS = ("distill", "export", "verify", "attack")
#: The modules of stages and what these share of folders, in the new layout and in the one before it.
STAGES = ("compress.folders", "export.stage", "edge.verify.verify")
STAGES_BEFORE = ("compress.stages", "compress.train", "edge.verify", *(f"compress.{name}" for name in PARTS))


class Arrived(BaseException):
    """The heart of a way was reached, and no more of it was asked for."""


class Tracer:
    """Follows the calls of one verb; `way` and `entries` say what was seen.

    A function of ours is known by the folder that its code lies in. What runs while a module is being imported is no
    part of a way.
    """

    def __init__(self, verb: str, root: Path, *, whole: bool = True) -> None:
        self.verb, self.whole = verb, whole
        self.way: list[str] = []  # module:function from the verb's body to its heart
        self.entries: Counter[str] = Counter()
        self._folders = tuple(f"{root / name}{os.sep}" for name in PACKAGES)
        self._root = f"{root}{os.sep}"
        self._known: dict[CodeType, str | None] = {}  # module, "" of a library's, None of what says nothing to us
        self._stack: list[tuple[str, str]] = []  # ours: module, function
        self._importing = 0
        self._body: int | None = None  # where in the stack the verb's body is

    def follow(self, call: Callable[[], Any]) -> Any:
        """What `call` returns; None where it was left at the heart."""
        sys.setprofile(self._event)
        try:
            return call()
        except Arrived:
            return None
        finally:
            sys.setprofile(None)

    def _module(self, code: CodeType) -> "str | None":
        if code not in self._known:
            ours = code.co_filename.startswith(self._folders)
            elsewhere = "" if code.co_name in ("<module>", *HEARTS) else None
            name = code.co_filename.removeprefix(self._root)[:-3].replace(os.sep, ".")
            self._known[code] = name if ours else elsewhere
        return self._known[code]

    def _event(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "return"):
            return
        code = frame.f_code
        module = self._module(code)
        if module is None:
            return
        if code.co_name == "<module>":
            self._importing += 1 if event == "call" else -1
            return
        if self._importing:
            return
        if event == "return":
            if module and self._stack:
                self._stack.pop()
                if self._body is not None and len(self._stack) <= self._body:
                    self._body = None
            return
        if module:
            if self._body is not None and (not self._stack or self._stack[-1][0] != module):
                self.entries[module] += 1
            self._stack.append((module, code.co_name))
            if code.co_name == self.verb and module.startswith("compress.cli."):
                self._body = len(self._stack) - 1
        if self._body is not None and not self.way and self._at_heart(frame, module):
            self.way = [f"{module}:{name}" for module, name in self._stack[self._body :]]
            if not self.whole:
                raise Arrived

    def _at_heart(self, frame: FrameType, module: str) -> bool:
        """Whether this call is what the verb is about."""
        code = frame.f_code
        if self.verb == "export":
            caller = frame.f_back
            ours = caller is not None and bool(self._module(caller.f_code))
            return ours and code.co_name == "make_node" and code.co_filename.endswith("onnx/helper.py")
        if self.verb == "verify":
            return bool(module) and code.co_name == "infer"
        gradient = code.co_name in ("grad", "backward") and code.co_filename.endswith("torch/autograd/__init__.py")
        return gradient and (self.verb == "distill" or any(name.endswith("apgd") for name, _ in self._stack))


def lines(stages: Mapping[str, Path], out: Path, *flags: str) -> dict[str, list[str]]:
    """The command line of each way, on stages by the names that they have in a run, with `flags` at its end."""
    chain = [
        str(stages["student"]),
        "--quantized",
        str(stages["quantized"]),
        "--exported",
        str(stages["exported/onnx"]),
    ]
    verbs = {
        "distill": ["--teacher", str(stages["teacher"]), "--student", "resnet8", "--method", "vgap"],
        "export": [str(stages["quantized"]), "--precision", "int8"],
        "verify": [str(stages["exported/onnx"]), "--attack-set", str(stages["attack-set"])],
        "attack": [*chain, "--ensemble", "quick", "--images", "20"],
    }
    return {verb: [verb, *given, *flags, "--out", str(out / verb)] for verb, given in verbs.items()}


def traced(way: str, line: Sequence[str], root: Path, *, whole: bool = True) -> dict[str, Any]:
    """One verb called in this process, whose `compress` is that of the checkout at `root`."""
    from compress.cli.execute import execute

    tracer = Tracer(way, root, whole=whole)
    code = tracer.follow(lambda: execute(line))
    assert code in (None, 0), f"compress {' '.join(line)}: exit code {code}"
    assert tracer.way, f"{way}: its heart was not reached"
    shared = {*STAGES, *STAGES_BEFORE}
    stages = sum(n for module, n in tracer.entries.items() if module in shared or module.startswith("compress.stages."))
    return {
        "way": way,
        "frames": len(tracer.way),
        "files": len(tracer.entries),
        "stages": stages,
        "path": tracer.way,
        "entries": dict(tracer.entries.most_common()),
    }


def main(given: argparse.Namespace) -> None:
    root = given.checkout.resolve()
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        making = [sys.executable, "-m", "compress", "run", str(TINY), "--out", str(run)]
        subprocess.run(making, env=environment, cwd=scratch, check=True, stdout=subprocess.DEVNULL)
        for way in given.way or WAYS:
            child = [sys.executable, str(Path(__file__).resolve()), "--child", way, "--checkout", str(root)]
            done = subprocess.run([*child, "--run", str(run)], env=environment, cwd=scratch, stdout=subprocess.PIPE)
            done.check_returncode()
            row = json.loads(done.stdout.splitlines()[-1])
            revision = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
            commit = subprocess.run(revision, capture_output=True, text=True).stdout.strip()
            row |= {"note": given.note, "commit": commit, "date": datetime.date.today().isoformat()}
            print(f"{way}: {row['frames']} frames, {row['files']} files, stages entered {row['stages']} times")
            print("\n".join(f"    {step}" for step in row["path"]))
            with open(RESULTS, "a") as file:
                file.write(json.dumps(row) + "\n")


def child(given: argparse.Namespace) -> None:
    names = ("teacher", "student", "quantized", "exported/onnx", "attack-set")
    stages = {name: given.run / name for name in names}
    with tempfile.TemporaryDirectory() as out:
        line = lines(stages, Path(out), "--config", str(TINY))[given.child]
        print(json.dumps(traced(given.child, line, given.checkout)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose ways; default this one's")
    parser.add_argument("--way", action="append", choices=WAYS, help="only this one; repeatable")
    parser.add_argument("--note", default="", help="what the rows say about themselves")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
    else:
        main(arguments)
