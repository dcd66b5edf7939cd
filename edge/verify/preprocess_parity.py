"""A user's pipeline as part of what is verified: its frames, and whether clean images survive it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core import artifact
from edge.core.errors import CompressError
from edge.runtimes import preprocess
from edge.runtimes.preprocess import Preprocess
from edge.runtimes.runner import FULL_SCALE, Runner
from edge.statement.statement import Figure, PipelineParity


@dataclass(frozen=True)
class Pipeline:
    """A preprocessing function and a frame for each of N images."""

    preprocess: Preprocess
    frames: Any
    origin: str  # where the frames come from, for a person

    @property
    def applied_to(self) -> str:
        """On which side of the pipeline the radius lies."""
        return (
            "pixels in [0, 1] on the 8-bit grid, the model's own input, which is what preprocessing by "
            f"{self.preprocess.name} gives; no bound on the camera's frames before it follows"
        )


def read_pipeline(config: Mapping[str, Any], clean: "npt.NDArray[np.uint8]") -> "Pipeline | None":
    """What `config` names in `preprocess` and `frames`, a frame for each clean image (N,C,H,W); None without it."""
    name, file = config.get("preprocess"), config.get("frames")
    if name is None:
        if file is not None:
            raise CompressError(f"--frames {file}: are the frames of a --preprocess module:function; give it too")
        return None
    function = preprocess.load(name)
    if file is None:
        return Pipeline(function, function.frames_of(clean), f"{preprocess.INVERSE}() of its module")
    frames = preprocess.read_frames(file)
    if len(frames) != len(clean):
        raise CompressError(
            f"--frames {file}: holds {len(frames)} frames, the attack set {len(clean)} clean images; "
            "give one for each, in its order"
        )
    return Pipeline(function, frames, f"{Path(file).name}, sha256 {artifact.file_sha256(Path(file)):.12}")


def decided(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` as a plan records it: the function with its module's hash, a file of frames as its hash."""
    recorded = dict(config)
    if (name := recorded.get("preprocess")) is not None:
        recorded["preprocess"] = {"name": name, "sha256": preprocess.load(name).sha256}
    if recorded.get("frames") is not None:
        preprocess.read_frames(recorded["frames"])
        recorded["frames"] = artifact.file_sha256(Path(recorded["frames"]))
    return recorded


def pipeline_parity(
    pipeline: Pipeline,
    runner: Runner,
    clean: "npt.NDArray[np.uint8]",
    labels: "npt.NDArray[Any]",
    clean_logits: "npt.NDArray[np.float32]",
) -> PipelineParity:
    """Clean accuracy through the pipeline, share of predictions that stay, largest pixel change in grey levels.

    `clean` uint8 (N,C,H,W) and `clean_logits` (N,K) are the images themselves and what the artifact says of them.
    """
    size, function = runner.batch_size, pipeline.preprocess
    predicted = np.empty(len(clean), np.int64)
    largest = 0.0
    for start in range(0, len(clean), size):
        images = function.checked(pipeline.frames[start : start + size], runner.input_shape)
        predicted[start : start + size] = runner.infer(images).argmax(1)
        grey = images if images.dtype == np.uint8 else images * FULL_SCALE
        change = np.abs(grey.astype(np.float32) - clean[start : start + size].astype(np.float32))
        largest = max(largest, float(change.max()))
    same = predicted == clean_logits.argmax(1)
    clean_right = Figure.of(int((predicted == labels).sum()), len(clean))
    return PipelineParity(function.name, function.sha256, pipeline.origin, clean_right, float(same.mean()), largest)
