"""One tiny chain, made once: every stage real, trained just enough to tell its parts apart."""

import importlib
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

import compress.cli
from compress.__main__ import share_the_cores

# before any test imports torch
share_the_cores()
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # several processes share the cores
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

# the same examples in every run: what fails here fails for everyone
settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")

EPS = "40/255"
BRIEF = {
    "data": "digits",
    "epochs": 2,
    "batch_size": 64,
    "lr": 0.05,
    "attack": {"steps": 2},
    "validate_steps": 2,
    "test_steps": 2,
}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Datasets are decoded into a folder of the tests' own, not into the user's cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def own_names() -> None:
    """Verbs settle their choices when they are imported: before a test plays an installed package."""
    for module in pkgutil.iter_modules(compress.cli.__path__):
        importlib.import_module(f"compress.cli.{module.name}")


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Folders of a teacher, a vgap student, its INT8 twin, both exports and an attack set."""
    import export.stage
    from compress.config import AttackConfig, ExportConfig, QuantizeConfig, StudentConfig, TeacherConfig, parse
    from compress.stages import attack, distill, quantize, teacher

    root: Path = tmp_path_factory.mktemp("chain")
    at = SimpleNamespace(root=root, **{n: root / n for n in ("teacher", "student", "quantized", "e", "ef", "a")})
    teacher.run(parse(TeacherConfig, {**BRIEF, "model": "resnet8"}, "test"), teacher.TeacherInputs(), at.teacher)
    student = parse(StudentConfig, {**BRIEF, "model": "resnet8", "method": "vgap", "epochs": 4}, "test")
    distill.run(student, distill.StudentInputs(teacher=at.teacher), at.student)
    quantize.run(
        parse(QuantizeConfig, {**BRIEF, "epochs": 1}, "test"), quantize.QuantizeInputs(student=at.student), at.quantized
    )
    for source, out in ((at.quantized, at.e), (at.student, at.ef)):
        export.stage.run(parse(ExportConfig, {"data": "digits"}, "test"), export.stage.ExportInputs(model=source), out)
    inputs = attack.AttackInputs(student=at.student, quantized=at.quantized, exported=[at.e, at.ef])
    brief = {"data": "digits", "images": 60, "ensemble": "quick", "steps": 3, "restarts": 1}
    attack.run(parse(AttackConfig, brief, "test"), inputs, at.a)
    return at
