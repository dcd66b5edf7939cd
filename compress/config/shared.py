"""What every stage shares, and which keys of a section change no result."""

from fractions import Fraction
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from compress import names
from compress.config.values import Data, Radius


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Threat(Strict):
    """What the attacker may do to an image in [0, 1]."""

    norm: Literal["linf"] = Field("linf", description="the norm that bounds the perturbation: its largest pixel change")
    eps: Radius = Field(description="radius of the perturbation, on pixels in [0, 1], e.g. 8/255")

    @property
    def radius(self) -> float:
        return float(Fraction(self.eps))


#: Keys of any section that change no result.
WITHOUT_EFFECT = {"checkpoint_minutes", "tensorboard", "keep_epochs", "diagnose"}


class Common(Strict):
    """What every stage shares."""

    data: Data = Field(description=f"the dataset, KIND or KIND:PATH ({', '.join(names.DATASETS)})")
    threat: Threat = Field(description="what the attacker may do; the radius follows from the dataset if not given")
    seed: int = Field(0, ge=0, description="seeds initial weights, batch order and attack starts, never the split")

    def semantic(self) -> dict[str, Any]:
        """What decides the result, as a manifest records it: of the dataset its kind, not where it lies here."""
        found = {**self.model_dump(mode="json", exclude=WITHOUT_EFFECT), "data": names.dataset(self.data)[0]}
        if found.get("extra"):
            found["extra"]["path"] = names.dataset(found["extra"]["path"])[0]
        return found
