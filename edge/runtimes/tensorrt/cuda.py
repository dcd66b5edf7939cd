"""The little of CUDA that an engine needs: device memory, streams, events, graphs. ctypes on libcudart, no package.

Every call's error code is looked at; a failed one is one line. What was allocated is freed by `close`, once.
"""

import contextlib
import ctypes
import site
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core.errors import CompressError

SONAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")
#: Where pip's packages and the toolkit put it, below a site-packages folder and below the file system's root.
WHEELS = ("nvidia/cuda_runtime/lib", "nvidia/cu13/lib", "nvidia/cu12/lib")
TOOLKITS = tuple(f"usr/local/cuda/{f}" for f in ("lib64", "targets/aarch64-linux/lib", "targets/x86_64-linux/lib"))

HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2
NON_BLOCKING = 1
CAPTURE_THREAD_LOCAL = 1
MAJOR, MINOR, INTEGRATED = 75, 76, 18  # cudaDeviceAttr
PROPERTIES_BYTES, NAME_BYTES = 8192, 256  # cudaDeviceProp grows with CUDA; the name is its first member in all
UNUSABLE = (3, 34, 35, 100, 101, 803, 804)  # no driver, one too old, a stub of one, no device
OUT_OF_MEMORY = 2

_c = ctypes
_handle, _size, _number = _c.c_void_p, _c.c_size_t, _c.c_int
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cudaGetDeviceCount": (_c.POINTER(_number),),
    "cudaSetDevice": (_number,),
    "cudaDeviceGetAttribute": (_c.POINTER(_number), _number, _number),
    "cudaGetDeviceProperties": (_c.c_char_p, _number),
    "cudaDriverGetVersion": (_c.POINTER(_number),),
    "cudaRuntimeGetVersion": (_c.POINTER(_number),),
    "cudaMemGetInfo": (_c.POINTER(_size), _c.POINTER(_size)),
    "cudaMalloc": (_c.POINTER(_handle), _size),
    "cudaFree": (_handle,),
    "cudaMallocHost": (_c.POINTER(_handle), _size),
    "cudaFreeHost": (_handle,),
    "cudaMemcpyAsync": (_handle, _handle, _size, _number, _handle),
    "cudaStreamCreateWithFlags": (_c.POINTER(_handle), _c.c_uint),
    "cudaStreamSynchronize": (_handle,),
    "cudaStreamDestroy": (_handle,),
    "cudaStreamBeginCapture": (_handle, _number),
    "cudaStreamEndCapture": (_handle, _c.POINTER(_handle)),
    "cudaGraphInstantiateWithFlags": (_c.POINTER(_handle), _handle, _c.c_ulonglong),
    "cudaGraphLaunch": (_handle, _handle),
    "cudaGraphDestroy": (_handle,),
    "cudaGraphExecDestroy": (_handle,),
    "cudaEventCreate": (_c.POINTER(_handle),),
    "cudaEventRecord": (_handle, _handle),
    "cudaEventElapsedTime": (_c.POINTER(_c.c_float), _handle, _handle),
    "cudaEventDestroy": (_handle,),
}


@dataclass(frozen=True)
class Device:
    """The GPU that this process uses."""

    name: str
    sm: str  # compute capability, `8.7`
    total_bytes: int
    free_bytes: int
    integrated: bool  # shares the processor's memory, as on a Jetson
    driver: str  # the CUDA version that the driver supports
    runtime: str  # of libcudart

    def about(self) -> dict[str, Any]:
        """What is recorded of it; nothing that changes from one minute to the next."""
        return {"name": self.name, "sm": self.sm, "memory_bytes": self.total_bytes, "integrated": self.integrated}


