"""Does every model of RobustBench's CIFAR L∞ zoos load, and compute what its own definition computes?

    make zoo            (or, where robustbench can be imported: python benchmarks/zoo.py [NAME… | all])

No published weights are needed. Each constructor of robustbench's zoo makes its network with random weights and random
BatchNorm statistics; these are saved as RobustBench stores them (`DATASET/Linf/NAME.pt`, keys behind `module.`),
imported by `compress.stages.teacher_import`, and the logits of two random images compared to 1e-5 of the largest.
What cannot be constructed here is counted apart, with the reason. Appends a row to benchmarks/results/zoo.jsonl,
unless `all` or names are given. About 8 minutes on 2 cores, 5 GB of disk for the largest.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import nn

from benchmarks.machine import where
from compress import folders
from compress.config import ImportConfig, parse
from compress.networks import foreign
from compress.stages import teacher_import
from compress.zoo.catalog import CatalogEntry, entries
from edge.core.errors import CompressError

RESULTS = Path(__file__).parent / "results" / "zoo.jsonl"
TOLERANCE = 1e-5


def main(names: list[str]) -> None:
    every = not names or names == ["all"]
    chosen = [entry for entry in entries() if every or entry.name in names or entry.source in names]
    agreed, faults, refused = 0, {}, {}
    for number, entry in enumerate(chosen, 1):
        began = time.monotonic()
        try:
            theirs = randomised(construct(entry))
        except CompressError as fault:
            refused[entry.source] = str(fault)
            print(f"{number}/{len(chosen)} {entry.source}: cannot be constructed here: {fault}", flush=True)
            continue
        found = disagreement(entry, theirs)
        if found:
            faults[entry.source] = found
        else:
            agreed += 1
        seconds = time.monotonic() - began
        print(f"{number}/{len(chosen)} {entry.source}: {found or 'agrees'} ({seconds:.1f} s)", flush=True)
    constructed = len(chosen) - len(refused)
    print(f"{agreed} of {constructed} load and agree; {len(refused)} of {len(chosen)} cannot be constructed here")
    if not names:
        row = {
            "agreed": agreed,
            "constructed": constructed,
            "entries": len(chosen),
            "faults": faults,
            "refused": refused,
        }
        with open(RESULTS, "a") as file:
            file.write(json.dumps({**row, **where()}) + "\n")
    sys.exit(1 if faults else 0)


def construct(entry: CatalogEntry) -> nn.Module:
    """robustbench's own network of that entry, as its constructor makes it."""
    made = foreign.build_foreign(f"robustbench:{entry.dataset}/{entry.name}", channels=3, classes=entry.classes)
    return made.net if not made.probabilities else made  # type: ignore[union-attr,return-value]


def randomised(net: nn.Module) -> nn.Module:
    """Statistics and scales that matter: at their initial values many faults would not show."""
    draw = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.5, 1.2),
                (module.bias.data, -0.2, 0.2),
            ):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=draw) * (high - low) + low)
    return net.eval()


def disagreement(entry: CatalogEntry, theirs: nn.Module) -> str:
    """Empty when the imported network computes what `theirs` does, else what went wrong."""
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = theirs(x)
    with tempfile.TemporaryDirectory() as folder:
        save(entry, theirs, Path(folder))
        config = parse(ImportConfig, {"source": entry.source, "models": folder}, "benchmark")
        try:
            teacher_import.run(config, teacher_import.ImportInputs(), Path(folder) / "teacher")
        except CompressError as fault:
            return str(fault)
        ours = folders.load(Path(folder) / "teacher")
        with torch.no_grad():
            got = ours(x)
        del ours
    worst, scale = float((got - want).abs().max()), max(1.0, float(want.abs().max()))
    return "" if worst <= TOLERANCE * scale else f"logits differ by {worst:.2e} of {scale:.2e}"


def save(entry: CatalogEntry, net: nn.Module, folder: Path) -> None:
    """The files of RobustBench's layout: one, or one a part of an ensemble."""
    path = folder / entry.dataset / "Linf" / f"{entry.name}.pt"
    path.parent.mkdir(parents=True)
    parts = [net]
    if len(entry.drive) > 1:
        inner = getattr(net, "net", net)
        parts = list(inner.models) if hasattr(inner, "models") else [inner.std_model, inner.rob_model]
    for number, part in enumerate(parts):
        content = {"state_dict": {f"module.{name}": value for name, value in part.state_dict().items()}}
        wrapped = {"last": content["state_dict"]} if entry.name.startswith("Andriushchenko") else content
        torch.save(wrapped, path if len(parts) == 1 else f"{path}_m{number}.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="entries of the zoos; none or `all`: all of them")
    main(parser.parse_args().names)
