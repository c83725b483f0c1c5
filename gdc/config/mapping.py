"""Sections of params.yaml for scores, quadrants and spans."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from gdc.config.section import Count, Items, Section

# The memorization axis that the calibration chooses.
AUTO: Final = "auto"
# Scores that are minus log10 of conformal p-values.
P_VALUE_SCORES: Final = ("synthetic_control_log_p", "calibrated_drop_log_p")
# In place of a score of an arm: the memorization axis.
AXIS: Final = "axis"


class Threshold(Section):
    """A cut on a number: its quantile (linear interpolation), or its value."""

    kind: Literal["quantile", "absolute"] = Field(description="What `value` is.")
    value: float = Field(description="A share in [0, 1], or a value of the number itself.")

    @model_validator(mode="after")
    def _quantile_is_a_share(self) -> Self:
        if self.kind == "quantile" and not 0 <= self.value <= 1:
            raise ValueError(f"a quantile must be in [0, 1], got {self.value}")
        return self


class ConformalThreshold(Section):
    """A cut that Benjamini-Hochberg chooses from the conformal p-values of one tracked run."""

    kind: Literal["conformal"]
    value: float = Field(gt=0, lt=1, description="Share of false finds among the high, expected.")


class ScoreConfig(Section):
    """Stage `score`."""

    mode: Literal["online", "probe"] = Field(description="Which checkpoints are read.")
    num_early: Count = Field(ge=1, description="First checkpoints averaged into difficulty (T_e).")
    epsilon: Threshold = Field(
        description="Nats/token; learned below it. Quantile: of all losses, or of a fixed part of "
        "them where a run has more than 2^27."
    )
    hysteresis: float = Field(
        ge=0, description="Nats/token beside epsilon in which forget_hysteresis decides nothing."
    )
    enabled: Items[str] = Field(description="Scores of the registry to write.")


class PartitionConfig(Section):
    """Stage `partition`: a sample above a threshold (strictly) is high."""

    axis: str = Field(
        min_length=1,
        description="The score on the memorization axis; auto: the best that stage calibrate shows "
        "to predict memorization, else memorization.",
    )
    difficulty: Threshold
    memorization: Annotated[Threshold | ConformalThreshold, Field(discriminator="kind")]

    @model_validator(mode="after")
    def _conformal_cut_has_its_p_values(self) -> Self:
        if self.memorization.kind == "conformal" and self.axis not in P_VALUE_SCORES:
            raise ValueError(
                f"a conformal cut needs p-values: expected axis: {' or '.join(P_VALUE_SCORES)} (in "
                f"score.enabled too), got {self.axis!r}"
            )
        return self

    @model_validator(mode="after")
    def _auto_axis_has_a_relative_cut(self) -> Self:
        if self.axis == AUTO and self.memorization.kind == "absolute":
            raise ValueError(
                "memorization: a value is in the units of one score, and axis: auto may take any; "
                f"expected kind: quantile, got {self.memorization.value} of kind: absolute"
            )
        return self


class SpansConfig(Section):
    """Stage `spans`: which tokens of a flagged sample are memorized."""

    p_value: float = Field(
        gt=0, lt=1, description="Share of like held-out tokens that may fall as low."
    )
    min_tokens: Count = Field(ge=1, description="Memorized tokens of a span at least.")
