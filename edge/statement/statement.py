"""The robustness statement: what was measured on which bytes, in the shape of an in-toto statement.

`statement.schema.json` beside this file is its JSON schema. Empirical: attacks that were run, never a certificate.
Inside the program a statement is the classes below, their fields in the order of the JSON; this module alone turns
them into JSON and back.
"""

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge.core.errors import CompressError
from edge.core.proportions import clopper_pearson
from edge.statement.timing import ABSENT, LatencyFigures
from edge.validity.rules import ValidityCheck, rules_of

STATEMENT, VERDICTS = "statement.json", "verdicts.npz"
TYPE = "https://in-toto.io/Statement/v1"
KIND = "urn:robust-compress:robustness-statement"
VERSION, NATURE = 2, "empirical"
PREDICATE_TYPE = f"{KIND}:{VERSION}"
LEVEL = 0.95
#: Names of the alarms that a statement holds, in the order of the list.
ALARMS = tuple(rule.name for rule in rules_of("verify"))
NEEDED = (
    *("artifact", "threat", "data", "figures", "protocol", "attacks", "agreement", "alarms", "latency"),
    *("attack_set", "verdicts"),  # which hold the hashes of the files beside it
)
T = TypeVar("T")


class OtherVersion(CompressError):
    """A statement of a version that is not read here: no damage, another program's."""


@dataclass(frozen=True)
class Figure:
    """A proportion with its exact interval (Clopper–Pearson)."""

    value: float
    count: int
    n: int
    interval: "tuple[float, float]"
    level: float

    @classmethod
    def of(cls, count: int, n: int) -> "Figure":
        return cls(count / n, count, n, clopper_pearson(count, n, LEVEL), LEVEL)


@dataclass(frozen=True)
class ShippedArtifact:
    """The bytes that were executed; of an engine also the graph that it was built from, and how it came about."""

    identity: str
    file: str
    sha256: str
    bytes: int
    target: str
    precision: str
    executed: bool
    onnx: "Mapping[str, Any] | None" = field(default=None, metadata=ABSENT)
    origin: "Mapping[str, Any] | None" = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class StatedThreat:
    """How far an adversary may go: `grid_radius` in grey levels."""

    norm: str
    eps: str
    grid_radius: int
    applied_to: str


@dataclass(frozen=True)
class JudgedData:
    """The images, `n` of a dataset, by the fingerprints of both."""

    fingerprint: str
    name: str
    split: str
    n: int


@dataclass(frozen=True)
class Undecided:
    """Images that a budget left open, and the worst case with all of them fallen and with all of them standing."""

    budget_seconds: "float | None"
    undecided: int
    if_all_fall: Figure
    if_all_stand: Figure


@dataclass(frozen=True)
class Figures:
    """Clean accuracy, and the worst case over all attacks: `robust` where it is known, else a bound."""

    clean: Figure
    robust: "Figure | None"
    upper_bound: "Figure | None"
    inconclusive: "Undecided | None" = None
    chance: "Figure | None" = field(default=None, metadata=ABSENT)  # of a constant classifier: the largest class

    @property
    def worst(self) -> Figure:
        figure = self.robust or self.upper_bound
        assert figure is not None  # one of both is stated
        return figure


@dataclass(frozen=True)
class ProtocolPart:
    """A part of the protocol: covered or not, by which attacks, where; `where` says why not."""

    part: str
    what: str
    covered: bool
    attacks: "list[str]"
    where: str


@dataclass(frozen=True)
class AttackRow:
    """What one attack came to; `alone` counts the images that no other attack breaks."""

    name: str
    kind: str
    source: str
    parameters: "Mapping[str, Any]"
    where: str
    n: int
    broken: int
    robust_accuracy: float
    alone: int


@dataclass(frozen=True)
class Differential:
    """Candidates that break the artifact and leave the float student right, of all."""

    count: int
    n: int


@dataclass(frozen=True)
class Agreed:
    """Predictions that are the twin's; of clean images also how far the logits lie apart."""

    n: int
    argmax_agreement: float
    max_abs: "float | None" = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class Agreement:
    """The artifact against its twin, on clean images and on every candidate."""

    clean: Agreed
    adversarial: Agreed


