"""The leaderboard as a value, and its JSON: how well each score predicts memorization."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError

from gdc.errors import DataError
from gdc.filesystem.json_values import JsonObject
from gdc.statistics.bootstrap import Estimate

SCHEMA_VERSION: Final = 2


@dataclass(frozen=True)
class BySamples:
    """One value over all training samples and one over ordinary text, the canaries left out."""

    all: float
    ordinary: float


@dataclass(frozen=True)
class MemorizationLevel:
    """Ground truth of ordinary text, or of the canaries of a family planted equally often.

    ``memorization`` and ``peak`` are means, their standard errors medians; the first two in nats
    per token, the others in bits of a window. ``family`` and ``num_repeats`` are None for ordinary
    text.
    """

    family: str | None
    num_repeats: int | None
    num_samples: int
    memorization: float
    standard_error: float | None
    peak: float
    peak_standard_error: float | None


@dataclass(frozen=True)
class FamilySize:
    """Number of canaries planted ``num_repeats`` times, the most, planted once, and extracted."""

    num_repeats: int
    num_most: int
    num_once: int
    num_extracted: int


@dataclass(frozen=True)
class Grain:
    """What a ground truth is worth: the mean over a sample, or its peak window.

    Attributes:
        reliability: Correlation that the ground truth would have with a second measurement.
        ceiling: The highest Spearman correlation that a score can be expected to have.
        num_top: Samples above the ninth decile of the ground truth.
        canaries: ``LeaderboardRow.canaries`` of the ground truth itself.
        against_ordinary: ``LeaderboardRow.against_ordinary`` of the ground truth itself.
    """

    reliability: BySamples
    ceiling: BySamples
    num_top: int
    canaries: Mapping[str, Estimate | None]
    against_ordinary: Mapping[str, Estimate | None]


@dataclass(frozen=True)
class Measures:
    """How well a score predicts one ground truth.

    Attributes:
        spearman: Rank correlation with the ground truth.
        spearman_ordinary: The same over ordinary text.
        auroc: Of the samples above the ninth decile of the ground truth against all others.
        average_precision: Of the same samples.
        precision: By budget, a share of the samples: of those that the score puts highest, the
            share that the ground truth puts among as many.
    """

    spearman: Estimate | None
    spearman_ordinary: Estimate | None
    auroc: Estimate | None
    average_precision: Estimate | None
    precision: Mapping[float, Estimate | None]


@dataclass(frozen=True)
class LeaderboardRow:
    """How well one score predicts counterfactual memorization.

    Attributes:
        score: Name of its column.
        cost: What it needs: no model, one run or reference models.
        num_models: Models that are trained for it.
        seconds: What it takes to compute; None: not known.
        num_samples: Samples that have the score; every measure is taken over them alone.
        mean: Against the memorization of the whole sample.
        peak: Against that of its worst window.
        canaries: For each family the AUROC of canaries planted most against those planted once.
        against_ordinary: For each family the AUROC of extracted canaries against ordinary text.
        agreement: Mean Spearman correlation between pairs of tracked runs; None: not defined.

    A measure is None where it is not defined, such as the correlation of a constant.
    """

    score: str
    cost: str
    num_models: int
    seconds: float | None
    num_samples: int
    mean: Measures
    peak: Measures
    canaries: Mapping[str, Estimate | None]
    against_ordinary: Mapping[str, Estimate | None]
    agreement: float | None


@dataclass(frozen=True)
class EpsilonPoint:
    """How well forget frequency predicts memorization at one forget threshold.

    ``epsilon`` is the ``quantile`` of all recorded losses, in nats per token;
    ``auroc_ever_below`` is of the event without which nothing is forgotten, a loss below epsilon.
    """

    quantile: float
    epsilon: float
    auroc: float | None
    spearman: float | None
    auroc_ever_below: float | None


@dataclass(frozen=True)
class Leaderboard:
    """How well each score predicts counterfactual memorization under held-back half-models.

    Attributes:
        num_models: Half-models that the ground truth is computed from.
        num_samples: Training samples; ``num_ordinary`` of them are no planted canaries.
        num_runs: Tracked runs.
        num_resamples: Resamples behind every interval, which has the given ``level``.
        window_tokens: Tokens of a window of the peak.
        mean: What the memorization of the whole sample is worth as a ground truth.
        peak: What that of the worst window is worth.
        ground_truth: By family and number of repeats.
        families: Sizes of the groups of canaries that are compared.
        scores: In falling order of ``mean.spearman``.
        epsilon_curve: In rising order of ``quantile``.
    """

    num_models: int
    num_samples: int
    num_ordinary: int
    num_runs: int
    num_resamples: int
    level: float
    window_tokens: int
    mean: Grain
    peak: Grain
    ground_truth: Sequence[MemorizationLevel]
    families: Mapping[str, FamilySize]
    scores: Sequence[LeaderboardRow]
    epsilon_curve: Sequence[EpsilonPoint]

    def to_json(self) -> JsonObject:
        """The content of ``leaderboard.json``."""
        return {"schema_version": SCHEMA_VERSION, **_ADAPTER.dump_python(self, mode="json")}

    @classmethod
    def from_json(cls, content: JsonObject) -> "Leaderboard":
        """Read the content of ``leaderboard.json``.

        Raises:
            DataError: Another version of gdc wrote it, or it is damaged.
        """
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            raise DataError(
                f"leaderboard.json: expected schema_version {SCHEMA_VERSION}, got {version}: "
                "another version of gdc wrote it. Run again: gdc leaderboard"
            )
        try:
            return _ADAPTER.validate_python(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise DataError(
                f"leaderboard.json: {place}: {first['msg']}. Run again: gdc leaderboard"
            ) from None


_ADAPTER: Final = TypeAdapter(Leaderboard)
