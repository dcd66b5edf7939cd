"""Several processes as one: the same numbers for any number of ranks, and one line when one of them is lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress import names, networks
from compress.networks.distributed import exchange_rows, sharded, synchronise
from compress.numerics import ranks
from edge.core.errors import CompressError
from tests.compress.rank_programs import cases

PROGRAMS = Path(__file__).parent / "rank_programs"
ROOT = Path(__file__).parent.parent.parent
ALL = dict(cases.cases())


def environment(**more: object) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("RANK", "WORLD", "MASTER"))}
    quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # as the command line sets it
    same = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return {**plain, **quiet, **same, **{name: str(value) for name, value in more.items()}}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def together(world: int, program: str, *args: str) -> list[subprocess.CompletedProcess[str]]:
    """The program on that many ranks, with nothing but torchrun's environment; what became of each."""
    port = free_port()
    running = [
        subprocess.Popen(
            [sys.executable, str(PROGRAMS / program), *args],
            env=environment(RANK=n, LOCAL_RANK=n, WORLD_SIZE=world, MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(world)
    ]
    said = [process.communicate(timeout=240) for process in running]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(running, said, strict=True)
    ]


def compute(world: int, folder: Path) -> dict[str, Any]:
    done = together(world, "compute.py", str(folder / f"{world}.pt"))
    assert [each.returncode for each in done] == [0] * world, "".join(each.stderr for each in done)
    return {"done": done, **torch.load(folder / f"{world}.pt")}


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, torch.Tensor]]:
    """What one process computes, with torch's own BatchNorm and whole batches."""
    return {name: case() for name, case in ALL.items()}


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)], ids=lambda world: f"{world} ranks")
def computed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compute(request.param, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", ALL)
def test_the_number_of_ranks_changes_nothing(
    name: str, computed: dict[str, Any], alone: dict[str, dict[str, torch.Tensor]]
) -> None:
    found, want = computed["found"][name], alone[name]
    assert list(found) == list(want) and want
    for key, value in want.items():
        assert found[key].dtype == value.dtype, key
        torch.testing.assert_close(
            found[key], value, rtol=1e-10, atol=1e-10, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_every_method_is_among_the_cases() -> None:
    assert {method for method, _ in cases.STEPS.values() if isinstance(method, str)} == set(names.METHODS)


def test_all_ranks_end_in_the_same_bits(computed: dict[str, Any]) -> None:
    assert computed["apart"] == []


def test_objects_go_to_all_ranks_in_their_order(computed: dict[str, Any]) -> None:
    world, objects = computed["world"], computed["objects"]
    assert objects["rank"] == list(range(world))
    assert objects["broadcast"] == [{"from": 0}] * world
    assert objects["largest"] == [world - 3.5] * world


def test_rank_0_alone_has_the_folder_of_a_stage_that_all_make(computed: dict[str, Any]) -> None:
    world, built = computed["world"], computed["objects"]["stage"]
    assert built["identities"] == [built["identities"][0]] * world
    assert built["calls"] == [1] * world  # the second time it was complete
    assert built["own"] == [True] + [False] * (world - 1) and not any(built["left"][1:])
    assert built["metrics"] == [{"sum": world * (world - 1) / 2}] * world


def test_ranks_above_zero_print_nothing(computed: dict[str, Any]) -> None:
    first, *others = computed["done"]
    assert first.stdout == "from 0\n" and first.stderr == "progress of 0\n"
    assert [(each.stdout, each.stderr) for each in others] == [("", "")] * len(others)


def test_one_rank_is_the_identity() -> None:
    network = networks.build_network("resnet8", channels=1, classes=10)
    kinds = [type(module) for module in network.modules()]
    x, value = torch.rand(3, 2), object()
    with ranks.started():
        assert (ranks.world(), ranks.rank()) == (1, 0)
        assert sharded(network) is network and synchronise(network) is network
        assert [type(module) for module in network.modules()] == kinds
        assert ranks.gather(value) == [value] and ranks.broadcast(value) is value and ranks.largest(-2.5) == -2.5
        assert ranks.gather_rows(x) is x and torch.equal(exchange_rows(x), x)
        assert ranks.shares(7) == [7] and ranks.share(7) == slice(0, 7)
    assert ranks.here().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("rows", [0, 1, 7, 8, 1000])
def test_shares_are_even_and_complete(world: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from compress.numerics import ranks as module

    monkeypatch.setattr(module, "world", lambda: world)
    counts = ranks.shares(rows)
    assert len(counts) == world and sum(counts) == rows and max(counts) - min(counts) <= 1
    covered: list[int] = []
    for number in range(world):
        monkeypatch.setattr(module, "rank", lambda number=number: number)
        covered += range(rows)[ranks.share(rows)]
    assert covered == list(range(rows))


# ---------------------------------------------------------------------------------------------- how a group ends


@contextmanager
def torchrun(world: int, folder: Path, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    """end.py under torchrun, each rank's output in a file of its own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    logs = ["--redirects", "3", "--log-dir", str(folder / "logs")]
    running = subprocess.Popen(
        [*command, *logs, str(PROGRAMS / "end.py"), *args, str(folder)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def processes(world: int, folder: Path) -> list[int]:
    """The process of each rank, once all of them are in the ranks."""
    files = [folder / f"rank-{number}" for number in range(world)]
    end = time.monotonic() + 120
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < end, "the ranks did not start"
        time.sleep(0.05)
    return [int(file.read_text()) for file in files]


def said(folder: Path, stream: str, world: int) -> list[list[str]]:
    """By rank the lines of "stdout" or "stderr"."""
    files = {int(file.parent.name): file for file in (folder / "logs").rglob(f"{stream}.log")}
    return [files[number].read_text().splitlines() for number in range(world)]


SLOW = (("exchange", 2, 1), ("exchange", 3, 0), ("compute", 3, 2), ("backward", 2, 1))


@pytest.mark.parametrize(
    ("how", "world", "killed"),
    [("compute", 2, 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_a_killed_rank_ends_the_others_with_one_line(how: str, world: int, killed: int, tmp_path: Path) -> None:
    with torchrun(world, tmp_path, how) as running:
        pids = processes(world, tmp_path)
        time.sleep(0.5)
        os.kill(pids[killed], signal.SIGKILL)
        assert running.wait(timeout=240) != 0  # in `compute` the others would sleep longer
    lines = [line for lines in said(tmp_path, "stderr", world) for line in lines if line != "progress"]
    assert len(lines) == 1 and lines[0].startswith(f"compress: rank {killed} was lost ("), lines
    assert [len(lines) for lines in said(tmp_path, "stdout", world)] == [1] + [0] * (world - 1)


@pytest.mark.parametrize(
    ("how", "line"),
    [
        pytest.param("same fault", "compress: what all ranks found", marks=pytest.mark.slow),
        pytest.param("one fault", "compress: what rank 1 alone found", marks=pytest.mark.slow),
        pytest.param("one fault on rank 0", "compress: what rank 0 alone found", marks=pytest.mark.slow),
        pytest.param("peace", None, marks=pytest.mark.slow),
    ],
)
def test_what_ends_a_group_is_said_once(how: str, line: "str | None", tmp_path: Path) -> None:
    with torchrun(2, tmp_path, how) as running:
        assert (running.wait(timeout=120) == 0) == (line is None)
    first, second = said(tmp_path, "stderr", 2)
    assert [*first, *second] == ["progress", *([line] if line else [])]
    assert how != "same fault" or line in first  # what all have found, rank 0 says


def test_what_an_exchange_says_of_a_rank_on_another_machine() -> None:
    said_by_gloo = "[/src/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.3]:4242"
    with (
        pytest.raises(
            ranks.RankLost, match=r"^another rank was lost \(Connection closed by peer \[10\.0\.0\.3\]:4242\)"
        ),
        ranks.together(),
    ):
        raise RuntimeError(said_by_gloo)
    with pytest.raises(RuntimeError, match="shapes differ") as other, ranks.together():
        raise RuntimeError("shapes differ")
    assert not isinstance(other.value, CompressError)


@pytest.mark.slow
def test_a_bug_on_one_rank_shows_its_traceback_and_nothing_else(tmp_path: Path) -> None:
    with torchrun(2, tmp_path, "bug") as running:
        assert running.wait(timeout=120) != 0
    first, second = said(tmp_path, "stderr", 2)
    assert first == ["progress"]
    assert "Traceback" in second[0] and "a bug on rank 1" in second[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANK": "one"}, "RANK 'one': WORLD_SIZE is set, so a number is needed there"),
        ({"MASTER_PORT": ""}, "rank 0 of 2 found no group"),
    ],
)
def test_an_environment_that_is_not_torchruns_is_named(
    changes: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in {**given, **changes}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CompressError, match=message), ranks.started():
        raise AssertionError("started")
    assert ranks.world() == 1


class Odd(nn.BatchNorm2d):
    """A BatchNorm with a forward pass of its own, as some packages have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


def test_a_batchnorm_that_cannot_be_synchronised_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "world", lambda: 2)
    with pytest.raises(CompressError, match=r"1\.0: a Odd cannot normalise over 2 ranks; train on one"):
        synchronise(nn.Sequential(nn.ReLU(), nn.Sequential(Odd(3))))
