"""`bench`: latency alone, of one artifact or of several in turns, and as readable lines; no attack set is needed."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.bench.measure import Timed, TimingRequest, TimingSubject, check_timing, compare_timings, measure_latency
from edge.core import artifact, errors
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.core.readable import table
from edge.evidence import Watch, samples
from edge.runtimes import preprocess
from edge.runtimes.runner import Runner, executable, open_runner
from edge.statement.statement import Alarm, MachineWarning, as_json
from edge.statement.wording import load_phrase, machine_lines
from edge.validity.logits import artifact_checks
from edge.validity.rules import ValidityCheck, with_known_probabilities

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
    precisions: list[str | None] = []
    for path in map(Path, artifacts):
        exported = artifact.read(path, ("exported",)) if path.is_dir() else None
        if exported is not None:
            executable(exported, config["device"])
        precisions.append(None if exported is None else exported.metrics["precision"])
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
    first = timings[0].latency
    # only now: what opens the runtime before would make a cold start warm
    checks = [_checked(*of_subject, ask, images) for of_subject in zip(subjects, precisions, strict=True)]
    evidence = watch.found(_spans(timings), first.spread, first.conditions.load)
    elsewhere = elsewhere_warnings(config["device"], evidence["machine"]["before"])
    result = {
        "nature": UNOFFICIAL,
        "queries": shown,
        "preprocess": None if pipeline is None else {"name": pipeline.name, "sha256": pipeline.sha256},
        "artifacts": [
            {
                "name": timed.name,
                **timed.about,
                "latency": as_json(timed.latency),
                "alarms": [as_json(timed.alarm), *(as_json(Alarm.of(check)) for check in of_artifact)],
            }
            for timed, of_artifact in zip(timings, checks, strict=True)
        ],
        "compared": compare_timings(timings, ask.seed),
        "config": dict(config),
        "machine": evidence["machine"],
        "warnings": [*map(as_json, elsewhere), *evidence["warnings"]],
        "versions": artifact.versions(),
    }
    if folder is not None:
        _write(folder, result, timings, watch)
    return result


def elsewhere_warnings(device: str, state: Mapping[str, Any]) -> list[MachineWarning]:
    """The warning of a machine that is not what was asked for: its figures are true of itself alone."""
    if device != "jetson" or state["kind"] == "jetson":
        return []
    machine = f"{state['cpu'] or 'a machine'}, no Jetson Linux on it"
    return [MachineWarning("not-a-jetson", machine, "measure on the board that ships")]


def _checked(
    subject: TimingSubject, precision: "str | None", ask: TimingRequest, images: "npt.NDArray[np.uint8] | None"
) -> "list[ValidityCheck]":
    """The artifact's logits at every size that is timed, alone, and in company, of `images` or of noise."""
    with subject.open(ask.batch_size) as runner:
        shown = images
        if images is not None and images.shape[1:] != runner.input_shape:  # they may need preprocessing
            say(f"{subject.name}: takes images {runner.input_shape}, not {images.shape[1:]}; its checks show it noise")
            shown = None
        shown = _noise(runner, ask.seed) if shown is None else shown
        found = artifact_checks(runner, shown, precision=precision, sizes=(1, *ask.further_sizes))
    return with_known_probabilities(found, "times do not depend on it")


def _noise(runner: Runner, seed: int) -> "npt.NDArray[np.uint8]":
    shape = (NOISE_IMAGES, *runner.input_shape)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


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
            shown = _noise(runner, seed)
        return shown if pipeline is None else pipeline.frames_of(shown)

    return frames_for


# --------------------------------------------------------------------------------------------------------------- files


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
        told = errors.machine_fault(fault, folder)
        raise told or CompressError(f"{folder}: cannot be written ({fault.strerror}); choose another --out") from None


# -------------------------------------------------------------------------------------------------------- for a person


Result = Mapping[str, Any]
TITLES = ["artifact", "scenario", "batch", "p50", "p90", "p99", "images/s", ""]


def bench_lines(result: Result) -> list[str]:
    """A row a scenario and size, then start-up, memory and parts of each artifact, then how they compare."""
    names = [each["name"] for each in result["artifacts"]]
    # The last parts of the paths, or the paths themselves where these are the same
    short = [Path(name).name for name in names]
    shown = short if len(set(short)) == len(short) else list(names)
    labels = dict(zip(names, shown, strict=True))
    rows = [[labels[each["name"]], *row] for each in result["artifacts"] for row in _table_rows(each["latency"])]
    lines = [*table(TITLES, rows), ""]
    lines += [f"{labels[each['name']]}: {line}" for each in result["artifacts"] for line in _about(each)]
    lines += [_compared(row, labels) for row in result["compared"]]
    lines += machine_lines(result["machine"], [MachineWarning(**row) for row in result["warnings"]])
    load = result["artifacts"][0]["latency"]["conditions"]["load"]
    loaded = "" if load is None else f"; beside it: {load_phrase(load)}"
    return [*lines, f"queries: {result['queries']}{loaded}; {result['nature']}"]


def _table_rows(latency: Result) -> Iterator[list[str]]:
    """Scenario, batch size, p50, p90, p99, images a second, and what else is to be said."""
    size = str(latency["batch_size"])
    if "n" in latency:
        times = _times(latency, "p50_ms", "p90_ms", "p99_ms")
        yield ["single-stream", size, *times, _rate(latency), f"{latency['n']} queries"]
    for row in latency.get("sweep", []):
        yield ["batch", str(row["batch_size"]), *_times(row, "p50_ms", None, "p99_ms"), _rate(row), _queries(row)]
    if row := latency.get("offline"):
        yield ["offline", str(row["batch_size"]), *_times(row, "p50_ms", None, "p99_ms"), _rate(row), _queries(row)]
    for row in latency.get("camera", []):
        noticed = f"of {row['frames']} frames {row['dropped']} dropped, {row['missed']} late"
        yield [f"camera {row['fps']:g} fps", size, *_times(row, "p50_ms", "p90_ms", "p99_ms"), "", noticed]


def _queries(row: Result) -> str:
    return f"{row['n']} queries in {row['seconds']:.1f} s"


def _times(row: Result, *names: "str | None") -> list[str]:
    return [f"{row[name]:.3f} ms" if name else "" for name in names]


def _rate(row: Result) -> str:
    return f"{row['images_per_s']:,.0f}"


def _about(each: Result) -> Iterator[str]:
    latency, runtime = each["latency"], each["runtime"]
    yield (
        f"opened in {latency['cold_start_ms']:.1f} ms, first query {latency['first_inference_ms']:.2f} ms, "
        f"at most {latency['memory']['peak_rss_bytes'] / 2**20:.0f} MiB in this process; "
        f"{runtime['name']} {runtime['version']}, {runtime['provider']}, {runtime['threads']} threads"
    )
    if "preprocess_ms" in latency:
        yield f"preprocessing p50 {latency['preprocess_ms']['p50_ms']:.3f} ms, inside every time above"
    if split := latency.get("parts"):
        yield "medians " + ", ".join(f"{key.removesuffix('_ms')} {split[key]:.3f} ms" for key in split if key != "n")
    for alarm in each["alarms"]:
        if alarm["fired"]:
            yield f"ALARM {alarm['name']}: {alarm['meaning']}"


def _compared(row: Result, labels: Mapping[str, str]) -> str:
    low, high = row["interval"]
    return (
        f"{labels[row['name']]} takes {row['ratio']:.3f} times as long as {labels[row['to']]}, {row['what']} "
        f"({row['level']:.0%} interval {low:.3f} to {high:.3f}, {row['turns']} turns)"
    )
