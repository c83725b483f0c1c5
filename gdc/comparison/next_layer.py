"""Losses of samples that an arm leaves alone -> does taking the exposed ones away expose others?

Carlini et al. 2022, arXiv:2206.10469: removing the most exposed layer of a training set can expose
the next. With equal optimizer steps an arm that drops samples sees the kept ones more often; its
random control does so too, so the two are compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.config import Params
from gdc.schema import FLAGGED, QUADRANTS
from gdc.statistics.bootstrap import Measured, paired_difference, share_interval

Scores = NDArray[np.float64]  # seeds x samples
# Over fewer samples a bootstrap says too little: over one it has no width.
MIN_COMPARED: Final = 20


@dataclass(frozen=True)
class Layers:
    """How exposed each audited ordinary member is under each arm's models, and who is left alone.

    For each arm ``scores`` holds seeds x members, nats per token, and ``unchanged`` says which
    members its plan keeps as they are.
    """

    scores: Mapping[str, Scores]
    unchanged: Mapping[str, NDArray[np.bool_]]


def layers_of(
    memberships: Mapping[str, Sequence[pl.DataFrame]],
    plans: Mapping[str, pl.DataFrame],
    reference_loss: pl.DataFrame | None,
) -> Layers:
    """Reference gaps of the audited members: mean loss where not seen, minus the loss.

    Args:
        memberships: ``MEMBERSHIP`` tables of each arm, one for each seed, of the same samples.
        plans: ``PLAN`` table of each arm.
        reference_loss: ``sample_id`` and ``reference_loss`` (nats per token, null where every
            reference model saw the sample: it is left out). Without it the loss alone is the
            score; in differences between models it makes none.
    """
    first = next(iter(memberships.values()))[0]
    members = first.filter("is_member").select("sample_id", reference_loss=pl.lit(0.0))
    if reference_loss is not None:
        members = members.select("sample_id").join(
            reference_loss.drop_nulls(), on="sample_id", maintain_order="left"
        )
    reference = members["reference_loss"].to_numpy()
    scores = {
        arm: np.stack([reference - _losses(table, members) for table in tables])
        for arm, tables in memberships.items()
    }
    unchanged = {
        arm: members.join(plan, on="sample_id", how="left", maintain_order="left")
        .select((pl.col("action") == "keep").fill_null(value=False))
        .to_series()
        .to_numpy()
        for arm, plan in plans.items()
    }
    return Layers(scores, unchanged)


def compare_layers(
    layers: Layers, pairs: Mapping[str, str | None], baseline: str, *, quantile: float, seed: int
) -> dict[str, Any]:
    """What becomes of the samples that each arm leaves alone, against the baseline and its control.

    Args:
        layers: Of the baseline, of every arm in ``pairs`` and of its control.
        pairs: The equal-size random arm of every arm that is asked about, or None.
        baseline: The arm that keeps everything.
        quantile: Of the baseline's scores; its mean over seeds is the cut above which a sample
            counts as exposed.
        seed: Seed of the resampling.

    Returns:
        ``cut`` (nats per token), ``quantile``, ``num_members``, and ``arms``, a list of ``arm``,
        ``control``, ``answer`` and ``verdict`` (words) and, over the members that the arm leaves
        alone: their number ``num_unchanged``, the ``change`` of their score, ``num_below`` of them
        that no baseline model has above the cut, and the share ``next_layer`` of these that are
        above it now; the same ``of_control``; ``change_against_control`` and
        ``next_layer_against_control`` over the members that both leave alone, ``num_compared`` of
        them below the cut. Intervals over seeds and samples, paired; None: no sample.
    """
    base = layers.scores[baseline]
    cut = float(np.quantile(base, quantile, axis=1).mean())
    is_below = np.all(base <= cut, axis=0)
    return {
        "cut": cut,
        "quantile": quantile,
        "num_members": base.shape[1],
        "arms": [
            _of_arm(_Comparison(layers, base, cut, is_below, seed), arm, control)
            for arm, control in pairs.items()
        ],
    }


def asked_pairs(
    plans: Mapping[str, pl.DataFrame], controls: Mapping[str, str | None]
) -> dict[str, str | None]:
    """The control of each arm that drops or re-weights samples.

    Args:
        plans: ``PLAN`` table of each arm.
        controls: The equal-size random arm, or None, of each arm that does not act by chance.
    """
    return {
        arm: control
        for arm, control in controls.items()
        if not plans[arm]["action"].is_in(["keep", "copy"]).all()
    }


def layer_quantile(params: Params, counts: Mapping[str, int]) -> float:
    """The partition's memorization quantile, or the share that its threshold leaves below.

    Args:
        params: Their section ``partition`` is read.
        counts: Samples in each quadrant.
    """
    if params.partition.memorization.kind == "quantile":
        return params.partition.memorization.value
    num_high = sum(counts[quadrant] for quadrant in FLAGGED)
    return 1 - num_high / sum(counts[quadrant] for quadrant in QUADRANTS)


@dataclass(frozen=True)
class _Comparison:
    layers: Layers
    base: Scores
    cut: float
    is_below: NDArray[np.bool_]
    seed: int

    def of(self, arm: str) -> dict[str, Any]:
        """What becomes of the samples that one arm leaves alone."""
        alone = self.layers.unchanged[arm]
        below = alone & self.is_below
        scores = self.layers.scores[arm]
        return {
            "num_unchanged": int(alone.sum()),
            "change": self.difference(scores, self.base, alone),
            "num_below": int(below.sum()),
            "next_layer": share_interval(list(scores[:, below] > self.cut), seed=self.seed)
            if below.any()
            else None,
        }

    def difference(
        self, ours: Scores, theirs: Scores, chosen: NDArray[np.bool_]
    ) -> Measured | None:
        """Mean difference over the chosen samples."""
        if not chosen.any():
            return None
        return paired_difference(list(ours[:, chosen]), list(theirs[:, chosen]), seed=self.seed)


def _of_arm(comparison: _Comparison, arm: str, control: str | None) -> dict[str, Any]:
    found = {"arm": arm, "control": control, **comparison.of(arm)}
    against: dict[str, Any] = {
        "of_control": None,
        "change_against_control": None,
        "next_layer_against_control": None,
        "num_compared": 0,
    }
    if control is not None:
        layers, cut = comparison.layers, comparison.cut
        both = layers.unchanged[arm] & layers.unchanged[control]
        ours, theirs = layers.scores[arm], layers.scores[control]
        against = {
            "of_control": comparison.of(control),
            "change_against_control": comparison.difference(ours, theirs, both),
            "num_compared": int((both & comparison.is_below).sum()),
            "next_layer_against_control": comparison.difference(
                (ours > cut).astype(np.float64),
                (theirs > cut).astype(np.float64),
                both & comparison.is_below,
            ),
        }
    found |= against
    found["answer"] = answer(found["next_layer_against_control"], found["num_compared"])
    return found | {"verdict": verdict(found)}


def answer(against: Measured | None, num_compared: int) -> str:
    """In words what the interval of the next layer against the control allows to say."""
    if against is None or num_compared < MIN_COMPARED:
        return "not compared"
    if against.low > 0:
        return "exposes a next layer"
    if against.high < 0:
        return "exposes less of a next layer than chance"
    return "is not shown to expose a next layer"


def verdict(found: Mapping[str, Any]) -> str:
    """One sentence that claims no more than its interval."""
    arm, control, share = found["arm"], found["control"], found["next_layer"]
    if share is None:
        return f"{arm}: not compared, it leaves no audited sample below the cut as it is."
    now = (
        f"{100 * share.value:.1f} % of the {found['num_below']:,} samples below the cut that it "
        "leaves as they are lie above it now"
    )
    against, num_compared = found["next_layer_against_control"], found["num_compared"]
    if control is None:
        return f"{arm}: not compared, it has no random arm of its size; {now}."
    if against is None or num_compared < MIN_COMPARED:
        return (
            f"{arm}: not compared, {control} leaves {num_compared} of these alone too and "
            f"{MIN_COMPARED} are wanted; {now}."
        )
    value, low, high = (100 * end for end in (against.value, against.low, against.high))
    seeds = f"{against.num_seeds} seed{'s' if against.num_seeds > 1 else ''}"
    return (
        f"{arm} {found['answer']}: {now}, {value:+.1f} points [{low:+.1f}, {high:+.1f}] against "
        f"{control} over the {num_compared:,} that both leave alone, {seeds}."
    )


def _losses(membership: pl.DataFrame, members: pl.DataFrame) -> Scores:
    return (
        members.select("sample_id")
        .join(membership.select("sample_id", "loss"), on="sample_id", maintain_order="left")["loss"]
        .to_numpy()
    )
