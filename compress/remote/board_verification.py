"""The verified stage of an artifact that a board executed: sent there, followed, fetched, checked, complete here.

The progress of the job there is shown as if it ran here.
"""

import contextlib
import math
import shutil
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.remote import bundle, transfer
from compress.remote.connection import STOPPED_IN_S, Connection, Link, Lost
from edge.board.frames import checked_frame
from edge.core import artifact
from edge.core.artifact import Plan, Stage, Work
from edge.core.errors import CompressError
from edge.core.progress import Progress, say
from edge.evidence import samples
from edge.statement import statement
from edge.statement.statement import Statement
from edge.verify import findings
from edge.verify import verify as verification
from edge.verify.attack_set import AttackSet
from edge.verify.verify import VerifiedWork, VerifyInputs

FETCHED = "fetched"
STARTED_IN_S = 120.0  # a board that hashes an engine and imports nothing


class BoardVerification:
    """One artifact on one board. `config` as `VerifyConfig.semantic()`."""

    def __init__(self, link: Link, config: Mapping[str, Any], inputs: VerifyInputs) -> None:
        self._link, self._config = link, dict(config)
        self._exported = artifact.read(inputs.exported, ("exported",))
        self._attacks = artifact.read(inputs.attack_set, ("attack-set",))
        self._pipeline = transfer.pipeline_files(config)
        self._job: str | None = None
        self._followed = False
        self._stopped = threading.Event()

    def plan(self) -> Plan:
        """As of a verification here; where it ran is part of it."""
        inputs = VerifyInputs(self._exported.path, self._attacks.path)
        return verification.plan({**self._config, "host": self._link.host}, inputs)

    def start(self) -> None:
        """Send what the board lacks and start the job there, unless it runs or is done."""
        self._job = self._link.do(self._started)

    def run(self, out: Path, *, replace: bool = False, add_record: verification.AddRecord) -> Stage:
        """The verified stage in `out`; a lost link does not stop the board. What was fetched is forgotten there.

        `add_record` adds the page: it is written here, not taken from there.
        """

        def make(work: Work) -> None:
            self.start()
            replay = Replay(self._link.host)
            self._link.do(lambda connection: self._follow(connection, replay))
            attacks = AttackSet.read(self._attacks)
            stated = self._link.do(
                lambda connection: transfer.fetch_result(
                    connection, str(self._job), self._exported, attacks, work.file(FETCHED)
                )
            )
            add_record(self._keep(work, stated, attacks))

        lineage = {"exported": self._exported.path, "attack-set": self._attacks.path}
        try:
            stage = artifact.build(out, self.plan(), make, lineage=lineage, replace=replace)
            if self._job is not None:
                with contextlib.suppress(Lost, CompressError):
                    self._link.do(lambda connection: connection.ask("forget", job=self._job))
            return stage
        finally:
            self._job = None

    # ------------------------------------------------------------------------------------ on the board

    def _started(self, connection: Connection) -> str:
        for stage in (self._exported, self._attacks):
            transfer.send_stage(connection, stage)
        own = {name: artifact.file_sha256(path) for name, path in self._pipeline.items()}
        transfer.send_files(connection, {own[name]: path for name, path in self._pipeline.items()}, "the pipeline")
        request = {
            "config": transfer.config_there(self._config),
            "files": own,
            "exported": self._exported.identity,
            "attack-set": self._attacks.identity,
            "bundle": artifact.bytes_sha256(bundle.bundle_bytes()),
        }
        answer = checked_frame(connection.ask("start", STARTED_IN_S, request=request), "start", job=str, state=str)
        if answer["state"] == "done":
            say(f"{self._link.host}: has done this already")
        return str(answer["job"])

    def _follow(self, connection: Connection, replay: "Replay") -> None:
        connection.send({"type": "follow", "job": self._job, "offset": replay.offset})
        self._followed = True
        try:
            while True:
                header, _ = connection.receive(math.inf)
                if header.get("type") == "event":
                    replay.show(header)
                elif header.get("type") == "stop":
                    self._stopped.set()
                    threading.Event().wait()  # the thread that answers the interrupt ends this process
                else:
                    break
        finally:
            self._followed = False
        end = checked_frame(header, "end", state=str, message=str)
        if end["state"] != "done":
            raise connection.fault(end)

    # ------------------------------------------------------------------------------------ interrupts

    @property
    def active(self) -> bool:
        """Whether a job was started and its result is not here yet."""
        return self._job is not None

    def end(self) -> str:
        """End the job; called by the thread that answers an interrupt. What is to be said of it."""
        host, connection = self._link.host, self._link.connected
        if connection is None:
            return f"{host} is not reached, its process may go on: the same command finds it"
        try:
            connection.send({"type": "stop", "job": self._job})
            if self._followed:
                stopped = self._stopped.wait(STOPPED_IN_S)
            else:
                stopped = connection.receive(STOPPED_IN_S)[0].get("type") == "stop"
        except (Lost, CompressError):
            stopped = False
        if stopped:
            return f"the process on {host} was ended, the same command starts it anew"
        return f"{host} did not confirm that its process ended: the same command finds it"

    # ------------------------------------------------------------------------------------ here

    def _keep(self, work: Work, stated: Statement, attacks: AttackSet) -> VerifiedWork:
        """What was fetched and checked becomes the stage."""
        folder = work.file(FETCHED)
        lineage = findings.lineage_of(self._exported)  # of which a board knows the beginning alone
        stated = Statement(replace(stated.predicate, lineage=lineage))
        shutil.move(folder / statement.VERDICTS, work.add_payload(statement.VERDICTS))
        for name in transfer.ENGINE_FILES:
            if (folder / name).exists():
                shutil.move(folder / name, work.add_payload(name))
        for name in (verification.LATENCY, samples.FILE):
            if (folder / name).exists():
                shutil.move(folder / name, work.add_record(name))
        shutil.rmtree(folder)
        artifact.write_atomic(work.add_record(statement.STATEMENT), stated.text())
        with np.load(work.file(verification.LATENCY), allow_pickle=False) as timed:
            samples_ns = timed["samples_ns"]
        work.metrics = {**verification.metrics(stated.predicate), "host": self._link.host}
        with np.load(work.file(statement.VERDICTS), allow_pickle=False) as table:
            evidence: dict[str, Any] = {name: table[name] for name in table.files}
        # As the report takes it: predictions of the replay where the attack set knows the artifact, -1 elsewhere.
        predicted = np.full(evidence["broken"].shape, -1, np.int16)
        place = attacks.place(self._exported.identity)
        if place is not None:
            predicted[: len(attacks.adversarial)] = attacks.predictions[:, place]
        images = np.concatenate([attacks.adversarial, evidence["adversarial"]])
        evidence |= {"clean": attacks.clean, "adversarial": images, "predictions": predicted}
        evidence["classes"] = findings.class_names(self._exported)
        return VerifiedWork(work, stated, samples_ns, evidence)


TEXT_MOST = 500


class Replay:
    """Events of a board's progress on this machine's bars; `offset` is how far the board's record of them was read."""

    def __init__(self, host: str) -> None:
        self.offset = 0
        self._host = host
        self._bars: dict[str, Progress] = {}

    def show(self, header: Mapping[str, Any]) -> None:
        """One frame {"offset", "event"}; another form is a fault of the board."""
        try:
            self.offset = int(header["offset"])
            self._event(header["event"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise CompressError(f"{self._host}: sent progress of a form that is not known here") from None

    def _event(self, event: Mapping[str, Any]) -> None:
        if "say" in event:
            say(f"{self._host}: {_plain(event['say'])}")
            return
        label = _plain(event["label"])
        bar = self._bars.get(label)
        if bar is None:
            bar = self._bars[label] = Progress(f"{self._host}: {label}", int(event["total"])).__enter__()
        bar.step(int(event["done"]) - bar.done, _plain(event["note"]))
        if event["end"] is not None:
            del self._bars[label]
            bar.__exit__(None if event["end"] else CompressError, None, None)


def _plain(text: str) -> str:
    """Text from afar, without what would move a terminal's cursor."""
    return "".join(c for c in text[:TEXT_MOST] if c.isprintable())
