"""Import one package, or ask NVIDIA's driver, and print what it says as JSON: run apart, since an import can crash.

The text of this file is handed to a fresh Python with the import name, or `cuda`, as its argument.
"""

import ctypes
import functools
import importlib
import importlib.util
import json
import runpy
import sys
from typing import Any

#: Packages that may lack their builder.
BUILDERS = "tensorrt tensorrt_rtx"
MARK = "\x1e"  # the answer stands behind it; an import may print whatever it likes before

CUDA_NO_DEVICE = 100
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


def package(name: str) -> dict[str, Any]:
    """{"version", "facts"} of a package that is imported for it."""
    module = importlib.import_module(name)
    return {"version": str(getattr(module, "__version__", "")), "facts": FACTS.get(name, lambda _: {})(module)}


def torch() -> dict[str, Any]:
    """The same of torch, whose import takes seconds: its libraries are loaded instead, which is where it fails."""
    (folder,) = importlib.util.find_spec("torch").submodule_search_locations  # type: ignore[union-attr, misc]
    variables = runpy.run_path(f"{folder}/version.py")
    ctypes.CDLL(f"{folder}/lib/libtorch_global_deps.so", mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(f"{folder}/lib/libtorch_python.so")
    return {"version": variables["__version__"], "facts": {"cuda": variables["cuda"]}}


#: Import name → what only the import can tell of it.
FACTS: dict[str, Any] = {
    "onnxruntime": lambda runtime: {"providers": runtime.get_available_providers()},
    **dict.fromkeys(BUILDERS.split(), lambda library: {"builder": hasattr(library, "Builder")}),
}


def cuda() -> dict[str, Any]:
    """The driver API's answer: {"cuda", "devices", "fault"}."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {"cuda": None, "devices": [], "fault": "no NVIDIA driver: libcuda.so.1 is not there"}
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    served = f"{number.value // 1000}.{number.value % 1000 // 10}"
    code = library.cuInit(0)
    if code:
        why = "no CUDA device" if code == CUDA_NO_DEVICE else f"the driver answers error {code}"
        return {"cuda": served, "devices": [], "fault": why}
    library.cuDeviceGetCount(ctypes.byref(number))
    return {"cuda": served, "devices": [_device(library, index) for index in range(number.value)], "fault": None}


def _device(library: Any, index: int) -> dict[str, Any]:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in (MAJOR, MINOR):
        value = ctypes.c_int()
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(str(value.value))
    return {"name": name.value.decode(errors="replace"), "sm": ".".join(capability), "memory_bytes": memory.value}


if __name__ == "__main__":
    try:
        answer = {"cuda": cuda, "torch": torch}.get(sys.argv[1], functools.partial(package, sys.argv[1]))()
    except BaseException as fault:
        causes = (fault, fault.__cause__, fault.__context__)
        messages = [str(cause).strip() for cause in causes if cause is not None]
        first = next(filter(None, messages), "no message").splitlines()[0]
        answer = {"fault": f"{type(fault).__name__}: {first}"[:300]}
    print(MARK + json.dumps(answer), flush=True)
