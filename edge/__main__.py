"""The device side's command line: `python3 edge.pyz VERB …`. argparse alone; what a verb needs is imported by it.

Exit codes are `compress`'s: 0 done, 1 our fault, 2 the input's or the machine's, 3 a check failed, 130 interrupted.
"""

import argparse
import importlib
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from edge import __version__
from edge.core import errors, interrupt, streams
from edge.core.errors import CompressError

PROGRAM = "edge.pyz"


class Parser(argparse.ArgumentParser):
    """One whose faults are one line."""

    def error(self, message: str) -> NoReturn:
        raise CompressError(f"{message}; see `{self.prog} --help`")


def entry() -> None:
    """Run this process's command line and exit with its code."""
    try:
        streams.prepare()
    except errors.MachineFault as fault:
        print(f"compress: {fault}", file=sys.stderr)
        sys.exit(fault.exit_code)
    interrupt.watch((signal.SIGINT, signal.SIGTERM))
    sys.exit(execute(sys.argv[1:]))


def execute(args: Sequence[str]) -> int:
    """Run one verb; a user's fault is one line on stderr, with `--json` an object on stdout too."""
    try:
        try:
            options = _parser().parse_args(args)
            code: int = options.run(options)
        except SystemExit as left:  # --help, --version
            code = int(left.code or 0)
        sys.stdout.flush()
        return code
    except Exception as fault:
        return streams.exit_code_of(fault, args)


def _parser() -> Parser:
    parser = Parser(prog=PROGRAM, description="Execute, attack and time an exported classifier on this machine.")
    parser.add_argument("--version", action="version", version=f"robust-compress {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def add(name: str, what: str, run: "Callable[[argparse.Namespace], int] | None" = None) -> argparse.ArgumentParser:
        """Of a verb without a `run` that is `edge.board.verbs.NAME`, imported when it is used."""

        def imported(options: argparse.Namespace) -> int:
            return int(getattr(importlib.import_module("edge.board.verbs"), name)(options))

        verb: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=what, allow_abbrev=False)
        verb.set_defaults(run=run or imported)
        return verb

    verify = add("verify", "Replay, attack, time and state what was found.")
    _artifact(verify)
    verify.add_argument("--attack-set", type=Path, required=True, metavar="DIR", help="attack set to replay")
    verify.add_argument("--device", default="jetson", help="where it is executed; default %(default)s")
    verify.add_argument("--out", type=Path, metavar="DIR", help="default EXPORTED-DEVICE-verified, beside it")
    verify.add_argument("--require", action="append", default=[], metavar="GATE", help='"robust>=0.3"; else exit 3')
    for option in ("batch-size", "threads", "square-queries", "decision-queries", "samples", "seed"):
        verify.add_argument(f"--{option}", type=int, metavar="N")
    verify.add_argument("--budget", type=float, metavar="SECONDS", help="for the attacks without gradients")

    bench = add("bench", "Latency alone, on noise; several artifacts take turns.")
    bench.add_argument("exported", type=Path, nargs="+", help="folders of exported stages, or .onnx files")
    bench.add_argument("--device", default="jetson", help="where it is executed; default %(default)s")
    bench.add_argument("--scenario", type=_several(str), metavar="NAME,NAME", help="single-stream, offline, camera")
    bench.add_argument(
        "--batch", type=_several(int), default=[1], metavar="N,N", help="images a query; several: a sweep"
    )
    bench.add_argument("--fps", type=_several(float), metavar="N,N", help="frames a second of camera; default 30")
    bench.add_argument("--seconds", type=float, metavar="N", help="of offline, a rate of camera, a size; default 5")
    bench.add_argument("--samples", type=int, metavar="N", help="timed queries of single-stream; default 1000")
    bench.add_argument("--load", metavar="N|COMMAND", help="what runs beside it: busy processes, or a command")
    bench.add_argument("--preprocess", metavar="MODULE:FUNCTION", help="your pipeline between camera and model; timed")
    bench.add_argument("--frames", metavar="FILE.npy", help="its frames, uint8 (N, …)")
    bench.add_argument("--threads", type=int, default=0, metavar="N")
    bench.add_argument("--seed", type=int, default=0, metavar="N")
    bench.add_argument("--out", type=Path, metavar="DIR", help="new folder for the result and every raw sample")
    bench.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else there")

    check = add("check", "In seconds: hash, golden logits, 100 frozen images; exit 3 when one differs.")
    _artifact(check)
    check.add_argument("--attack-set", type=Path, required=True, metavar="DIR", help="attack set that holds it")
    check.add_argument("--device", default="jetson", help="where it is executed; default %(default)s")

    selftest = add("selftest", "Whether this machine does what is expected of it; one JSON to send.")
    selftest.add_argument("--out", type=Path, metavar="FILE", help="write the JSON there as well")

    doctor = add("doctor", "What is installed here, what can be run, and what mends the rest.")
    doctor.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else there")
    doctor.add_argument("--strict", action="store_true", help="exit 3 when something known not to work is installed")

    add("serve", "Answer a workstation's requests on stdin and stdout.", _serve)
    job = add("job", "Carry out a job of the cache; started by serve.", _job)
    job.add_argument("key")
    return parser


def _artifact(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("exported", type=Path, help="folder of an exported stage")
    verb.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else there")


def _several(kind: Callable[[str], Any]) -> "Callable[[str], list[Any]]":
    """`1,8,32` as a list."""

    def read(text: str) -> "list[Any]":
        return [kind(part) for part in text.split(",")]

    read.__name__ = f"list of {kind.__name__}"  # what argparse calls it in its refusal
    return read


def _serve(options: argparse.Namespace) -> int:
    from edge.board import agent

    agent.serve_stdio()
    return 0


def _job(options: argparse.Namespace) -> int:
    from edge.board import job

    return job.carry_out_job(options.key)


if __name__ == "__main__":
    entry()
