"""The report -> what a run found, why, whether anything helped, and what to do next."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gdc.mapping.causes import REMEDIES
from gdc.report.model import ActionCounts, Report
from gdc.statistics.bootstrap import Estimate, Measured
from gdc.statistics.wording import counted, ends, percent

# What a cause is called in a sentence.
_CAUSES: Final[Mapping[str, str]] = {
    "secret": "may hold a secret",
    "exact-copies": "have exact copies",
    "near-copies": "have near copies",
    "template": "follow a template",
    "none": "show no cause in text or copies",
}


@dataclass(frozen=True)
class RunVerdict:
    """A run in four sentences, and the numbers that stand in them.

    Attributes:
        found: How many distinct ordinary texts are memorized, by which score, by how many secrets
            that score is validated, and how many rows these are; where half-models can be asked,
            how many of the texts they confirm.
        cause: Why, by number of texts.
        worked: Whether the plan behind data/curated is shown to work, and on how many planted rows
            it acts itself, or that it is unproven.
        next: What to do now.
        axis: The score that found the texts.
        is_validated: Whether it is shown to predict memorization here.
        num_texts: Distinct ordinary texts above the threshold.
        num_confirmed: Those that half-models confirm; None: not asked.
        precision: Their share of the texts that half-models were asked about.
        causes: Distinct texts by cause.
        arm: The arm that makes data/curated.
        is_shown: Whether it is shown to work.
        extraction_change: Of that arm against as many random samples, difference of shares.
        perplexity_ratio: Of that arm to the arm of as many random samples.
    """

    found: str
    cause: str
    worked: str
    next: str
    axis: str
    is_validated: bool
    num_texts: int
    num_confirmed: int | None
    precision: Estimate | None
    causes: Mapping[str, int]
    arm: str
    is_shown: bool
    extraction_change: Measured | None
    perplexity_ratio: Measured | None

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """Heading and sentence, in the order in which they are read."""
        return (
            ("Found", self.found),
            ("Cause", self.cause),
            ("Worked?", self.worked),
            ("Next", self.next),
        )


def verdict(report: Report) -> RunVerdict:
    """Say what a run found, why, whether anything helped, and what to do next.

    Pure: for the terminal at the end of a run, the top of the page, and the note of the parent run
    alike. Print ``lines``, each as "heading: sentence"::

        for heading, sentence in verdict(read_report()).lines:
            print(f"{heading:8} {sentence}")
    """
    audits = report.arm_audits.get(report.choice.arm)
    check = report.memorized.gap_check
    return RunVerdict(
        found=_found(report),
        cause=_cause(report),
        worked=_worked(report),
        next=_next(report),
        axis=report.quadrants.axis,
        is_validated=_is_validated(report),
        num_texts=report.memorized.num_texts,
        num_confirmed=None if check is None else check.num_confirmed,
        precision=None if check is None else check.precision,
        causes=report.memorized.causes,
        arm=report.choice.arm,
        is_shown=report.choice.is_shown,
        extraction_change=None if audits is None else audits.extraction_against_random,
        perplexity_ratio=None if audits is None else audits.perplexity_against_random,
    )


def _is_validated(report: Report) -> bool:
    return report.calibration is not None and report.calibration.is_validated


def _found(report: Report) -> str:
    memorized = report.memorized
    texts = counted(memorized.num_texts, "distinct ordinary text")
    found = f"Score {report.quadrants.axis} ({_trust(report)}) puts {texts} above the threshold."
    found = " ".join([found, *_in_rows(report)])
    check = memorized.gap_check
    if check is None:
        return found
    # A list is not a proof: how much of it holds stands next to it.
    return (
        f"{found} {counted(check.num_models, 'other model')}, each trained on half of the texts, "
        f"confirm {check.num_confirmed:,} of {check.num_texts:,} as memorized "
        f"({percent(check.precision.value)} {ends(check.precision, percent)}; by chance 10 %)."
    )


def _trust(report: Report) -> str:
    if report.calibration is None or not report.calibration.is_validated:
        return "not validated here"
    secrets = counted(report.calibration.num_memorized, "memorized secret")
    return f"validated by {secrets} planted here"


def _in_rows(report: Report) -> list[str]:
    """Ties the distinct texts to rows, which counts of plans and quadrants are of."""
    memorized, corpus = report.memorized, report.corpus
    if memorized.num_planted_rows is None or memorized.num_canaries is None:
        return []
    num_rows = memorized.num_samples + memorized.num_planted_rows
    if num_rows == memorized.num_texts:
        return []
    said = (
        f"With copies that is {memorized.num_samples:,} of "
        f"{corpus.num_train + corpus.num_canary_rows:,} training rows"
    )
    if not memorized.num_planted_rows:
        return [f"{said}."]
    planted = counted(memorized.num_planted_rows, "planted row")
    canaries = "1 canary" if memorized.num_canaries == 1 else f"{memorized.num_canaries:,} canaries"
    return [f"{said}, and with {planted} of {canaries} it is {num_rows:,}."]


def _worked(report: Report) -> str:
    """Why the plan is taken; where it works, that it takes the planted rows themselves away."""
    sentence, planted = report.choice.sentence, report.curated.planted
    if not report.choice.is_shown or planted is None or not _acts(planted):
        return sentence
    ordinary = _acts(report.curated.actions) or "changes none"
    return (
        f"{sentence} Of {counted(report.corpus.num_canary_rows, 'planted row')} this plan "
        f"{_acts(planted)}, of {report.curated.num_samples:,} ordinary ones it {ordinary}: the "
        "planted secrets show that it finds such rows, not that what it misses is gone."
    )


def _acts(actions: ActionCounts) -> str:
    """What a plan does, such as ``drops 66, down-weights 2``; nothing where it keeps all."""
    done = {
        "drops": actions.drop,
        "down-weights": actions.weight,
        "repeats": actions.copy,
        "masks spans of": actions.mask,
    }
    return ", ".join(f"{does} {num:,}" for does, num in done.items() if num)


def _cause(report: Report) -> str:
    causes = report.memorized.causes
    if not causes:
        return "No ordinary text is above the threshold."
    return (
        ", ".join(f"{causes[name]:,} {_CAUSES[name]}" for name in REMEDIES if name in causes) + "."
    )


def _next(report: Report) -> str:
    choice = report.choice
    if choice.is_shown:
        return (
            f"Look at data/curated/removed.parquet ({report.curated.actions.drop:,} of "
            f"{report.curated.num_samples:,} ordinary samples, copies among them), "
            "train on data/curated, and audit that model (gdc audit)."
        )
    if not choice.remedies:
        return "Look at the arms in the report before data/curated is used."
    return f"To decide, {'; '.join(choice.remedies)}."
