"""Writes into tensors: left out where a graph can do without, refused where a reader would miss one."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compress.networks.tracing import UntraceableNetwork, trace_program
from compress.quantization import aliasing

aten = torch.ops.aten


class Traced(nn.Module):
    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(x)


def whole_then_view(x: Tensor) -> Tensor:
    y = x + 1
    y.relu_()
    y.mul_(2)
    return y[:, :2] + y[:, 2:]


def part_alone(x: Tensor) -> Tensor:
    part = (x + 1)[:, :2]
    return part.mul_(2)


def view_before(x: Tensor) -> Tensor:
    y = x + 1
    part = y[:, :2]
    y.relu_()
    return part


def part_of_what_is_returned(x: Tensor) -> Tensor:
    y = x + 1
    y[:, 0].zero_()
    return y


def item(x: Tensor) -> Tensor:
    y = x + 1
    y[:, 0] = 0
    return y * 2


def through_a_reshape(x: Tensor) -> Tensor:
    y = x + 1
    y.view(-1).mul_(2)
    return y


def through_a_split(x: Tensor) -> Tensor:
    y = x + 1
    first, second = y.split(2, 1)
    second.zero_()
    return torch.cat((first, y[:, 3:]), 1)


def without_writing(compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The program's operations one after the other, none of which writes."""
    program = trace_program(Traced(compute), x)
    aliasing.refuse_partial_writes(program.graph, "net")
    values = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            values[node] = x
        elif node.op == "output":
            return values[node.args[0][0]]  # type: ignore[no-any-return]
        else:
            args = torch.fx.map_arg(node.args, values.__getitem__)
            values[node] = aliasing.functional(node.target)(*args, **node.kwargs)
    raise AssertionError("a program ends in its output")


@pytest.mark.parametrize("compute", [whole_then_view, part_alone])
def test_without_writing_it_is_the_same(compute: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(2, 4, 3)
    before = x.clone()
    torch.testing.assert_close(without_writing(compute, x), compute(before.clone()))
    assert torch.equal(x, before)


@pytest.mark.parametrize("compute", [view_before, part_of_what_is_returned, item, through_a_reshape, through_a_split])
def test_a_write_that_a_reader_would_miss_is_refused(compute: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UntraceableNetwork, match=r"^its forward of net: writes into a part of a tensor .* \(aten\."):
        without_writing(compute, torch.randn(2, 4, 3))


def test_every_operation_that_writes_has_the_one_that_does_not() -> None:
    pairs = {
        aten.relu_.default: aten.relu.default,
        aten.add_.Tensor: aten.add.Tensor,
        aten.copy_.default: aten.copy.default,
        aten.zero_.default: aten.zero.default,
        aten.masked_fill_.Scalar: aten.masked_fill.Scalar,
        aten.relu.default: aten.relu.default,
    }
    assert {target: aliasing.functional(target) for target in pairs} == pairs
