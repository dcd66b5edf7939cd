"""A classifier that runs: `with open_runner(where) as runner: runner.infer(x)`."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core import artifact, targets
from edge.core.errors import CheckFailed, CompressError, MachineFault, machine_fault

MODEL = "model.onnx"
CONTRACT = "contract.json"  # beside it, for consumers in other languages
BATCH_SIZE = 64
FULL_SCALE = np.float32(255)
#: What an engine's file is called; other tools call theirs otherwise.
ENGINE_SUFFIXES = (".plan", ".engine")


class Runner:
    """An opened classifier. A subclass opens its runtime, sets the attributes, supplies `describe`, `again`, `_call`.

    Every call of the runtime holds exactly `batch_size` images, the last one padded, because kernels may compute the
    same image differently in batches of different size: logits belong to one batch size.
    """

    input_shape: tuple[int, int, int]  # C, H, W
    classes: int
    batch_size: int
    file: str = MODEL  # what the executed file is called
    size: int  # bytes of it
    sha256: str  # of the bytes that are executed
    open_ms: float  # what the runtime took to make them executable
    spin_wait: "bool | None" = None  # whether what waits for an answer spins; None where the runtime does not say

    def infer(self, x: "npt.NDArray[Any]") -> "npt.NDArray[np.float32]":
        """Logits (N,K) float32 of images (N,C,H,W): float32 in [0, 1], or uint8, taken as k/255. Any N.

        Another dtype or shape, or a pixel that is not finite: CompressError. Logits that are not: CheckFailed.
        """
        self._check(x)
        logits = np.empty((len(x), self.classes), np.float32)
        for start in range(0, len(x), self.batch_size):
            part = x[start : start + self.batch_size]
            # a grey level k is exactly float32(k) / float32(255)
            batch = part.astype(np.float32) / FULL_SCALE if x.dtype == np.uint8 else np.ascontiguousarray(part)
            if len(part) < self.batch_size:
                batch = np.concatenate([batch, np.zeros((self.batch_size - len(part), *self.input_shape), np.float32)])
            logits[start : start + len(part)] = self._call(batch)[: len(part)]
        finite = np.isfinite(logits).all(1)
        if not finite.all():
            raise CheckFailed(
                f"logits are not finite for {int((~finite).sum())} of {len(x)} images; "
                f"look for an overflow in the model, then export it again"
            )
        return logits

    def describe(self) -> dict[str, Any]:
        """What executes: {"name", "version", "provider", "threads"}."""
        raise NotImplementedError

    def origin(self) -> "dict[str, Any] | None":
        """How the executed bytes came about, where they are not what was exported but were built from it."""
        return None

    def kept(self) -> dict[str, bytes]:
        """Executed files that the opened stage does not hold, by name, to be kept beside what is found of them."""
        return {}

    def again(self, batch_size: int) -> "Runner":
        """The same bytes made executable anew, for calls of `batch_size` images: nothing is read or hashed again.

        Also of a runner that was closed. What it returns is the caller's to close.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the runtime; the runner cannot be asked afterwards."""

    def __enter__(self) -> "Runner":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", fault: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        self.close()

    def _call(self, batch: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
        """One call of the runtime: float32 (batch_size,C,H,W) → (batch_size,K)."""
        raise NotImplementedError

    def _check(self, x: "npt.NDArray[Any]") -> None:
        if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.uint8):
            got = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
            raise CompressError(f"images of type {got}; give a numpy array, float32 in [0, 1] or uint8")
        if x.ndim != 4 or x.shape[1:] != self.input_shape:
            raise CompressError(
                f"images of shape {x.shape}; this model takes (N, {', '.join(map(str, self.input_shape))})"
            )
        if x.dtype == np.float32 and not np.isfinite(x).all():
            count = int((~np.isfinite(x).all(axis=(1, 2, 3))).sum())
            raise CompressError(f"{count} of {len(x)} images hold NaN or infinity; pixels must be in [0, 1]")


