"""Ranges against searches spelled out value by value, and calibration of a whole network."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from compress import names, networks
from compress.networks.base import Classifier
from compress.quantization import int8, ranges
from compress.quantization.lowering import lower
from compress.quantization.ranges import BINS, ENTROPY_BINS, Histogram, Ranges
from edge.core.errors import CompressError


def drawn(kind: str, n: int = 20_000) -> Tensor:
    draw = torch.Generator().manual_seed(7)
    x = torch.randn(n, generator=draw)
    if kind == "outliers":
        x[:20] *= 20
    return {"relu": x.relu(), "outliers": x, "uniform": torch.rand(n, generator=draw)}[kind]


def seen(x: Tensor) -> Histogram:
    found = Histogram(float(x.abs().max()))
    for part in x.split(777):
        found.add(part)
    return found


def test_a_histogram_counts_every_value_once_however_it_comes() -> None:
    x = drawn("outliers")
    whole = Histogram(float(x.abs().max()))
    whole.add(x.reshape(10, 20, -1))
    assert (whole.counts == seen(x).counts).all() and whole.counts.sum() == len(x) and len(whole.counts) == BINS
    naive = np.zeros(BINS, np.int64)
    for value in x.abs().tolist():
        naive[min(int(value / whole.top * BINS), BINS - 1)] += 1
    assert np.abs(naive - whole.counts).sum() <= 0.01 * len(x)  # a value at a bin's end may fall on either side


@pytest.mark.parametrize("kind", ["relu", "outliers", "uniform"])
@pytest.mark.parametrize("percent", [50.0, 99.0, 99.99, 100.0])
def test_percentile_against_sorting(kind: str, percent: float) -> None:
    x = drawn(kind)
    ordered = sorted(x.abs().tolist())
    want = ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)]
    found = seen(x)
    assert -1e-5 * found.top <= ranges.percentile(found, percent) - want <= 1.001 * found.width


@pytest.mark.parametrize(("kind", "highest"), [("relu", 255), ("outliers", 127), ("uniform", 255)])
def test_mse_against_a_search_over_the_values_themselves(kind: str, highest: int) -> None:
    x = drawn(kind)
    top = float(x.abs().max())

    def error(amax: float) -> float:
        scale = amax / highest
        levels = np.clip(np.rint(x.double().numpy() / scale), -highest, highest)
        return float(((levels * scale - x.double().numpy()) ** 2).mean())

    best = min(error(share * top) for share in ranges.SHARES)
    assert error(ranges.mse(seen(x), highest)) <= 1.02 * best
    if kind == "outliers":
        assert ranges.mse(seen(x), highest) < 0.95 * top  # clipping pays


def naive_entropy(x: Tensor, levels: int) -> float:
    """The search of Migacz (GTC 2017), bin by bin."""
    top = float(x.abs().max())
    counts = [0.0] * ENTROPY_BINS
    for value in x.abs().tolist():
        counts[min(int(value / top * ENTROPY_BINS), ENTROPY_BINS - 1)] += 1
    counts[0] = counts[1]
    best, end = math.inf, 0
    for stop in range(levels, ENTROPY_BINS + 1):
        inside, outside = counts[:stop], sum(counts[stop:])
        q = [0.0] * stop
        for level in range(levels):
            members = [k for k in range(stop) if k * levels // stop == level and inside[k] > 0]
            for k in members:
                q[k] = sum(inside[j] for j in members) / len(members)
        p = [*inside[:-1], inside[-1] + outside]
        if any(a > 0 and b == 0 for a, b in zip(p, q, strict=True)):
            continue
        mass_p, mass_q = sum(p), sum(q)
        lost = sum(a / mass_p * math.log(a / mass_p / (b / mass_q)) for a, b in zip(p, q, strict=True) if a > 0)
        if lost <= best:
            best, end = lost, stop
    return end * top / ENTROPY_BINS


def test_entropy_against_the_search_bin_by_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "ENTROPY_BINS", 128)  # of 2,048 the oracle would take minutes
    monkeypatch.setitem(globals(), "ENTROPY_BINS", 128)
    for kind, levels in (("relu", 32), ("outliers", 16), ("uniform", 32)):
        x = drawn(kind)
        assert ranges.entropy(seen(x), levels) == pytest.approx(naive_entropy(x, levels), rel=1e-6), kind


def test_entropy_clips_outliers_and_keeps_what_the_levels_hold() -> None:
    x = drawn("outliers")
    assert 2 < ranges.entropy(seen(x), 128) < 0.5 * float(x.abs().max())
    few = torch.tensor([0.0, 0.01, 0.02])
    assert ranges.entropy(seen(few), 256) == pytest.approx(0.02)


def test_weights_by_mse_against_a_search_in_each_channel() -> None:
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[0, 0, 0, 0] = 12.0
    top = weight.abs().flatten(1).amax(1)
    got = ranges.mse_by_channel(weight, top, 127)
    for channel in range(5):
        row = weight[channel].flatten().double().numpy()
        errors = {}
        for share in ranges.SHARES:
            scale = share * float(top[channel]) / 127
            errors[share] = float(((np.clip(np.rint(row / scale), -128, 127) * scale - row) ** 2).sum())
        found = float(got[channel] / top[channel])
        assert min(errors, key=lambda share: abs(share - found)) == pytest.approx(found, abs=1e-3)
        assert errors[round(found, 2)] <= min(errors.values()) * (1 + 1e-4)


def network() -> Classifier:
    torch.manual_seed(0)
    return networks.build_network("resnet8", channels=1, classes=10)


def images(n: int = 48, seed: int = 1) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


WANTED: dict[str, Callable[[Tensor], float]] = {
    "max": lambda values: float(values.max()),
    "percentile": lambda values: ranges.percentile(seen(values.flatten()), 99.0),
    "mse": lambda values: ranges.mse(seen(values.flatten()), 255),
    "entropy": lambda values: ranges.entropy(seen(values.flatten()), 256),
    "learned": lambda values: ranges.mse(seen(values.flatten()), 255),
}


@pytest.mark.parametrize("how", names.RANGES)
def test_ranges_of_a_network_are_those_of_what_passes_each_place(how: str) -> None:
    model, passed = network(), []
    model = lower(model, (1, 8, 8))
    model.get_submodule("layer1.0.relu1").register_forward_hook(lambda m, a, out: passed.append(out.detach()))
    model(images())
    model, layout = int8.quantize_network(model, images().split(13), Ranges(how, 99.0))
    got = float(model.get_submodule("layer1.0.relu1.output_quantizer").amax)
    assert got == pytest.approx(WANTED[how](passed[0]), rel=1e-3)
    assert layout["ranges"] == how and float(model.get_submodule("conv1.input_quantizer").amax) == 1.0


def test_the_grid_of_a_signed_runtime_is_what_its_ranges_are_found_for() -> None:
    found = {}
    for runtime in ("onnx", "tensorrt"):
        model = network()
        model, layout = int8.quantize_network(model, [images()], Ranges("mse", runtime=runtime))
        found[runtime] = float(model.get_submodule("relu.output_quantizer").amax)
        assert layout["runtime"] == runtime
    assert found["tensorrt"] < found["onnx"]  # of half as many levels clipping pays earlier


def test_what_is_always_zero_gets_a_range_that_holds_it() -> None:
    model = network()
    model.conv1.weight.data[3] = 0.0  # a channel that BatchNorm has switched off
    model.linear.weight.data.zero_()
    model.layer2[0].bn1.bias.data.fill_(-1e3)
    model, layout = int8.quantize_network(model, [images()])
    int8.check_ranges(model)
    assert float(model.get_submodule("layer2.0.relu1.output_quantizer").amax) == 1.0
    assert layout["unsigned"]["layer2.0.relu1.output_quantizer"]
    amax = model.conv1.weight_quantizer.amax
    assert float(amax[3]) == pytest.approx(float(amax.max()) * ranges.LEAST_CHANNEL)
    assert bool(torch.isfinite(model(images())).all())


@pytest.mark.parametrize("where", ["weights", "activations"])
def test_what_is_not_finite_is_refused(where: str) -> None:
    model = network()
    (model.conv1.weight if where == "weights" else model.layer2[0].bn1.bias).data[0] = math.nan
    with pytest.raises(CompressError, match=r"INT8 without ranges: .* not finite; train .* again"):
        int8.quantize_network(model, [images()])
