"""What the decoded images of a dataset say about it: equal ones across its parts or under two labels, dark ones."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

BYTES = 1 << 22  # gone through at once: what fits a processor's cache
PAIRS = (("test", "train"), ("test", "val"), ("val", "train"))
#: The words for a split in a sentence.
SAID = {"train": "training", "val": "validation", "test": "test"}
DARK = 128  # of 255


def content_notes(
    images: np.ndarray,
    labels: np.ndarray,
    splits: Mapping[str, np.ndarray],
    classes: Sequence[str],
    names: "Sequence[str] | None" = None,
) -> list[str]:
    """What a user should know of `images` uint8 (N,C,H,W), a line each; nothing where all is as it should be.

    `names` are those of the images' files. One pass over the images: about 1 GB/s, where their hash takes as long.
    """
    called = (lambda at: names[at]) if names is not None else (lambda at: f"image {at}")
    number = equal_images(images)
    notes = []
    for split, other in PAIRS:
        if len(both := splits[split][np.isin(number[splits[split]], number[splits[other]])]):
            twin = splits[other][number[splits[other]] == number[both[0]]][0]
            notes.append(
                f"{len(both):,} of {len(splits[split]):,} {SAID[split]} images are {SAID[other]} images too, pixel for "
                f"pixel ({called(both[0])} = {called(twin)})"
            )
    if len(odd := _labelled_twice(number, labels)):
        twin = np.flatnonzero((number == number[odd[0]]) & (labels != labels[odd[0]]))[0]
        notes.append(
            f"{len(odd):,} images are there under more than one label, pixel for pixel ({called(odd[0])} as "
            f"{classes[labels[odd[0]]]!r}, {called(twin)} as {classes[labels[twin]]!r})"
        )
    for split in ("val", "test"):
        if absent := sorted(set(labels[splits["train"]].tolist()) - set(labels[splits[split]].tolist())):
            those = ", ".join(repr(classes[k]) for k in absent[:3]) + (", …" if len(absent) > 3 else "")
            notes.append(f"{len(absent)} of {len(classes)} classes have no {SAID[split]} image ({those})")
    if (brightest := int(images.max())) < DARK:
        notes.append(f"the brightest pixel is {brightest} of 255; are these 8-bit images?")
    return notes


def equal_images(images: np.ndarray) -> np.ndarray:
    """For each image (N,C,H,W) the index of the first that is equal to it byte for byte, int64 (N,)."""
    sums = all_checksums(images)
    _, first, group = np.unique(sums, return_index=True, return_inverse=True)
    number = first[group].astype(np.int64)
    for at in np.flatnonzero(number != np.arange(len(number))):  # few
        if not np.array_equal(images[at], images[number[at]]):
            number[at] = at
    return number


def chunks(images: np.ndarray, size: int = BYTES) -> Iterator[np.ndarray]:
    """The images in order, (n,C,H,W), each chunk in one piece of about `size` bytes."""
    count = max(1, size // max(1, images[0].nbytes))
    for begin in range(0, len(images), count):
        yield np.ascontiguousarray(images[begin : begin + count])


def all_checksums(images: np.ndarray) -> np.ndarray:
    """Those of any number of images (N,C,H,W), mapped ones too, (N,)."""
    return np.concatenate([checksums(chunk) for chunk in chunks(images)])


def checksums(images: np.ndarray) -> np.ndarray:
    """A 64-bit number of each image (N,C,H,W), (N,): equal for equal bytes, nearly never otherwise, and quick."""
    rows = images.reshape(len(images), -1)
    if rows.shape[1] % 8:
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8)))
    rows = rows.view(np.uint64)
    odd = np.random.default_rng(0).integers(0, 2**63, rows.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    return (rows * odd).sum(1, dtype=np.uint64)


def _labelled_twice(number: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Indices of images that an equal one with another label stands beside."""
    differing = number[labels != labels[number]]
    return np.flatnonzero(np.isin(number, differing))
