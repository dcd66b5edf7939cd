"""Verification on boards: each is given its first artifact before any is waited for."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from edge.core import artifact, interrupt
from edge.core.artifact import Stage
from edge.core.errors import CompressError

HOST_HELP = "Execute there, over the system's ssh, USER@BOARD; repeatable."
PYTHON_HELP = "Python on the board that has numpy and the runtime; default its python3."


def host_options(*, multiple: bool) -> Any:
    """`--host` (or several, as `hosts`) and `--python`."""

    def decorate(function: Any) -> Any:
        function = click.option("--python", metavar="PATH", help=PYTHON_HELP)(function)
        given = ("--host", "hosts") if multiple else ("--host",)
        what = HOST_HELP if multiple else HOST_HELP.removesuffix("; repeatable.") + "."
        return click.option(*given, multiple=multiple, metavar="HOST", help=what)(function)

    return decorate


def check_device(
    device: str, hosts: Sequence[str], elsewhere: str = "give compress verify the board, --host user@board"
) -> None:
    """What must be known before any work: a Jetson is here, or hosts are given, each once.

    `elsewhere` is how the verb does its work on a Jetson that is not this machine.
    """
    from compress.remote.ssh import check_host
    from edge.evidence.jetson import is_jetson
    from edge.evidence.tree import LIVE, Tree

    for host in hosts:
        if hosts.count(check_host(host)) > 1:
            raise CompressError(f"--host {host}: given twice; name each board once")
    if device == "jetson" and not hosts and not is_jetson(Tree(LIVE)):
        raise CompressError(f"device jetson: this machine is no Jetson; {elsewhere}, or choose cpu")


def short(host: str) -> str:
    """A host in a folder's name."""
    return host.rpartition("@")[2].replace(":", "-").strip("[]")


def verify(
    asked: "Sequence[tuple[str, Mapping[str, Any], Path, Path]]", attack_set: Path, python: "str | None"
) -> "list[tuple[Stage, bool]]":
    """Of (host, config, exported, out): the verified stage, and whether it was complete already."""
    from compress.remote.board_verification import BoardVerification
    from compress.remote.connection import Link
    from compress.stages.verify import add_page
    from edge.verify.verify import VerifyInputs

    links = {host: Link(host, python) for host, *_ in asked}
    work = [
        (BoardVerification(links[host], config, VerifyInputs(folder, attack_set)), host, out)
        for host, config, folder, out in asked
    ]

    def ended() -> str:
        ends = [remote.end() for remote, *_ in work if remote.active]
        return f"interrupted; {'; '.join(ends) or 'nothing runs on a board yet'}"

    interrupt.instead.append(ended)
    try:
        if len(links) > 1:
            for _, group in itertools.groupby(sorted(work, key=lambda entry: entry[1]), key=lambda entry: entry[1]):
                remote, _, out = next(group)  # a board does one job at a time
                if artifact.status(out, remote.plan()).state != "complete":
                    remote.start()
        verified = []
        for remote, _, out in work:
            complete = (out / artifact.MANIFEST).is_file()
            verified.append((remote.run(out, add_record=add_page), complete))
        return verified
    finally:
        interrupt.instead.remove(ended)
        for link in links.values():
            link.close()
