"""Augmentation: every image one that a naive loop over it can give, all of those given, nothing drawn for "none"."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from compress import names
from compress.config import QuantizeConfig, Training, parse
from compress.data import SOURCES, split
from compress.numerics.seeds import generator
from edge.core.errors import CompressError

NAMED = sorted(name for name, made in split.AUGMENTATIONS.items() if made)


def images(n: int, channels: int = 3, height: int = 8, width: int = 8, seed: int = 0) -> Tensor:
    """Random images on the 8-bit grid, none of their pixels black."""
    g = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (n, channels, height, width), generator=g).float() / 255


def key(image: Tensor) -> bytes:
    return image.contiguous().numpy().tobytes()


def naive_window(image: Tensor, top: int, left: int) -> Tensor:
    """What a window of the image's size shows when moved by (top, left); black beyond the image."""
    seen = torch.zeros_like(image)
    _, height, width = image.shape
    for i, j in itertools.product(range(height), range(width)):
        if 0 <= i + top < height and 0 <= j + left < width:
            seen[:, i, j] = image[:, i + top, j + left]
    return seen


# ---------------------------------------------------------------------------------------------- every pipeline


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("shape", [(5, 3, 32, 32), (5, 1, 28, 28), (3, 3, 8, 12), (2, 1, 3, 2), (1, 3, 65, 40)])
def test_any_size_and_channels_stay_images(name: str, shape: tuple[int, ...]) -> None:
    made = split.AUGMENTATIONS[name]
    x = images(*shape)
    before = x.clone()
    for seed in range(5):
        found = made(x, generator(seed))
        assert found.shape == x.shape and found.dtype == torch.float32
        assert float(found.min()) >= 0 and float(found.max()) <= 1
    assert torch.equal(x, before)  # made anew, not in place


@pytest.mark.parametrize("name", NAMED)
def test_the_stream_alone_decides_and_images_differ(name: str) -> None:
    made, x = split.AUGMENTATIONS[name], images(1, height=32, width=32).repeat(8, 1, 1, 1)
    first = made(x, generator(0, "augment", 1, 2))
    assert torch.equal(first, made(x, generator(0, "augment", 1, 2)))
    assert not torch.equal(first, made(x, generator(0, "augment", 1, 3)))
    assert len({key(image) for image in first}) > 5  # each image its own draw


def test_names_and_defaults() -> None:
    assert set(split.AUGMENTATIONS) == set(names.AUGMENTATIONS) - {"auto"}
    assert {source.augment for source in SOURCES} == {"none", "crop-flip"}
    assert {source.name for source in SOURCES if source.augment == "none"} == {"digits", "idx", "npz"}
    assert split.named_augmentation("auto", "digits") is split.named_augmentation("none", "cifar10") is None
    assert (
        split.named_augmentation("auto", "cifar10")
        is split.named_augmentation("crop-flip", "digits")
        is split.crop_flip
    )


def test_the_config_takes_it_where_a_network_is_trained() -> None:
    assert Training().augment == "auto"
    assert parse(QuantizeConfig, {"data": "digits", "augment": "cropshift"}, "test").augment == "cropshift"
    with pytest.raises(CompressError, match=r"unknown augmentation 'cropshft'; did you mean 'cropshift'\?"):
        parse(QuantizeConfig, {"data": "digits", "augment": "cropshft"}, "test")


# ---------------------------------------------------------------------------------------------- crop, flip, CropShift


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 24)])
def test_crop_flip_gives_each_window_of_the_padded_image_and_no_other(height: int, width: int) -> None:
    one = images(1, height=height, width=width)[0]
    down, aside = height // 8, width // 8
    possible = {}
    for top, left in itertools.product(range(-down, down + 1), range(-aside, aside + 1)):
        window = naive_window(one, top, left)
        possible |= {key(window): (top, left), key(window.flip(2)): (top, left)}
    found = split.crop_flip(one.repeat(3000, 1, 1, 1), generator(0))
    counts = dict.fromkeys(possible, 0)
    for image in found:
        counts[key(image)] += 1
    assert len(possible) == 2 * (2 * down + 1) * (2 * aside + 1)
    even = 3000 / len(possible)
    assert all(abs(count - even) < 6 * math.sqrt(even) for count in counts.values())  # uniform


