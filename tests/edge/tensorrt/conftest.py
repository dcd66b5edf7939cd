"""The stand-in for libcudart, compiled once; every test gets it with nothing failing and nothing allocated."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("cudart.cpp")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        if os.environ.get("CI"):
            pytest.fail("g++ is missing; it compiles the stand-in for libcudart")
        pytest.skip("no g++ here to compile the stand-in for libcudart")
    library = tmp_path_factory.mktemp("cudart") / "libcudart.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True)
    return library


@pytest.fixture
def cudart(compiled: Path) -> Iterator[ctypes.CDLL]:
    library = ctypes.CDLL(str(compiled))
    library.stub_reset()
    library.stub_forget()
    yield library
    assert library.stub_live() == 0, "device memory, streams, events or graphs were not freed"
