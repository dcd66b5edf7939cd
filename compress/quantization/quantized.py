"""Layers, activations and sums with quantizers in them, made from the float ones and sharing their weights."""

from torch import Tensor, nn

from compress.networks.base import Activation, Add
from compress.quantization.quantizer import Quantizer


class QuantConv2d(nn.Conv2d):
    """A convolution of quantized weights; its input passes a quantizer where no activation has quantized it, its output
    where something reads it that does not quantize it."""

    def __init__(self, plain: nn.Conv2d, *, quantizes_input: bool, quantizes_output: bool) -> None:
        super().__init__(
            plain.in_channels,
            plain.out_channels,
            plain.kernel_size,  # type: ignore[arg-type]
            plain.stride,  # type: ignore[arg-type]
            plain.padding,  # type: ignore[arg-type]
            plain.dilation,  # type: ignore[arg-type]
            plain.groups,
            bias=False,
            padding_mode=plain.padding_mode,
            device="meta",
        )
        self.weight, self.bias = plain.weight, plain.bias
        self.input_quantizer = Quantizer() if quantizes_input else nn.Identity()
        self.weight_quantizer = Quantizer(plain.out_channels)
        self.output_quantizer = Quantizer() if quantizes_output else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self._conv_forward(self.input_quantizer(x), self.weight_quantizer(self.weight), self.bias)
        on_grid: Tensor = self.output_quantizer(y)
        return on_grid


class QuantLinear(nn.Linear):
    """A linear layer, as `QuantConv2d`."""

    def __init__(self, plain: nn.Linear, *, quantizes_input: bool) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False, device="meta")
        self.weight, self.bias = plain.weight, plain.bias
        self.input_quantizer = Quantizer() if quantizes_input else nn.Identity()
        self.weight_quantizer = Quantizer(plain.out_features)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.input_quantizer(x), self.weight_quantizer(self.weight), self.bias)


class QuantActivation(Activation):
    """An activation whose output is quantized."""

    def __init__(self) -> None:
        super().__init__()
        self.output_quantizer = Quantizer()

    def forward(self, x: Tensor) -> Tensor:
        on_grid: Tensor = self.output_quantizer(super().forward(x))
        return on_grid


class QuantAdd(Add):
    """A residual sum; each side passes a quantizer where no activation has quantized it."""

    def __init__(self, *, quantizes_a: bool, quantizes_b: bool) -> None:
        super().__init__()
        self.a_quantizer = Quantizer() if quantizes_a else nn.Identity()
        self.b_quantizer = Quantizer() if quantizes_b else nn.Identity()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(self.a_quantizer(a), self.b_quantizer(b))


def with_quantizers(plain: nn.Module, sides: "set[str]") -> nn.Module:
    """`plain` with quantizers; `sides`: of input, output, a and b those that are quantized here."""
    if isinstance(plain, nn.Conv2d):
        return QuantConv2d(plain, quantizes_input="input" in sides, quantizes_output="output" in sides)
    if isinstance(plain, nn.Linear):
        return QuantLinear(plain, quantizes_input="input" in sides)
    if isinstance(plain, Add):
        return QuantAdd(quantizes_a="a" in sides, quantizes_b="b" in sides)
    return QuantActivation()
