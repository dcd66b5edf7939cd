"""What a Jetson's own files and tools tell beyond every Linux: board, power mode, clocks of GPU and memory."""

import json
from typing import Any

from edge.core import l4t
from edge.evidence import clocks, texts
from edge.evidence.tree import Tree

MODEL = "proc/device-tree/model"
RELEASE = "etc/nv_tegra_release"
#: of devfreq's device or of nvgpu, in thousandths
GPU_LOADS = ("{}/device/load", "sys/devices/platform/gpu.0/load", "sys/devices/gpu.0/load")
TEGRASTATS_S = 1.0


def is_jetson(tree: Tree) -> bool:
    return l4t.read(tree.root) is not None


def board(tree: Tree) -> dict[str, Any]:
    """{model, soc, l4t, jetpack, packages, cuda}; the serial number stays where it is."""
    found = l4t.read(tree.root) or {}
    for key, what in (("model", "model of the board"), ("l4t", "version of Jetson Linux"), ("jetpack", "JetPack")):
        if found.get(key) is None:
            tree.lacks(what, f"/{MODEL} and /{RELEASE} do not tell", "name it beside the figures yourself")
    compatible = (tree.text("proc/device-tree/compatible") or "").split("\0")
    soc = next((part.partition(",")[2] for part in compatible if part.startswith("nvidia,tegra")), None)
    return {**found, "soc": soc, "cuda": _cuda(tree)}


def _cuda(tree: Tree) -> "str | None":
    path = "usr/local/cuda/version.json"
    text = tree.text(path, "version of CUDA", "sudo apt install nvidia-jetpack, or use the runtime alone")
    try:
        found = json.loads(text)["cuda"]["version"] if text else None
    except (ValueError, KeyError, TypeError):
        tree.lacks("version of CUDA", f"{path} has another form", "look into it")
        return None
    return str(found)[:20] if found else None


def power_mode(tree: Tree) -> "dict[str, Any] | None":
    """{id, name} of nvpmodel."""
    text = tree.command("nvpmodel-q", ["nvpmodel", "-q"])
    found = None if text is None else texts.nvpmodel(text)
    if text is not None and found is None:
        tree.lacks("nvpmodel", f"nvpmodel -q prints {text.strip()[:80]!r}, no power mode", "sudo nvpmodel -q")
    return found


def shown_clocks(tree: Tree) -> clocks.Clocks:
    """What `jetson_clocks --show` shows; to root alone, so it only fills what the kernel's files left open."""
    text = tree.command("jetson_clocks-show", ["jetson_clocks", "--show"])
    found = {} if text is None else texts.jetson_clocks(text)
    if text is not None and not found:
        said = (text.strip().splitlines() or ["nothing"])[0]
        tree.lacks("jetson_clocks", f"jetson_clocks --show prints {said[:80]!r}", "sudo jetson_clocks --show")
    return found


def tegrastats(tree: Tree) -> dict[str, Any]:
    """One line of tegrastats as values."""
    text = tree.command("tegrastats", ["tegrastats", "--interval", "200"], seconds=TEGRASTATS_S, endless=True)
    found = {} if text is None else texts.tegrastats(text)
    if text is not None and not found:
        tree.lacks("tegrastats", "prints no line that is understood", "tegrastats --interval 200")
    return found


def gpu_load(tree: Tree) -> "str | None":
    """The file of the GPU's utilisation, in thousandths."""
    device = clocks.gpu_device(tree)
    names = [name.format(device) for name in GPU_LOADS if device or "{}" not in name]
    return next((name for name in names if tree.has(name)), None)


def all_held(found: clocks.Clocks) -> "bool | None":
    """What jetson_clocks does: every clock of cores and GPU at one value. None where neither is known."""
    states = [clocks.held(clock) for name, clock in found.items() if name == "gpu" or name.startswith("cpu")]
    known = [state for state in states if state is not None]
    return all(known) if known else None
