"""What is measured of torch models: evaluation, analysis."""

from typing import Literal

from pydantic import Field

from compress.config.shared import Strict
from compress.config.values import Count, FromZero, Radius, Time, seconds


class Evaluate(Strict):
    """A torch model under an ensemble of attacks."""

    attack: list[str] = Field(["standard"], min_length=1, description="preset, attacks by name, or module:function")
    norm: Literal["linf", "l2"] = Field("linf", description="the norm that bounds the perturbation")
    images: "Count | None" = Field(None, description="test images, class-balanced; all of them by default")
    batch_size: Count = Field(128, description="images attacked at once")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the attacks' search, never of verdicts; auto: bfloat16 where the hardware multiplies it"
    )
    budget: "Time | None" = Field(None, description="time after which undecided images are inconclusive: 90s, 20m, 2h")
    curve: list[Radius] = Field([], description="further radii, by the quick ensemble")
    unseen: "Radius | None" = Field(None, description="radius in the other norm, by the quick ensemble")
    corruptions: bool = Field(False, description="accuracy under common corruptions as well")
    allow_invalid: bool = Field(False, description="do not fail when a validity check fires")

    @property
    def budget_s(self) -> "float | None":
        return seconds(self.budget)


class Analyze(Strict):
    """Robust accuracy against the gap between feature statistics on adversarial and on clean images."""

    radii: list[FromZero] = Field([], description="radii, eps among them; default 0 and 8 more up to twice eps")
    images: "Count | None" = Field(None, description="test images, class-balanced; default 1,000, or all if fewer")
    steps: Count = Field(20, description="PGD steps at each radius")
    every_epoch: bool = Field(False, description="also every checkpoint that a stage has kept")
    bootstrap: int = Field(1000, ge=100, description="resamples behind each interval")
    batch_size: Count = Field(128, description="images attacked at once")
