"""Networks of others as people write them, and where a reader of each would look for its features."""

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10


class FunctionalCNN(nn.Module):
    """Activations and pooling are functions; a head of two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.hidden, self.drop, self.out = nn.Linear(8, 7), nn.Dropout(0.5), nn.Linear(7, CLASSES)

    def maps(self, x: Tensor) -> list[Tensor]:
        first = functional.relu(self.conv1(x))
        return [first, functional.relu(self.conv2(functional.max_pool2d(first, 2)))]

    def pooled(self, x: Tensor) -> Tensor:
        return self.drop(functional.relu(self.hidden(self.maps(x)[-1].mean((2, 3)))))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.pooled(x))


class GroupNormCNN(nn.Module):
    """A 1×1 convolution gives logits at every place; the last residual sum is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.same = self._block(1, 6, 1), self._block(6, 8, 2), self._block(8, 8, 1)
        self.head = nn.Conv2d(8, CLASSES, 1)

    def _block(self, inputs: int, width: int, stride: int) -> nn.Module:
        conv = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        return nn.Sequential(conv, nn.GroupNorm(2, width), nn.ReLU(inplace=True))

    def maps(self, x: Tensor) -> list[Tensor]:
        first = self.stem(x)
        down = self.down(first)
        return [first, down + self.same(down)]

    def pooled(self, x: Tensor) -> Tensor:
        return self.maps(x)[-1].mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x)[-1]).mean((2, 3))


class Layer(nn.Module):
    """Attention by a matrix product and a perceptron, each with its shortcut. (B,T,D) → the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.norm2, self.mlp = nn.LayerNorm(width), nn.Sequential(nn.Linear(width, 9), nn.GELU(), nn.Linear(9, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + (q @ k.transpose(1, 2)).softmax(-1) @ v
        return x + self.mlp(self.norm2(x))


class TinyViT(nn.Module):
    """`reads`: class token, average, logits of every token averaged, or two tokens by two heads, as DeiT distilled."""

    def __init__(self, reads: str, depth: int = 3) -> None:
        super().__init__()
        self.reads, self.before = reads, {"class": 1, "two": 2}.get(reads, 0)
        self.patches = nn.Conv2d(1, 6, 2, 2)
        self.tokens = nn.Parameter(torch.randn(1, self.before, 6))
        self.layers = nn.ModuleList(Layer(6) for _ in range(depth))
        self.norm, self.head, self.second = nn.LayerNorm(6), nn.Linear(6, CLASSES), nn.Linear(6, CLASSES)

    def steps(self, x: Tensor) -> list[Tensor]:
        steps = [torch.cat([self.tokens.expand(x.shape[0], -1, -1), self.patches(x).flatten(2).transpose(1, 2)], 1)]
        for layer in self.layers:
            steps.append(layer(steps[-1]))
        return steps

    def maps(self, x: Tensor) -> list[Tensor]:
        maps = [step[:, self.before :].transpose(1, 2).unflatten(2, (4, 4)) for step in self.steps(x)]
        return maps[1:3] if self.before else maps[1:]  # nothing reads the other tokens behind the last layer

    def pooled(self, x: Tensor) -> Tensor:
        last = self.norm(self.steps(x)[-1])
        return last[:, : self.before].flatten(1) if self.before else last.mean(1)

    def forward(self, x: Tensor) -> Tensor:
        last = self.norm(self.steps(x)[-1])
        if self.reads == "two":
            return (self.head(last[:, 0]) + self.second(last[:, 1])) / 2
        if self.reads == "every":
            return self.head(last).mean(1)
        return self.head(last[:, 0] if self.reads == "class" else last.mean(1))


class Perceptron(nn.Module):
    """On maps with their channels last. (B,H,W,C) → the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.gelu(self.fc(self.norm(x)))