def open_runner(
    where: "Path | str | artifact.Stage", *, batch_size: int = BATCH_SIZE, threads: int = 0, device: str = "cpu"
) -> Runner:
    """The classifier in an exported stage or its folder (hash checked), an `.onnx` file or an engine, ready to infer.

    `batch_size` images go into each call of the runtime, unless the file fixes its own number. `threads`: of the
    runtime, 0 for every core that this process may use. `device`: of a target that can choose, `cpu` or `cuda`; an
    engine runs on the GPU that it is for. `ssh://[USER@]HOST/WHERE` is executed there: WHERE a path on that machine, or
    the identity of a stage that was sent there. Anything else than such a folder or file: CompressError.
    """
    if batch_size < 1 or threads < 0:
        raise CompressError(f"batch size {batch_size}, threads {threads}; at least 1 image and 0 threads are needed")
    if str(where).startswith("ssh://"):
        remote: Runner = targets.remote_opener()(str(where), batch_size=batch_size, threads=threads)
        return remote
    if isinstance(where, artifact.Stage):
        return _of_stage(where, batch_size, threads, device)
    path = Path(where)
    if path.is_dir() or path.suffix.lower() not in (".onnx", *ENGINE_SUFFIXES):
        if path.is_file():
            raise CompressError(f"{path}: no .onnx file; give the folder of an exported stage or an .onnx file")
        return _of_stage(artifact.read(path, ("exported",)), batch_size, threads, device)
    if path.suffix in ENGINE_SUFFIXES:
        from edge.runtimes.tensorrt.runner import open_file

        return open_file(path, batch_size=batch_size)
    from edge.runtimes.onnxruntime.runner import OnnxRunner

    try:
        content = path.read_bytes()
    except OSError as fault:
        raise CompressError(
            f"{path}: cannot be read ({fault.strerror}); give the folder of an exported stage or an .onnx file"
        ) from None
    return OnnxRunner(content, where=str(path), batch_size=batch_size, threads=threads, device=device)


@contextlib.contextmanager
def at_batch_sizes(
    runner: Runner, sizes: "Sequence[int]"
) -> "Iterator[dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]]]":
    """`infer` of the same bytes by the images of a call; sizes that they cannot be executed at are left out."""
    with contextlib.ExitStack() as stack:
        by_size: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]] = {}
        for size in dict.fromkeys(sizes):
            try:
                other = runner if size == runner.batch_size else stack.enter_context(runner.again(size))
            except MachineFault:
                raise
            except (CompressError, NotImplementedError) as fault:  # another machine's runner keeps its size
                if told := machine_fault(fault, "the validity checks"):
                    raise told from fault
                continue
            if other.batch_size == size:
                by_size[size] = other.infer
        yield by_size


def executable(exported: artifact.Stage, device: str) -> None:
    """Only what runs here is executed here: the verdict of other bytes would be another verdict."""
    target = _target_of(exported)
    if target not in targets.executed_by(device):
        raise CompressError(
            f"{exported.path}: a {target} artifact does not run on --device {device}; verify it where it runs"
        )


def _target_of(exported: artifact.Stage) -> str:
    """The name of its target; CompressError for one that no package here adds."""
    name = str(exported.config.get("target"))
    if name not in targets.names():
        raise CompressError(
            f"{exported.path}: exported for {name}; what can be opened here: {', '.join(targets.names())}; "
            f"install the package that adds it"
        )
    return name


def pinned(stage: artifact.Stage, name: str) -> bytes:
    """A payload file's bytes, hashed as they are in memory: what is checked is what is executed."""
    entry = stage.manifest["payload"].get(name)
    if entry is None:
        raise CompressError(f"{stage.path}: has no {name}; export the model again")
    content = stage.file(name).read_bytes()
    got = artifact.bytes_sha256(content)
    if got != entry["sha256"]:
        raise CompressError(
            f"{stage.path}: {name} has sha256 {got:.12}, the manifest says {entry['sha256']:.12}; "
            f"delete the folder and run: {stage.manifest['made']['command']}"
        )
    return content


def _of_stage(stage: artifact.Stage, batch_size: int, threads: int, device: str) -> Runner:
    name = _target_of(stage)
    runner = targets.opener_of(targets.get(name))(stage, batch_size=batch_size, threads=threads, device=device)
    if not isinstance(runner, Runner):
        raise CompressError(f"{stage.path}: what opens {name} gives a {type(runner).__name__}, no edge Runner; mend it")
    return runner
