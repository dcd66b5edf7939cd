"""A user's own attack: found in the working directory, run under the common checks, its faults told in one line."""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compress.attacks import adaptive, presets
from compress.attacks.ensemble import evaluate
from compress.attacks.ensemble_result import EnsembleResult
from edge.core.errors import CompressError

EPS = 0.1
NUMBER = itertools.count()
GOOD = """
def attack(model, x, y, eps, norm, generator):
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    logits.gather(1, y[:, None]).sum().backward()
    return (x - eps * leaf.grad.sign()).clamp(0, 1)
"""

#: source → spec of its function `attack`
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Modules in a working directory that is not on the path."""
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)

    def put(source: str) -> str:
        name = f"my_attack_{next(NUMBER)}"
        (tmp_path / f"{name}.py").write_text(source)
        return f"{name}:attack"

    yield put
    assert sys.path == path  # it is left as it was
    for name in set(sys.modules) - before:
        del sys.modules[name]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval().requires_grad_(False)


def run(spec: str, n: int = 40, **given: object) -> EnsembleResult:
    x = np.random.default_rng(0).random((n, 1, 4, 4), np.float32)
    y = network()(torch.from_numpy(x)).argmax(1).numpy()
    return evaluate(network(), x, y, presets.attack_plan([spec], 3), eps=EPS, batch_size=16, **given)  # type: ignore[arg-type]


def test_its_candidates_are_judged_like_any_other(write: Write) -> None:
    result = run(write(GOOD))
    assert 0 < result.columns[0].broke < 40 and result.columns[0].inadmissible == 0
    x = np.random.default_rng(0).random((40, 1, 4, 4), np.float32)
    assert 0.9 * EPS < np.abs(result.adversarial - x).max() <= EPS + 1e-6


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("return x + 2 * eps * (0.5 - x).sign()", "outside the ball"),
        ("return x + eps * (x - 0.5).sign() * 1.00005", "outside"),
        ("return (x - 1.5 * (x > 0.95))", "outside [0, 1]"),
        ("return x * float('nan')", "not finite"),
        ("return x.double()", "not float32"),
    ],
)
def test_what_leaves_the_ball_does_not_count_and_is_said(write: Write, source: str, reason: str) -> None:
    spec = write(f"def attack(model, x, y, eps, norm, generator):\n    {source}\n")
    result = run(spec)
    column = result.columns[0]
    assert column.inadmissible > 0 and any(reason in why for why in column.reasons)
    if column.inadmissible == 40:
        assert column.broke == 0 and result.robust_accuracy == 1
    assert result.notes[0].startswith(f"{spec}: {column.inadmissible} of 40 candidates do not count")
    assert np.isfinite(result.adversarial).all() and result.adversarial.min() >= 0 and result.adversarial.max() <= 1


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("1 / 0", "raised ZeroDivisionError: division by zero at my_attack_"),
        ("raise ValueError('two\\nlines')", "raised ValueError: two lines at"),
        ("import sys; sys.exit(1)", "raised SystemExit: 1"),
        ("return None", "returned a NoneType; return the candidates"),
        ("return x[:1]", "returned shape (1, 1, 4, 4) for images (16, 1, 4, 4)"),
        ("model.train(); return x", "changed the model"),
        ("model[1].bias.add_(1); return x", "changed the model"),
    ],
)
def test_its_faults_are_one_line_that_names_it(write: Write, source: str, told: str) -> None:
    spec = write(f"def attack(model, x, y, eps, norm, generator):\n    {source}\n")
    with pytest.raises(CompressError) as fault:
        run(spec)
    assert str(fault.value).startswith(f"attack {spec}: ") and told in str(fault.value)
    assert "\n" not in str(fault.value)


def test_it_may_write_into_its_arguments(write: Write) -> None:
    spec = write(
        "def attack(model, x, y, eps, norm, generator):\n    y.zero_(); x += 0.5 * eps; return x.clamp_(0, 1)\n"
    )
    assert run(spec).columns[0].inadmissible == 0


def test_its_generator_is_the_batchs_own(write: Write) -> None:
    spec = write(
        "import torch\ndef attack(model, x, y, eps, norm, generator):\n"
        "    return (x + eps * torch.empty_like(x).uniform_(-1, 1, generator=generator)).clamp(0, 1)\n"
    )
    a, b, c = run(spec, seed=1), run(spec, seed=1), run(spec, seed=2)
    assert np.array_equal(a.adversarial, b.adversarial) and not np.array_equal(a.adversarial, c.adversarial)


def test_it_may_import_its_neighbours_even_while_it_runs(write: Write, tmp_path: Path) -> None:
    (tmp_path / "my_neighbour_here.py").write_text("def same(x):\n    return x\n")
    spec = write(
        "def attack(model, x, y, eps, norm, generator):\n    import my_neighbour_here\n"
        "    return my_neighbour_here.same(x)\n"
    )
    assert run(spec).robust_accuracy == 1


def test_a_state_of_the_attack_before_it_was_edited_is_refused(write: Write, tmp_path: Path) -> None:
    spec = write(GOOD)
    run(spec, state_folder=tmp_path / "state", identity="m")
    name = spec.partition(":")[0]
    (tmp_path / f"{name}.py").write_text(GOOD + "# another\n")
    del sys.modules[name]
    with pytest.raises(CompressError, match=r"state of another evaluation \(attacks"):
        run(spec, state_folder=tmp_path / "state", identity="m")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("attack", "not of the form module:function"),
        ("a.py:attack", "no module a in"),
        ("a/b:attack", "not of the form module:function"),
        (":f", "not of the form module:function"),
        ("no_such_module_here:attack", "no module no_such_module_here in"),
        ("json:no_such_function", "json has no function no_such_function (it has "),
    ],
)
def test_a_spec_that_names_nothing(spec: str, told: str) -> None:
    with pytest.raises(CompressError) as fault:
        adaptive.load_user_attack(spec)
    assert told in str(fault.value) and "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import no_such_dependency\n", "raised ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("def attack(:\n", "raised SyntaxError"),
        ("import sys\nsys.exit(2)\n", "raised SystemExit: 2"),
        ("attack = 3\n", "has no function attack (it has none)"),
    ],
)
def test_a_module_that_cannot_be_used(write: Write, source: str, told: str) -> None:
    with pytest.raises(CompressError) as fault:
        adaptive.load_user_attack(write(source))
    assert told in str(fault.value) and "\n" not in str(fault.value)
