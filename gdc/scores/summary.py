"""The table of scores -> its counts and what to know of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import polars as pl

from gdc.config import ScoreConfig
from gdc.filesystem.json_values import JsonObject
from gdc.scores.calibrated import MIN_HELDOUT
from gdc.scores.epsilon import part_warnings
from gdc.statistics.wording import counted


@dataclass(frozen=True)
class ScoresSummary:
    """The content of ``scores.json``.

    ``epsilon`` is in nats per token. ``num_early`` checkpoints make the difficulty. A sample counts
    in ``num_never_learned`` if no recorded loss is below epsilon.
    """

    mode: str
    epsilon: float
    num_checkpoints: int
    num_early: int
    num_samples: int
    num_seeds: int
    num_never_learned: int
    num_distinct_memorization: int
    warnings: tuple[str, ...]

    def to_json(self) -> JsonObject:
        """The same as an object of numbers and strings."""
        return {**asdict(self), "warnings": list(self.warnings)}


def summarize(
    scores: pl.LazyFrame, config: ScoreConfig, epsilon: float, num_checkpoints: int
) -> ScoresSummary:
    """Summarize the scores of one run."""
    num_samples, num_distinct, never = (
        scores.select(
            pl.len(),
            pl.col("memorization").n_unique().alias("distinct"),
            pl.col("never_learned").sum(),
        )
        .collect(engine="streaming")
        .row(0)
    )
    warnings = part_warnings(config.epsilon, num_samples, num_checkpoints)
    if num_distinct < 5:
        warnings.append(
            f"memorization has only {counted(num_distinct, 'distinct value')}: ties decide which "
            "samples are above a percentile. Record more checkpoints (training.epochs, "
            "train.probes_per_epoch)."
        )
    if never > num_samples / 2:
        warnings.append(
            f"{never} of {num_samples} samples were never below epsilon, so they cannot be "
            "forgotten: their memorization of 0 says nothing. Raise score.epsilon or train longer."
        )
    return ScoresSummary(
        mode=config.mode,
        epsilon=epsilon,
        num_checkpoints=num_checkpoints,
        num_early=config.num_early,
        num_samples=num_samples,
        num_seeds=1,
        num_never_learned=never,
        num_distinct_memorization=num_distinct,
        warnings=tuple(warnings),
    )


def summarize_map(
    scores: pl.LazyFrame, config: ScoreConfig, epsilon: float | None, num_checkpoints: int
) -> JsonObject:
    """Summarize the scores of a map as ``ScoresSummary``; what it does not hold is null.

    Args:
        scores: What ``scan_scores`` returns.
        config: Its rules, with the epsilon that was asked for.
        epsilon: Nats per token; None: no score reads it.
        num_checkpoints: Of the mode.
    """
    if epsilon is not None and "memorization" in scores.collect_schema():
        return summarize(scores, config, epsilon, num_checkpoints).to_json()
    counts = {"num_samples": pl.len()}
    if "never_learned" in scores.collect_schema():
        counts["num_never_learned"] = pl.col("never_learned").sum()
    found = scores.select(**counts).collect(engine="streaming").row(0, named=True)
    num_samples = found["num_samples"]
    is_read = epsilon is not None
    warnings = part_warnings(config.epsilon, num_samples, num_checkpoints) if is_read else []
    return {
        "mode": config.mode,
        "epsilon": epsilon,
        "num_checkpoints": num_checkpoints,
        "num_early": config.num_early,
        "num_samples": num_samples,
        "num_seeds": 1,
        "num_never_learned": found.get("num_never_learned"),
        "num_distinct_memorization": None,
        "warnings": warnings,
    }


def without_value(samples: pl.DataFrame, names: Sequence[str]) -> list[str]:
    """A warning for every score that is null throughout."""
    return [
        f"{name} has no value for any sample: it needs {MIN_HELDOUT} held-out samples with losses "
        "(ingest.validation_fraction) and online losses of the first half of the passes."
        if name in {"unseen_loss_contrast", "influence_contrast"}
        else f"{name} has no value for any sample."
        for name in names
        if samples[name].null_count() == samples.height
    ]
