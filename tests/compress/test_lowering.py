"""Lowered networks against the networks themselves: values, gradients, names, and what stays in floating point."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress import networks
from compress.networks.base import Classifier, Features
from compress.networks.foreign_network import Foreign
from compress.networks.tracing import UntraceableNetwork
from compress.quantization import int8, traces
from compress.quantization.lowering import lower
from compress.quantization.sites import float_operations, image_sites, quantizer_sites
from compress.stages import network_quantization
from compress.stages.sensitivity import CalibratedNetwork
from edge.core.errors import CompressError

SHAPE = (3, 8, 8)


class Written(nn.Module):
    """A network written as one function of its modules, weights and buffers, and of images."""

    def __init__(self, compute: Callable[[Any, Tensor], Tensor], **parts: "nn.Module | Tensor") -> None:
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(0.3 * torch.randn(*shape))


def conv(inputs: int = 3, outputs: int = 4, **given: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, **{"padding": 1, **given})


def pooled(compute: Callable[[Any, Tensor], Tensor], width: int = 4, **parts: Any) -> nn.Module:
    """Maps averaged, and a linear layer."""
    return Written(lambda self, x: self.head(compute(self, x).mean((2, 3))), head=nn.Linear(width, 5), **parts)


def attention(self: Any, x: Tensor, **given: Any) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    q, k, v = self.qkv(tokens).chunk(3, -1)
    return self.head(functional.scaled_dot_product_attention(q, k, v, **given).mean(1))  # type: ignore[no-any-return]


def attending(**given: Any) -> nn.Module:
    return Written(lambda self, x: attention(self, x, **given), qkv=nn.Linear(3, 12), head=nn.Linear(4, 5))


def residual(self: Any, x: Tensor) -> Tensor:
    y = self.c(x)
    return self.bn(y.contiguous()).relu() + y  # type: ignore[no-any-return]


def added_in_place(self: Any, x: Tensor) -> Tensor:
    y = functional.relu_(self.c(x))
    z = self.d(y)
    z += y
    return z.mul_(2)  # type: ignore[no-any-return]


def partly_without_gradients(self: Any, x: Tensor) -> Tensor:
    y = self.c(x).relu()
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        z = self.d(y) + self.w
        with torch.enable_grad():
            w = self.d(x[:, :1].expand(-1, 4, -1, -1))
    with torch.autocast("cuda", enabled=False):
        return y + z + w  # type: ignore[no-any-return]


def bn(width: int = 4) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width)
    for values in (norm.running_mean, norm.bias.data):
        values.normal_(0, 0.3)  # type: ignore[union-attr]
    norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return norm


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "folded": lambda: pooled(lambda self, x: self.bn(self.c(x)).relu(), c=conv(), bn=bn()),
    "folded weight read again": lambda: pooled(
        lambda self, x: self.bn(self.c(x)).relu() * self.c.weight.abs().mean(), c=conv(), bn=bn()
    ),
    "not folded": lambda: pooled(residual, c=conv(), bn=bn()),
    "functional BatchNorm": lambda: pooled(
        lambda self, x: functional.batch_norm(self.c(x).relu(), self.mean, self.mean + 1, self.w, self.w),
        c=conv(),
        mean=nn.Buffer(torch.rand(4)),
        w=weight(4),
    ),
    "clamped image": lambda: pooled(lambda self, x: self.c(x.clamp(0, 1)).relu(), c=conv()),
    "clamps": lambda: pooled(
        lambda self, x: self.c(x).clamp(min=0) + self.c(x).clamp(max=0) + self.c(x).clamp(0, 0), c=conv()
    ),
    "relu6": lambda: pooled(lambda self, x: functional.relu6(9 * self.c(x)), c=conv()),
    "paddings": lambda: pooled(
        lambda self, x: self.d(self.c(x).relu()),
        c=conv(padding="same", dilation=2),
        d=conv(4, 4, groups=2, padding_mode="reflect"),
    ),
    "in place": lambda: pooled(added_in_place, c=conv(), d=conv(4, 4)),
    "products with weights": lambda: Written(
        lambda self, x: (x.flatten(1) @ self.w).relu() @ self.proj + self.proj.sum(),
        w=weight(192, 8),
        proj=weight(8, 5),
    ),
    "two geometries of one weight": lambda: pooled(
        lambda self, x: self.c(x) + functional.conv2d(x, self.c.weight, padding=2, dilation=2), c=conv()
    ),
    "a module named as an operation": lambda: pooled(
        lambda self, x: self.conv2d(functional.conv2d(x, self.c.weight * 2).relu()), c=conv(), conv2d=conv(4, 4)
    ),
    "a weight named as an operation": lambda: pooled(
        lambda self, x: (self.c(x) + self.c(x).sigmoid()) * self.add, c=conv(), add=weight(1)
    ),
    "attention": attending,
    "attention of what came before": lambda: attending(is_causal=True),
    "attention with a mask": lambda: attending(attn_mask=torch.ones(64, 64, dtype=torch.bool).tril()),
    "attention with a bias": lambda: attending(attn_mask=torch.linspace(-1, 1, 4096).reshape(64, 64)),
    "a part without gradients": lambda: pooled(partly_without_gradients, c=conv(), d=conv(4, 4), w=weight(1)),
    "the image": lambda: Written(lambda self, x: x.flatten(1)),
}


def built(name: str) -> Foreign:
    torch.manual_seed(0)
    return Foreign(NETWORKS[name]().eval(), name, 5).eval()


def images(n: int = 4) -> Tensor:
    """Many of their pixels are exactly black or white."""
    x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))
    return torch.where(x < 0.3, 0.0, torch.where(x > 0.8, 1.0, x))


def answers(network: Any, x: Tensor) -> "tuple[Features, Tensor]":
    """Its features, and the gradient of a loss by the image."""
    x = x.clone().requires_grad_()
    features: Features = network.forward_features(x)
    (gradient,) = torch.autograd.grad(features.logits.square().sum() + features.logits.sum(), x)
    return features, gradient


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_same_function_with_the_same_gradient(name: str) -> None:
    want, slope = answers(built(name), images())
    network = built(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    lowered = lower(network, SHAPE)
    got, found = answers(lowered, images())
    for mine, theirs in zip(
        (got.logits, got.pooled, *got.stages), (want.logits, want.pooled, *want.stages), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found, slope, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(lowered(images(1)), built(name)(images(1)), atol=1e-5, rtol=1e-4)  # any number of them
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(weight.grad_fn is None for weight in lowered.parameters())


QUANTIZED = (
    "folded weight read again",
    "two geometries of one weight",
    "attention with a mask",
)


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_it_is_restored_to_the_bit_and_ends_as_itself_with_every_layer_left_float(name: str) -> None:
    x = images()
    twin, layout = int8.quantize_network(built(name), [x])
    again = int8.restore(built(name), SHAPE, layout, {key: value.clone() for key, value in twin.state_dict().items()})
    assert torch.equal(again(x), twin(x)) and not torch.equal(twin(x), built(name)(x))
    int8.lay_out(twin, int8.leave_float(twin, layout, int8.quantized_layers(twin)))
    assert not [site for site, quantizer in int8.quantizers(twin) if quantizer.is_enabled]
    torch.testing.assert_close(twin(x), built(name)(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("two geometries of one weight", ["head", "c", "c_2"]),
        ("a module named as an operation", ["head", "conv2d", "conv2d_2"]),
        ("attention", ["qkv", "head", "matmul", "matmul_2"]),
    ],
)
def test_layers_have_the_names_of_their_weights(name: str, layers: list[str]) -> None:
    assert sorted(int8.quantized_layers(int8.quantize_network(built(name), [images()])[0])) == sorted(
        f"net.{layer}" for layer in layers
    )
    own = built("a module named as an operation").state_dict()["net.conv2d.weight"]
    assert torch.equal(lower(built("a module named as an operation"), SHAPE).state_dict()["net.conv2d.weight"], own)


def test_no_weight_is_kept_that_nothing_reads() -> None:
    torch.manual_seed(0)
    net = pooled(lambda self, x: self.c(x).relu(), c=nn.utils.parametrizations.weight_norm(conv()))
    lowered = lower(Foreign(net, "normed", 5), SHAPE)
    assert {name for name, _ in lowered.named_parameters()} == {
        f"net.{layer}.{what}" for layer in ("c", "head") for what in ("weight", "bias")
    }


def test_what_no_quantizer_can_stand_at_is_named() -> None:
    def compute(self: Any, x: Tensor) -> Tensor:
        rows = self.c1(x.flatten(2)).relu()
        maps = self.up(x)
        return torch.cat((rows.mean(2), torch.einsum("bchw,cd->bd", maps, self.w), self.c2(x).mean((2, 3))), 1) @ self.v

    parts = {"c1": nn.Conv1d(3, 4, 3), "up": nn.ConvTranspose2d(3, 4, 2, 2), "c2": conv(), "w": weight(4, 4)}
    net = Foreign(Written(compute, **parts, v=weight(12, 5)), "mixed", 5)
    lowered = lower(net, SHAPE)
    assert float_operations(lowered) == ["conv1d in net.c1", "conv_transpose2d in net.up", "einsum in net"]
    assert float_operations(lower(built("attention of what came before"), SHAPE)) == [
        "scaled_dot_product_attention in net"
    ]
    assert float_operations(lower(built("folded"), SHAPE)) == []


def test_what_stays_in_floating_point_is_said_and_a_network_of_nothing_else_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Path("runs/student")
    twin, layout = int8.quantize_network(built("attention of what came before"), [images()])
    named = ["scaled_dot_product_attention in net"]
    assert network_quantization._float_operations(CalibratedNetwork(twin, layout, "onnx"), stage) == named
    assert "2 layers quantized" in (said := capsys.readouterr().err) and "1 operation of" in said and named[0] in said
    twin, layout = int8.quantize_network(built("the image"), [images()])
    with pytest.raises(CompressError, match=r"^runs/student: has nothing that is quantized here"):
        network_quantization._float_operations(CalibratedNetwork(twin, layout, "onnx"), stage)


def test_the_image_has_its_range_where_it_alone_is_read_moved_or_not() -> None:
    def patches(self: Any, x: Tensor) -> Tensor:
        rows = x.reshape(-1, 3, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return self.head(self.embed(rows).relu().mean(1))  # type: ignore[no-any-return]

    moved = Foreign(Written(patches, embed=nn.Linear(48, 8), head=nn.Linear(8, 5)), "patches", 5)
    assert image_sites(lower(moved, SHAPE)) == {"net.embed.input_quantizer"}
    twice = Foreign(pooled(lambda self, x: self.c(5 * self.c(x)), width=3, c=conv(3, 3)), "twice", 5)
    assert image_sites(lower(twice, SHAPE)) == set()


def test_a_relu_that_a_relu_reads_is_not_quantized_twice() -> None:
    """An exporter makes one operation of both, which has one place for a quantizer."""
    net = Foreign(pooled(lambda self, x: self.d(self.c(x).relu().clamp(0, 0.4)), c=conv(), d=conv(4, 4)), "two", 5)
    assert [site for site in quantizer_sites(lower(net, SHAPE)) if "relu" in site] == ["net.relu_2.output_quantizer"]


def test_what_cannot_be_traced_is_one_line() -> None:
    def compute(self: Any, x: Tensor) -> Tensor:
        return self.head(x.flatten(1)) if x.sum() > 0 else self.head(-x.flatten(1))  # type: ignore[no-any-return]

    net = Foreign(Written(compute, head=nn.Linear(192, 5)), "odd", 5)
    with pytest.raises(UntraceableNetwork, match=r"of odd: .* write it without branches on values") as caught:
        lower(net, SHAPE)
    assert "\n" not in str(caught.value)


def test_a_name_that_the_graph_has_for_itself_is_one_line() -> None:
    class Graphs(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Linear(192, 5)

        def forward_features(self, x: Tensor) -> Features:
            return Features(self.place(x.flatten(1)), x.flatten(1), ())

    with pytest.raises(UntraceableNetwork, match=r"^Graphs: has a module or a weight 'place', .* another one$"):
        lower(Graphs(), SHAPE)


def test_networks_of_ours_that_are_built_the_same_are_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[str] = []
    trace_program = traces.trace_program
    monkeypatch.setattr(traces, "_KNOWN", OrderedDict())
    monkeypatch.setattr(traces, "trace_program", lambda *given: traced.append(given[-1]) or trace_program(*given))
    x = torch.rand(3, 1, 8, 8)
    for name in ("resnet8", "resnet8", "cnn", "cnn+normalize", "resnet8"):
        network = networks.build_network(name, channels=1, classes=10).eval()
        torch.testing.assert_close(lower(network, (1, 8, 8))(x), network(x))
    assert traced == ["CifarResNet", "CNN", "CNN"]
    hooked = networks.build_network("cnn", channels=1, classes=10).eval()
    hooked.linear.register_forward_hook(lambda module, args, output: 2 * output)
    torch.testing.assert_close(lower(hooked, (1, 8, 8))(x), hooked(x))
    assert len(traced) == 4, "a hook may change what is computed"


def test_a_part_under_autocast_is_computed_in_float32_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.c(x).float()  # type: ignore[no-any-return]

    def network() -> Foreign:
        torch.manual_seed(0)
        return Foreign(pooled(forward, c=conv()).eval(), "in half", 5).eval()

    with torch.no_grad():
        exact = network().net.c(images()).relu()  # type: ignore[union-attr,operator]
        got = lower(network(), SHAPE)
        layers = [module for module in got.modules() if isinstance(module, nn.Conv2d)]
        torch.testing.assert_close(layers[0](images()).relu(), exact)
        torch.testing.assert_close(got(images()), network()(images()), atol=0.05, rtol=0.05)
    assert "in half: runs a part under autocast (bfloat16 on cpu); its graph computes that part" in (
        capsys.readouterr().err
    )
