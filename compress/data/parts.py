"""Names of a source's parts: those that are known, and those that only sound like one, which are asked about."""

import re

#: The names that are taken for a part of the split.
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SOUNDING = frozenset(
    {
        *("train", "training", "trn", "trainset", "traindata", "trainval"),
        *("val", "valid", "validation", "valset", "valdata", "dev", "devel", "eval", "evaluation", "holdout"),
        *("test", "testing", "tests", "tst", "testset", "testdata", "split", "splits", "subset"),
    }
)


def sounds_like_part(name: str) -> bool:
    """Whether a word of the name is that of a part: training, x_dev, Test_images, val2017."""
    return not _SOUNDING.isdisjoint(_words(name))


def is_word_for_part(name: str) -> bool:
    """Whether the name is nothing but that: testing, Dev, val2017."""
    return bool(words := _words(name)) and _SOUNDING.issuperset(words)


def _words(name: str) -> "list[str]":
    return re.findall("[a-z]+", name.lower())
