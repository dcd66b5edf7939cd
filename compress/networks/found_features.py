"""Where a network of others has its features: found in one pass on two images, or named by its user.

Pooled features: what the last linear layer reads, as executed. Of several (two heads whose logits are added) the inputs
side by side, of one that is called more than once the mean, both as the logits have it; of maps and tokens the mean
over positions. Stages: of the maps through which all of the network leads, the last one before each halving of the
resolution and the last one before pooling; where the halving lies in a block that begins without a shortcut, the
block's input. Of a network of one resolution (a ViT): behind a third and two thirds of its blocks and behind the last
one; where the head reads a single token, behind the last but one, as nothing reads the others' results after that.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.networks.feature_sites import INPUT, PooledSite, Site, StageSite, joined
from compress.networks.recorded_pass import REORDERING, Call, Operation, RecordedPass
from compress.networks.undisturbed import evaluating
from edge.core.errors import CompressError, nearest_name

#: Class and register tokens that may stand before those of the image.
FEW_TOKENS = 8

#: Parts of the names of functions that may make one position of many, and names of those that take some as they are.
POOLING = ("pool", "mean", "amax", "max", "sum", "logsumexp")
SELECTING = ("__getitem__", "select", "index_select", "narrow", "unbind", "split", "chunk")


@dataclass(frozen=True)
class NamedFeatures:
    """Modules that a user names: their results are meant, with `.input` behind a name what the module reads."""

    pooled: "str | None" = None
    stages: "tuple[str, ...] | None" = None

    @classmethod
    def of(cls, named: "Mapping[str, Any] | None") -> "NamedFeatures":
        """From {pooled: MODULE, stages: [MODULE, …]}, either left out or None where it is to be found."""
        stages = (named or {}).get("stages")
        return cls((named or {}).get("pooled"), None if stages is None else tuple(stages))


@dataclass(frozen=True)
class FoundFeatures:
    """Where pooled features and stages are taken, of images of one `shape` (C,H,W); no pooled ones: nothing found."""

    shape: tuple[int, ...]
    pooled: tuple[PooledSite, ...]
    stages: tuple[StageSite, ...]
    widths: tuple[int, ...] = ()

    @property
    def sites(self) -> list[Site]:
        return [*(part.site for part in self.pooled), *(part.site for part in self.stages)]

    def read(self, at: "Callable[[Site], Tensor | None]", name: str) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Pooled features and stages of a pass that has `at(site)`; CompressError where it did not come by one."""
        values = [at(site) for site in self.sites]
        if missing := [str(site) for site, value in zip(self.sites, values, strict=True) if value is None]:
            raise CompressError(
                f"{name}: {', '.join(missing)}, where its features were, has no part in this pass; name modules that "
                f"every pass calls (features: pooled, stages)"
            )
        taken: list[Tensor] = [value for value in values if value is not None]
        rows = list(zip(self.pooled, taken, strict=False))
        maps = zip(self.stages, taken[len(rows) :], strict=True)
        return joined(rows), tuple(stage.shaped(value) for stage, value in maps)

    def as_metrics(self) -> dict[str, Any]:
        """In words, for a manifest: names and widths."""
        pooled = " + ".join(dict.fromkeys(str(part.site) for part in self.pooled))
        return {
            "pooled": f"{pooled} ({self.widths[0]})",
            "stages": [f"{stage.site} ({width})" for stage, width in zip(self.stages, self.widths[1:], strict=True)],
        }


