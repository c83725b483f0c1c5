"""Losses under models that did not see a sample -> how much lower the tracked run's loss is.

A reference model was trained on a random part of the corpus, so each sample has models that did not
see it. Exact copies of a text must be seen by the same models, or they leak into its loss.
"""

from dataclasses import dataclass

import polars as pl

from gdc.errors import DataError
from gdc.schema import REFERENCES, require
from gdc.scores.trace_scores import Columns, losses


@dataclass(frozen=True)
class References:
    """One row of ``table`` is a sample: mean and variance of its losses where it was not seen.

    ``reference_loss`` (nats per token) is null for a sample that all models saw,
    ``reference_variance`` (divisor: models - 1) where fewer than two did not. ``usual_variance`` is
    the median of the variances, null without any. ``pair_out_loss`` and ``pair_in_loss`` list, for
    models 2k and 2k + 1, the loss under the one that did not see the sample and under the one that
    did, and ``pair_first_saw`` whether that is model 2k; ``num_pairs`` is 0 and they are null where
    not all pairs have complementary halves.
    """

    table: pl.DataFrame
    usual_variance: float | None
    num_pairs: int

    @property
    def loss(self) -> pl.Expr:
        """``reference_loss`` in a table that ``table`` was joined to."""
        return pl.col("reference_loss")

    @property
    def variance(self) -> pl.Expr:
        """``reference_variance`` in a table that ``table`` was joined to."""
        return pl.col("reference_variance")


def references_of(table: pl.DataFrame) -> References:
    """Summarise a ``REFERENCES`` table, whose rows may be in any order.

    Raises:
        SchemaError: It has other columns.
        DataError: A sample has not as many entries in ``seen`` as in ``loss``.
    """
    require(table, REFERENCES, name="references")
    num_odd = table.filter(pl.col("loss").list.len() != pl.col("seen").list.len()).height
    if num_odd:
        raise DataError(
            f"references: expected as many losses as entries of seen, got {num_odd} samples with "
            "other numbers. Re-run the stage that writes it."
        )
    per_model = table.explode("loss", "seen").with_columns(pl.col("loss").cast(pl.Float64))
    unseen = pl.col("loss").filter(~pl.col("seen"))
    summary = (
        per_model.group_by("sample_id")
        .agg(reference_loss=unseen.mean(), reference_variance=unseen.var())
        .sort("sample_id")
    )
    usual = summary.select(pl.col("reference_variance").median()).item()
    pairs, num_pairs = _pairs(table)
    return References(summary.join(pairs, on="sample_id", how="left"), usual, num_pairs)


def _pairs(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """``sample_id`` and the columns ``pair_...`` of ``References``, and the number of pairs."""
    num_models = table.select(pl.col("seen").list.len().max()).item() or 0
    evens, odds = (
        [pl.col("seen").list.get(i, null_on_oob=True) for i in range(first, num_models, 2)]
        for first in (0, 1)
    )
    is_paired = len(evens) == len(odds) and all(
        table.select((even != odd).fill_null(value=False).all()).item()
        for even, odd in zip(evens, odds, strict=True)
    )
    if not is_paired:
        nothing, unknown = pl.lit(None, pl.List(pl.Float64)), pl.lit(None, pl.List(pl.Boolean))
        no_pair = {"pair_out_loss": nothing, "pair_in_loss": nothing, "pair_first_saw": unknown}
        return table.select("sample_id", **no_pair), 0
    # Of each pair exactly one model saw the sample, so both lists are in the order of the pairs.
    columns = [pl.col("loss").list.get(i).cast(pl.Float64) for i in range(num_models)]
    pairs = list(zip(evens, columns[::2], columns[1::2], strict=True))
    return (
        table.select(
            "sample_id",
            pair_out_loss=pl.concat_list(pl.when(s).then(b).otherwise(a) for s, a, b in pairs),
            pair_in_loss=pl.concat_list(pl.when(s).then(a).otherwise(b) for s, a, b in pairs),
            pair_first_saw=pl.concat_list(evens),
        ),
        len(pairs),
    )


def reference_gap(columns: Columns, references: References) -> pl.Expr:
    """Mean loss under the models that did not see the sample, minus its last loss.

    Nats per token, any sign. Null: every model saw it. Needs: the trace and the references. Cost:
    training the reference models, none once they are there.

    Source: counterfactual memorization, Zhang et al. 2021, arXiv:2112.12938, with the tracked run
    for the models that saw the sample; Watson et al. 2022, arXiv:2111.08440.
    """
    return references.loss - losses(columns)[-1]


def base_gap(columns: Columns, base: pl.Expr) -> pl.Expr:
    """Loss under the pretrained model that the run started from, minus the sample's last loss.

    Nats per token, any sign. What the run taught of like samples counts too, where
    ``reference_gap`` leaves it out. Needs: the trace, with ``model.kind: pretrained``. Cost: one
    evaluation of the samples.

    Source: the base model as the reference of a fine-tuned one, Mireshghallah et al. 2022,
    arXiv:2203.03929.
    """
    return base - losses(columns)[-1]


def reference_gap_calibrated(columns: Columns, references: References) -> pl.Expr:
    """``reference_gap`` in standard deviations of what the models that did not see it say.

    The gap over sqrt(s^2 + v), any sign, no unit: v is the variance of the sample's losses under
    the models that did not see it, and s^2 the median v of all samples, so that two models that
    happen to agree make no huge score; it also stands in for v where one model alone did not see
    the sample. Needs and cost: as ``reference_gap``, two models that did not see the sample.

    Source: Carlini et al. 2022, arXiv:2112.03570, with a shrunk variance.

    Raises:
        DataError: No sample has a variance, or the usual one is 0.
    """
    usual = references.usual_variance
    if not usual:
        raise DataError(
            f"reference_gap_calibrated: expected losses that differ between at least 2 models that "
            f"did not see a sample, got a median variance of {usual}. Train more reference models "
            "or take it out of score.enabled."
        )
    spread = (usual + references.variance.fill_null(usual)).sqrt()
    return reference_gap(columns, references) / spread


def in_out_gap(references: References) -> pl.Expr:
    """Mean over the pairs of reference models: loss where the sample was not seen minus where seen.

    Nats per token, any sign: counterfactual memorization itself, with the error of few models. It
    knows nothing of the tracked run. Null: not known to every model. Needs: the references in
    complementary pairs. Cost: training them.

    Source: Zhang et al. 2021, arXiv:2112.12938.

    Raises:
        DataError: There is no complementary pair.
    """
    require_pairs("in_out_gap", references, 1)
    return pl.col("pair_out_loss").list.mean() - pl.col("pair_in_loss").list.mean()


def pair_gaps(references: References | None) -> pl.DataFrame | None:
    """``sample_id`` and ``gap``, the ``in_out_gap`` of every sample; None: there is no pair."""
    if references is None or not references.num_pairs:
        return None
    return references.table.select("sample_id", gap=in_out_gap(references))


def require_pairs(score: str, references: References, minimum: int) -> None:
    """Raise ``DataError`` unless ``score`` has that many pairs of reference models."""
    if references.num_pairs < minimum:
        raise DataError(
            f"{score}: expected at least {minimum} pair(s) of reference models on complementary "
            f"halves, got {references.num_pairs}. Set reference.models to "
            f"{list(range(2 * minimum))} or take {score} out of score.enabled."
        )
