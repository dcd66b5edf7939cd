"""What every network offers, and the two operations that quantization needs as modules."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Features:
    """One forward pass: `logits` (B,K), `pooled` penultimate features (B,D), `stages` feature maps (B,C,H,W)."""

    logits: Tensor
    pooled: Tensor
    stages: tuple[Tensor, ...]


class Classifier(nn.Module):
    """A network whose features come from the same pass as its logits."""

    def forward_features(self, x: Tensor) -> Features:
        """Images (B,C,H,W) in [0, 1] → logits with the features behind them."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Images (B,C,H,W) in [0, 1] → logits (B,K)."""
        return self.forward_features(x).logits


class Activation(nn.ReLU):
    """ReLU as a module of its own, so that a quantizer can stand behind it."""


class Add(nn.Module):
    """The residual sum as a module, so that quantizers can stand before it."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


def parameters(model: nn.Module) -> int:
    """How many weights the network has."""
    return sum(weight.numel() for weight in model.parameters())
