"""Attacks of users and of installed packages: run under the common checks, their faults told in one line."""

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.attacks import adaptive, presets
from compress.attacks.contract import EnsembleAttack, Task
from compress.attacks.ensemble import evaluate
from compress.attacks.ensemble_outcomes import EnsembleResult
from compress.cli.execute import execute
from edge.core import artifact, plugins
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
        ("return x.bfloat16()", "not float32"),
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
        ("return x.to_sparse()", "returned a complex or sparse tensor"),
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


def test_a_stage_that_its_fault_ended_goes_on_once_it_is_mended(
    write: Write, chain: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write("def attack(model, x, y, eps, norm, generator):\n    1 / 0\n")
    name = spec.partition(":")[0]
    command = ["evaluate", str(chain.student), "--images", "4", "--attack", spec, "--out", str(tmp_path / "out")]
    assert execute(command) == 2 and "division by zero" in capsys.readouterr().err
    (tmp_path / f"{name}.py").write_text(GOOD)
    del sys.modules[name]
    assert execute(command) in (0, 3), capsys.readouterr().err
    assert not (tmp_path / "out.partial").exists()


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


# ------------------------------------------------------------------------------------------- of installed packages


@dataclass(frozen=True)
class SignStep:
    """One step to the edge of the ball; with `fault` something that no attack does."""

    scale: float = 1.0
    fault: str = ""
    name: str = "sign-step"

    def parameters(self) -> dict[str, Any]:
        return asdict(self) if self.fault != "parameters" else {"model": network()}

    def run(self, task: Task) -> Tensor:
        if self.fault == "raises":
            raise ValueError("two\nlines")
        if self.fault == "shape":
            return task.x[:1]
        if self.fault == "model":
            task.model[1].bias.add_(1)  # type: ignore[index]
        leaf = task.x.requires_grad_()  # its own to write into
        true = task.model(leaf).gather(1, task.y[:, None]).sum()
        (gradient,) = torch.autograd.grad(true, leaf)
        return (leaf.detach() - self.scale * task.eps * gradient.sign()).clamp(0, 1)


SIGN_STEP, TOO_FAR, NO_ATTACK = SignStep(), SignStep(scale=1.5), {"name": "sign-step"}
RAISES, OTHER_SHAPE, MODEL_CHANGED = SignStep(fault="raises"), SignStep(fault="shape"), SignStep(fault="model")
NO_JSON, OTHER_NAME = SignStep(fault="parameters"), SignStep(name="sign")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """As if a package with that object of this module as the attack `sign-step` were installed."""

    def installed(attribute: str, name: str = "sign-step", module: str = __name__) -> None:
        def entry_points(group: str) -> list[EntryPoint]:
            return [EntryPoint(name, f"{module}:{attribute}", group)] if group.endswith(".attacks") else []

        monkeypatch.setattr(plugins, "entry_points", entry_points)
        plugins.installed.cache_clear()

    yield installed
    monkeypatch.undo()
    plugins.installed.cache_clear()


def test_a_packages_attack_is_used_by_name_and_judged_like_any_other(
    install: Callable[..., None], write: Write
) -> None:
    install("SIGN_STEP")
    assert isinstance(SIGN_STEP, EnsembleAttack)
    result, own = run("sign-step"), run(write(GOOD))
    assert np.array_equal(result.broken, own.broken) and np.array_equal(result.adversarial, own.adversarial)
    (column,) = result.columns
    assert (column.name, column.parameters["package"]) == ("sign-step", f"{__name__}:SIGN_STEP")
    names = [attack.name for attack in presets.attack_plan(["quick", "sign-step"], 3)]
    assert names == ["apgd-ce", "apgd-t", "sign-step"] and presets.users("sign-step") and not presets.users("apgd-t")
    install("TOO_FAR")
    assert run("sign-step").columns[0].reasons == {"outside the ball": 40}


@pytest.mark.parametrize(
    ("attribute", "told"),
    [
        ("RAISES", "raised ValueError: two lines at test_adaptive.py:"),
        ("OTHER_SHAPE", "returned shape (1, 1, 4, 4) for images (16, 1, 4, 4)"),
        ("MODEL_CHANGED", "changed the model"),
        ("NO_JSON", "parameters() of tests.compress.test_adaptive:NO_JSON give no table for a report (TypeError"),
        ("NO_ATTACK", "is a dict, not a compress.attacks.contract.EnsembleAttack"),
        ("SignStep", "tests.compress.test_adaptive:SignStep is a class; give the entry point an object of it"),
        ("OTHER_NAME", "names itself 'sign'; give its entry point that name"),
        ("NOT_THERE", "cannot be imported (AttributeError"),
    ],
)
def test_what_is_wrong_with_a_packages_attack_is_one_line(
    install: Callable[..., None], attribute: str, told: str
) -> None:
    install(attribute)
    with pytest.raises(CompressError) as fault:
        run("sign-step")
    assert str(fault.value).partition(":")[0].replace("'", "").endswith("sign-step")
    assert told in str(fault.value) and "\n" not in str(fault.value)


def test_a_name_of_ours_is_not_anothers(install: Callable[..., None]) -> None:
    install("SIGN_STEP", name="square")
    with pytest.raises(CompressError, match=r"attacks 'square': .*SIGN_STEP has the name of one of ours; uninstall it"):
        run("apgd-ce-5")


def test_the_command_line_takes_it(
    install: Callable[..., None], chain: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["evaluate", str(chain.student), "--attack", "sign-step", "--images", "20", "--out", str(tmp_path / "e")]
    assert execute(line) == 2 and "attack 'sign-step': not known (standard, rand, " in capsys.readouterr().err
    install("SIGN_STEP", module="no_such_package")
    assert execute(line) == 2
    fault = capsys.readouterr().err.strip().splitlines()[-1]
    assert "attacks 'sign-step': no_such_package:SIGN_STEP cannot be imported (ModuleNotFoundError" in fault
    install("SIGN_STEP")
    assert execute([*line, "--allow-invalid"]) == 0
    figures = json.loads(artifact.read(tmp_path / "e").file("evaluation.json").read_text())
    assert [row["name"] for row in figures["attacks"]] == ["sign-step"] and figures["attacks"][0]["attacked"] > 0
