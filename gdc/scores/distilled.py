"""Loss gaps of pairs of reference models, and the trace -> an estimate of the gap with less noise.

One pair's gap between the model that did not see a sample and the one that did is an unbiased but
noisy measure of counterfactual memorization. A regression on it from *other* models and the trace
cannot learn its noise, so its predictions are less noisy.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.errors import DataError
from gdc.scores.ngrams import ORDERS
from gdc.scores.references import References, require_pairs
from gdc.scores.synthetic_control import influence_contrast
from gdc.scores.trace_scores import Columns, iqr, losses, mean, std

FOLDS: Final = 5
"""Parts of the contents; a sample is scored by fits to other contents."""

MIN_CONTENTS: Final = 50
"""On fewer, a fold's leaves would be single texts."""

LINEAR_SHARE: Final = 0.25
"""Part of the least-squares slope on the gaps that no tree has to find."""

MAX_FITTED: Final = 20_000
"""Samples that a tree is fitted to at most, so that the cost does not grow faster than the data."""

# Arguments of scikit-learn. The targets are mostly noise, which an average of random trees follows
# less than boosting does.
_FIT: Final[Mapping[str, Any]] = {
    "n_estimators": 100,
    "min_samples_leaf": 8,
    "max_features": 0.5,
    "random_state": 0,
}

Values = NDArray[np.float64]


@dataclass(frozen=True)
class _Known:
    """One row is a sample; gaps are samples x pairs, nats per token."""

    content: NDArray[np.int64]
    last: Values  # loss of the tracked run at its last checkpoint
    trace: Values  # samples x features of the trace and the text
    out_loss: Values  # under the model of each pair that did not see the sample
    in_loss: Values  # under the one that did


