"""The whole chain in one file: a section a stage."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Discriminator, Field, Tag

from compress import names
from compress.config.deployment import Attack, Export, Verify
from compress.config.networks import CleanTeacher, Imported, Quantize, Student, Teacher
from compress.config.shared import Common, Strict
from compress.config.values import Device, Target

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
    student: Student = Field(Student(), description="the lightweight network that goes to the device")
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
