"""What is measured of arms -> the types that it travels in, as they stand in report.json.

None stands for a number that was not measured.
"""

from dataclasses import dataclass
from typing import Literal

from gdc.config import Target
from gdc.statistics.bootstrap import Estimate, Measured

# By number of samples: the share of secrets that so many samples contain with a chance of one half.
Curve = dict[str, Measured | None]
ClaimVerdict = Literal["reproduced", "not reproduced", "not decided"]
LayerAnswer = Literal[
    "not compared",
    "exposes a next layer",
    "exposes less of a next layer than chance",
    "is not shown to expose a next layer",
]
TargetVerdict = Literal["shown", "on average", "none", "not measured"]


# ---- leakage of the models of one arm


@dataclass(frozen=True)
class CanaryMeasures:
    """Means over canaries: shares, except for both exposures, which are in bits."""

    extracted: Measured | None
    extracted_shifted: Measured | None
    edit_similarity: Measured | None
    substring_share: Measured | None
    exposure: Measured | None
    exposure_fitted: Measured | None
    discoverable: Curve
    discoverable_shifted: Curve


@dataclass(frozen=True)
class CanaryLevel:
    """The canaries of one family that are planted equally often."""

    family: str
    num_repeats: int
    num_canaries: int
    extracted: Measured | None
    exposure: Measured | None
    exposure_fitted: Measured | None


@dataclass(frozen=True)
class CanaryLeakage:
    """Planted canaries, and their never-planted twins as the floor.

    ``num_fits_beyond`` counts fitted exposures so far beyond the twins that they are guesses.
    """

    planted: CanaryMeasures
    twins: CanaryMeasures
    num_fits_beyond: int
    levels: list[CanaryLevel]


@dataclass(frozen=True)
class AttackMeasures:
    """How well one membership attack works.

    A true positive rate is None where the held-out texts are too few to see such a false positive
    rate; ``epsilon_bound`` is the mean over seeds of a lower bound at 95 %.
    """

    auc: Measured | None
    tpr_at_1_percent_fpr: Measured | None
    tpr_at_01_percent_fpr: Measured | None
    epsilon_bound: float | None


@dataclass(frozen=True)
class SuffixLeakage:
    """The share of second halves that greedy decoding extracts, and their discoverable curve.

    ``memorized`` is the share that comes out and is not predictable after unrelated texts too; None
    where that was not asked.
    """

    extracted: Measured | None
    discoverable: Curve
    memorized: Measured | None = None


@dataclass(frozen=True)
class SampleLeakage(AttackMeasures):
    """What the attack named ``attack`` and a prefix tell of ordinary training samples.

    ``tail_rate`` is the share of held-out losses above the 99 % quantile of the members' losses:
    1 % where nothing leaked.
    """

    attack: str
    members: SuffixLeakage
    heldout: SuffixLeakage
    tail_rate: Measured | None = None


@dataclass(frozen=True)
class RocCurve:
    """True positive rates, mean over seeds, at rising false positive rates."""

    fpr: list[float]
    tpr: list[float]


@dataclass(frozen=True)
class AllAttacks:
    """Every attack and every blind baseline, which never queries the model, by name.

    ``blind_leaks`` names the blind baselines whose interval excludes 0.5: an attack may then see
    how the texts differ and not what a model remembers.
    """

    attacks: dict[str, AttackMeasures]
    blind: dict[str, AttackMeasures]
    blind_leaks: list[str]


@dataclass(frozen=True)
class GroupLeakage:
    """The audited members of one group against all held-out texts."""

    num_members: int
    auc: Measured | None
    extracted: Measured | None


@dataclass(frozen=True)
class LeakageByGroup:
    """Leakage by quadrant and by decile (1 is the lowest); ``attack`` is that of the AUCs."""

    quadrants: dict[str, GroupLeakage]
    deciles: dict[str, GroupLeakage]
    attack: str


@dataclass(frozen=True)
class ModelLeakage:
    """What the audits show of one model, or of the models of one arm."""

    canaries: CanaryLeakage
    samples: SampleLeakage


# ---- arms against each other


@dataclass(frozen=True)
class ArmAudits(ModelLeakage):
    """What the audits show of one arm, alone and against other arms.

    Attributes:
        trained: As ``samples``, over those members alone that the arm trained on: a dropped sample
            is a member no more, so an arm that drops lowers the first without protecting anybody.
        roc: Of the attack in ``samples``.
        perplexity: On held-out text.
        random: The retrained arm that acts on as many random samples.
        extraction_change: Difference of shares to the baseline arm.
        extraction_against_random: Difference of shares to the arm ``random``.
        exposure_change: In bits, against the baseline arm.
        auc_change: Against the baseline arm.
        perplexity_ratio: To the baseline arm.
        perplexity_against_random: Ratio to the arm ``random``.
        rare_perplexity_ratio: To the baseline arm, on rare held-out texts.
        verdict: A sentence.
        generalization_gap: Mean held-out loss minus that of the audited texts that it trained on,
            nats per token; None where there are too few of them for an interval.
        gap_against_random: Difference of gaps to the arm ``random``.
    """

    trained: SampleLeakage
    roc: RocCurve
    perplexity: Measured
    random: str | None
    extraction_change: Measured | None
    extraction_against_random: Measured | None
    exposure_change: Measured | None
    auc_change: Measured | None
    perplexity_ratio: Measured | None
    perplexity_against_random: Measured | None
    rare_perplexity_ratio: Measured | None
    verdict: str
    generalization_gap: Measured | None = None
    gap_against_random: Measured | None = None


