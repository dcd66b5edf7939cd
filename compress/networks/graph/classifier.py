"""An ONNX file as a network that gives nothing but logits: no gradients, no features."""

from pathlib import Path

import torch
from torch import Tensor

from compress.networks.base import Classifier, Features
from edge.runtimes.runner import open_runner


class OnnxClassifier(Classifier):
    """Preprocessing is inside the graph. Runs on the processor wherever the other networks are."""

    has_features = False

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.runner = open_runner(file)

    def forward_features(self, x: Tensor) -> Features:
        logits = torch.from_numpy(self.runner.infer(x.detach().cpu().numpy())).to(x.device)
        return Features(logits, logits.new_zeros((len(logits), 0)), ())
