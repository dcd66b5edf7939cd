"""The exact interval against scipy's beta distribution and against sums of binomial probabilities."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edge.core.proportions import beta, clopper_pearson


@given(st.integers(1, 2000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_against_scipy(n: int, share: float, level: float) -> None:
    k, tail = round(share * n), (1 - level) / 2
    low = 0.0 if k == 0 else stats.beta.ppf(tail, k, n - k + 1)
    high = 1.0 if k == n else stats.beta.ppf(1 - tail, k + 1, n - k)
    assert clopper_pearson(k, n, level) == pytest.approx((low, high), rel=1e-8)


@pytest.mark.parametrize(("k", "n"), [(8_000, 10_000), (1, 1_000_000), (999_999, 1_000_000), (500_000, 1_000_000)])
def test_many_images(k: int, n: int) -> None:
    want = stats.beta.ppf(0.025, k, n - k + 1), stats.beta.ppf(0.975, k + 1, n - k)
    assert clopper_pearson(k, n) == pytest.approx(want, rel=1e-8)


def test_the_ends_are_what_the_definition_says() -> None:
    low, high = clopper_pearson(7, 30)

    def at_least(k: int, p: float) -> float:
        return sum(math.comb(30, i) * p**i * (1 - p) ** (30 - i) for i in range(k, 31))

    assert at_least(7, low) == pytest.approx(0.025, rel=1e-9)
    assert 1 - at_least(8, high) == pytest.approx(0.025, rel=1e-9)


@pytest.mark.parametrize("n", [1, 5, 360])
def test_none_and_all(n: int) -> None:
    closed = 1 - 0.025 ** (1 / n)
    assert clopper_pearson(0, n) == pytest.approx((0, closed), rel=1e-10)
    assert clopper_pearson(n, n) == pytest.approx((1 - closed, 1), rel=1e-10)
    assert clopper_pearson(0, 0) == (0, 1)


@given(st.integers(0, 400), st.integers(0, 400))
def test_failures_mirror_successes(k: int, rest: int) -> None:
    low, high = clopper_pearson(k, k + rest)
    assert clopper_pearson(rest, k + rest) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    assert low <= k / max(1, k + rest) <= high or k + rest == 0


@given(st.floats(1e-6, 1 - 1e-6), st.integers(1, 500), st.integers(1, 500))
def test_the_incomplete_beta_function(p: float, a: int, b: int) -> None:
    assert beta(p, a, b) == pytest.approx(stats.beta.cdf(p, a, b), rel=1e-9, abs=1e-290)


@pytest.mark.parametrize(("k", "n", "level"), [(-1, 5, 0.95), (6, 5, 0.95), (1, 5, 0), (1, 5, 1)])
def test_no_proportions(k: int, n: int, level: float) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        clopper_pearson(k, n, level)