@dataclass(frozen=True)
class OverSeeds:
    """A number of every seed's model, and its mean."""

    mean: float | None
    per_seed: dict[str, float | None]


@dataclass(frozen=True)
class ArmResult:
    """What an arm's plan changes and what its models do, paired by seed with the baseline.

    Attributes:
        arm: Its name.
        num_dropped: Samples that the plan drops, and so on for the other actions.
        num_masked_tokens: Tokens without loss.
        num_rows: Rows of an epoch, planted canaries too.
        perplexity: On held-out text; the mean is geometric.
        extraction_rate: Share of planted secrets extracted.
        extraction: By family and times planted, mean over seeds.
        perplexity_ratio: To the baseline arm; None without one.
        extraction_difference: To the baseline arm.
        summary: A sentence.
        privacy_epsilon: Of its training, the largest of all seeds; None: its rule bounds none.
        num_reweighted: Samples whose weight its runs themselves changed in some pass, mean over
            seeds; None: all weights stand in the plan. ``num_weighted`` are those of one pass.
        num_planted_changed: Rows of planted canaries among the samples that its plan changes or its
            runs weigh in some pass, of these the mean over seeds.
    """

    arm: str
    num_dropped: int
    num_weighted: int
    num_copied: int
    num_changed: int
    num_masked: int
    num_masked_tokens: int
    num_rows: int
    perplexity: OverSeeds
    extraction_rate: OverSeeds
    extraction: dict[str, dict[str, float]]
    perplexity_ratio: float | None
    extraction_difference: float | None
    summary: str
    privacy_epsilon: float | None = None
    num_reweighted: float | None = None
    num_planted_changed: int = 0


@dataclass(frozen=True)
class RemainingSamples:
    """The audited members that an arm keeps as they are, against the baseline.

    Attributes:
        num_unchanged: Their number.
        change: Of their score, nats per token.
        num_below: Those of them that no baseline model has above the cut.
        next_layer: Share of these that are above the cut now.
    """

    num_unchanged: int
    change: Measured | None
    num_below: int
    next_layer: Measured | None


@dataclass(frozen=True)
class ArmLayer(RemainingSamples):
    """What becomes of the samples that an arm keeps, and the same for its random control.

    ``change_against_control`` and ``next_layer_against_control`` are over the members that both
    keep, ``num_compared`` of them below the cut.
    """

    arm: str
    control: str | None
    control_samples: RemainingSamples | None
    change_against_control: Measured | None
    next_layer_against_control: Measured | None
    num_compared: int
    answer: LayerAnswer
    verdict: str


@dataclass(frozen=True)
class NextLayer:
    """Whether removing the most exposed samples exposes others.

    ``cut`` (nats per token) is the ``quantile`` of the baseline's scores, mean over seeds.
    """

    cut: float
    quantile: float
    num_members: int
    arms: list[ArmLayer]
    has_references: bool


@dataclass(frozen=True)
class CheckedClaim:
    """A claim of the paper beside the same quantity measured here.

    ``paper`` is the largest value that agrees with the claim.
    """

    claim: str
    arm: str
    paper: float
    measured: Estimate | None
    verdict: ClaimVerdict


@dataclass(frozen=True)
class FrontPoint:
    """One arm by what it costs and what it leaks.

    Attributes:
        arm: Its name.
        rule: Of its plan.
        series: Name of the arms that differ from it in their fraction alone, or None.
        fraction: Of the samples, where the rule has one.
        num_changed: Samples that the plan changes.
        num_dropped: Samples that the plan drops.
        perplexity_change: Share of the baseline's perplexity.
        extraction: Share of the planted secrets.
        is_baseline: Whether it is the arm that keeps everything.
        is_on_front: Whether no other arm is better in one and at most equal in the other.
    """

    arm: str
    rule: str
    series: str | None
    fraction: float | None
    num_changed: int
    num_dropped: int
    perplexity_change: Measured
    extraction: Measured
    is_baseline: bool
    is_on_front: bool


@dataclass(frozen=True)
class CuratedChoice:
    """The arm whose plan makes data/curated, and whether its effect is shown.

    Attributes:
        arm: Its name.
        basis: `evidence`: ``intervene.curated_arm`` is auto; `params`: it names the arm.
        is_shown: Whether the plan is shown to lower extraction at no shown cost in perplexity, both
            against as many random samples, over enough seeds.
        sentence: What is shown, or that nothing is.
        remedies: Where nothing is shown: what would decide it, a clause each.
    """

    arm: str
    basis: Literal["evidence", "params"]
    is_shown: bool
    sentence: str
    remedies: tuple[str, ...]


@dataclass(frozen=True)
class Recommendation:
    """The plan that reaches a target, chosen among ``num_plans``.

    ``arm`` is None where nothing was measured; for the verdict `none` it is the nearest.
    """

    target: Target
    verdict: TargetVerdict
    arm: str | None
    num_plans: int
    sentence: str
