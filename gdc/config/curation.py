"""Section `intervene` of params.yaml: the arms and their rules."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gdc.config.mapping import AUTO
from gdc.config.section import MAX_COPIES, MAX_NAME, Count, NearCopies, Section


class NoneArm(Section):
    """Keep everything."""

    rule: Literal["none"]


class QuadrantsArm(Section):
    """The paper's rule."""

    rule: Literal["quadrants"]
    hotspot_weight: float = Field(ge=0, le=1, description="alpha; 0 drops the hotspots.")
    drop_noisy: bool = Field(description="Drop the noisy outliers.")
    hard_copies: int = Field(
        ge=1, le=MAX_COPIES, description="gamma; 1 leaves Ambiguous-Hard as it is."
    )


class TopFractionArm(Section):
    """Drop (weight 0) or down-weight the samples with the highest score."""

    rule: Literal["top-fraction"]
    score: str = Field(
        min_length=1, description="The score that orders the samples; axis: that of the map."
    )
    tie_break: str = Field(min_length=1, description="The score that orders equal scores.")
    fraction: float = Field(ge=0, lt=1, description="Share of the training samples.")
    weight: float = Field(ge=0, le=1, description="0 drops.")


class RandomArm(Section):
    """Drop (weight 0) or down-weight a random share: the control of top-fraction."""

    rule: Literal["random"]
    fraction: float = Field(ge=0, lt=1, description="Share of the training samples.")
    weight: float = Field(ge=0, le=1, description="0 drops.")


class WeightByScoreArm(Section):
    """Weight 1 / (1 + s), s being the score where above 0: one unit of it halves the weight."""

    rule: Literal["weight-by-score"]
    score: str = Field(min_length=1, description="The score s; axis: that of the map.")


class CapCopiesArm(NearCopies):
    """Keep at most ``max_copies`` of every group of near copies."""

    rule: Literal["cap-copies"]
    max_copies: Count = Field(ge=1, description="Copies kept of a group.")


class DedupArm(NearCopies):
    """Keep one of every group of near copies, which needs no model: the control of all scores."""

    rule: Literal["dedup"]
    max_copies: ClassVar[int] = 1


class MaskSpansArm(Section):
    """Keep every sample and leave the memorized spans of the flagged ones out of the loss."""

    rule: Literal["mask-spans"]


class GoldfishArm(Section):
    """Leave tokens out of the loss by a hash of the tokens before them, alike in every copy."""

    rule: Literal["goldfish"]
    every: Count = Field(ge=2, description="One token of so many has no loss.")
    context: Count = Field(ge=1, description="Tokens before it that are hashed.")


class SubstringDedupArm(Section):
    """Leave a stretch of tokens out of the loss wherever it stands again, in whatever sample."""

    rule: Literal["substring-dedup"]
    min_tokens: Count = Field(ge=2, description="Tokens of a stretch at least.")


class OrderArm(Section):
    """See the samples with the highest score first in each pass, before all others."""

    rule: Literal["order"]
    score: str = Field(
        min_length=1, description="The score that orders the samples; axis: that of the map."
    )
    tie_break: str = Field(min_length=1, description="The score that orders equal scores.")
    fraction: float = Field(gt=0, lt=1, description="Share of the training samples.")


class LiveArm(Section):
    """Lower the weight of what the run itself has memorized so far, anew after each pass.

    The score is ``online_late_contrast`` of the passes so far. A sample whose score falls again has
    its full weight back.
    """

    rule: Literal["live"]
    fraction: float = Field(gt=0, lt=1, description="Share of the training samples at a time.")
    weight: float = Field(ge=0, lt=1, description="Theirs in the next pass; 0: no loss.")


class DpSgdArm(Section):
    """Train with a bound on what any one text can change: clipped gradients and noise."""

    rule: Literal["dp-sgd"]
    clip_norm: float = Field(gt=0, description="Largest norm of the gradient of one text.")
    noise_multiplier: float | None = Field(
        gt=0,
        description="Standard deviation of the noise in clipping norms; null: by target_epsilon.",
    )
    target_epsilon: float | None = Field(
        gt=0, description="What the noise is chosen for; null: noise_multiplier gives it."
    )
    delta: float = Field(gt=0, lt=1, description="Probability with which the epsilon may fail.")

    @model_validator(mode="after")
    def _one_of_noise_and_epsilon(self) -> Self:
        if (self.noise_multiplier is None) == (self.target_epsilon is None):
            raise ValueError(
                "expected either noise_multiplier or target_epsilon, and null for the other, got "
                f"{self.noise_multiplier} and {self.target_epsilon}"
            )
        return self