class ChannelsLast(nn.Module):
    """As Swin: perceptrons on (B,H,W,C), patches merged between them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.first, self.merge = nn.Conv2d(1, 4, 2, 2), Perceptron(4), nn.Linear(16, 8)
        self.second, self.head = Perceptron(8), nn.Linear(8, CLASSES)

    def _last(self, x: Tensor) -> list[Tensor]:
        first = self.first(self.patches(x).permute(0, 2, 3, 1))
        corners = [first[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return [first, self.second(self.merge(torch.cat(corners, -1)))]

    def maps(self, x: Tensor) -> list[Tensor]:
        return [each.permute(0, 3, 1, 2) for each in self._last(x)]

    def pooled(self, x: Tensor) -> Tensor:
        return self._last(x)[-1].mean((1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pooled(x))


class TokensFirst(nn.Module):
    """Tokens (T,B,D), as torch's own transformers have them by default; logits of every token, averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(1, 6, 2, 2), nn.Linear(6, CLASSES)
        self.layers = nn.ModuleList([Perceptron(6), Perceptron(6)])

    def steps(self, x: Tensor) -> list[Tensor]:
        steps = [self.patches(x).flatten(2).permute(2, 0, 1)]
        for layer in self.layers:
            steps.append(layer(steps[-1]))
        return steps[1:]

    def maps(self, x: Tensor) -> list[Tensor]:
        return [step.permute(1, 2, 0).unflatten(2, (4, 4)) for step in self.steps(x)]

    def pooled(self, x: Tensor) -> Tensor:
        return self.steps(x)[-1].mean(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.steps(x)[-1]).mean(0)


class CosineCNN(nn.Module):
    """Its head is a product of matrices, of features and weights at length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.weight = nn.Conv2d(1, 6, 3, 2, 1), nn.Parameter(torch.randn(CLASSES, 6))

    def maps(self, x: Tensor) -> list[Tensor]:
        return [functional.silu(self.conv(x))]

    def pooled(self, x: Tensor) -> Tensor:
        return functional.normalize(self.maps(x)[0].mean((2, 3)), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return 9 * (self.pooled(x) @ functional.normalize(self.weight, dim=1).T)


class CalledTwice(CosineCNN):
    """One head on means and maxima; its logits are added."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, CLASSES)

    def pooled(self, x: Tensor) -> Tensor:
        (maps,) = self.maps(x)
        return (maps.mean((2, 3)) + maps.amax((2, 3))) / 2

    def forward(self, x: Tensor) -> Tensor:
        (maps,) = self.maps(x)
        return self.head(maps.mean((2, 3))) + self.head(maps.amax((2, 3)))


NETWORKS = {
    "functional": (FunctionalCNN, "out.input (7)", ["relu() (6)", "relu() #2 (8)"]),
    "group norm": (GroupNormCNN, "head.input (8)", ["stem (6)", "add() (8)"]),
    "class token": (lambda: TinyViT("class"), "head.input (6)", ["layers.0 (6)", "layers.1 (6)"]),
    "two tokens": (lambda: TinyViT("two"), "head.input + second.input (12)", ["layers.0 (6)", "layers.1 (6)"]),
    "average": (lambda: TinyViT("average"), "head.input (6)", ["layers.0 (6)", "layers.1 (6)", "layers.2 (6)"]),
    "every token": (lambda: TinyViT("every"), "head.input (6)", ["layers.0 (6)", "layers.1 (6)", "layers.2 (6)"]),
    "channels last": (ChannelsLast, "head.input (8)", ["first (4)", "second (8)"]),
    "tokens first": (TokensFirst, "head.input (6)", ["layers.0 (6)", "layers.1 (6)"]),
    "cosine": (CosineCNN, "matmul().input (6)", ["silu() (6)"]),
    "called twice": (CalledTwice, "head.input + head.input #2 (6)", ["silu() (6)"]),
}


def class_token() -> nn.Module:
    return TinyViT("class")


def group_norm() -> nn.Module:
    return GroupNormCNN()


def scripted_whole() -> nn.Module:
    return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)))  # type: ignore[no-any-return]
