"""Pickles of plain data and NumPy arrays, read without letting them call anything else."""

import io
import pickle
from typing import Any, ClassVar

import numpy as np

from compress.data.faults import reason
from edge.core.errors import CompressError


def loads(content: bytes, where: str) -> Any:
    """The object in a pickle, as Python 2 or 3 wrote it; its strings come back as bytes where Python 2 wrote them."""
    try:
        return _DataOnly(io.BytesIO(content), where).load()
    except CompressError:
        raise
    except Exception as fault:  # a damaged pickle makes any opcode fail, with any exception
        raise CompressError(f"{where}: not a readable pickle ({reason(fault)}); fetch the file again") from None


def _latin1(text: str, encoding: str) -> bytes:
    """`_codecs.encode` as far as Python 3 needs it to write bytes in the old protocols."""
    if encoding != "latin1":
        raise ValueError(f"encoding {encoding}")
    return text.encode("latin1")


class _DataOnly(pickle.Unpickler):
    """Finds only what rebuilds an array."""

    allowed: ClassVar[dict[tuple[str, str], Any]] = {
        # taken from NumPy itself: its module has moved between versions, and so it does in pickles
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
    }

    def __init__(self, file: io.BytesIO, where: str) -> None:
        super().__init__(file, encoding="bytes")
        self.where = where

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise CompressError(
                f"{self.where}: the pickle asks for {module}.{name}, which is code, not data; it was not "
                f"run: use the official file"
            )
        return self.allowed[module, name]
