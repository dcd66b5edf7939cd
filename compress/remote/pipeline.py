"""A user's own preprocessing on its way to a board: the module's file and the frames, beside each other there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.board import store
from edge.core.errors import CompressError
from edge.runtimes import preprocess

FRAMES = "frames.npy"


def files(config: Mapping[str, Any]) -> dict[str, Path]:
    """What `--preprocess` and `--frames` of a verification need there, name → file here."""
    found = {}
    if config.get("preprocess") is not None:
        module = config["preprocess"].partition(":")[0]
        file = preprocess.load(config["preprocess"]).file
        if file is None or file.name != f"{module}.py" or not store.NAME.fullmatch(file.name):
            raise CompressError(
                f"--preprocess {config['preprocess']}: {file or module} is not the file {module}.py, and only a module "
                f"of one file is sent to a board; put the function into one"
            )
        found[file.name] = file
    if config.get("frames") is not None:
        found[FRAMES] = Path(config["frames"])
    return found


def there(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the frames where they lie on the board."""
    return {**config, "frames": FRAMES} if config.get("frames") is not None else dict(config)
