"""Losses before and after a sample was first trained on -> memorization over time.

A model learns from all text, so the loss of a text falls whether or not it was trained on. What a
text's own training adds is a difference of differences: the fall of its loss minus that of texts
which were not trained on yet. No second model is needed, and one pass over the data is enough.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gdc.errors import DataError
from gdc.filesystem.json_values import JsonObject
from gdc.schema import QUADRANTS
from gdc.statistics.bootstrap import Estimate

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]

ALL: Final = "all"
_NORMAL_95: Final = 1.959964
MIN_TEXTS: Final = 2
"""Texts of a group, and of those not seen yet, for a mean and its error."""


@dataclass(frozen=True)
class Panel:
    """Losses of training and held-out texts at frozen checkpoints.

    Attributes:
        losses: Nats per token, texts x checkpoints; NaN: not known.
        steps: Optimizer steps of each checkpoint, rising.
        first_steps: Steps taken after the first batch with each text; infinity: it is in none.
    """

    losses: NDArray[np.floating]
    steps: NDArray[np.int64]
    first_steps: Values

    def __post_init__(self) -> None:
        """Refuse what does not fit together.

        Raises:
            DataError: The shapes differ, or the steps do not rise.
        """
        expected = (len(self.first_steps), len(self.steps))
        if self.losses.shape != expected or (np.diff(self.steps) < 0).any():
            raise DataError(
                f"profile: expected losses of {expected[0]} texts x {expected[1]} checkpoints "
                f"whose steps rise, got {self.losses.shape}. Read them from one trace."
            )

    @property
    def groups(self) -> NDArray[np.int64]:
        """Index of the first checkpoint that has seen each text; past the last: none has."""
        return np.searchsorted(self.steps, self.first_steps, side="left")


@dataclass(frozen=True)
class Lag:
    """Memorization so long after the first batch with a text.

    Attributes:
        steps: Mean over the texts, from the first checkpoint that has seen them; below 0: before.
        effect: Nats per token; before the first batch it is 0 if the trends are parallel.
        num_texts: That it is the mean of.
    """

    steps: float
    effect: Estimate
    num_texts: int


@dataclass(frozen=True)
class Profile:
    """Memorization over time of some texts, nats per token with 95 % intervals over texts.

    Attributes:
        pre_trend: How much more their losses fell than others' just before they were first trained
            on; away from 0 the rest is not to be trusted.
        instantaneous: Memorization at the first checkpoint after that.
        residual: At the last checkpoint.
        lags: At each number of checkpoints before and after the first that has seen them: the
            persistent memorization.
        num_texts: Texts with a checkpoint before they were first trained on.
        num_left_out: Texts without one.
    """

    pre_trend: Estimate | None
    instantaneous: Estimate | None
    residual: Estimate | None
    lags: list[Lag]
    num_texts: int
    num_left_out: int

    def to_json(self) -> JsonObject:
        """As values of JSON."""
        return asdict(self)


def profile_by_quadrant(panel: Panel, quadrants: Sequence[str | None] | None) -> dict[str, Profile]:
    """Profile of all texts that were trained on, then of each quadrant that has one.

    Args:
        panel: Of the training texts, then of the others.
        quadrants: Of each training text; None: they are not known.
    """
    found = {ALL: profile_of(panel, np.isfinite(panel.first_steps))}
    for name in QUADRANTS if quadrants else ():
        chosen = np.zeros(len(panel.first_steps), dtype=np.bool_)
        chosen[: len(quadrants or ())] = [quadrant == name for quadrant in quadrants or ()]
        of_quadrant = profile_of(panel, chosen)
        if of_quadrant.num_texts:
            found[name] = of_quadrant
    return found


def profile_of(panel: Panel, chosen: Mask) -> Profile:
    """Memorization over time of the chosen texts.

    Texts are grouped by the first checkpoint that has seen them; the checkpoint before is the
    baseline of a group. Its fall since then, minus that of all texts that no checkpoint up to the
    one in question has seen, is its memorization; groups count by their size.

    Args:
        panel: All texts; those never trained on are always among the others.
        chosen: Which texts the profile is of.

    Source: Lesci et al. 2024, arXiv:2406.04327; groups and times as in Callaway & Sant'Anna 2021.
        It holds under parallel trends: without their own training, the losses of these texts would
        have fallen as those of the others.
    """
    known = np.isfinite(panel.losses).all(axis=1)
    groups, last = panel.groups, len(panel.steps) - 1
    is_trained = chosen & known & (groups <= last)
    treated = is_trained & (groups > 0)
    lags = {
        lag: found
        for lag in range(-last, last + 1)
        if (found := _lag(panel, treated, known, lag)) is not None
    }
    effects = {lag: found.effect for lag, found in lags.items()}
    return Profile(
        pre_trend=effects.get(-2),
        instantaneous=effects.get(0),
        residual=_effect(panel, treated, known, None)[0],
        lags=[*lags.values()],
        num_texts=int(treated.sum()),
        num_left_out=int(is_trained.sum() - treated.sum()),
    )


def _lag(panel: Panel, treated: Mask, known: Mask, lag: int) -> Lag | None:
    effect, used = _effect(panel, treated, known, lag)
    if effect is None:
        return None
    groups = panel.groups[used]
    steps = panel.steps[groups + lag] - panel.steps[groups]
    return Lag(float(steps.mean()), effect, int(used.sum()))


def _effect(
    panel: Panel, treated: Mask, known: Mask, lag: int | None
) -> tuple[Estimate | None, Mask]:
    """The mean effect so many checkpoints after the first that saw a text, and of which texts.

    None: at the last checkpoint. Before the first one the fall is that up to the baseline.
    """
    groups, last = panel.groups, len(panel.steps) - 1
    contributions = np.zeros(len(groups))
    used, total = np.zeros(len(groups), dtype=np.bool_), 0.0
    for group in np.unique(groups[treated]):
        time = last if lag is None else group + lag
        before, after = sorted((group - 1, time))
        ours = treated & (groups == group)
        others = known & (groups > max(time, group))
        is_told = 0 <= before < after <= last
        if not is_told or min(ours.sum(), others.sum()) < MIN_TEXTS:
            continue
        fall = panel.losses[:, before].astype(np.float64) - panel.losses[:, after]
        used |= ours
        for texts, sign in ((ours, 1.0), (others, -1.0)):
            mean = fall[texts].mean()
            total += sign * mean * ours.sum()
            contributions[texts] += sign * (fall[texts] - mean) * ours.sum() / texts.sum()
    if not used.any():
        return None, used
    # Texts are independent; one that several groups are compared with counts in each of them.
    value, error = total / used.sum(), float(np.sqrt((contributions**2).sum())) / used.sum()
    return Estimate(value, value - _NORMAL_95 * error, value + _NORMAL_95 * error), used