class ListedArm(Section):
    """What a person decided, sample by sample; samples that the file does not name are kept."""

    rule: Literal["listed"]
    file: str = Field(
        min_length=1, description="JSON Lines with sample_id and action: keep, drop or mask."
    )


class OracleArm(Section):
    """Drop the planted rows: the only rule that is told which they are, the best any could do."""

    rule: Literal["oracle"]


class ShuffledArm(Section):
    """Another arm's plan dealt out to other samples by chance: its control, equal in size.

    Masked spans move to random places, as many and as long in tokens.
    """

    rule: Literal["shuffled"]
    of: str = Field(min_length=1, description="The arm whose plan is dealt out.")


ScoreArm = (
    NoneArm
    | QuadrantsArm
    | TopFractionArm
    | WeightByScoreArm
    | RandomArm
    | OrderArm
    | LiveArm
    | DpSgdArm
)
Arm = Annotated[
    ScoreArm
    | CapCopiesArm
    | DedupArm
    | MaskSpansArm
    | GoldfishArm
    | SubstringDedupArm
    | ListedArm
    | OracleArm
    | ShuffledArm,
    Field(discriminator="rule"),
]
# An arm names files, DVC stages and MLflow runs.
ArmName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=MAX_NAME)]


class Target(Section):
    """What a plan must reach to be recommended."""

    max_extraction: float = Field(ge=0, le=1, description="Share of the planted secrets.")
    max_perplexity_increase: float = Field(ge=0, description="Percent over the baseline arm.")


class InterveneConfig(Section):
    """Stages `intervene`, a plan for every arm, and `curate`, the data set by one of them."""

    curated_arm: ArmName = Field(
        description="The arm whose plan makes data/curated; auto: one that is shown to work, else "
        "the safest, marked unproven."
    )
    recommend: Target | None = Field(
        description="Name the arm that reaches this with the fewest samples changed; null: none."
    )
    arms: dict[ArmName, Arm] = Field(min_length=1)

    def rule_of(self, arm: str) -> Arm:
        """The rule of an arm; of a shuffled one that of the arm whose plan it deals out."""
        rule = self.arms[arm]
        return self.arms[rule.of] if isinstance(rule, ShuffledArm) else rule

    def makes_data(self, arm: str) -> bool:
        """Whether a data set can show what the arm does."""
        return not isinstance(self.rule_of(arm), OrderArm | LiveArm | DpSgdArm)

    @model_validator(mode="after")
    def _shuffled_arms_have_a_plan_to_deal(self) -> Self:
        never = ShuffledArm | ListedArm | DpSgdArm
        plans = sorted(name for name, arm in self.arms.items() if not isinstance(arm, never))
        for name, arm in self.arms.items():
            if isinstance(arm, ShuffledArm) and arm.of not in plans:
                raise ValueError(
                    f"intervene.arms.{name}.of: expected one of {plans}, got {arm.of!r}"
                )
        return self

    @model_validator(mode="after")
    def _curated_arm_is_defined(self) -> Self:
        if "tracked" in self.arms:
            raise ValueError("intervene.arms: 'tracked' names the models of stage train")
        if AUTO in self.arms:
            raise ValueError("intervene.arms: 'auto' stands for the arm that evidence chooses")
        if self.curated_arm not in (*self.arms, AUTO):
            raise ValueError(
                f"intervene.curated_arm: expected one of {sorted(self.arms)} or {AUTO}, "
                f"got {self.curated_arm!r}"
            )
        if self.curated_arm in self.arms and not self.makes_data(self.curated_arm):
            raise ValueError(
                f"intervene.curated_arm: {self.curated_arm} changes how a model is trained, which "
                f"no data set shows; expected an arm of another rule or {AUTO}"
            )
        return self
