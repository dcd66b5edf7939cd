"""The Square attack in torch: the same search as the one in numpy (L∞) and as the maintained package's (L2)."""

from typing import Any

import numpy as np
import pytest
import torch
from pyautoattack.square import SquareAttack

from compress.attacks.contract import Task, draw, stream
from compress.attacks.square import Square, _hill
from edge.attacks.square import side, square
from tests.compress.attacked import check_alone, check_inside, check_no_trace, task, with_classes, wrong


def test_in_linf_it_is_the_numpy_attack_query_by_query() -> None:
    at = task("linf", 30, eps=0.1)
    for queries in (2, 12, 180):
        found = Square(queries=queries, span=queries).run(at)
        numpy = square(
            lambda images: at.model(torch.from_numpy(images)).numpy(),
            at.x.numpy(),
            at.y.numpy(),
            eps=at.eps,
            queries=queries,
            seed=stream(at.seed, "square"),
            ids=at.ids,
        )
        apart = (found - torch.from_numpy(numpy.adversarial)).abs().flatten(1).amax(1) > 1e-6
        assert int(apart.sum()) <= 2  # of 30: margins are float32 here, so a gain below that is none
        assert wrong(at, found).tolist() == numpy.broken.tolist()
    assert 3 < int(numpy.broken.sum()) < 27


class Fed(SquareAttack):
    """The package's search on one image, fed the numbers that ours draws, its last place not left out."""

    def feed(self, at: Task, queries: int) -> "Fed":
        channels, (height, width) = at.x.shape[1], at.x.shape[2:]
        tiles = (height // (height // 5)) * (width // (width // 5))
        first = draw(at, "square", 1, (channels + 1) * tiles)[0].view(channels + 1, tiles)
        rest = draw(at, "square", range(2, queries), 5 + channels)[0]
        self.signs = [*first[:channels].T, *rest[:, 5:]]
        self.turns = [*first[channels], *rest[:, 4]]
        self.places = list(rest[:, :4].flatten())
        return self

    def random_choice(self, shape: Any) -> torch.Tensor:
        return torch.where(self.signs.pop(0) < 0.5, -1.0, 1.0).view(shape)

    def random_int(self, low: int = 0, high: int = 1, shape: Any = (1,)) -> torch.Tensor:
        return (self.places.pop(0) * (high - low + 1)).long()[None]

    def eta(self, s: int) -> torch.Tensor:
        both = torch.cat([self.eta_rectangles(s // 2, s), -self.eta_rectangles(s - s // 2, s)])
        both = both / both.square().sum().sqrt()
        return both.T if self.turns.pop(0) < 0.5 else both

    def p_selection(self, it: int) -> float:
        return super().p_selection(it + 2)  # it counts from 0, and not the start


def test_in_l2_it_is_the_packages_search_query_by_query() -> None:
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(300, 4, generator=g)
    model = lambda x: (x.flatten(1) - 0.5).tanh() @ weight  # noqa: E731
    x = torch.rand(4, 3, 10, 10, generator=g)
    y = model(x).argmax(1)
    for place in range(4):
        at = Task(model, x[place : place + 1], y[place : place + 1], np.array([place]), 0.3, "l2", 0)
        for queries in (2, 5, 60):
            found = Square(queries=queries, p_init=0.8).run(at)
            theirs = Fed(model, norm="L2", n_queries=queries - 2, eps=at.eps, resc_schedule=False, device="cpu")
            theirs.init_hyperparam(at.x)
            _, best = theirs.feed(at, queries).attack_single_run(at.x, at.y)
            torch.testing.assert_close(found, best, atol=2e-5, rtol=0)
            check_inside(at, found)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_breaks_as_many_as_the_package(norm: str) -> None:
    at = task(norm, eps={"linf": 0.2, "l2": 1.2}[norm])
    found = Square(queries=150).run(at)
    check_inside(at, found)
    theirs = SquareAttack(
        at.model,
        norm={"linf": "Linf", "l2": "L2"}[norm],
        n_queries=150,
        eps=at.eps,
        resc_schedule=False,
        seed=0,
        device="cpu",
    )
    here, there = wrong(at, found), wrong(at, theirs.perturb(at.x, at.y))
    assert int(here.sum()) >= int(there.sum()) - 2  # of 120; the package never tries the last row and column


def test_the_sides_follow_the_schedule_over_its_span() -> None:
    for query in (1, 10, 11, 50, 51, 999, 5000, 9999):
        assert Square(span=10_000)._side(query, 32, 32) == side(query, 10_000, 32, 32)
    assert Square(span=100)._side(5000, 32, 32) == Square(span=100)._side(100, 32, 32) == 1
    assert Square(p_init=0.05)._side(1, 32, 32) < Square(p_init=0.8)._side(1, 32, 32)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 11])
def test_a_hill_is_the_papers(size: int) -> None:
    """η by its sum, rectangle by rectangle, in plain loops."""
    halves = []
    for rows in (size // 2, size - size // 2):
        half = np.zeros((rows, size))
        for k in range(max(rows // 2, size // 2) + 1):
            for r in range(rows):
                for c in range(size):
                    half[r, c] += (abs(r - rows // 2) <= k and abs(c - size // 2) <= k) / (k + 1) ** 2
        halves.append(half / max(np.linalg.norm(half), 1e-300))
    both = np.concatenate([halves[0], -halves[1]])
    np.testing.assert_allclose(
        _hill(size, torch.device("cpu"), torch.float64).numpy(), both / np.linalg.norm(both), atol=1e-12
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_image_is_attacked_alike_in_every_batch(norm: str) -> None:
    check_alone(Square(queries=130), norm)


def test_what_broke_moves_no_more() -> None:
    at = task("linf", 40)
    short, long = (Square(queries=n).run(at) for n in (50, 150))
    broke = wrong(at, short)
    assert bool(broke.any()) and torch.equal(short[broke], long[broke])
    assert not torch.equal(short, long)


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_any_number_of_classes(classes: int) -> None:
    at = with_classes(classes)
    found = Square(queries=120).run(at)
    check_inside(at, found)
    assert int(wrong(at, found).sum()) >= 2


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_leaves_no_trace(norm: str) -> None:
    check_no_trace(Square(queries=5), norm)