def test_pad_is_4_at_32_pixels() -> None:
    white = torch.ones(2000, 1, 32, 32)
    found = split.crop_flip(white, generator(0))
    dark_rows = 32 - found.amax((1, 3)).sum(1)
    assert sorted(set(dark_rows.tolist())) == [0, 1, 2, 3, 4]


def naive_crop_shifts(one: Tensor, below: int) -> "dict[bytes, float]":
    """Every result of CropShift after a flip, with its probability."""
    _, height, width = one.shape
    chances: dict[bytes, float] = {}
    for mirrored, strength in itertools.product((one, one.flip(2)), range(below)):
        for less_w in range(strength + 1):
            less_h = strength - less_w
            places = (range(less_h + 1), range(less_w + 1), range(less_h + 1), range(less_w + 1))
            each = 1 / (2 * below * (strength + 1) * math.prod(map(len, places)))
            for top, left, to_top, to_left in itertools.product(*places):
                h, w = height - less_h, width - less_w
                canvas = torch.zeros_like(one)
                canvas[:, to_top : to_top + h, to_left : to_left + w] = mirrored[:, top : top + h, left : left + w]
                chances[key(canvas)] = chances.get(key(canvas), 0) + each
    return chances


def test_crop_shift_gives_what_a_naive_loop_gives_with_its_probabilities() -> None:
    one, n = images(1, height=6, width=7)[0], 20000
    chances = naive_crop_shifts(one, 3)
    assert sum(chances.values()) == pytest.approx(1)
    counts = dict.fromkeys(chances, 0)
    for image in split.crop_shift(one.repeat(n, 1, 1, 1), generator(0), below=16):  # 16 · 6 / 32 = 3
        counts[key(image)] += 1
    for name, chance in chances.items():
        assert abs(counts[name] - n * chance) < 5 * math.sqrt(n * chance) + 1


def test_crop_shift_loses_up_to_10_columns_and_rows_together_at_32_pixels() -> None:
    found = split.crop_shift(torch.ones(4000, 1, 32, 32), generator(0))
    lost = 64 - found.amax((1, 3)).sum(1) - found.amax((1, 2)).sum(1)
    assert sorted(set(lost.tolist())) == list(range(11))
    assert abs(float(lost.mean()) - 5) < 0.25


# ---------------------------------------------------------------------------------------------- black rectangles


def test_cutout_gives_a_square_around_each_pixel() -> None:
    one = images(1, 1)[0]
    possible = set()
    for i, j in itertools.product(range(8), range(8)):
        hole = one.clone()
        for a, b in itertools.product(range(8), range(8)):
            if i - 2 <= a < i + 2 and j - 2 <= b < j + 2:
                hole[:, a, b] = 0
        possible.add(key(hole))
    found = {key(image) for image in split.cutout(one.repeat(2000, 1, 1, 1), generator(0))}
    assert found == possible
    dark = (split.cutout(torch.ones(8000, 1, 32, 32), generator(1)) == 0).sum((1, 2, 3))
    assert int(dark.max()) == 16 * 16 and int(dark.min()) == 8 * 8  # at a corner a quarter of it


