"""The checks of logits alone: each fires on a model made for it, none on an honest one."""

from collections.abc import Callable

import numpy as np
import pytest

from edge.core.errors import CheckFailed, MachineFault
from edge.core.proportions import clopper_pearson
from edge.validity import logits, rules
from edge.validity.logits import AskLogits, chance_check, logits_checks
from edge.validity.rules import ValidityCheck
from tests.test_validity_docs import LOGITS_ALONE

RNG = np.random.default_rng(3)
BRIGHTNESS = RNG.uniform(0.3, 1, (100, 1, 1, 1))  # by which images differ as a whole
IMAGES = (RNG.uniform(0, 255, (100, 3, 6, 6)) * BRIGHTNESS).astype(np.uint8)
KERNEL = RNG.normal(size=(3 * 6 * 6, 40)).astype(np.float32)
HEAD = RNG.normal(size=(40, 10)).astype(np.float32)


def hidden(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(x.reshape(len(x), -1) @ KERNEL, 0))


def honest(x: np.ndarray) -> np.ndarray:
    return hidden(x) @ HEAD


def one_by_one(ask: AskLogits) -> AskLogits:
    return lambda x: np.concatenate([ask(row[None]) for row in x])


def checks(ask: AskLogits, *, alone: bool = True, rounding: float = 1e-3) -> dict[str, ValidityCheck]:
    found = logits_checks(ask, IMAGES, at_sizes={1: one_by_one(ask)} if alone else {}, rounding=rounding)
    return {check.name: check for check in found}


def fired(found: dict[str, ValidityCheck]) -> set[str]:
    return {name for name, check in found.items() if check.fired}


