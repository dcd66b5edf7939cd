"""One step of quantization-aware training: ours and ModelOpt's fake quantizers against the float, folded network.

    OMP_NUM_THREADS=1 python benchmarks/quantizer_step.py [--models resnet20 resnet18] [--batch-size 32] [--rounds 9]
        [--note "…"]

A step is forward, backward and update; `attack` is one step of an attack on the same network, forward and the gradient
by the images. Random images 3 × 32 × 32 and weights. All take turns, every round beginning with another; medians of
processor time count, which other programs disturb least. ModelOpt's quantizers stand where ours do (`pip install
nvidia-modelopt requests huggingface-hub`); without it its columns are left out. About 3 minutes on one core. Appends to
benchmarks/results/quantizer_step.jsonl.
"""

import argparse
import contextlib
import copy
import io
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor

from benchmarks.machine import where
from compress import networks
from compress.networks.base import Activation, Add, Classifier
from compress.quantization import int8
from compress.quantization.lowering import lower
from compress.quantization.ranges import Ranges

RESULTS = Path(__file__).parent / "results" / "quantizer_step.jsonl"


def main(given: argparse.Namespace) -> None:
    for name in given.models:
        row = {**steps(name, given), "note": given.note, "threads": torch.get_num_threads()}
        print(json.dumps(row, indent=2))
        with open(RESULTS, "a") as file:
            file.write(json.dumps({**row, **where()}) + "\n")


def steps(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a step by kind of network, and what each adds to the float one's."""
    x, y = torch.rand(given.batch_size, 3, 32, 32), torch.randint(0, 10, (given.batch_size,))
    kinds: dict[str, Callable[[Classifier, Tensor], Classifier]] = {
        "float": lambda model, images: lower(model, tuple(images.shape[1:])),
        "ours": lambda model, images: int8.quantize_network(model, [images])[0],
        "ours_learned": learned,
        "modelopt": modelopt,
    }
    turns = {}
    for kind, prepare in kinds.items():
        with contextlib.suppress(ImportError):
            model = prepare(network(name), x)
            turns[f"{kind}.step"], turns[f"{kind}.attack"] = step(model, x, y), attack(model, x, y)
    milliseconds = taken(turns, given.rounds)
    return {
        "model": name,
        "batch_size": given.batch_size,
        "rounds": given.rounds,
        "ms": {turn: round(each, 2) for turn, each in milliseconds.items()},
        "over_float": {
            turn: round(each / milliseconds[f"float.{turn.partition('.')[2]}"], 3)
            for turn, each in milliseconds.items()
            if not turn.startswith("float.")
        },
    }


def network(name: str) -> Classifier:
    torch.manual_seed(0)
    return networks.build_network(name, channels=3, classes=10)


def learned(model: Classifier, images: Tensor) -> Classifier:
    twin, _ = int8.quantize_network(model, [images], Ranges("learned"))
    for _, quantizer in int8.quantizers(twin):
        quantizer.learn()
    return twin


def modelopt(model: Classifier, images: Tensor) -> Classifier:
    """ModelOpt's quantizers at the same places."""
    with quiet():
        import modelopt.torch.quantization as mtq
        from modelopt.torch.quantization.nn import QuantModule, QuantModuleRegistry, TensorQuantizer

        class QuantActivation(QuantModule):
            def _setup(self) -> None:
                self.output_quantizer = TensorQuantizer()

            def forward(self, x: Tensor) -> Tensor:
                return self.output_quantizer(super().forward(x))

        class QuantAdd(QuantModule):
            def _setup(self) -> None:
                self.a_quantizer, self.b_quantizer = TensorQuantizer(), TensorQuantizer()

            def forward(self, a: Tensor, b: Tensor) -> Tensor:
                return super().forward(self.a_quantizer(a), self.b_quantizer(b))

        if Activation not in QuantModuleRegistry:
            mtq.register(original_cls=Activation, quantized_cls=QuantActivation)
            mtq.register(original_cls=Add, quantized_cls=QuantAdd)
        sites = int8.quantize_network(copy.deepcopy(model), [images])[1]["unsigned"]
        recipe = [{"quantizer_name": "*", "enable": False}]
        recipe += [{"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}}]
        recipe += [
            {"quantizer_name": site, "cfg": {"num_bits": 8, "axis": None, "unsigned": unsigned}}
            for site, unsigned in sites.items()
        ]
        plain = lower(model, tuple(images.shape[1:]))
        with torch.no_grad():
            mtq.quantize(plain, {"quant_cfg": recipe, "algorithm": "max"}, lambda network: network(images))
        return plain


@contextlib.contextmanager
def quiet() -> Any:
    """ModelOpt prints to stdout and warns of extensions that nothing here uses."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def step(model: Classifier, x: Tensor, y: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9, nesterov=True)

    def run() -> None:
        model.train()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return run


def attack(model: Classifier, x: Tensor, y: Tensor) -> Callable[[], None]:
    def run() -> None:
        model.eval()
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(torch.nn.functional.cross_entropy(model(leaf), y), leaf)

    return run


def taken(turns: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median milliseconds of processor time of each; after one round to warm up, every round begins with another."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    order = list(turns)
    for number in range(rounds + 1):
        for name in order[number % len(order) :] + order[: number % len(order)]:
            began = time.process_time()
            turns[name]()
            if number:
                found[name].append(1000 * (time.process_time() - began))
    return {name: statistics.median(each) for name, each in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["resnet20", "resnet18"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--note", default="")
    main(parser.parse_args())
