"""The registry of scores: the arguments of each, and the data that each needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from gdc.errors import ConfigError
from gdc.recording.trace import Trace
from gdc.scores import (
    baselines,
    calibrated,
    distilled,
    recorded,
    references,
    synthetic_control,
    trace_scores,
)
from gdc.scores.distilled_tokens import ReferenceTokens
from gdc.scores.recorded import RecordedTokens
from gdc.scores.references import References


@dataclass(frozen=True)
class ScoreInputs:
    """What scores of one run may read; each is called with the fields that it names.

    Attributes:
        columns: Loss columns of the chosen mode, in checkpoint order, at least 2.
        epsilon: Nats per token; learned below it.
        band: Nats per token on either side of epsilon in which nothing is decided.
        num_tokens: Predicted tokens of the sample, at least 1.
        both_modes: The online and the probe columns; None: fewer than 2 online columns or no probe.
        trace: The trace that the columns are of.
        draw: A uniform number in [0, 1) for each sample; only the score ``random`` reads it.
        num_copies: Rows of the training split with the same text.
        zlib_size: Bytes of the compressed text.
        content_id: The same for samples with the same text.
        ngram_nats: ``ngrams.ngram_nats`` of the text.
        half_nats: ``ngrams.half_nats`` of the text.
        heldout: The held-out samples, sorted by ``sample_id``, with ``num_tokens``, with
            ``zlib_size`` and ``ngram_nats`` where the texts are at hand, and all loss columns.
        references: Losses under models that did not see the sample.
        tokens: Losses of all tokens at two looks.
        reference_tokens: Losses of all tokens under the reference models and at both looks.
        base: Loss under the model that the run started from, nats per token.
        gain: How much the optimizer steps with the sample lowered its loss, nats per token.
    """

    columns: tuple[str, ...]
    epsilon: float
    band: float
    num_tokens: pl.Expr
    both_modes: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    trace: Trace | None = None
    draw: pl.Expr | None = None
    num_copies: pl.Expr | None = None
    zlib_size: pl.Expr | None = None
    content_id: pl.Expr | None = None
    ngram_nats: pl.Expr | None = None
    half_nats: pl.Expr | None = None
    heldout: pl.DataFrame | None = None
    references: References | None = None
    tokens: RecordedTokens | None = None
    reference_tokens: ReferenceTokens | None = None
    base: pl.Expr | None = None
    gain: pl.Expr | None = None


@dataclass(frozen=True)
class Score:
    """A score and the fields of ``ScoreInputs`` it is called with, by name.

    It gives one number for each sample; higher: more memorized. Fields of ``optional`` and of
    ``beside_gain``, which say nothing where no gains were recorded, are None where they are
    missing.
    """

    function: Callable[..., pl.Expr]
    arguments: tuple[str, ...] = ("columns",)
    optional: tuple[str, ...] = ()
    beside_gain: tuple[str, ...] = ()

    @property
    def needs(self) -> frozenset[str]:
        """The data that it needs besides the trace of the training split."""
        return frozenset(self.arguments) & frozenset(REMEDIES)


_EPSILON: Final = ("columns", "epsilon")
_CALIBRATED: Final = ("columns", "num_tokens", "zlib_size", "heldout")
_OF_TEXT: Final = ("columns", "num_tokens", "zlib_size", "ngram_nats", "heldout")
_DISTILLED: Final = ("columns", "num_tokens", "zlib_size", "content_id", "references")
_BESIDE_GAIN: Final = ("both_modes", "ngram_nats", "heldout", "num_copies")

REGISTRY: Final[Mapping[str, Score]] = {
    "final_loss": Score(baselines.final_loss),
    "initial_loss": Score(baselines.initial_loss),
    "mean_loss": Score(baselines.mean_loss),
    "min_loss": Score(baselines.min_loss),
    "ever_below_eps": Score(baselines.ever_below_eps, _EPSILON),
    "num_copies": Score(baselines.num_copies, ("num_copies",)),
    "zlib": Score(baselines.zlib, ("columns", "num_tokens", "zlib_size")),
    "random": Score(baselines.random, ("draw",)),
    "forget": Score(trace_scores.memorization, _EPSILON),
    "forget_hysteresis": Score(trace_scores.forget_hysteresis, (*_EPSILON, "band")),
    "forget_adaptive": Score(trace_scores.forget_adaptive),
    "forget_magnitude": Score(trace_scores.forget_magnitude),
    "iqr": Score(trace_scores.iqr),
    "std": Score(trace_scores.std),
    "total_drop": Score(trace_scores.total_drop),
    "total_drop_sum": Score(trace_scores.total_drop_sum, ("columns", "num_tokens")),
    "online_probe_gap": Score(trace_scores.online_probe_gap, ("both_modes",)),
    "online_late_contrast": Score(trace_scores.online_late_contrast, ("both_modes",)),
    "late_drop": Score(calibrated.late_drop, ("columns", "heldout")),
    "late_drop_sum": Score(calibrated.late_drop_sum, ("columns", "heldout", "num_tokens")),
    "relative_area": Score(calibrated.relative_area, ("columns", "trace")),
    "calibrated_drop": Score(calibrated.calibrated_drop, _CALIBRATED),
    "calibrated_drop_log_p": Score(calibrated.calibrated_drop_log_p, _CALIBRATED),
    "synthetic_control_gap": Score(synthetic_control.synthetic_control_gap, _OF_TEXT),
    "synthetic_control_log_p": Score(synthetic_control.synthetic_control_log_p, _OF_TEXT),
    "unseen_loss_contrast": Score(
        synthetic_control.unseen_loss_contrast, ("both_modes", *_OF_TEXT[1:])
    ),
    "influence_contrast": Score(
        synthetic_control.influence_contrast,
        ("both_modes", *_OF_TEXT[1:], "gain", "num_copies"),
    ),
    "reference_gap": Score(references.reference_gap, ("columns", "references")),
    "reference_gap_calibrated": Score(
        references.reference_gap_calibrated, ("columns", "references")
    ),
    "base_gap": Score(references.base_gap, ("columns", "base")),
    "in_out_gap": Score(references.in_out_gap, ("references",)),
    "distilled_gap": Score(
        distilled.distilled_gap,
        _DISTILLED,
        optional=("half_nats", "gain"),
        beside_gain=_BESIDE_GAIN,
    ),
    "distilled_window_gap": Score(
        distilled.distilled_window_gap,
        ("reference_tokens", *_DISTILLED),
        optional=("half_nats", "gain"),
        beside_gain=_BESIDE_GAIN,
    ),
    "hard_token_drop": Score(recorded.hard_token_drop, ("tokens",)),
    "worst_window_drop": Score(recorded.worst_window_drop, ("tokens",)),
    "recited_run_drop": Score(recorded.recited_run_drop, ("tokens",)),
    "window_votes_drop": Score(recorded.window_votes_drop, ("tokens",)),
    "error_balance_drop": Score(recorded.error_balance_drop, ("tokens",)),
    "self_influence": Score(recorded.self_influence, ("gain",)),
}

STREAMED: Final = tuple(
    name
    for name, score in REGISTRY.items()
    if set(score.arguments) <= {"columns", "epsilon", "band", "num_tokens"}
)
"""The scores that read nothing but the trace, a block of samples at a time."""

REMEDIES: Final[Mapping[str, str]] = {
    "both_modes": "Raise train.probes_per_epoch and training.epochs and re-run stage train",
    "num_copies": "Pass the corpus with its column num_copies",
    "zlib_size": "Pass the corpus with its column text",
    "content_id": "Pass the corpus with its column content_id",
    "ngram_nats": "Pass the corpus with its columns text and num_copies",
    "heldout": "Raise ingest.validation_fraction and re-run stage train",
    "references": "Pass the losses of reference models",
    "tokens": "Set train.token_losses: true and re-run stage train",
    "reference_tokens": "Set train.token_losses: true and re-run stages train and reference",
    "base": "Set model.kind: pretrained and re-run stage train",
    "gain": "Set train.self_influence: true and re-run stage train",
}
"""Every need of a score, and how to meet it."""


def require_registered(names: Sequence[str]) -> None:
    """Raise ``ConfigError`` unless every name of ``score.enabled`` is registered."""
    unknown = sorted(set(names) - set(REGISTRY))
    if unknown:
        raise ConfigError(f"score.enabled: expected names of {list(REGISTRY)}, got {unknown}")


def reads_of(names: Sequence[str], *, has_gains: bool = True) -> frozenset[str]:
    """What the scores need, keys of ``REMEDIES``, and what else they read where it is there."""
    scores = [REGISTRY[name] for name in names]
    more = frozenset().union(*(score.beside_gain for score in scores)) if has_gains else ()
    return frozenset().union(more, *(score.needs | {*score.optional} for score in scores))


def cost_class(name: str) -> str:
    """What a score costs: no model, one tracked run, or reference models too."""
    if name in REGISTRY and "references" in REGISTRY[name].arguments:
        return "reference models"
    return "one run" if reads_run(name) else "no model"


def reads_run(name: str) -> bool:
    """Whether a column of the scores comes from the trace of a tracked run."""
    arguments = REGISTRY[name].arguments if name in REGISTRY else ("columns",)
    return bool({"columns", "both_modes", "trace", "tokens", "gain"} & set(arguments))


def require_given(names: Sequence[str], inputs: ScoreInputs) -> None:
    """Raise ``ConfigError`` unless ``inputs`` hold what the scores ``names`` need."""
    for name in names:
        for need in sorted(REGISTRY[name].needs):
            if getattr(inputs, need) is None:
                raise ConfigError(
                    f"score.enabled: {name} needs {need}, got none. {REMEDIES[need]}, or take "
                    f"{name} out of score.enabled."
                )


def expression(name: str, inputs: ScoreInputs) -> pl.Expr:
    """The score ``name`` as an expression over the samples of one run."""
    score = REGISTRY[name]
    names = (*score.arguments, *score.optional, *score.beside_gain)
    return score.function(**{name: getattr(inputs, name) for name in names})