@dataclass(frozen=True)
class Alarm:
    """A sign that a figure is better than the artifact; it fires when the count is larger than the threshold."""

    name: str
    fired: bool
    count: int
    threshold: float
    interval: "tuple[float, float] | None"
    meaning: str

    @classmethod
    def of(cls, check: ValidityCheck) -> "Alarm":
        """A check of shares of images, as counts of them."""
        n, count = check.n, round(check.value * check.n)
        return cls(check.name, check.fired, count, check.threshold * n, clopper_pearson(count, n), check.text)


@dataclass(frozen=True)
class Ancestor:
    """A stage that the artifact was made from."""

    stage: str
    identity: str


@dataclass(frozen=True)
class BoundSet:
    """The attack set by its identity and the sha256 of each of its payload files."""

    identity: str
    files: "Mapping[str, str]"


@dataclass(frozen=True)
class PipelineParity:
    """A user's preprocessing: clean accuracy through it, predictions that stay, largest change in grey levels."""

    name: str
    sha256: "str | None"
    frames: str
    clean: Figure
    same_prediction: float
    largest_change: float


@dataclass(frozen=True)
class GoldenDifference:
    """A golden image whose class is another one; `attack` is `clean` for the image itself."""

    index: int
    attack: str
    expected: int
    got: int


@dataclass(frozen=True)
class GoldenEvidence:
    """The golden handful on the artifact: `verdict` as `edge.verify.golden` names them, the largest gap of logits."""

    verdict: str
    n: int
    max_abs: float
    scale: float
    tolerance: float
    different: "list[GoldenDifference]"
    batch_size: int
    expected_at_batch_size: int
    expected_from: str


@dataclass(frozen=True)
class MachineWarning:
    """A named reason not to trust figures of latency and energy, and what ends it."""

    name: str
    found: str
    fix: str


