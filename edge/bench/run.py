"""`bench`: latency alone, of one artifact or of several in turns; no attack set is needed."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.bench.measure import Timed, TimingRequest, TimingSubject, check_timing, compare_timings, measure_latency
from edge.core import artifact
from edge.core.errors import CompressError
from edge.evidence import Watch, samples
from edge.runtimes import preprocess
from edge.runtimes.runner import Runner, executable, open_runner
from edge.statement.statement import as_json

RESULT = "bench.json"
NOISE = "seeded uniform noise"
NOISE_IMAGES = 64
UNOFFICIAL = "scenarios in the manner of MLPerf, unofficially: no result here is an MLPerf result"


def run_bench(
    artifacts: "Sequence[Path | str]",
    config: Mapping[str, Any],
    *,
    images: "npt.NDArray[np.uint8] | None" = None,
    shown: str = NOISE,
    out: "Path | str | None" = None,
) -> dict[str, Any]:
    """Time exported stages, or files of which nothing more is known; `config` as `BenchConfig.model_dump()`.

    `images` uint8 (N,C,H,W) are what queries hold, noise where None; `shown` says what they are. With `out` the result
    and the raw samples, ns, are written into that new folder: bench.json and a samples-K.npz an artifact.
    """
    folder = None if out is None else _new(Path(out))
    for path in map(Path, artifacts):
        if path.is_dir():
            executable(artifact.read(path, ("exported",)), config["device"])
    ask = TimingRequest.read(config, config["seed"])
    pipeline = None if config["preprocess"] is None else preprocess.load(config["preprocess"])
    frames = None if config["frames"] is None else preprocess.read_frames(config["frames"])
    if frames is not None and pipeline is None:
        raise CompressError("--frames: are the frames of a --preprocess module:function; give it too")
    if frames is not None:
        shown = f"frames of {Path(config['frames']).name}"
    subjects = [
        TimingSubject(str(path), _opener(path, config), _frames(images, frames, pipeline, ask.seed), pipeline)
        for path in artifacts
    ]
    check_timing(subjects, ask)
    watch = Watch(gpu=config["device"] != "cpu")
    with watch.timing():
        timings = measure_latency(subjects, ask)
    result = {
        "nature": UNOFFICIAL,
        "queries": shown,
        "preprocess": None if pipeline is None else {"name": pipeline.name, "sha256": pipeline.sha256},
        "artifacts": [
            {"name": timed.name, **timed.about, "latency": timed.latency, "alarms": [as_json(timed.alarm)]}
            for timed in timings
        ],
        "compared": compare_timings(timings, ask.seed),
        "config": dict(config),
        **watch.found(_spans(timings), timings[0].latency),
        "versions": artifact.versions(),
    }
    if folder is not None:
        _write(folder, result, timings, watch)
    return result


def _spans(timings: Sequence[Timed]) -> "dict[str, tuple[int, int, int]]":
    """What evidence is told of: what was timed of one artifact; of several in turns all of it together."""
    if len(timings) == 1:
        return timings[0].spans
    every = [span for timed in timings for span in timed.spans.values()]
    began, ended, images = zip(*every, strict=True)
    return {"all artifacts in turns": (min(began), max(ended), sum(images))}


def _opener(path: "Path | str", config: Mapping[str, Any]) -> Callable[[int], Runner]:
    return lambda size: open_runner(path, batch_size=size, threads=config["threads"], device=config["device"])


def _frames(
    images: "npt.NDArray[np.uint8] | None",
    frames: Any,
    pipeline: "preprocess.Preprocess | None",
    seed: int,
) -> Callable[[Runner], Any]:
    """What a runner's queries are cut from."""

    def frames_for(runner: Runner) -> Any:
        if frames is not None:
            return frames
        shown = images
        if shown is None:
            shape = (NOISE_IMAGES, *runner.input_shape)
            shown = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        return shown if pipeline is None else pipeline.frames_of(shown)

    return frames_for


# ------------------------------------------------------------------------------------------- files


def _new(out: Path) -> Path:
    if out.exists():
        raise CompressError(f"{out}: is there already, and a measurement replaces none; choose another --out")
    if not out.resolve().parent.is_dir():
        raise CompressError(f"{out}: no folder {out.parent} to put it into; create it or choose another --out")
    return out


def _write(folder: Path, result: Mapping[str, Any], timings: Sequence[Timed], watch: Watch) -> None:
    """The whole folder at once, by its name."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        for place, timed in enumerate(timings):
            with open(partial / f"samples-{place}.npz", "wb") as file:
                np.savez(file, **timed.samples)
        watch.samples.write(partial / samples.FILE)
        text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        artifact.write_atomic(partial / RESULT, text)
        partial.rename(folder)
    except OSError as fault:
        shutil.rmtree(partial, ignore_errors=True)
        raise CompressError(f"{folder}: cannot be written ({fault.strerror}); choose another --out") from None