def find_features(
    network: nn.Module, images: Tensor, run: Callable[[], Any], named: NamedFeatures, name: str
) -> FoundFeatures:
    """By one pass, which `run` makes of two `images`; names that the network does not have are CompressErrors."""
    record = RecordedPass(network, images, run)
    shape = tuple(images.shape[1:])
    heads = [site for at in record.heads if (site := _head(record, network, at)) is not None]
    pooled = tuple(heads) if named.pooled is None else (_named_pooled(record, network, named.pooled, name),)
    if named.stages is not None:
        stages = tuple(_named_stage(record, network, stage, name) for stage in named.stages)
    else:
        stages = tuple(_stage(record, at) for at in _stages(record)) if pooled else ()
    moved = _moved(record, network, run, FoundFeatures(shape, pooled, stages).sites)
    pooled = () if any(part.site in moved for part in pooled) else pooled
    found = FoundFeatures(shape, pooled, tuple(stage for stage in stages if stage.site not in moved))
    if not pooled:
        return found
    rows, maps = found.read(lambda site: _value(record, site), name)
    return replace(found, widths=(rows.shape[1], *(each.shape[1] for each in maps)))


def _moved(record: RecordedPass, network: nn.Module, run: Callable[[], Any], sites: Sequence[Site]) -> set[Site]:
    """Calls of functions that are others in training, where layers that drop something call more of them."""
    functions = {(site.name, site.call): site for site in sites if site.place is not None}
    if not functions or torch.compiler.is_compiling():  # a trace is of one mode
        return set()
    try:
        with evaluating(network):  # which brings the modes back
            network.train()
            trained = RecordedPass(network, record.images, run)
    except CompressError:  # a teacher need not be able to train
        return set()
    places = [
        {(each.name, each.number): (each.inside, each.output.shape) for each in one.operations}
        for one in (record, trained)
    ]
    return {site for call, site in functions.items() if places[0][call] != places[1].get(call)}


def _value(record: RecordedPass, site: Site) -> "Tensor | None":
    """What the recorded pass has at a site."""
    if site.place is None:
        return (record.inputs if site.input else record.outputs).get((site.name, site.call))
    same = (each for each in record.operations if (each.name, each.number) == (site.name, site.call))
    return next((each.operand if site.input else each.output for each in same), None)


# ------------------------------------------------------------------------------------------- pooled features


def _head(record: RecordedPass, network: nn.Module, at: int) -> "PooledSite | None":
    """What the linear operation reads; what its module reads where that holds nothing but the operation's weights."""
    operation, images = record.operations[at], len(record.images)
    operand = operation.operand
    while _batch(operand, images) is None:
        if operation.reads[0] < 0 or record.operations[operation.reads[0]].name not in (*REORDERING, "t", "__get__"):
            return None
        operation = record.operations[operation.reads[0]]  # a transposed product: what was transposed
        operand = operation.operand
    batch = _batch(operand, images) or 0
    head = record.operations[at]
    first = operand.ndim > 2 and "conv" in head.name
    token = _token(head.output.transpose(0, batch), record.result) if not first else None
    module = head.inside[-1] if head.inside else None
    if module is not None and _is_layer(network.get_submodule(module[0])):
        given = record.inputs.get(module)
        if given is not None and given.shape == operand.shape and record.maker(given) is not None:
            return PooledSite(Site(*module, input=True), first, module[0], token, batch)
    assert head.weight is not None
    site = Site(operation.name, operation.number, input=True, place=operation.place)
    return PooledSite(site, first, head.weight, token, batch) if operation.name else None


def _batch(value: Tensor, images: int) -> "int | None":
    """The dimension of the images: the first, of tokens also the second; None where it is neither."""
    if value.ndim < 2:
        return None
    return 0 if len(value) == images else 1 if value.ndim == 3 and value.shape[1] == images else None


def _is_layer(module: nn.Module) -> bool:
    """Whether it holds an operation's weights and nothing else; those of a layer of torch may be parametrized."""
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) or not any(module.children())


def _token(logits: Tensor, result: "Tensor | None") -> "int | None":
    """Of logits (B,T,K) at every token, the one that the network gives; None where it averages, or gives no such."""
    if logits.ndim != 3 or result is None or result.shape != logits[:, 0].shape:
        return None
    return next((token for token in range(logits.shape[1]) if torch.equal(logits[:, token], result)), None)


# ---------------------------------------------------------------------------------------------------- stages