def softmax(z: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    p = np.exp((z - z.max(1, keepdims=True)) / temperature)
    return np.asarray(p / p.sum(1, keepdims=True))


def fixed_batches(ask: AskLogits, size: int) -> AskLogits:
    """An engine that takes `size` images a call, the last call padded with black ones."""

    def asked(x: np.ndarray) -> np.ndarray:
        padded = np.concatenate([x, np.zeros((-len(x) % size, *x.shape[1:]), np.float32)])
        return np.concatenate([ask(padded[i : i + size]) for i in range(0, len(padded), size)])[: len(x)]

    return asked


def instance_norm(x: np.ndarray) -> np.ndarray:
    return honest((x - x.mean((2, 3), keepdims=True)) / (x.std((2, 3), keepdims=True) + 1e-3))


def standardised(x: np.ndarray) -> np.ndarray:
    """Without an epsilon; a runner raises where logits are no numbers, also of the images that are only company."""
    deviation = x.std((1, 2, 3), keepdims=True)
    if (deviation == 0).any():
        raise CheckFailed("logits are not finite")
    return honest((x - x.mean((1, 2, 3), keepdims=True)) / deviation)


def beside_offset(x: np.ndarray) -> np.ndarray:
    """Logits of a small spread, rounded as their offset is, in another way for each size of batch."""
    rounding = np.random.default_rng(len(x)).uniform(-1, 1, (len(x), 10)).astype(np.float32) * 1e-3
    return honest(x) * 1e-3 + 10000 + rounding


def flat_on_some(x: np.ndarray) -> np.ndarray:
    """An image with equal logits has no spread of its own to be measured by."""
    rounding = (
        np.random.default_rng(len(x)).uniform(-1, 1, (len(x), 10)).astype(np.float32)
        * 1e-4
        * np.float32(np.ptp(honest(x), 1).mean())
    )
    return honest(x) * (x.mean((1, 2, 3)) > 0.2)[:, None] + rounding


def int8_flips(x: np.ndarray) -> np.ndarray:
    """A grid of 8 bits behind sums whose last bits depend on the size of the batch: some values fall the other way."""
    noise = np.random.default_rng(len(x)).normal(0, 1e-3, (len(x), 40)).astype(np.float32)
    return np.round(hidden(x) * (1 + noise) / 0.15) * 0.15 @ HEAD


HONEST: dict[str, tuple[AskLogits, float]] = {
    "plain": (honest, 1e-3),
    "scaled up": (lambda x: honest(x) * 1e6, 1e-3),
    "beside a large offset": (beside_offset, 1e-3),
    "no spread on some images": (flat_on_some, 1e-3),
    "statistics of each image alone": (instance_norm, 1e-3),
    "each image standardised": (standardised, 1e-3),
    "logarithm of a softmax": (lambda x: np.log(softmax(honest(x) / 20)), 1e-3),
    "8 bits": (int8_flips, logits.COARSE_ROUNDING),
    "half precision": (lambda x: honest(x).astype(np.float16).astype(np.float32), logits.COARSE_ROUNDING),
    "two classes": (lambda x: honest(x)[:, :2], 1e-3),
    "untrained, logits near 0": (lambda x: honest(x) * 1e-7, 1e-3),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_models_fire_nothing(name: str) -> None:
    ask, rounding = HONEST[name]
    found = checks(ask, rounding=rounding)
    assert fired(found) == set() and set(found) == LOGITS_ALONE
    assert all("\n" not in check.text and check.n > 0 for check in found.values())


def with_place(x: np.ndarray) -> np.ndarray:
    return honest(x) * (1 + np.arange(len(x)) / len(x))[:, None]


def first_is_special(x: np.ndarray) -> np.ndarray:
    answers = honest(x)
    answers[0] = -answers[0]
    return answers


DEPENDENT: dict[str, AskLogits] = {
    "mean of the batch": lambda x: honest(x - x.mean(0)),
    "deviation of the batch": lambda x: hidden(x) / (hidden(x).std(0) + 1e-3) @ HEAD,
    "largest of the batch": lambda x: honest(x / (x.max() + 1e-6)),
    "logits centred over the batch": lambda x: honest(x) - honest(x).mean(0),
    "place in the batch": with_place,
    "the first image of a batch": first_is_special,
    "a little of the batch's mean": lambda x: honest(x + 0.02 * x.mean(0)),
}


@pytest.mark.parametrize("batch", [None, 2, 8, 64])
@pytest.mark.parametrize("name", DEPENDENT)
def test_dependence_on_the_batch_is_found(name: str, batch: "int | None") -> None:
    """Asked alone where it can be; of an engine that takes one size of batch by its company and its place."""
    ask = DEPENDENT[name] if batch is None else fixed_batches(DEPENDENT[name], batch)
    found = checks(ask, alone=batch is None)
    assert fired(found) - {rules.PROBABILITIES} == {rules.BATCH}
    assert "depend" in found[rules.BATCH].text and "evaluation mode" in found[rules.BATCH].text


def test_what_was_not_asked_is_said() -> None:
    assert "none could be asked alone" in checks(fixed_batches(honest, 8), alone=False)[rules.BATCH].text
    assert "alone" in checks(honest)[rules.BATCH].text and "could" not in checks(honest)[rules.BATCH].text


def test_a_model_that_cannot_be_asked_alone_at_all() -> None:
    def needs_others(x: np.ndarray) -> np.ndarray:
        if len(x) < 2:
            raise ValueError("Expected more than 1 value per channel when training")
        return honest(x)

    found = checks(needs_others)[rules.BATCH]
    assert found.fired and "Expected more than 1 value" in found.text


def test_8_bit_rounding_is_told_from_batch_statistics() -> None:
    """What moves single images by less than 5 % of their spread is rounding; what moves all by more is none."""
    assert checks(int8_flips)[rules.BATCH].fired, "the grid's steps are more than float32 rounds"
    assert not checks(int8_flips, rounding=logits.COARSE_ROUNDING)[rules.BATCH].fired
    statistics = checks(lambda x: int8_flips(x - x.mean(0)), rounding=logits.COARSE_ROUNDING)
    assert fired(statistics) == {rules.BATCH}


def test_one_image_that_moves_far_is_the_reason_and_the_count_that_is_told() -> None:
    """Beside bright company a few move a little more than rounding; what fires is the one that moves by its spread."""

    def first_of_64(x: np.ndarray) -> np.ndarray:
        answers = honest(x)
        if len(x) == logits.SAMPLE:  # the call of the sample, and that in another order; company has fewer
            answers[0] += np.ptp(answers[0]) * np.eye(10, dtype=np.float32)[3]
        return answers

    found = checks(first_of_64, alone=False)[rules.BATCH]
    assert found.fired and "in another order 2 of 64 images move" in found.text
    assert (found.n, round(found.value * found.n)) == (64, 2)


def test_noise_that_has_no_finite_answer_is_said_and_ends_nothing() -> None:
    def asked(x: np.ndarray) -> np.ndarray:
        if len(x) > 1 and x[1].max() <= 0.1:
            raise CheckFailed("logits are not finite for 12 of 64 images")
        return honest(x)

    found = checks(asked)[rules.BATCH]
    assert not found.fired and "no finite answer to dark noise" in found.text and "bright noise" in found.text


def test_memory_that_is_used_up_is_no_dependence_on_the_batch() -> None:
    def full(x: np.ndarray) -> np.ndarray:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(MachineFault, match="not enough memory"):
        logits_checks(honest, IMAGES, at_sizes={256: full})


def test_calls_that_differ_are_randomness_and_no_verdict_on_the_batch() -> None:
    noise = np.random.default_rng(0)
    found = checks(lambda x: honest(x + noise.normal(0, 0.5, x.shape).astype(np.float32)))
    assert fired(found) == {rules.RANDOM, rules.UNSTEADY}
    assert "cannot be told" in found[rules.BATCH].text


def test_logits_that_are_no_numbers() -> None:
    def broken(x: np.ndarray) -> np.ndarray:
        answers = honest(x)
        answers[x.mean((1, 2, 3)) > np.median(IMAGES.mean((1, 2, 3)) / 255)] = np.nan
        return answers

    found = checks(broken)
    assert fired(found) == {rules.FINITE} and 0.2 < found[rules.FINITE].value < 0.8
    assert fired(checks(lambda x: np.full((len(x), 10), np.nan, np.float32))) == {rules.FINITE}


OUTPUTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], bool]] = {
    "softmax": (softmax, True),
    "softmax of a low temperature": (lambda z: softmax(z, 0.01), True),
    "softmax of a high temperature": (lambda z: softmax(z, 1000), True),
    "softmax in half precision": (lambda z: softmax(z, 30).astype(np.float16).astype(np.float32), True),
    "softmax on a grid of 1/255": (lambda z: np.round(softmax(z, 30) * 255) / 255, True),
    "softmax of 100 classes on a grid of 1/255": (lambda z: np.round(softmax(np.tile(z, 10), 60) * 255) / 255, True),
    "sigmoids": (lambda z: 1 / (1 + np.exp(-z / 10)), True),
    "sigmoids far from their ends": (lambda z: 1 / (1 + np.exp(-z / 100)), True),
    "small logits of a robust network": (lambda z: 0.3 + 0.2 * z / np.abs(z).max(), False),
    "softmax in percent": (lambda z: 100 * softmax(z, 20), True),
    "two logits in [0, 1]": (lambda z: 0.3 + 0.2 * z[:, :2] / np.abs(z).max(), False),
    "positive logits": (lambda z: z - z.min(), False),
    "softmax of two classes": (lambda z: softmax(z[:, :2]), True),
    "logarithm": (lambda z: np.log(softmax(z, 20)), False),
    "logits": (lambda z: z, False),
    "rectified logits": (lambda z: np.maximum(z, 0), False),
    "unit vectors": (lambda z: z / np.linalg.norm(z, axis=1, keepdims=True), False),
    "squared unit vectors but for one": (lambda z: z**2 / (z**2).sum(1, keepdims=True) - 0.2, False),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_probabilities_are_known_by_their_values(name: str) -> None:
    outputs, expected = OUTPUTS[name]
    answers = outputs(honest(logits.unit_images(IMAGES)))
    assert logits.probabilities_check(np.asarray(answers, np.float32)).fired == expected


def test_chance_is_what_a_constant_classifier_gets_on_these_labels() -> None:
    balanced, skewed = np.arange(300) % 3, np.array([0] * 90 + [1] * 10)
    constant = chance_check(100, balanced, np.zeros(64, np.int64))
    assert constant.fired and "every one of 64 images is named class 0" in constant.text
    assert chance_check(110, balanced).fired and not chance_check(140, balanced).fired
    assert chance_check(92, skewed).fired and not chance_check(99, skewed).fired
    check = chance_check(140, balanced, np.arange(5))
    assert (check.value, check.threshold) == (1 / 3, clopper_pearson(140, 300)[0])
    assert chance_check(4, np.arange(4) % 2).fired  # four images prove nothing
    assert "named class" not in check.text


def test_a_sample_is_at_most_so_large_and_evenly_spread() -> None:
    assert list(logits.sampled(5)) == [0, 1, 2, 3, 4] and len(logits.sampled(0)) == 0
    places = logits.sampled(1000)
    assert len(places) == logits.SAMPLE and places[0] == 0 and places[-1] == 999


def test_a_check_costs_a_handful_of_batches() -> None:
    asked = []

    def counting(x: np.ndarray) -> np.ndarray:
        asked.append(len(x))
        return honest(x)

    checks(counting)
    assert sum(asked) <= 5 * logits.SAMPLE + logits.ALONE
