"""Paired shares: the exact test against scipy, the interval against a search for the constrained likelihood."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from edge.core.proportions import PairedShares, mcnemar, score_statistic, tango_interval

Z = stats.norm.ppf(0.975)


@st.composite
def pairs(draw: st.DrawFn, largest: int = 400) -> PairedShares:
    n = draw(st.integers(1, largest))
    lost = draw(st.integers(0, n))
    return PairedShares(lost, draw(st.integers(0, n - lost)), n)


@given(pairs())
def test_the_test_is_the_binomial_one(found: PairedShares) -> None:
    want = stats.binomtest(found.lost, found.lost + found.gained).pvalue if found.lost + found.gained else 1.0
    assert mcnemar(found.lost, found.gained) == pytest.approx(want, rel=1e-9, abs=1e-300)


def test_the_test_takes_ten_thousand_pairs() -> None:
    assert mcnemar(5_200, 4_800) == pytest.approx(stats.binomtest(4_800, 10_000).pvalue, rel=1e-9)
    assert 0 <= mcnemar(0, 10_000) < 1e-300


def naive_score(found: PairedShares, delta: float) -> float:
    """The score statistic with the share of lost pairs found by maximising the likelihood numerically."""
    lost, gained, n = found.lost, found.gained, found.n

    def cost(q: float) -> float:
        shares = np.array([q, q + delta, 1 - 2 * q - delta])
        counts = np.array([lost, gained, n - lost - gained])
        return -float((counts[counts > 0] * np.log(np.maximum(shares[counts > 0], 1e-300))).sum())

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = optimize.minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (gained - lost - n * delta) / math.sqrt(n * (2 * q + delta - delta**2))


@settings(max_examples=60)
@given(pairs(largest=60).filter(lambda p: p.lost > 0 and p.gained > 0 and p.lost + p.gained < p.n))
def test_the_ends_are_where_the_score_test_begins_to_reject(found: PairedShares) -> None:
    low, high = tango_interval(found)
    for end, want in ((low, Z), (high, -Z)):
        assert score_statistic(found, end) == pytest.approx(want, abs=1e-6)
        assert naive_score(found, end) == pytest.approx(want, abs=2e-3)


@given(pairs())
def test_the_interval_holds_the_difference_and_turns_round_with_it(found: PairedShares) -> None:
    low, high = tango_interval(found)
    assert -1 <= low <= found.difference <= high <= 1 and low < high
    turned = tango_interval(PairedShares(found.gained, found.lost, found.n))
    assert (-turned[1], -turned[0]) == pytest.approx((low, high), abs=1e-9)


@given(pairs(), st.integers(2, 30))
def test_more_of_the_same_is_known_better(found: PairedShares, times: int) -> None:
    low, high = tango_interval(found)
    more = tango_interval(PairedShares(found.lost * times, found.gained * times, found.n * times))
    assert more[1] - more[0] <= high - low + 1e-9


@pytest.mark.parametrize("n", [1, 10, 359, 10_000])
def test_where_no_pair_differs_the_width_is_that_of_n_images(n: int) -> None:
    assert tango_interval(PairedShares(0, 0, n)) == pytest.approx((-(Z**2) / (n + Z**2), Z**2 / (n + Z**2)))


def test_it_is_close_to_a_bootstrap_where_pairs_are_many() -> None:
    n, lost, gained = 2_000, 120, 60
    draws = np.random.default_rng(0).multinomial(n, [lost / n, gained / n, 1 - (lost + gained) / n], 20_000)
    ends = np.quantile((draws[:, 1] - draws[:, 0]) / n, [0.025, 0.975])
    assert tango_interval(PairedShares(lost, gained, n)) == pytest.approx(tuple(ends), abs=1e-3)


@pytest.mark.parametrize(("p_lost", "p_gained", "n"), [(0.02, 0.05, 50), (0.1, 0.1, 100), (0.03, 0.0, 359)])
def test_it_covers_what_it_says(p_lost: float, p_gained: float, n: int) -> None:
    draws = np.random.default_rng(1).multinomial(n, [p_lost, p_gained, 1 - p_lost - p_gained], 2_000)
    kinds, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    ends = [tango_interval(PairedShares(int(lost), int(gained), n)) for lost, gained in kinds]
    inside = [low <= p_gained - p_lost <= high for low, high in ends]
    assert 0.93 <= float(np.dot(inside, counts)) / 2_000 <= 0.985
