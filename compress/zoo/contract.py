"""What every later stage takes for granted of a network, tried on two images before its weights are kept."""

import torch
from torch import Tensor

from compress.attacks import judge
from compress.networks import function_of
from compress.networks.base import Classifier
from edge.core.errors import CompressError
from edge.core.progress import say

#: Of an imported network's logits.
SEED = 0


def check_contract(model: Classifier, shape: "tuple[int, ...]", classes: int, name: str) -> None:
    """`model`, in evaluation mode, on images (2, *shape): finite logits (2, classes), with a gradient, nothing changed.

    What it must not change: its input, its mode, its weights and buffers. CompressError says which part is broken; a
    dtype that is taken as float32 is said.
    """
    images = probe_images(shape)
    given, before = images.clone(), _state(model)
    with torch.no_grad():
        logits = model(given)
    if not torch.equal(given, images):
        raise CompressError(f"{name}: its forward changes the images that it is given; let it begin with x = x.clone()")
    if logits.shape != (2, classes):
        fix = ": let the function take num_classes" if function_of(name) else ""
        raise CompressError(f"{name}: gives logits {tuple(logits.shape)} for 2 images; (2, {classes}) are needed{fix}")
    with torch.no_grad():
        model(given[:1])  # one image as two: what squeezes its result loses a dimension here, and is told
    if not bool(torch.isfinite(logits).all()):
        fix = "mend its forward, or give other weights" if function_of(name) else "other weights, or another --arch"
        raise CompressError(f"{name}: its logits are not finite on a grey image; {fix}")
    _check_unchanged(model, before, name)
    if not judge.differentiable(model, images):
        raise CompressError(f"{name}: {judge.NO_GRADIENT}")
    if (returned := getattr(model, "returned", torch.float32)) != torch.float32:
        say(f"{name}: gives logits in {str(returned).removeprefix('torch.')}, taken as float32")


def check_again(network: Classifier, again: Classifier, shape: "tuple[int, ...]", name: str) -> None:
    """`again`, which the same call made, is the same network: it takes the weights and gives these logits.

    That is how later stages open it. A network that gives other logits at every call is not at fault here.
    """
    theirs, state = again.state_dict(), network.state_dict()
    odd = [part for part in {**state, **theirs} if _kind(state.get(part)) != _kind(theirs.get(part))]
    if odd:
        raise CompressError(
            f"{name}: two calls give two architectures: {len(odd)} of their tensors differ in name or shape "
            f"({odd[0].removeprefix('net.')}); let it depend on its arguments alone"
        )
    again.load_state_dict(state, assign=True)
    with torch.no_grad():
        once, same, twice = (model(probe_images(shape)) for model in (network, network, again))
    if torch.equal(once, same) and not torch.allclose(once, twice, rtol=1e-3, atol=1e-3 * float(once.abs().max())):
        raise CompressError(
            f"{name}: two of its networks with the same weights give other logits; make what is drawn or read "
            f"beside the weights a parameter or a buffer (register_buffer)"
        )


def _kind(tensor: "Tensor | None") -> "tuple[int, ...] | None":
    return None if tensor is None else tuple(tensor.shape)


def probe_images(shape: "tuple[int, ...]") -> Tensor:
    """A grey image and one of noise, (2, *shape) in [0, 1]."""
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float32)
    return torch.stack([torch.full(shape, 0.5, dtype=torch.float32), noise])


def _state(model: Classifier) -> "dict[str, tuple[int, int]]":
    """Changes for a tensor that is written into, or replaced."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: (id(tensor), tensor._version) for name, tensor in tensors.items()}


def _check_unchanged(model: Classifier, before: "dict[str, tuple[int, int]]", name: str) -> None:
    training = [part or "the network" for part, module in model.named_modules() if module.training]
    if training:
        raise CompressError(
            f"{name}: a call leaves {training[0].removeprefix('net.')} in training mode ({len(training)} modules), "
            f"where statistics and dropout depend on the batch; take train() out of its forward, let train() pass mode"
        )
    after = _state(model)
    changed = [part.removeprefix("net.") for part in before if after.get(part) != before[part]]
    if changed:
        raise CompressError(
            f"{name}: a call changes {changed[0]} ({len(changed)} of its tensors), so that no two calls are of one "
            f"network; write nothing into weights and buffers in evaluation mode"
        )