def distilled_gap(  # noqa: PLR0913, PLR0917  # what its trees read
    columns: Columns,
    num_tokens: pl.Expr,
    zlib_size: pl.Expr,
    content_id: pl.Expr,
    references: References,
    half_nats: pl.Expr | None,
    gain: pl.Expr | None,
    both_modes: tuple[Columns, Columns] | None,
    ngram_nats: pl.Expr | None,
    heldout: pl.DataFrame | None,
    num_copies: pl.Expr | None,
) -> pl.Expr:
    """The expected gap of one more pair of reference models.

    Nats per token, any sign. Extremely randomised trees predict each pair's gap from the trace, the
    text's length and compressed size, the losses of the *other* pairs, their gap and their gap to
    the tracked run, and never fall in either gap. Where the gains of the run were recorded
    (``train.self_influence``) they read these too, and where there is all that it needs
    ``influence_contrast``. They are fitted to other contents (``FOLDS``) and predict from all
    pairs. Trees are constant beyond the range of the fit, where canaries lie among ordinary text,
    and within a leaf; so a part of the dependence on the mean of both gaps is a straight line, and
    the score rises with the gaps everywhere.

    Which texts fell into the half of a model moves its losses of all that is like them. The n-gram
    losses of a sample under the halves tell a part of that, which is taken out of the losses under
    the models that did not see it. Halves are drawn by chance, so this changes no expectation; near
    copies, which fall into the same half as their text, are left as they are.

    Null: no last loss, or not known to every reference model. Needs: the trace, four reference
    models in complementary pairs, the corpus columns ``text`` and ``content_id``. Cost: training
    the reference models; ``FOLDS`` times the number of pairs small fits; for each pair of them
    two passes of n-gram models over the texts, less than a second for a megabyte.

    Source: our own; regression on noisy counterfactual labels; control variates, Glasserman 2003,
    section 4.1. Trees: Geurts et al. 2006. They and their settings were chosen on CPython's
    documentation and source code.

    Raises:
        DataError: There are fewer than two complementary pairs, or fewer than ``MIN_CONTENTS``
            contents that all models know.
    """
    require_pairs("distilled_gap", references, 2)
    first, *_, last = losses(columns)
    features = {
        "first": first,
        "last": last,
        "mean": mean(columns),
        "lowest": pl.min_horizontal(*losses(columns)),
        "late_drop": losses(columns)[len(columns) // 2] - last,
        "std": std(columns),
        "iqr": iqr(columns),
        "log_tokens": num_tokens.log(),
        "zlib_rate": zlib_size / num_tokens,
    }
    if gain is not None:
        features["gain"] = gain.fill_null(0)
        if (
            both_modes is not None
            and ngram_nats is not None
            and heldout is not None
            and num_copies is not None
        ):
            of_run = influence_contrast(
                both_modes, num_tokens, zlib_size, ngram_nats, heldout, gain, num_copies
            )
            features["influence"] = of_run.fill_null(0)
    rows = pl.struct(
        pl.col("sample_id").alias("id"),
        content_id.alias("content"),
        pl.col("pair_out_loss", "pair_in_loss", "pair_first_saw"),
        (pl.lit(None) if half_nats is None else half_nats / num_tokens).alias("half_nats"),
        *(feature.alias(name) for name, feature in features.items()),
    )

    def score(structs: pl.Series) -> pl.Series:
        # Sorted by id, since sums of floats depend on their order.
        table = structs.struct.unnest().with_row_index("row").sort("id")
        is_known = pl.all_horizontal(pl.col("last", "pair_out_loss").is_not_null())
        rows = table.filter(is_known)
        known = _known(rows, list(features))
        if half_nats is not None:
            known = _without_composition(known, rows)
        found = rows.select("row", score=pl.Series(_distil(known)))
        return table.select("row").join(found, on="row", how="left").sort("row")["score"]

    return rows.map_batches(score, return_dtype=pl.Float64)


def _known(table: pl.DataFrame, features: list[str]) -> _Known:
    return _Known(
        content=table["content"].rank("dense").to_numpy().astype(np.int64),
        last=table["last"].to_numpy(),
        trace=table.select(features).to_numpy(),
        out_loss=np.array(table["pair_out_loss"].to_list(), dtype=np.float64),
        in_loss=np.array(table["pair_in_loss"].to_list(), dtype=np.float64),
    )


def _without_composition(known: _Known, rows: pl.DataFrame) -> _Known:
    """The same with what the n-gram losses under the halves tell of ``out_loss`` taken out of it.

    Of one sample the expected losses under all models that did not see it are equal. So their
    differences are composition and noise, and least squares on those of the n-gram losses finds
    what the first is.
    """
    num_samples, num_pairs = known.out_loss.shape
    # samples x models x lengths of n-grams
    nothing = pl.lit([0.0] * (2 * num_pairs * ORDERS), pl.List(pl.Float64))
    known_nats = rows.select(pl.col("half_nats").fill_null(nothing).explode()).to_series()
    nats = known_nats.to_numpy().reshape(num_samples, 2 * num_pairs, ORDERS)
    first_saw = np.array(rows["pair_first_saw"].to_list())[:, :, None]
    unseen = np.where(first_saw, nats[:, 1::2], nats[:, ::2])
    differ, out_differ = (
        values - values.mean(axis=1, keepdims=True) for values in (unseen, known.out_loss)
    )
    slopes = np.linalg.lstsq(differ.reshape(num_samples * num_pairs, -1), out_differ.ravel())[0]
    composition = (unseen - nats.mean(axis=1, keepdims=True)) @ slopes
    return replace(known, out_loss=known.out_loss - composition)


def _distil(known: _Known) -> Values:
    num_contents: int = len(np.unique(known.content))
    if num_contents < MIN_CONTENTS:
        raise DataError(
            f"distilled_gap: expected at least {MIN_CONTENTS} contents that every reference model "
            f"knows, got {num_contents}. Add text or take distilled_gap out of score.enabled."
        )
    num_pairs: int = known.out_loss.shape[1]
    inputs = _features(known, range(num_pairs))
    predictions: Values = np.zeros(len(known.last))
    for pair in range(num_pairs):
        others = [other for other in range(num_pairs) if other != pair]
        fitted, target = _features(known, others), known.out_loss[:, pair] - known.in_loss[:, pair]
        for chosen in _folds(known.content):
            predictions[chosen] += _predict(fitted[~chosen], target[~chosen], inputs[chosen])
    return predictions / num_pairs


def _features(known: _Known, pairs: range | list[int]) -> Values:
    """The gap of ``pairs`` to the tracked run, their own gap, their losses, and the trace."""
    out_loss = known.out_loss[:, pairs].mean(axis=1)
    in_loss = known.in_loss[:, pairs].mean(axis=1)
    gaps = (out_loss - known.last, out_loss - in_loss)
    return np.column_stack([*gaps, out_loss, in_loss, known.trace])


def _folds(content: NDArray[np.int64]) -> Iterator[NDArray[np.bool_]]:
    # Contents are hashes in sorted order, so every FOLDS-th one is a random choice.
    for part in range(FOLDS):
        yield content % FOLDS == part


def _predict(fitted: Values, target: Values, inputs: Values) -> Values:
    from sklearn.ensemble import ExtraTreesRegressor  # noqa: PLC0415  # takes a second

    line, inputs_line = (table[:, :2].mean(axis=1) for table in (fitted, inputs))
    slope = LINEAR_SHARE * max(0.0, np.polyfit(line, target, 1)[0])
    rises = [1, 1] + [0] * (fitted.shape[1] - 2)
    part = {"bootstrap": True, "max_samples": MAX_FITTED} if len(target) > MAX_FITTED else {}
    model = ExtraTreesRegressor(**_FIT, **part, monotonic_cst=rises)
    model.fit(fitted, target - slope * line)
    return np.asarray(model.predict(inputs) + slope * inputs_line, dtype=np.float64)
