"""Loss gaps of pairs of reference models, and the trace -> an estimate of the gap with less noise.

One pair's gap between the model that did not see a sample and the one that did is an unbiased but
noisy measure of counterfactual memorization. A regression on it from *other* models and the trace
cannot learn its noise, so its predictions are less noisy.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypedDict, Unpack

import numpy as np
import polars as pl

from gdc.scores.distilled_fits import Known, Values, sample_gaps
from gdc.scores.distilled_tokens import WINDOW_TOKENS, ReferenceTokens, moved, token_gaps
from gdc.scores.ngrams import ORDERS
from gdc.scores.recorded import NATS_PER_BIT
from gdc.scores.references import References, require_pairs
from gdc.scores.synthetic_control import influence_contrast
from gdc.scores.trace_scores import Columns, iqr, losses, mean, std
from gdc.statistics.windows import largest_window_sums


class Read(TypedDict):
    """What both scores read, fields of ``ScoreInputs``; None where it is missing."""

    columns: Columns
    num_tokens: pl.Expr
    zlib_size: pl.Expr
    content_id: pl.Expr
    references: References
    half_nats: pl.Expr | None
    gain: pl.Expr | None
    both_modes: tuple[Columns, Columns] | None
    ngram_nats: pl.Expr | None
    heldout: pl.DataFrame | None
    num_copies: pl.Expr | None


def distilled_gap(**read: Unpack[Read]) -> pl.Expr:
    """The expected gap of one more pair of reference models.

    Nats per token, any sign. Two regressions predict each pair's gap from the trace, the text's
    length and compressed size, the losses of the *other* pairs, their gap and their gap to the
    tracked run; the score is the mean of what they say. Where the gains of the run were recorded
    (``train.self_influence``) they read these too, and where there is all that it needs
    ``influence_contrast``. They are fitted to other contents (``FOLDS``) and predict from all
    pairs. One is of extremely randomised trees, which never fall in either gap. They are constant
    beyond the range of the fit, where canaries lie among ordinary text, and within a leaf; so a
    part of their dependence on the mean of both gaps is a straight line. The other is a kernel
    ridge regression, a plane and a smooth rest.

    Which texts fell into the half of a model moves its losses of all that is like them. The n-gram
    losses of a sample under the halves tell a part of that, which is taken out of the losses under
    the models that did not see it. Halves are drawn by chance, so this changes no expectation; near
    copies, which fall into the same half as their text, are left as they are.

    Null: no last loss, or not known to every reference model. Needs: the trace, four reference
    models in complementary pairs, the corpus columns ``text`` and ``content_id``. Cost: training
    the reference models; two small fits for each pair and each of ``FOLDS``; for each pair of them
    two passes of n-gram models over the texts, less than a second for a megabyte.

    Source: our own; regression on noisy counterfactual labels; control variates, Glasserman 2003,
    section 4.1. Trees: Geurts et al. 2006; their settings, and the mean of both, were chosen on
    CPython's documentation and source code.

    Raises:
        DataError: There are fewer than two complementary pairs, or fewer than ``MIN_CONTENTS``
            contents that all models know.
    """
    return _estimate(_known_of_each("distilled_gap", read), lambda known, _: sample_gaps(known))


def distilled_window_gap(reference_tokens: ReferenceTokens, **read: Unpack[Read]) -> pl.Expr:
    """The largest expected gap of one more pair of reference models over a window of the sample.

    Bits, any sign, over ``WINDOW_TOKENS`` tokens or the whole of a shorter sample: a memorized
    stretch, which the mean over the sample hides. Trees predict each pair's gap of a token from its
    losses under the other pairs and at two looks of the tracked run, its place, and all that
    ``distilled_gap`` reads of the sample. Of a sample they are moved, all alike, so that their mean
    is its ``distilled_gap``, which is closer to the truth of the mean.

    Null: as ``distilled_gap``. Needs: what that needs, and ``train.token_losses``. Cost: as that;
    the fits of the tokens take some seconds for each tracked run, and some for a million tokens.

    Source: our own; the peak form of ``distilled_gap``. Its settings and the window were chosen on
    CPython's documentation and source code.

    Raises:
        DataError: As ``distilled_gap``, or the token losses are not those of the samples.
    """

    def largest_window(known: Known, sample_ids: pl.Series) -> Values:
        tokens = reference_tokens.of(sample_ids)
        gaps = moved(token_gaps(known, tokens), tokens.num_tokens, sample_gaps(known))
        return largest_window_sums(gaps / NATS_PER_BIT, tokens.num_tokens, WINDOW_TOKENS)[0]

    return _estimate(_known_of_each("distilled_window_gap", read), largest_window)


def _known_of_each(score: str, read: Read) -> pl.Expr:
    """What is known of each sample, as a struct."""
    require_pairs(score, read["references"], 2)
    columns, num_tokens = read["columns"], read["num_tokens"]
    half_nats, gain = read["half_nats"], read["gain"]
    features = _of_losses(columns, num_tokens, read["zlib_size"])
    if gain is not None:
        features["gain"] = gain.fill_null(0)
        of_run = _influence(read, gain)
        if of_run is not None:
            features["influence"] = of_run.fill_null(0)
    return pl.struct(
        pl.col("sample_id").alias("id"),
        read["content_id"].alias("content"),
        losses(columns)[-1].alias("loss"),
        pl.col("pair_out_loss", "pair_in_loss", "pair_first_saw"),
        (pl.lit(None) if half_nats is None else half_nats / num_tokens).alias("half_nats"),
        pl.struct(value.alias(name) for name, value in features.items()).alias("features"),
    )


def _influence(read: Read, gain: pl.Expr) -> pl.Expr | None:
    """``influence_contrast``; None: not all that it needs is there."""
    both_modes, ngram_nats = read["both_modes"], read["ngram_nats"]
    heldout, num_copies = read["heldout"], read["num_copies"]
    if both_modes is None or ngram_nats is None or heldout is None or num_copies is None:
        return None
    return influence_contrast(
        both_modes, read["num_tokens"], read["zlib_size"], ngram_nats, heldout, gain, num_copies
    )


def _of_losses(columns: Columns, num_tokens: pl.Expr, zlib_size: pl.Expr) -> dict[str, pl.Expr]:
    """What the fits read of the losses of the tracked run and of the text."""
    first, *_, last = losses(columns)
    return {
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


def _estimate(read: pl.Expr, estimate: Callable[[Known, pl.Series], Values]) -> pl.Expr:
    """The estimate from what is known of the samples and their ids; null where that is not all."""

    def score(structs: pl.Series) -> pl.Series:
        # Sorted by id, since sums of floats depend on their order.
        table = structs.struct.unnest().with_row_index("row").sort("id")
        rows = table.filter(pl.all_horizontal(pl.col("loss", "pair_out_loss").is_not_null()))
        known = _known(rows)
        if rows.schema["half_nats"] != pl.Null:
            known = _without_composition(known, rows)
        found = rows.select("row", score=pl.Series(estimate(known, rows["id"])))
        return table.select("row").join(found, on="row", how="left").sort("row")["score"]

    return read.map_batches(score, return_dtype=pl.Float64)


def _known(table: pl.DataFrame) -> Known:
    return Known(
        content=table["content"].rank("dense").to_numpy().astype(np.int64),
        last=table["loss"].to_numpy(),
        trace=table["features"].struct.unnest().to_numpy(),
        out_loss=np.array(table["pair_out_loss"].to_list(), dtype=np.float64),
        in_loss=np.array(table["pair_in_loss"].to_list(), dtype=np.float64),
        first_saw=np.array(table["pair_first_saw"].to_list()),
    )


def _without_composition(known: Known, rows: pl.DataFrame) -> Known:
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
    unseen = np.where(known.first_saw[:, :, None], nats[:, 1::2], nats[:, ::2])
    differ, out_differ = (
        values - values.mean(axis=1, keepdims=True) for values in (unseen, known.out_loss)
    )
    slopes = np.linalg.lstsq(differ.reshape(num_samples * num_pairs, -1), out_differ.ravel())[0]
    composition = (unseen - nats.mean(axis=1, keepdims=True)) @ slopes
    return replace(known, out_loss=known.out_loss - composition)
