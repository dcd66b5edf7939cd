"""Answers kept during timing: a fair sample, copied, and compared bit by bit."""

import numpy as np
import pytest

from edge.bench.stream import KeptAnswers, timed_logits_alarm


def numbers(kept: KeptAnswers) -> list[int]:
    return [int(frames) for frames, _ in kept.held]


def offered(n: int, seed: int, most: int = 8) -> list[int]:
    kept = KeptAnswers(seed, most)
    for i in range(n):
        kept.offer(i, np.float32([i]))
    assert all(logits[0] == frames for frames, logits in kept.held)
    return numbers(kept)


@pytest.mark.parametrize("n", [0, 1, 7, 8])
def test_all_are_kept_while_there_are_few(n: int) -> None:
    assert offered(n, 0) == list(range(n))


def test_every_answer_is_as_likely_to_be_kept() -> None:
    runs, n, most = 4000, 60, 8
    counts = np.bincount([i for seed in range(runs) for i in offered(n, seed, most)], minlength=n)
    expected = runs * most / n
    assert counts.sum() == runs * most
    statistic = ((counts - expected) ** 2 / expected).sum() / (1 - most / n)
    assert statistic < 103  # chi-square of 59 degrees of freedom, 99.97 %


def test_the_sample_follows_the_seed_and_holds_no_answer_twice() -> None:
    assert offered(500, 3) == offered(500, 3) != offered(500, 4)
    assert all(len(set(offered(500, seed))) == 8 for seed in range(50))


def test_logits_are_copied() -> None:
    kept, logits = KeptAnswers(), np.ones(3, np.float32)
    kept.offer("x", logits)
    logits[:] = 7
    assert kept.held[0][1].tolist() == [1, 1, 1]


def test_one_differing_answer_fires() -> None:
    assert not timed_logits_alarm(32, 0).fired
    found = timed_logits_alarm(32, 1)
    assert found.fired and found.count == 1 and found.meaning.startswith("1 of 32")