class Cuda:
    """libcudart, its device 0 chosen. Allocations belong to it and go with `close`."""

    def __init__(self, library: "ctypes.CDLL | None" = None) -> None:
        self._library = library or _find()
        self._owned: list[Callable[[], None]] = []
        for name, arguments in SIGNATURES.items():
            function = getattr(self._library, name, None)
            if function is None:
                raise CompressError(f"libcudart has no {name}; CUDA 12 or newer is needed")
            function.argtypes, function.restype = arguments, _number
        self._library.cudaGetErrorString.argtypes = (_number,)
        self._library.cudaGetErrorString.restype = _c.c_char_p
        count = _number()
        self._call("cudaGetDeviceCount", _c.byref(count))
        if count.value < 1:
            raise _no_device("no CUDA device is visible")
        self._call("cudaSetDevice", 0)

    def device(self) -> Device:
        """What device 0 is, and how much of its memory is free now."""
        free, total = _size(), _size()
        self._call("cudaMemGetInfo", _c.byref(free), _c.byref(total))
        properties = _c.create_string_buffer(PROPERTIES_BYTES)
        self._call("cudaGetDeviceProperties", properties, 0)
        name = properties.raw[:NAME_BYTES].split(b"\0")[0].decode(errors="replace")
        return Device(
            name=name,
            sm=f"{self._attribute(MAJOR)}.{self._attribute(MINOR)}",
            total_bytes=total.value,
            free_bytes=free.value,
            integrated=bool(self._attribute(INTEGRATED)),
            driver=_version(self._whole("cudaDriverGetVersion")),
            runtime=_version(self._whole("cudaRuntimeGetVersion")),
        )

    def allocate(self, size: int) -> int:
        """Device memory of `size` bytes; its address."""
        return self._own("cudaMalloc", "cudaFree", size)

    def pinned(self, shape: tuple[int, ...]) -> "tuple[npt.NDArray[np.float32], int]":
        """Page-locked float32 host memory as an array, and its address; copies from and to it do not block."""
        count = int(np.prod(shape))
        address = self._own("cudaMallocHost", "cudaFreeHost", count * 4)
        return np.ctypeslib.as_array((_c.c_float * count).from_address(address)).reshape(shape), address

    def stream(self) -> int:
        return self._own("cudaStreamCreateWithFlags", "cudaStreamDestroy", NON_BLOCKING)

    def event(self) -> int:
        return self._own("cudaEventCreate", "cudaEventDestroy")

    def copy_in(self, device: int, host: int, size: int, stream: int) -> None:
        self._call("cudaMemcpyAsync", device, host, size, HOST_TO_DEVICE, stream)

    def copy_out(self, host: int, device: int, size: int, stream: int) -> None:
        self._call("cudaMemcpyAsync", host, device, size, DEVICE_TO_HOST, stream)

    def synchronize(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def record(self, event: int, stream: int) -> None:
        self._call("cudaEventRecord", event, stream)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Between two recorded events whose stream was synchronized."""
        elapsed = _c.c_float()
        self._call("cudaEventElapsedTime", _c.byref(elapsed), start, end)
        return elapsed.value

    def capture(self, work: Callable[[], None], stream: int) -> int:
        """What `work` puts on the stream, as a graph for `launch`. Where `work` fails the stream stays usable."""
        self._call("cudaStreamBeginCapture", stream, CAPTURE_THREAD_LOCAL)
        graph = _handle()
        try:
            work()
        except BaseException:
            self._library.cudaStreamEndCapture(stream, _c.byref(graph))
            if graph:
                self._library.cudaGraphDestroy(graph)
            raise
        self._call("cudaStreamEndCapture", stream, _c.byref(graph))
        self._owned.append(partial(self._call, "cudaGraphDestroy", graph))
        executable = _handle()
        self._call("cudaGraphInstantiateWithFlags", _c.byref(executable), graph, 0)
        self._owned.append(partial(self._call, "cudaGraphExecDestroy", executable))
        return _address(executable)

    def launch(self, graph: int, stream: int) -> None:
        self._call("cudaGraphLaunch", graph, stream)

    def close(self) -> None:
        """Free what was allocated, last first; a second call does nothing."""
        while self._owned:
            self._owned.pop()()

    def _own(self, make: str, release: str, *arguments: int) -> int:
        handle = _handle()
        self._call(make, _c.byref(handle), *arguments)
        self._owned.append(partial(self._call, release, handle))
        return _address(handle)

    def _attribute(self, which: int) -> int:
        value = _number()
        self._call("cudaDeviceGetAttribute", _c.byref(value), which, 0)
        return value.value

    def _whole(self, name: str) -> int:
        value = _number()
        self._call(name, _c.byref(value))
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code == 0:
            return
        reason = self._library.cudaGetErrorString(code)
        text = f"{name}: {reason.decode(errors='replace') if reason else 'error'} ({code})"
        if code in UNUSABLE:
            raise _no_device(text)
        if code == OUT_OF_MEMORY:
            raise CompressError(
                f"the GPU's memory does not suffice ({text}); end other programs, or take a smaller batch"
            )
        raise CompressError(f"CUDA failed in {text}; look at nvidia-smi, then run it again")


def cuda_device() -> "Device | None":
    """The GPU of this machine, None where there is none or no CUDA."""
    try:
        cuda = Cuda()
    except CompressError:
        return None
    return cuda.device()


def _no_device(text: str) -> CompressError:
    return CompressError(
        f"no usable NVIDIA GPU here ({text}); run it where one is, with its driver installed (nvidia-smi shows it)"
    )


def _find() -> ctypes.CDLL:
    for name in (*SONAMES, *map(str, _places())):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    raise _no_device(
        f"{SONAMES[0]} not found; pip install nvidia-cuda-runtime, or add the CUDA toolkit to LD_LIBRARY_PATH"
    )


def _places(root: Path = Path("/")) -> Iterator[Path]:
    """Files that the loader does not look at by itself."""
    sites = [Path(folder) for folder in (*site.getsitepackages(), site.getusersitepackages(), *sys.path) if folder]
    folders = [*(folder / wheel for folder in dict.fromkeys(sites) for wheel in WHEELS), *(root / t for t in TOOLKITS)]
    for folder in folders:
        yield from (folder / name for name in SONAMES if (folder / name).is_file())


def _address(handle: Any) -> int:
    return int(handle.value or 0)


def _version(number: int) -> str:
    """`13020` → `13.2`."""
    return f"{number // 1000}.{number % 1000 // 10}"
