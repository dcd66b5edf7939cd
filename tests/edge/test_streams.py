"""Addressed random numbers: the same address the same number, any other address another, evenly spread."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.attacks.search import uniform

MASK = 2**64 - 1


def _mix(z: int) -> int:
    """SplitMix64's output step on Python's integers."""
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@given(st.integers(0, 2**63), st.integers(0, 2**40), st.integers(0, 10**6))
def test_against_pythons_integers(seed: int, image: int, query: int) -> None:
    step = 0x9E3779B97F4A7C15
    key = _mix(_mix((seed + step) & MASK) ^ image)
    key = _mix(key ^ _mix((query + step) & MASK))
    want = [(_mix((key + (i + 1) * step) & MASK) >> 11) / 2**53 for i in range(5)]
    assert uniform(seed, np.array([image]), query, 5)[0].tolist() == want


def test_a_query_each_is_as_one_by_one() -> None:
    ids, queries = np.array([4, 9, 4]), np.array([1, 1, 7])
    together = uniform(3, ids, queries, 6)
    for row, image, query in zip(together, ids, queries, strict=True):
        np.testing.assert_array_equal(uniform(3, np.array([image]), int(query), 6)[0], row)


def test_neighbouring_addresses_share_nothing() -> None:
    draws = np.stack([uniform(seed, np.arange(20), query, 10) for seed in (0, 1) for query in (0, 1, 2)])
    assert len(np.unique(draws)) == draws.size
    assert draws.min() >= 0 and draws.max() < 1


def test_evenly_spread() -> None:
    draws = uniform(0, np.arange(1000), 1, 20)
    counts, _ = np.histogram(draws, 10, (0, 1))
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000 * 0.9)
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.15
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.15
