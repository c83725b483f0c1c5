"""What canaries say of scores -> the types of calibration.json."""

from dataclasses import dataclass
from typing import Literal

from gdc.schema import Verdict
from gdc.statistics.bootstrap import Estimate

Role = Literal["choose", "report"]


@dataclass(frozen=True)
class CanaryCounts:
    """The canaries of one family; ``why`` says why they cannot judge scores, or is None.

    Without twins nothing is labelled, and the counts are None.
    """

    num_memorized: int | None
    num_unmemorized: int | None
    num_twins: int
    why: str | None
    role: Role | None


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
        why: Why something is None.
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


@dataclass(frozen=True)
class AutoAxis:
    """The axis that ``auto`` stands for, and a sentence that says why."""

    axis: str
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
