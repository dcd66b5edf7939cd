"""What is attacked: torch networks, and artifacts beside the twins that their gradients come from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.attacks.pgd import Model
from compress.data.split import to_float
from compress.networks import Classifier
from compress.networks.graph.onnx_twin import GraphTwin
from edge.runtimes.runner import Runner


@dataclass(frozen=True)
class Subject:
    """A model under attack: a torch network, or an artifact with its runner and its twin for the backward pass."""

    label: str
    role: str  # student, twin or artifact
    identity: str
    model: "Classifier | None"  # of an artifact its twin; None where it has none
    runner: "Runner | None" = None
    twin: "str | None" = None  # label of the twin among the subjects
    no_twin: "str | None" = None  # why an artifact has none
    precision: str = "float32"
    unexecuted: "str | None" = None  # why an artifact has no runner here; what is asked of it, its twin answers

    def infer(self, images: np.ndarray) -> np.ndarray:
        """uint8 or float32 images (N,C,H,W) → logits (N,K), by the artifact itself where there is one."""
        if self.runner is not None:
            return self.runner.infer(images)
        assert self.model is not None
        model = self.model.output if isinstance(self.model, GraphTwin) else self.model
        x = torch.from_numpy(images)
        x = to_float(x) if x.dtype == torch.uint8 else x
        with torch.no_grad():
            return torch.cat([model(part) for part in x.split(128)]).numpy()

    def hybrid(self) -> Model:
        """BPDA (Athalye et al. 2018): the artifact's logits forward, the twin's gradient backward."""
        assert self.runner is not None and self.model is not None
        runner, twin = self.runner, self.model
        probabilities = isinstance(twin, GraphTwin) and twin.probabilities

        def model(x: Tensor) -> Tensor:
            pretended = twin(x)
            real = torch.from_numpy(runner.infer(x.detach().cpu().numpy())).to(x.device)
            # the logarithm of a softmax is its logits but for a constant an image
            real = real.clamp(min=torch.finfo(real.dtype).tiny).log() if probabilities else real
            return pretended + (real - pretended).detach()

        return model

    def describe(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"label": self.label, "role": self.role, "identity": self.identity}
        entry["precision"] = self.precision
        if self.unexecuted is not None:
            return entry | {"twin": self.twin, "unexecuted": self.unexecuted}
        if self.runner is not None:
            entry |= {"file": self.runner.file, "sha256": self.runner.sha256, "twin": self.twin}
            return entry | ({"no_twin": self.no_twin} if self.no_twin else {})
        return entry | ({"made_from": "the graph of the file"} if isinstance(self.model, GraphTwin) else {})
