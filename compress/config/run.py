"""The whole chain in one file, a section a stage; and each stage alone, as its manifest records it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Discriminator, Field, Tag

from compress import names
from compress.config.deployment import Adopt, Analyze, Attack, Evaluate, Export, Latency, Verify
from compress.config.networks import CleanTeacher, Imported, Quantize, Student, Teacher
from compress.config.values import Common, Data, Device, Strict, Target, Threat, seconds, without_later_keys
from compress.data import split_name
from edge.core import targets

Stage = TypeVar("Stage", bound=Strict)

#: The two kinds of a teacher's section, by the tag that pydantic puts into the place of a fault.
OBTAINED: dict[str, type[BaseModel]] = {"train": Teacher, "import": Imported}


def _obtained(section: Any) -> str:
    """Which of the two sections a teacher's is: the imported one has a source."""
    imported = "source" in section if isinstance(section, Mapping) else isinstance(section, Imported)
    return "import" if imported else "train"


class Run(Common):
    """The whole chain."""

    out: "str | None" = Field(None, description="folder of the run; default runs/<name of the config>")
    teacher: Annotated[
        Annotated[Teacher, Tag("train")] | Annotated[Imported, Tag("import")], Discriminator(_obtained)
    ] = Field(Teacher(), description="the robust teacher: trained from scratch, or imported when `source` is given")
    clean_teacher: Annotated[
        Annotated[CleanTeacher, Tag("train")] | Annotated[Imported, Tag("import")], Discriminator(_obtained)
    ] = Field(
        CleanTeacher(),
        description=f"a second teacher, trained on clean images or imported; made when a method has one "
        f"({', '.join(names.CLEAN_TEACHER_METHODS)})",
    )
    student: "Student | None" = Field(
        Student(), description="the lightweight network that goes to the device; null: the teacher itself goes"
    )
    baselines: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")], Student] = Field(
        {}, description="further students by name, trained to be compared with; never shipped"
    )
    quantize: "Quantize | None" = Field(Quantize(), description="INT8 fine-tuning; null: ship the float student")
    export: Export = Field(Export(), description="the file that is shipped")
    attack: Attack = Field(Attack(), description="the attack set: images made with gradients, replayed on the artifact")
    verify: Verify = Field(
        Verify(), description="the artifact itself, executed: replay, gradient-free attacks, latency"
    )
    targets: list[Target] = Field(["onnx"], min_length=1, description="runtimes to export for")
    devices: list[Device] = Field(["cpu"], min_length=1, description="where each exported target is verified")
    compare_float: bool = Field(True, description="also export and verify the student before quantization")
    require: list[str] = Field([], description='gates on the statement, e.g. "robust>=0.3"')

    def stage(self, kind: "type[Stage]", section: Strict, **more: Any) -> "Stage":
        """The stage config of `kind` from one of this run's sections and the shared part."""
        shared = {name: getattr(self, name) for name in Common.model_fields}
        return kind(**shared, **{name: getattr(section, name) for name in type(section).model_fields}, **more)


class TeacherConfig(Common, Teacher):
    """A teacher stage on its own."""


class ImportConfig(Imported):
    """An imported teacher on its own. Without data nothing is checked."""

    data: "Data | None" = Field(None, description="the dataset that it is checked on, KIND or KIND:PATH")
    threat: Threat = Field(Threat(eps="8/255"), description="what the attacker may do; eps 8/255 if not given")
    seed: int = Field(0, ge=0, description="seeds the starts of the check's attack")

    def semantic(self) -> dict[str, Any]:
        """What decides the result; where files lie on this machine does not, their content does."""
        kind = split_name(self.data)[0] if self.data else None
        described = {**self.model_dump(mode="json", exclude={"weights", "models"}), "data": kind}
        without_later_keys(described)
        scheme = self.source.partition(":")[0]
        is_path = ":" not in self.source or not re.fullmatch(r"[A-Za-z_][\w.]*", scheme)
        return {**described, "source": Path(self.source).name if is_path else self.source}


class StudentConfig(Common, Student):
    """A student stage on its own."""


class QuantizeConfig(Common, Quantize):
    """A quantized stage on its own."""


class ExportConfig(Common, Export):
    """An exported stage on its own. It attacks nothing: without a radius later stages ask for one."""

    threat: "Threat | None" = Field(None, description="what the attacker may do")  # type: ignore[assignment]
    target: Target = Field("onnx", description="runtime to export for")
    adopt: Adopt = Field(Adopt(), description="of an ONNX file of another tool alone: what it takes for an image")

    def semantic(self) -> dict[str, Any]:
        """As of every stage, without what decides nothing of the target's files."""
        described = super().semantic()
        for key in targets.get(self.target).ignores:
            section, _, name = key.rpartition(".")
            del (described[section] if section else described)[name]
        return described


class AttackConfig(Common, Attack):
    """An attack-set stage on its own."""


class EvaluateConfig(Common, Evaluate):
    """An evaluated stage on its own."""

    def semantic(self) -> dict[str, Any]:
        """As of every stage; what is done about an alarm changes no verdict."""
        return {key: value for key, value in super().semantic().items() if key != "allow_invalid"}


class AnalyzeConfig(Common, Analyze):
    """An analyzed stage on its own."""


class VerifyConfig(Common, Verify):
    """A verified stage on its own."""

    device: Device = Field("cpu", description="where the artifact is executed")

    def semantic(self) -> dict[str, Any]:
        """As of every stage, the budget in seconds: 1m and 60s are one."""
        return {**super().semantic(), "budget": seconds(self.budget)}


class BenchConfig(Latency):
    """Latency alone, of exported artifacts."""

    seed: int = Field(0, ge=0, description="seeds noise, which answers are asked again, and resampling")
    device: Device = Field("cpu", description="where the artifacts are executed")
    threads: int = Field(0, ge=0, description="threads of the runtime; 0: all cores")
    preprocess: "str | None" = Field(None, description="your pipeline between camera and model, module:function; timed")
    frames: "str | None" = Field(None, description="npy file of frames for it, uint8 (N, …)")