def _stages(record: RecordedPass) -> list[int]:
    """The operations whose results are the stages."""
    maps = _maps(record)
    levels: list[list[int]] = []
    for at in maps:
        if levels and 2 * _positions(record, at) > _positions(record, levels[-1][-1]):
            levels[-1].append(at)
        else:
            levels.append([at])
    if blocks := _blocks(record, levels):
        last = len(blocks) - _selected(record, maps[-1])
        ends = sorted({min(len(blocks) * third // 3, last) for third in (1, 2, 3)} - {0})
        return [blocks[end - 1] for end in ends]
    following = [*(level[0] for level in levels[1:]), None]
    return [_last(record, level, after) for level, after in zip(levels, following, strict=False)]


def _maps(record: RecordedPass) -> list[int]:
    """Maps and tokens between the first linear operation and pooling or the head, through which everything leads."""
    begin = next((at for at in record.relevant if record.operations[at].weight is not None), 0)
    end = min(record.heads, default=len(record.operations))
    maps: list[int] = []
    for at in record.narrows:
        if begin <= at < end and _is_map(record.operations[at], len(record.images)):
            most = 1.1 * _positions(record, maps[-1]) + FEW_TOKENS if maps else math.inf
            if _positions(record, at) <= most:  # more are no maps of an image: products of queries and keys
                maps.append(at)
    for number, at in enumerate(maps[1:], 1):
        alone = all(_positions(record, later) == 1 for later in maps[number:])
        name = record.operations[at].name
        pools = name in SELECTING or any(part in name for part in POOLING)
        if alone and pools and _positions(record, maps[number - 1]) > 1:
            return maps[:number]
    return maps


def _is_map(operation: Operation, images: int) -> bool:
    output = operation.output
    takeable = bool(operation.modules) or (operation.single and bool(operation.name))
    batched = output.ndim in (3, 4) and _batch(output, images) is not None
    return takeable and batched and output.is_floating_point()


def _last(record: RecordedPass, level: list[int], after: "int | None") -> int:
    """The last map of one resolution. Of a block that it shares with the first of the next one, the block's input."""
    last = level[-1]
    if after is None:
        return last
    operations = record.operations
    for block in operations[last].inside:
        if block not in operations[after].inside:
            break
        begin = next(at for at, operation in enumerate(operations) if block in operation.inside)
        before = [at for at in level if at < begin]
        if before and not record.branched(before[-1], last):
            return before[-1]
    return last


def _blocks(record: RecordedPass, levels: list[list[int]]) -> list[int]:
    """The ends of residual blocks where only the last resolution has some and it is the only one, or of tokens."""
    ends = []
    for level in levels:
        befores = (max((other for other in record.narrows if other < at), default=-1) for at in level)
        ends.append([at for at, before in zip(level, befores, strict=True) if record.branched(before, at)])
    if not levels or len(ends[-1]) < 2 or any(ends[:-1]):
        return []
    if len(levels) > 1 and record.operations[ends[-1][-1]].output.ndim != 3:
        return []
    siblings: dict[str, list[int]] = {}
    for at in ends[-1]:
        for name in dict.fromkeys(name.rpartition(".")[0] for name, _ in record.operations[at].modules):
            siblings.setdefault(name, []).append(at)
    most = max(siblings.values(), key=len, default=[])
    return most if len(most) > 1 else ends[-1]


def _selected(record: RecordedPass, at: int) -> bool:
    """Whether of those tokens only some are read on."""
    readers = [record.operations[later] for later in record.relevant if at in record.operations[later].reads]
    return all(reader.name in SELECTING for reader in readers)


def _stage(record: RecordedPass, at: int) -> StageSite:
    """The outermost module whose result it is, or the function."""
    operation = record.operations[at]
    site = Site(operation.name, operation.number, place=0)
    if operation.modules:
        site = Site(*min(operation.modules, key=lambda call: call[0].count(".") if call[0] else math.inf))
    return _site_of_map(record, site, operation.output, operation)


def _site_of_map(record: RecordedPass, site: Site, value: Tensor, operation: "Operation | None") -> StageSite:
    batch = _batch(value, len(record.images)) or 0
    channels_first = value.ndim != 2 and not batch and _channels_first(record, operation, value)
    tokens = value.transpose(0, batch).shape[2 if channels_first else 1] if value.ndim == 3 else 0
    return StageSite(site, channels_first, _grid(tokens, record.images) if tokens else None, batch)


def _channels_first(record: RecordedPass, operation: "Operation | None", value: "Tensor | None" = None) -> bool:
    """(B,C,H,W) rather than (B,H,W,C), (B,C,T) rather than (B,T,C): by how it came about, else by its proportions."""
    if operation is not None and operation.channels_first is not None:
        return operation.channels_first
    value = operation.output if value is None and operation is not None else value
    if value is None or value.ndim != 4:
        return False
    height, width = record.images.shape[-2:]
    in_proportion = [value.shape[at] * width == value.shape[at + 1] * height for at in (1, 2)]
    return in_proportion[1] or not in_proportion[0]


def _positions(record: RecordedPass, at: int) -> int:
    operation = record.operations[at]
    shape = operation.output.shape
    if _batch(operation.output, len(record.images)):
        return shape[0]
    return (shape[2:] if _channels_first(record, operation) else shape[1:-1]).numel()


def _grid(tokens: int, images: Tensor) -> "tuple[int, int, int] | None":
    """Tokens before those of the image, height and width of the grid in the proportions of the images."""
    for before in range(min(FEW_TOKENS, tokens - 1) + 1):
        height = round(((tokens - before) * images.shape[-2] / images.shape[-1]) ** 0.5)
        width = (tokens - before) // max(height, 1)
        if height * width == tokens - before and height * images.shape[-1] == width * images.shape[-2]:
            return before, height, width
    return None


# ---------------------------------------------------------------------------------------------- named features


def _named(record: RecordedPass, network: nn.Module, named: str, name: str) -> tuple[Site, Tensor, "Operation | None"]:
    """The site that a user names: the last call of that module in the pass."""
    known = [module for module, _ in network.named_modules() if module]
    module = named if named in known else named.removesuffix(INPUT)
    if module not in known:
        near = nearest_name(module, known) or f" (it has {listed(known)})"
        raise CompressError(f"{name}: features: it has no module {named!r}{near}")
    reads = module != named
    calls: dict[Call, Tensor] = record.inputs if reads else record.outputs
    call = max((number for called, number in calls if called == module), default=None)
    if call is None:
        raise CompressError(f"{name}: features: {named} has no tensor in a pass; name a module that is called")
    value = calls[module, call]
    maker = record.maker(value)
    if maker is None or value.ndim > 4 or _batch(value, len(record.images)) is None:
        raise CompressError(
            f"{name}: features: {named} is a tensor {tuple(value.shape)} for {len(record.images)} images; name one of "
            f"(N, channels), (N, tokens, channels) or (N, channels, height, width) that depends on them"
        )
    return Site(module, call, input=reads), value, record.operations[maker] if maker >= 0 else None


def _named_pooled(record: RecordedPass, network: nn.Module, named: str, name: str) -> PooledSite:
    site, value, operation = _named(record, network, named, name)
    batch = _batch(value, len(record.images)) or 0
    return PooledSite(site, value.ndim > 2 and not batch and _channels_first(record, operation, value), batch=batch)


def _named_stage(record: RecordedPass, network: nn.Module, named: str, name: str) -> StageSite:
    site, value, operation = _named(record, network, named, name)
    return _site_of_map(record, site, value, operation)


def listed(names: Sequence[str], most: int = 8) -> str:
    """`a, b, … 3 more`."""
    return ", ".join([*names[:most], *([f"… {len(names) - most} more"] if len(names) > most else [])])
