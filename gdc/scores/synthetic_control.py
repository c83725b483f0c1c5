"""Held-out samples -> the loss that a training sample would have had unseen, minus the one it has.

Held-out losses under the tracked run itself are the control: a regression on them says what a text
like this one costs a model that has not seen it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.scores.calibrated import FOLDS, MIN_HELDOUT, log_p, require_heldout
from gdc.scores.ngrams import ORDERS
from gdc.scores.trace_scores import Columns, contrast, mean, middle_and_late

NUM_LATE: Final = 3
"""Last checkpoints whose mean stands for the loss at the end."""

# Of influence_contrast.
_UNSEEN_FACTOR: Final = 3.0
_INFLUENCE_FACTOR: Final = 0.2
_LEAST_INFLUENCE: Final = 1e-4  # nats per token; a sum of noisy gains may be negative
_PENALTY: Final = 1.0
# Deviations of a feature beyond which its value is taken for that of the bound.
_MAX_DEVIATIONS: Final = 4.0

Values = NDArray[np.float64]


@dataclass(frozen=True)
class _Ridge:
    """A ridge regression on standardised features, clipped to ``_MAX_DEVIATIONS``."""

    intercept: float
    slopes: Values
    mean: Values
    scale: Values

    def __call__(self, features: Values) -> Values:
        standard = np.clip((features - self.mean) / self.scale, -_MAX_DEVIATIONS, _MAX_DEVIATIONS)
        return np.asarray(self.intercept + standard @ self.slopes)

    def predict(self, features: Sequence[pl.Expr]) -> pl.Expr:
        """The prediction as an expression, null where a feature is."""
        terms = (
            slope * ((feature - mean) / scale).clip(-_MAX_DEVIATIONS, _MAX_DEVIATIONS)
            for feature, slope, mean, scale in zip(
                features,
                self.slopes.tolist(),
                self.mean.tolist(),
                self.scale.tolist(),
                strict=True,
            )
        )
        return sum(terms, start=pl.lit(self.intercept))


@dataclass(frozen=True)
class Regression:
    """A fit, and how far it errs.

    ``residuals`` are predicted minus true values of the samples that it was fitted to, each from a
    fit without its fold, sorted.
    """

    ridge: _Ridge
    residuals: Values

    def predict(self, features: Sequence[pl.Expr]) -> pl.Expr:
        """The prediction as an expression, null where a feature is."""
        return self.ridge.predict(features)


def text_features(num_tokens: pl.Expr, zlib_size: pl.Expr, ngram_nats: pl.Expr) -> list[pl.Expr]:
    """What the text alone says: n-gram losses and compressed bytes per token, and its length."""
    per_token = [ngram_nats.list.get(order) / num_tokens for order in range(ORDERS)]
    return [*per_token, zlib_size / num_tokens, num_tokens.cast(pl.Float64).log()]


def late_loss(columns: Columns) -> pl.Expr:
    """Mean loss of the last ``NUM_LATE`` checkpoints, nats per token."""
    return mean(columns[-NUM_LATE:])


def fit(
    score: str, features: Sequence[pl.Expr], target: pl.Expr, table: pl.DataFrame
) -> Regression:
    """Fit the ridge regression to the rows of a table that have all features and the target.

    Raises:
        DataError: They are fewer than ``MIN_HELDOUT``.
    """
    named = [feature.alias(str(i)) for i, feature in enumerate(features)]
    *inputs, target_column = (
        column.to_numpy()
        for column in table.select(*named, target=target).drop_nulls().iter_columns()
    )
    require_heldout(score, len(target_column), MIN_HELDOUT)
    known = np.stack(inputs, axis=1).astype(np.float64)
    fold = np.arange(len(known)) % FOLDS
    residuals = np.empty(len(known))
    for part in range(FOLDS):
        fitted = _ridge(known[fold != part], target_column[fold != part])
        residuals[fold == part] = fitted(known[fold == part]) - target_column[fold == part]
    return Regression(_ridge(known, target_column), np.sort(residuals))


def _ridge(features: Values, target: Values) -> _Ridge:
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale == 0] = 1
    standard = np.clip((features - mean) / scale, -_MAX_DEVIATIONS, _MAX_DEVIATIONS)
    centre = standard.mean(axis=0)
    centred = standard - centre
    penalty = _PENALTY * np.eye(features.shape[1])
    slopes = np.linalg.solve(centred.T @ centred + penalty, centred.T @ (target - target.mean()))
    return _Ridge(float(target.mean() - centre @ slopes), slopes, mean, scale)


def synthetic_control_gap(
    columns: Columns,
    num_tokens: pl.Expr,
    zlib_size: pl.Expr,
    ngram_nats: pl.Expr,
    heldout: pl.DataFrame,
) -> pl.Expr:
    """Late loss that the text is expected to have unseen, minus the one it has.

    Nats per token, any sign. ``text_features`` of the held-out samples predict their late loss, by
    ridge regression; no loss of the sample itself takes part, so repeated text stays high.

    Needs: the trace, the held-out trace, the corpus columns ``text`` and ``num_copies``. Cost: two
    passes over the texts, and one small fit.

    Source: synthetic control, Abadie et al. 2010, with held-out texts for the untreated units; our
    own.
    """
    features = text_features(num_tokens, zlib_size, ngram_nats)
    return _fit_to_text("synthetic_control_gap", columns, heldout).predict(features) - late_loss(
        columns
    )


def synthetic_control_log_p(
    columns: Columns,
    num_tokens: pl.Expr,
    zlib_size: pl.Expr,
    ngram_nats: pl.Expr,
    heldout: pl.DataFrame,
) -> pl.Expr:
    """Minus log10 of the conformal p-value of ``synthetic_control_gap``, in [0, log10(1 + n)].

    p = (1 + number of held-out residuals at least as large) / (1 + n), for n held-out samples. On
    one run and where the held-out samples are exchangeable with unmemorized ones, p is at most a
    with probability a, so Benjamini-Hochberg on it bounds the share of false finds; the mean over
    runs has no such meaning. Needs and cost: as ``synthetic_control_gap``.

    Source: Vovk et al. 2005; Bates et al. 2023, arXiv:2104.08279.
    """
    fitted = _fit_to_text("synthetic_control_log_p", columns, heldout)
    features = text_features(num_tokens, zlib_size, ngram_nats)
    return log_p(fitted.predict(features) - late_loss(columns), fitted.residuals)


def unseen_loss_contrast(
    both_modes: tuple[Columns, Columns],
    num_tokens: pl.Expr,
    zlib_size: pl.Expr,
    ngram_nats: pl.Expr,
    heldout: pl.DataFrame,
) -> pl.Expr:
    """``online_late_contrast`` with an estimate of the unseen loss in place of the online losses.

    A regression on held-out samples predicts the late frozen loss that the text would have unseen
    from ``text_features`` and its online losses of the first half of the passes, without the first
    pass (for a held-out sample from its frozen losses at the end of these passes). That falls where
    a text is repeated; so it is raised to what the text alone predicts, less one deviation of that
    prediction's residuals, where it is lower. No unit, any sign. Null: not trained on in those
    passes, or fewer than ``MIN_HELDOUT`` held-out samples.

    Needs: a trace of both modes, the held-out trace, the corpus columns ``text`` and
    ``num_copies``. Cost: two passes over the texts, and two small fits.

    Source: our own; passes were chosen on CPython's documentation and source code, the deviation on
    manual pages too (docs/results/corpora.md).
    """
    losses = _unseen_and_late(both_modes, num_tokens, zlib_size, ngram_nats, heldout)
    return pl.lit(None, pl.Float64) if losses is None else contrast(*losses)


def influence_contrast(  # noqa: PLR0913, PLR0917  # what its two parts read
    both_modes: tuple[Columns, Columns],
    num_tokens: pl.Expr,
    zlib_size: pl.Expr,
    ngram_nats: pl.Expr,
    heldout: pl.DataFrame,
    gain: pl.Expr,
    num_copies: pl.Expr,
) -> pl.Expr:
    """late^(-1/4) - 3 unseen^(-1/4) + 0.2 ln(influence).

    ``unseen`` and ``late`` as in ``unseen_loss_contrast``; ``influence`` is ``self_influence``, how
    much the steps with the text taught of it, times the square root of the number of its copies.
    Both say what a model would not know of the text without it, and err for different reasons, so
    together they err less. Like texts share among them what is taught of each: a ``self_influence``
    below half the median of all samples (at least 1e-4 nats per token) is taken for that. No unit,
    any sign. Null: where either part is.

    Needs: what ``unseen_loss_contrast`` needs, and the gains of the run, ``train.self_influence``.
    Cost: both of theirs.

    Source: our own; the factors were chosen on CPython's documentation and source code, that copies
    count on manual pages too (docs/results/corpora.md).
    """
    losses = _unseen_and_late(both_modes, num_tokens, zlib_size, ngram_nats, heldout)
    if losses is None:
        return pl.lit(None, pl.Float64)
    least = pl.max_horizontal(gain.median() / 2, _LEAST_INFLUENCE)
    influence = gain.clip(lower_bound=least) * num_copies.cast(pl.Float64).sqrt()
    return contrast(*losses, _UNSEEN_FACTOR) + _INFLUENCE_FACTOR * influence.log()


def _unseen_and_late(
    both_modes: tuple[Columns, Columns],
    num_tokens: pl.Expr,
    zlib_size: pl.Expr,
    ngram_nats: pl.Expr,
    heldout: pl.DataFrame,
) -> tuple[pl.Expr, pl.Expr] | None:
    """Late loss that the text is expected to have unseen, and the one it has.

    None: fewer than ``MIN_HELDOUT`` held-out samples.
    """
    online, _ = both_modes
    early = mean(online[1 : max(2, (len(online) + 1) // 2)])
    _, late = (mean(columns) for columns in middle_and_late(both_modes))
    named = text_features(*(pl.col(name) for name in ("num_tokens", "zlib_size", "ngram_nats")))
    features = text_features(num_tokens, zlib_size, ngram_nats)
    is_complete = pl.all_horizontal(each.is_not_null() for each in (early, late, *named))
    if heldout.filter(is_complete).height < MIN_HELDOUT:
        return None
    of_run = fit("unseen_loss_contrast", [early, *named], late, heldout)
    of_text = fit("unseen_loss_contrast", named, late, heldout)
    expected = of_run.predict([early, *features])
    floor = of_text.predict(features) - float(of_text.residuals.std())
    return pl.when(expected < floor).then(floor).otherwise(expected), late


def _fit_to_text(score: str, columns: Columns, heldout: pl.DataFrame) -> Regression:
    features = text_features(*(pl.col(name) for name in ("num_tokens", "zlib_size", "ngram_nats")))
    return fit(score, features, late_loss(columns), heldout)