@dataclass(frozen=True)
class BoundFile:
    """A file beside the statement."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Predicate:
    """Everything that is stated of one artifact. `machine` is what `edge.evidence` read, as it came."""

    artifact: ShippedArtifact
    threat: StatedThreat
    data: JudgedData
    figures: Figures
    protocol: "list[ProtocolPart]"
    attacks: "list[AttackRow]"
    differential: "Differential | None" = field(default=None, metadata=ABSENT)
    agreement: "Agreement | None" = None
    alarms: "list[Alarm]" = field(default_factory=list)
    runtime: "Mapping[str, Any]" = field(default_factory=dict)
    batch_size: int = 0
    seed: int = 0
    versions: "Mapping[str, str]" = field(default_factory=dict)
    lineage: "list[Ancestor]" = field(default_factory=list)
    float_figures: "Mapping[str, Any] | None" = field(default=None, metadata=ABSENT)
    attack_set: "BoundSet | None" = None
    preprocess: "PipelineParity | None" = field(default=None, metadata=ABSENT)
    golden: "GoldenEvidence | None" = None
    latency: "LatencyFigures | None" = None
    machine: "Mapping[str, Any]" = field(default_factory=dict)
    warnings: "list[MachineWarning] | None" = field(default=None, metadata=ABSENT)
    verdicts: "BoundFile | None" = None

    @property
    def times(self) -> LatencyFigures:
        """`latency`, which every statement that is written has."""
        assert self.latency is not None
        return self.latency

    @property
    def is_covered(self) -> bool:
        """Whether every part of the protocol was run."""
        return all(part.covered for part in self.protocol)

    @property
    def fired(self) -> "list[str]":
        """Names of the alarms that fired."""
        return [alarm.name for alarm in self.alarms if alarm.fired]


@dataclass(frozen=True)
class Statement:
    """A predicate about the artifact whose file and sha256 are the statement's subject."""

    predicate: Predicate

    def as_json(self) -> "dict[str, Any]":
        artifact = self.predicate.artifact
        return {
            "_type": TYPE,
            "subject": [{"name": artifact.file, "digest": {"sha256": artifact.sha256}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {"version": VERSION, "nature": NATURE, **as_json(self.predicate)},
        }

    def text(self) -> str:
        """The content of `statement.json`."""
        return json.dumps(self.as_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def of(cls, stated: "Mapping[str, Any]", where: str = STATEMENT) -> "Statement":
        """From its JSON; a predicate of another form: CompressError, `where` names it."""
        return cls(from_json(Predicate, stated["predicate"], where, "predicate"))


# ------------------------------------------------------------------------------------------------ reading


def read_statement(path: "Path | str") -> Statement:
    """A statement from its file or from a verified folder; one of another version or kind is refused."""
    file = Path(path) / STATEMENT if Path(path).is_dir() else Path(path)
    try:
        content = file.read_bytes()
    except OSError as fault:
        raise CompressError(
            f"{file}: not readable as a statement ({fault.strerror}); give a verified folder or its {STATEMENT}"
        ) from None
    return Statement.of(parse_statement(content, str(file)), str(file))


def parse_statement(content: bytes, where: str) -> dict[str, Any]:
    """The JSON of a statement from its bytes, once it was found to be one; `where` names them in what is refused."""
    try:
        stated = json.loads(content)
    except ValueError as fault:
        raise CompressError(f"{where}: not readable as a statement ({fault}); verify the artifact again") from None
    if not isinstance(stated, dict) or stated.get("_type") != TYPE:
        raise CompressError(f"{where}: no in-toto statement; give the {STATEMENT} of a verified folder")
    kind, _, written = str(stated.get("predicateType")).rpartition(":")
    if kind != KIND:
        raise CompressError(f"{where}: states {stated.get('predicateType')}, not robustness; give a {STATEMENT}")
    predicate = stated["predicate"] if isinstance(stated.get("predicate"), dict) else {}
    other = {written, str(predicate.get("version", written))} - {str(VERSION)}
    if other:
        raise OtherVersion(
            f"{where}: a statement of version {min(other)}, this program reads {VERSION}; "
            "use the version of robust-compress that wrote it, or verify the artifact again"
        )
    missing = [key for key in NEEDED if key not in predicate]
    if missing:
        raise CompressError(f"{where}: lacks {', '.join(missing)}; verify the artifact again")
    return stated


# ------------------------------------------------------------------------------------------------ the edge to JSON


def as_json(value: Any) -> Any:
    """Classes as objects, their fields in order; what is absent left out."""
    if is_dataclass(value):
        pairs = [(each, getattr(value, each.name)) for each in fields(value)]
        return {each.name: as_json(inner) for each, inner in pairs if inner is not None or each.metadata != ABSENT}
    if isinstance(value, (list, tuple)):
        return [as_json(inner) for inner in value]
    return {name: as_json(inner) for name, inner in value.items()} if isinstance(value, Mapping) else value


def figure(count: int, n: int) -> "dict[str, Any]":
    """A proportion with its exact 95 % interval, as JSON holds it."""
    return dict(as_json(Figure.of(count, n)))


def from_json(kind: "type[T]", value: Any, where: str, at: str) -> T:
    """`value` as an object of the class `kind`; fields that are missing and have no default: CompressError.

    Whether each value is of its type is the schema's matter, which `compress statement check` asks.
    """
    hints = typing.get_type_hints(kind)
    if not isinstance(value, Mapping):
        raise CompressError(f"{where}: {at} is no object; verify the artifact again")
    values = {}
    for each in fields(kind):  # type: ignore[arg-type]
        if each.name in value:
            values[each.name] = _read_as(hints[each.name], value[each.name], where, f"{at}.{each.name}")
        elif each.default is MISSING and each.default_factory is MISSING:
            raise CompressError(f"{where}: {at} lacks {each.name}; verify the artifact again")
    return kind(**values)


def _read_as(hint: Any, value: Any, where: str, at: str) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (other,) = [each for each in inner if each is not type(None)]
        return None if value is None else _read_as(other, value, where, at)
    if origin is list and isinstance(value, list):
        return [_read_as(inner[0], each, where, f"{at}.{i}") for i, each in enumerate(value)]
    if origin is tuple and isinstance(value, list):
        return tuple(value)
    return from_json(hint, value, where, at) if isinstance(hint, type) and is_dataclass(hint) else value