def test_erased_rectangles_lie_inside_and_have_the_papers_sizes() -> None:
    found = split.erase(torch.ones(4000, 3, 32, 32), generator(0))
    dark = found == 0
    assert torch.equal(dark[:, 0], dark[:, 1]) and torch.equal(dark[:, 0], dark[:, 2])
    touched = dark.any(3).any(2).any(1)
    assert abs(float(touched.float().mean()) - 0.5) < 0.05
    height, width = dark[touched, 0].any(2).sum(1), dark[touched, 0].any(1).sum(1)
    area = dark[touched, 0].sum((1, 2))
    assert torch.equal(area, height * width)  # a rectangle, nowhere cut off
    assert 0.01 < float(area.min()) / 1024 < 0.03 and 0.31 < float(area.max()) / 1024 < 0.35
    assert abs(float(area.float().mean()) / 1024 - 0.175) < 0.01  # the middle of 2 and 33 %
    ratio = (height / width).log()
    assert abs(float(ratio.mean())) < 0.1 and float(ratio.abs().max()) < math.log(3.3 * 1.3)
    assert torch.equal(split.erase(torch.ones(50, 1, 8, 8), generator(0), share=0.0), torch.ones(50, 1, 8, 8))


# ---------------------------------------------------------------------------------------------- shear and rotation


def test_no_shear_and_no_rotation_change_nothing() -> None:
    x, nothing = images(4, height=7, width=10), torch.zeros(4)
    assert torch.equal(split.rotate(x, nothing), x)
    assert torch.equal(split.shear(x, nothing, torch.tensor([True, False, True, False])), x)


def test_a_quarter_turn_is_exact() -> None:
    x = images(3, height=9, width=9)
    turned = split.rotate(x, torch.tensor([90.0, -90.0, 180.0]))
    for image, found, quarters in zip(x, turned, (1, -1, 2), strict=True):
        assert torch.equal(found, torch.rot90(image, quarters, (1, 2)))


def test_shear_moves_each_row_or_column_by_its_distance_from_the_centre() -> None:
    x = images(2, 1, 5, 5)
    found = split.shear(x, torch.tensor([1.0, 1.0]), torch.tensor([True, False]))
    for image, sheared, sideways in zip(x, found, (True, False), strict=True):
        for i, j in itertools.product(range(5), range(5)):
            a, b = (i, j - (i - 2)) if sideways else (i - (j - 2), j)
            want = float(image[0, a, b]) if 0 <= a < 5 and 0 <= b < 5 else 0.0
            assert float(sheared[0, i, j]) == want


def test_a_rotation_by_10_degrees_takes_the_nearest_pixel() -> None:
    x, angle = images(1, 1, 16, 12), math.radians(10)
    found = split.rotate(x, torch.tensor([10.0]))[0, 0]
    for i, j in itertools.product(range(16), range(12)):
        y, z = i - 7.5, j - 5.5
        a = round(math.cos(angle) * y + math.sin(angle) * z + 7.5)
        b = round(math.cos(angle) * z - math.sin(angle) * y + 5.5)
        want = float(x[0, 0, a, b]) if 0 <= a < 16 and 0 <= b < 12 else 0.0
        assert float(found[i, j]) == want


# ---------------------------------------------------------------------------------------------- colour


def naive_grey(image: list, i: int, j: int) -> float:
    if len(image) != 3:
        return sum(channel[i][j] for channel in image) / len(image)
    return 0.299 * image[0][i][j] + 0.587 * image[1][i][j] + 0.114 * image[2][i][j]


def naive_smooth(channel: list, i: int, j: int) -> float:
    if i in (0, len(channel) - 1) or j in (0, len(channel[0]) - 1):
        return channel[i][j]
    around = sum(channel[i + a][j + b] for a in (-1, 0, 1) for b in (-1, 0, 1))
    return (around + 4 * channel[i][j]) / 13


def naive_blend(name: str, image: list, strength: float) -> list:
    rows, cols = range(len(image[0])), range(len(image[0][0]))
    mean = sum(naive_grey(image, i, j) for i in rows for j in cols) / (len(rows) * len(cols))
    result = []
    for channel in image:
        other = {
            "saturation": lambda i, j: naive_grey(image, i, j),
            "brightness": lambda i, j: 0.0,
            "contrast": lambda i, j: mean,
            "sharpness": lambda i, j, channel=channel: naive_smooth(channel, i, j),
        }[name]
        blended = [[strength * channel[i][j] + (1 - strength) * other(i, j) for j in cols] for i in rows]
        result.append([[min(1.0, max(0.0, value)) for value in row] for row in blended])
    return result


