"""What canaries say of scores -> the types of calibration.json."""

from dataclasses import dataclass, field
from typing import Literal

from gdc.schema import Verdict
from gdc.statistics.bootstrap import Estimate

Role = Literal["choose", "report"]
# What memorized canaries are compared with.
Comparison = Literal["other canaries", "twins", "training text", "held-out text"]


@dataclass(frozen=True)
class CanaryCounts:
    """The canaries of one family; ``why`` says why they cannot judge scores, or is None.

    Without twins nothing is labelled, and the counts are None. ``num_extracted`` counts those that
    a tracked model says verbatim.
    """

    num_memorized: int | None
    num_unmemorized: int | None
    num_twins: int
    why: str | None
    role: Role | None
    num_extracted: int = 0


@dataclass(frozen=True)
class ScoreCard:
    """What one score is worth here.

    Attributes:
        score: Its name.
        cost: What it needs: no model, one run or reference models.
        may_be_axis: Whether ``axis: auto`` may take it.
        auroc_choose: Mean over the families that choose.
        auroc_report: Mean over the families that report.
        low_for_auto: Low end of ``auroc_report`` at the stricter level that ``auto`` needs.
        precision: Share of memorized canaries among those above the cut, in the families that
            report.
        recall: Share of memorized canaries that are above the cut.
        verdict: In words.
        why: Why something is None, or why the score is never an axis.
        asked: What memorized canaries were compared with in the AUROCs above, by family.
        against: AUROC of the memorized canaries of each family against each of what there is to
            compare them with.
        extracted_against_text: AUROC of the extracted canaries of each family against ordinary
            training text; a score below one half anywhere is never an axis.
        ordinary_text: Rank correlation, on ordinary training text, with the loss that half-models
            have where they did not see a text, minus that where they did; a score whose interval
            is below 0 is never an axis. None: there are no half-models, or it reads them.
    """

    score: str
    cost: str
    may_be_axis: bool
    auroc_choose: float | None
    auroc_report: Estimate | None
    low_for_auto: float | None
    precision: Estimate | None
    recall: Estimate | None
    verdict: Verdict
    why: str | None
    asked: dict[str, list[Comparison]] = field(default_factory=dict)
    against: dict[str, dict[Comparison, float]] = field(default_factory=dict)
    extracted_against_text: dict[str, float] = field(default_factory=dict)
    ordinary_text: Estimate | None = None


@dataclass(frozen=True)
class AutoAxis:
    """The axis that ``auto`` stands for, None where every score is refused, and why."""

    axis: str | None
    is_validated: bool
    reason: str


@dataclass(frozen=True)
class Calibration:
    """The content of calibration.json.

    Both counts are over the families that report; the cards stand in falling order of
    ``auroc_choose``.
    """

    families: dict[str, CanaryCounts]
    num_memorized: int
    num_unmemorized: int
    cards: list[ScoreCard]
    auto: AutoAxis
