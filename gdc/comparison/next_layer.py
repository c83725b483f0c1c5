"""Losses of the samples that an arm keeps -> whether removing the most exposed ones exposes others.

Carlini et al. 2022, arXiv:2206.10469: removing the most exposed layer of a training set can expose
the next. With equal optimizer steps an arm that drops samples sees the kept ones more often; its
random control does so too, so the two are compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.comparison.results import ArmLayer, LayerAnswer, NextLayer, RemainingSamples
from gdc.config import Params
from gdc.schema import FLAGGED, QUADRANTS
from gdc.statistics import wording
from gdc.statistics.bootstrap import Measured, paired_difference, share_interval

Scores = NDArray[np.float64]  # seeds x samples
# Over fewer samples a bootstrap says too little: over one it has no width.
MIN_COMPARED: Final = 20


@dataclass(frozen=True)
class Layers:
    """How exposed each audited ordinary member is under each arm's models, and whether it is kept.

    For each arm ``scores`` holds seeds x members, nats per token, and ``unchanged`` says which
    members its plan keeps as they are.
    """

    scores: Mapping[str, Scores]
    unchanged: Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Baseline:
    """The arm that keeps everything, by whose scores the cut is set.

    The cut is the mean over seeds of their ``quantile``; ``has_references`` says whether the scores
    are reference gaps.
    """

    arm: str
    quantile: float
    has_references: bool


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
    layers: Layers, controls: Mapping[str, str | None], baseline: Baseline, *, seed: int
) -> NextLayer:
    """Compare the samples that each arm keeps with the baseline and with its random control.

    Args:
        layers: Of the baseline, of every arm in ``controls`` and of its control.
        controls: The equal-size random arm, or None, of every arm to compare.
        baseline: The arm that keeps everything, and the cut above which a sample is exposed.
        seed: Seed of the resampling.

    Returns:
        Intervals over seeds and samples, paired; None: no sample.
    """
    base = layers.scores[baseline.arm]
    cut = float(np.quantile(base, baseline.quantile, axis=1).mean())
    comparison = _Comparison(layers, base, cut, np.all(base <= cut, axis=0), seed)
    return NextLayer(
        cut=cut,
        quantile=baseline.quantile,
        num_members=base.shape[1],
        arms=[_compare_arm(comparison, arm, control) for arm, control in controls.items()],
        has_references=baseline.has_references,
    )


def compared_controls(
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

    def remaining(self, arm: str) -> RemainingSamples:
        """What becomes of the samples that one arm keeps."""
        kept = self.layers.unchanged[arm]
        below = kept & self.is_below
        scores = self.layers.scores[arm]
        return RemainingSamples(
            num_unchanged=int(kept.sum()),
            change=self.difference(scores, self.base, kept),
            num_below=int(below.sum()),
            next_layer=share_interval(list(scores[:, below] > self.cut), seed=self.seed)
            if below.any()
            else None,
        )

    def difference(
        self, ours: Scores, theirs: Scores, chosen: NDArray[np.bool_]
    ) -> Measured | None:
        """Mean difference over the chosen samples."""
        if not chosen.any():
            return None
        return paired_difference(list(ours[:, chosen]), list(theirs[:, chosen]), seed=self.seed)


def _compare_arm(comparison: _Comparison, arm: str, control: str | None) -> ArmLayer:
    found = ArmLayer(
        **vars(comparison.remaining(arm)),
        arm=arm,
        control=control,
        control_samples=None,
        change_against_control=None,
        next_layer_against_control=None,
        num_compared=0,
        answer="not compared",
        verdict="",
    )
    if control is not None:
        found = _against_control(found, comparison, control)
    return replace(found, verdict=verdict(found))


def _against_control(found: ArmLayer, comparison: _Comparison, control: str) -> ArmLayer:
    layers, cut = comparison.layers, comparison.cut
    both = layers.unchanged[found.arm] & layers.unchanged[control]
    ours, theirs = layers.scores[found.arm], layers.scores[control]
    below = both & comparison.is_below
    num_compared = int(below.sum())
    against = comparison.difference(
        (ours > cut).astype(np.float64), (theirs > cut).astype(np.float64), below
    )
    return replace(
        found,
        control_samples=comparison.remaining(control),
        change_against_control=comparison.difference(ours, theirs, both),
        next_layer_against_control=against,
        num_compared=num_compared,
        answer=answer(against, num_compared),
    )


def answer(against: Measured | None, num_compared: int) -> LayerAnswer:
    """In words what the interval of the next layer against the control allows to say."""
    if against is None or num_compared < MIN_COMPARED:
        return "not compared"
    if against.low > 0:
        return "exposes a next layer"
    if against.high < 0:
        return "exposes less of a next layer than chance"
    return "is not shown to expose a next layer"


def verdict(found: ArmLayer) -> str:
    """One sentence that claims no more than its interval."""
    arm, control, against = found.arm, found.control, found.next_layer_against_control
    if found.next_layer is None:
        return f"{arm}: not compared, it keeps no audited sample below the cut as it is."
    now = (
        f"{100 * found.next_layer.value:.1f} % of the {found.num_below:,} samples below the cut "
        "that it keeps as they are lie above it now"
    )
    if control is None:
        return f"{arm}: not compared, it has no random arm of its size; {now}."
    if against is None or found.num_compared < MIN_COMPARED:
        return (
            f"{arm}: not compared, {control} keeps {found.num_compared} of these too, fewer than "
            f"{MIN_COMPARED}; {now}."
        )
    return (
        f"{arm} {found.answer}: {now}, {wording.points(against.value)} points "
        f"{wording.ends(against, wording.points)} against {control} over the "
        f"{found.num_compared:,} that both keep, {wording.counted(against.num_seeds, 'seed')}."
    )


def _losses(membership: pl.DataFrame, members: pl.DataFrame) -> Scores:
    return (
        members.select("sample_id")
        .join(membership.select("sample_id", "loss"), on="sample_id", maintain_order="left")["loss"]
        .to_numpy()
    )