@pytest.mark.parametrize("name", ["saturation", "brightness", "contrast", "sharpness"])
@pytest.mark.parametrize("channels", [1, 3])
def test_blends_against_naive_float64_loops(name: str, channels: int) -> None:
    x = images(4, channels, 6, 5)
    operation, strength = getattr(split, f"adjust_{name}"), torch.tensor([0.1, 0.7, 1.3, 1.9])
    want = [naive_blend(name, image.double().tolist(), float(s)) for image, s in zip(x, strength, strict=True)]
    torch.testing.assert_close(operation(x, strength), torch.tensor(want), atol=1e-6, rtol=0)
    torch.testing.assert_close(operation(x, torch.ones(4)), x)  # strength 1 is the image itself


def naive_equalize(values: list[int]) -> list[int]:
    counts = [values.count(level) for level in range(256)]
    step = (len(values) - counts[max(values)]) // 255
    if step == 0:
        return values
    return [min(255, (sum(counts[:value]) + step // 2) // step) for value in values]


def test_equalize_against_a_naive_loop() -> None:
    x = images(3, 2, 32, 32)
    x[0] = (x[0] * 80).round() / 255  # crowded into few levels
    x[1, 1] = 77 / 255  # one level: stays
    found = split.equalize(x)
    for image, equal in zip(x.flatten(0, 1), found.flatten(0, 1), strict=True):
        want = naive_equalize((image * 255).round().int().flatten().tolist())
        assert (equal * 255).round().int().flatten().tolist() == want
    assert float(found[0].max()) == 1.0 and float(x[0].max()) < 0.32
    assert torch.equal(split.equalize(images(2)), images(2))  # too few pixels for 256 levels


def test_autocontrast_stretches_each_channel_to_the_whole_range() -> None:
    x = 0.3 + 0.4 * images(2)
    x[0, 1] = 0.5
    found = split.autocontrast(x)
    assert torch.equal(found[0, 1], x[0, 1])
    want = torch.tensor([0.0, 1.0]).expand(2, 2).T
    torch.testing.assert_close(torch.stack([found[0, [0, 2]].amin((1, 2)), found[0, [0, 2]].amax((1, 2))]), want)
    assert torch.equal(found[0, 0].flatten().argsort(), x[0, 0].flatten().argsort())


def test_each_image_gets_the_operation_and_the_strength_drawn_for_it() -> None:
    x = images(60, height=16, width=16)
    found = split.recolour(x, generator(7))
    draw = generator(7)
    chosen = (torch.rand(60, 1, 1, generator=draw) * 8).long().flatten().tolist()
    roll = torch.rand(60, generator=draw)
    sign = 2 * (torch.rand(60, 1, 1, generator=draw) * 2).long().flatten() - 1
    coin = (torch.rand(60, 1, 1, generator=draw) * 2).long().flatten().bool()
    for n in range(60):
        one, at = x[n : n + 1], slice(n, n + 1)
        want = (
            lambda one, at: split.adjust_saturation(one, 0.1 + 1.8 * roll[at]),
            lambda one, at: split.adjust_brightness(one, 0.5 + 1.4 * roll[at]),
            lambda one, at: split.adjust_contrast(one, 0.5 + 1.4 * roll[at]),
            lambda one, at: split.adjust_sharpness(one, 0.1 + 1.8 * roll[at]),
            lambda one, at: split.autocontrast(one),
            lambda one, at: split.equalize(one),
            lambda one, at: split.shear(one, sign[at] * (0.05 + 0.1 * roll[at]).tan(), coin[at]),
            lambda one, at: split.rotate(one, sign[at] * (1 + (roll[at] * 10).floor())),
        )[chosen[n]](one, at)
        torch.testing.assert_close(found[at], want, atol=1e-6, rtol=0)
    assert set(chosen) == set(range(8))
