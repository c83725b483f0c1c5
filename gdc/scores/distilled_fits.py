"""Gaps of pairs of reference models -> the gap that regressions expect of one more pair.

They predict each pair's gap from the *other* pairs and the trace, so that they cannot learn its
noise. They are fitted to other contents and predict from all pairs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gdc.errors import DataError

FOLDS: Final = 5
"""Parts of the contents; a sample is scored by fits to other contents."""

MIN_CONTENTS: Final = 50
"""On fewer, a fold's leaves would be single texts."""

LINEAR_SHARE: Final = 0.25
"""Part of the least-squares slope on the gaps that no tree has to find."""

MAX_FITTED: Final = 20_000
"""Rows that a tree is fitted to at most, so that the cost does not grow faster than the data."""

MAX_SMOOTH: Final = 4_000
"""Rows of the smooth fit at most, chosen by chance: its cost grows with their third power."""

_BLOCK: Final = 2_000  # rows whose likeness to the fitted ones is in memory at a time

# Arguments of scikit-learn. The targets are mostly noise, which an average of random trees follows
# less than boosting does.
FIT: Final[Mapping[str, Any]] = {
    "n_estimators": 100,
    "min_samples_leaf": 8,
    "max_features": 0.5,
    "random_state": 0,
}

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """One row is a sample; gaps are samples x pairs, nats per token."""

    content: NDArray[np.int64]
    last: Values  # loss of the tracked run at its last checkpoint
    trace: Values  # samples x features of the trace and the text
    out_loss: Values  # under the model of each pair that did not see the sample
    in_loss: Values  # under the one that did
    first_saw: NDArray[np.bool_]  # whether that is the first model of the pair


def sample_gaps(known: Known) -> Values:
    """The expected gap of each sample, nats per token: the mean of what trees and a smooth fit say.

    Raises:
        DataError: There are fewer than ``MIN_CONTENTS`` contents.
    """
    require_contents(known)
    num_pairs: int = known.out_loss.shape[1]
    inputs = features(known, range(num_pairs))
    predictions: Values = np.zeros(len(known.last))
    for pair in range(num_pairs):
        fitted = features(known, others(pair, num_pairs))
        target = known.out_loss[:, pair] - known.in_loss[:, pair]
        for chosen in folds(known.content):
            known_others = fitted[~chosen], target[~chosen]
            for predict in (fit(*known_others, FIT), fit_smooth(*known_others)):
                predictions[chosen] += predict(inputs[chosen]) / 2
    return predictions / num_pairs


def require_contents(known: Known) -> None:
    """Raise ``DataError`` unless there are ``MIN_CONTENTS`` contents."""
    num_contents: int = len(np.unique(known.content))
    if num_contents < MIN_CONTENTS:
        raise DataError(
            f"distilled scores: expected at least {MIN_CONTENTS} contents that every reference "
            f"model knows, got {num_contents}. Add text or take them out of score.enabled."
        )


def others(pair: int, num_pairs: int) -> list[int]:
    """All pairs but one."""
    return [other for other in range(num_pairs) if other != pair]


def features(known: Known, pairs: Sequence[int]) -> Values:
    """The gap of ``pairs`` to the tracked run, their own gap, their losses, and the trace."""
    out_loss = known.out_loss[:, pairs].mean(axis=1)
    in_loss = known.in_loss[:, pairs].mean(axis=1)
    gaps = (out_loss - known.last, out_loss - in_loss)
    return np.column_stack([*gaps, out_loss, in_loss, known.trace])


def folds(content: NDArray[np.int64]) -> Iterator[NDArray[np.bool_]]:
    """The rows of each fold; ``content`` numbers the contents."""
    # Contents are hashes in sorted order, so every FOLDS-th one is a random choice.
    for part in range(FOLDS):
        yield content % FOLDS == part


def fit(fitted: Values, target: Values, arguments: Mapping[str, Any]) -> Callable[[Values], Values]:
    """Trees that predict the target, none of which falls in the first two features."""
    from sklearn.ensemble import ExtraTreesRegressor  # noqa: PLC0415  # takes a second

    line = fitted[:, :2].mean(axis=1)
    slope = LINEAR_SHARE * max(0.0, np.polyfit(line, target, 1)[0])
    rises = [1, 1] + [0] * (fitted.shape[1] - 2)
    part = {"bootstrap": True, "max_samples": MAX_FITTED} if len(target) > MAX_FITTED else {}
    model = ExtraTreesRegressor(**arguments, **part, monotonic_cst=rises)
    model.fit(fitted, target - slope * line)

    def predict(inputs: Values) -> Values:
        found = model.predict(inputs) + slope * inputs[:, :2].mean(axis=1)
        return np.asarray(found, dtype=np.float64)

    return predict


def fit_smooth(fitted: Values, target: Values) -> Callable[[Values], Values]:
    """Kernel ridge regression on standardised features: a plane and a smooth rest.

    Its kernels are the linear and the Gaussian one, its settings those of scikit-learn. Trees see
    steps in what is a slope, and it errs where there are steps, so their mean errs less; beyond the
    range of the fit its plane goes on. A feature that is not known is taken for its mean.
    """
    from sklearn.kernel_ridge import KernelRidge  # noqa: PLC0415  # takes a second
    from sklearn.metrics.pairwise import linear_kernel, rbf_kernel  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    if len(target) > MAX_SMOOTH:
        rows = np.random.default_rng(0).choice(len(target), MAX_SMOOTH, replace=False)
        fitted, target = fitted[rows], target[rows]
    scaler, mean = StandardScaler().fit(fitted), target.mean()
    known = np.nan_to_num(scaler.transform(fitted))

    def likeness(standardised: Values) -> Values:
        plane = linear_kernel(standardised, known) / known.shape[1]
        return np.asarray(plane + rbf_kernel(standardised, known), dtype=np.float64)

    # Several threads round their sums otherwise, and how many there are depends on the machine.
    with threadpool_limits(1, user_api="blas"):
        model = KernelRidge(kernel="precomputed").fit(likeness(known), target - mean)

    def predict(inputs: Values) -> Values:
        found = np.full(len(inputs), mean)
        with threadpool_limits(1, user_api="blas"):
            for start in range(0, len(inputs), _BLOCK):
                block = slice(start, start + _BLOCK)
                standardised = np.nan_to_num(scaler.transform(inputs[block]))
                found[block] += model.predict(likeness(standardised))
        return found

    return predict
