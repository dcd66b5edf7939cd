"""What to do about a batch that does not fit into memory: find the one that does."""

from collections.abc import Callable

import torch

#: What torch's allocator for the CPU, which has no exception of its own, says.
CPU_SAYS = ("DefaultCPUAllocator", "not enough memory")


def exhausted(fault: RuntimeError) -> bool:
    """Whether it says that memory ran out."""
    return isinstance(fault, torch.OutOfMemoryError) or any(text in str(fault) for text in CPU_SAYS)


def largest(fits: Callable[[int], object], size: int) -> "int | None":
    """The largest half, quarter, … of a batch of `size` that `fits` gets through, down to 2 images."""
    while size >= 4:
        size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            fits(size)
        except RuntimeError as fault:
            if not exhausted(fault):
                raise
        else:
            return size
    return None


def message(size: int, found: "int | None") -> str:
    """One line for the user."""
    if found is None:
        return f"batch_size {size}: out of memory, and not even 2 images fit; choose a smaller model"
    return f"batch_size {size}: out of memory; {found} images fit, set batch_size {found} (--batch-size {found})"
