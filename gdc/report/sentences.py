"""Numbers of the report -> its sentences: definitions, summary and warnings."""

from collections.abc import Mapping, Sequence
from typing import Final

from gdc.comparison.results import AllAttacks, ArmResult, ModelLeakage
from gdc.config import AUTO, Params
from gdc.corpus.sources import unread
from gdc.mapping.quadrants import QuadrantsSummary
from gdc.mapping.score_cards import Calibration, ScoreCard
from gdc.report.model import (
    CalibrationInUse,
    CorpusCounts,
    CuratedCounts,
    MemorizationOverTime,
)
from gdc.report.tables import ReportTables
from gdc.schema import QUADRANTS, Verdict
from gdc.scores.summary import ScoresSummary
from gdc.statistics.bootstrap import ENOUGH_SEEDS
from gdc.statistics.wording import counted, decimals, interval, number, percent

# Above it canaries are no longer a few odd rows of the corpus.
MAX_PLANTED_SHARE: Final = 0.05
# What a card says, in a sentence.
VERDICTS: Final[Mapping[Verdict, str]] = {
    "predicts memorization here": "predicts memorization here",
    "does not": "does not predict memorization here",
    "not shown": "is not shown to predict memorization here",
}


def tell_profile(profiles: Sequence[MemorizationOverTime]) -> str:
    """What the first tracked run memorized at once and what is left of it, in a sentence."""
    of_all = profiles[0]
    if of_all.instantaneous is None or of_all.residual is None:
        return "Too few samples were first trained on between two frozen looks to tell."
    before = of_all.before
    if before is not None and not before.low <= 0 <= before.high:
        return (
            "Not to be trusted here: the losses of samples fell differently from those of others "
            f"before they were trained on ({interval(before, decimals)})."
        )
    now, left = (interval(found, decimals) for found in (of_all.instantaneous, of_all.residual))
    return (
        f"Training on a sample lowers its own loss by {now} nats per token at the first look "
        f"after it, and by {left} at the end."
    )


def define_quadrants(quadrants: QuadrantsSummary) -> dict[str, str]:
    """Each quadrant by its thresholds."""
    cut, hard = number(quadrants.memorization_threshold), number(quadrants.difficulty_threshold)
    low, high = f"{quadrants.axis} at most {cut}", f"{quadrants.axis} above {cut}"
    return {
        "stable-easy": f"difficulty at most {hard}, {low}",
        "ambiguous-hard": f"difficulty above {hard}, {low}",
        "hotspot-memorized": f"difficulty at most {hard}, {high}",
        "noisy-outlier": f"difficulty above {hard}, {high}",
    }


def explain_axis(calibration: Calibration, axis: str, params: Params) -> CalibrationInUse:
    """Add what the cards say of the axis in use, and why it is in use."""
    card = next(card for card in calibration.cards if card.score == axis)
    auto = calibration.auto
    why = f"partition.axis names {axis}."
    if params.partition.axis == AUTO:
        why = f"partition.axis is auto. {auto.reason}"
    elif auto.is_validated:
        why += f" auto would take {auto.axis}."
    return CalibrationInUse(
        **vars(calibration),
        verdict=f"Axis {axis} {VERDICTS[card.verdict]}: {_card_sentence(card, calibration)}",
        is_validated=card.verdict == "predicts memorization here",
        why=why,
    )


def _card_sentence(card: ScoreCard, calibration: Calibration) -> str:
    auroc = card.auroc_report
    if auroc is None:
        return str(card.why)
    asked = list(dict.fromkeys(of for names in card.asked.values() for of in names))
    counted_others = {"other canaries": f"{calibration.num_unmemorized:,} other canaries"}
    others = " and ".join(counted_others.get(of, of) for of in asked or counted_others)
    sentence = (
        f"AUROC {auroc.value:.2f} [{auroc.low:.2f}, {auroc.high:.2f}] of "
        f"{calibration.num_memorized:,} memorized against {others}."
    )
    text = ", ".join(
        f"{family} {against['training text']:.2f}"
        for family, against in card.against.items()
        if "training text" in against
    )
    if text:
        sentence += f" Against ordinary training text: {text}."
    if card.ordinary_text is not None:
        agreement = interval(card.ordinary_text, decimals)
        sentence += f" Rank correlation with half-models on ordinary text: {agreement}."
    return sentence


def summarize(
    corpus: CorpusCounts,
    scores: ScoresSummary,
    quadrants: QuadrantsSummary,
    curated: CuratedCounts,
) -> list[str]:
    """What was read, how it was scored, and what the curated arm does."""
    actions = curated.actions
    not_read = unread.sentence(
        {
            reason: unread.UnreadFiles(num_files=files.num_files, first=files.first)
            for reason, files in corpus.unread.items()
        }
    )
    return [
        f"{counted(corpus.num_samples, 'sample')}: {corpus.num_train:,} to train on, "
        f"{corpus.num_validation:,} held out, {corpus.num_reserved:,} reserved for canaries; "
        f"{corpus.num_exact_copies:,} of them repeat another one exactly, "
        f"{corpus.num_left_out:,} of the source are left out (ingest.max_samples). "
        f"{counted(corpus.num_canary_rows, 'canary row')} planted in the training split.",
        *([not_read] if not_read else []),
        f"Scored on {counted(scores.num_seeds, 'tracked run')} with "
        f"{scores.num_checkpoints} {scores.mode} checkpoints; "
        f"learned below {number(scores.epsilon)} nats per token. "
        f"Hard: difficulty above {number(quadrants.difficulty_threshold)} nats per token. "
        f"High: {quadrants.axis} above {number(quadrants.memorization_threshold)}."
        + _unstable(quadrants, scores),
        f"Arm {curated.arm} makes the curated data set: of "
        f"{counted(curated.num_samples, 'ordinary training sample')} it removes "
        f"{actions.drop:,}, down-weights {actions.weight:,}, repeats {actions.copy:,}, "
        f"masks spans of {actions.mask:,} and leaves {actions.keep:,} as they are.",
    ]


def _unstable(quadrants: QuadrantsSummary, scores: ScoresSummary) -> str:
    """How many samples lie elsewhere on the map of a single run; nothing where there is one."""
    if quadrants.num_unstable is None:
        return ""
    return (
        f" {quadrants.num_unstable:,} of {scores.num_samples:,} samples lie in another quadrant in "
        f"at least one of the {scores.num_seeds} runs."
    )


def explain_comparison(num_seeds: int, baseline: str | None) -> str:
    """How the arms are compared, in one or two sentences."""
    against = (
        "No retrained arm keeps everything, so there is nothing to compare with."
        if baseline is None
        else f"Ratio and change: against arm {baseline}, same seed, then averaged."
    )
    return " ".join([against, *_few_seeds(num_seeds)])


def _few_seeds(num_seeds: int) -> list[str]:
    if num_seeds >= ENOUGH_SEEDS:
        return []
    return [f"{counted(num_seeds, 'seed')}: too few to say much about other seeds."]


def stage_warnings(tables: ReportTables) -> list[str]:
    """What earlier stages warned of."""
    return [
        *tables.scores_summary.warnings,
        *tables.quadrants_summary.warnings,
        *tables.spans_summary.warnings,
    ]


def data_warnings(
    corpus: CorpusCounts,
    quadrants: QuadrantsSummary,
    calibration: CalibrationInUse | None,
    params: Params,
) -> list[str]:
    """What makes the map doubtful."""
    warnings = [
        f"Quadrant {quadrant} is empty." for quadrant in QUADRANTS if not quadrants.counts[quadrant]
    ]
    # With axis: auto and none validated, stage partition has said so.
    if calibration and not calibration.is_validated and params.partition.axis != AUTO:
        warnings.append(calibration.verdict)
    trained = corpus.num_train + corpus.num_canary_rows
    if corpus.num_canary_rows > MAX_PLANTED_SHARE * trained:
        warnings.append(
            f"Planted rows are {percent(corpus.num_canary_rows / trained)} of the {trained:,} "
            f"training rows, more than {percent(MAX_PLANTED_SHARE)}: what is measured may be of "
            "canaries more than of the corpus. Plant fewer (per_level, repeats), or add text."
        )
    if num := corpus.num_quarantined:
        warnings.append(f"{counted(num, 'bad row')} left out: data/quarantine.parquet says why.")
    if not corpus.num_canary_rows:
        warnings.append("No canary is planted, so extraction is not measured.")
    return warnings


def arm_warnings(arms: Sequence[ArmResult], baseline: str | None) -> list[str]:
    """What makes the comparison of the arms doubtful."""
    warnings = _few_seeds(len(arms[0].perplexity.per_seed))
    if baseline is None:
        warnings.append("No retrained arm keeps everything, so there is nothing to compare with.")
    for arm in arms:
        if arm.arm != baseline and not arm.num_changed:
            warnings.append(f"Arm {arm.arm} changes no sample: its differences are noise.")
        if floor := max((levels.get("0", 0.0) for levels in arm.extraction.values()), default=0):
            warnings.append(
                f"Arm {arm.arm}: up to {percent(floor)} of never-planted twins of a family are "
                "extracted, so that much is guessed and not remembered."
            )
    return warnings


def audit_warnings(arm_audits: Mapping[str, ModelLeakage], attacks: AllAttacks | None) -> list[str]:
    """What makes the audits doubtful."""
    blind = [
        f"{name} alone tells members from held-out texts: membership attacks may see how the texts "
        "differ and not what a model remembers."
        for name in (attacks.blind_leaks if attacks else [])
    ]
    beyond = {
        arm: num for arm, audits in arm_audits.items() if (num := audits.canaries.num_fits_beyond)
    }
    if not beyond:
        return blind
    counts = ", ".join(f"{arm} {num}" for arm, num in beyond.items())
    return [
        *blind,
        f"Fitted exposures more than 15 bits beyond what the twins resolve ({counts}) count as 15: "
        "a fit says no more there.",
    ]
