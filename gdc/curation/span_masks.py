"""Memorized spans -> a plan that masks them, and its control."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.corpus.tokenizer import Offsets, masked_tokens
from gdc.schema import MASKED, PLAN


def mask_plan(scored: pl.LazyFrame, spans: pl.DataFrame) -> pl.LazyFrame:
    """Keep every sample and mask its memorized spans.

    Args:
        scored: Table with the ``sample_id`` of every training sample.
        spans: ``SPANS`` table.
    """
    sample_spans = spans.group_by("sample_id", maintain_order=True).agg(
        masked=pl.struct("start", "end"), num_tokens=pl.col("num_tokens").sum()
    )
    reason = pl.lit("memorized spans of ") + pl.col("num_tokens").cast(pl.String) + " tokens"
    return (
        scored.select("sample_id")
        .join(sample_spans.lazy(), on="sample_id", how="left", maintain_order="left")
        .select(
            "sample_id",
            action=pl.when(pl.col("masked").is_null())
            .then(pl.lit("keep"))
            .otherwise(pl.lit("mask")),
            weight=1.0,
            copies=pl.lit(1, pl.Int64),
            reason=reason.fill_null("no memorized span"),
            masked=pl.col("masked").fill_null([]),
        )
        .match_to_schema(PLAN)
    )


def shuffled_mask_plan(
    plan: pl.DataFrame,
    num_tokens: Sequence[int],
    offsets_of: Callable[[Sequence[int]], Sequence[Offsets]],
    *,
    seed: int,
) -> pl.DataFrame:
    """Mask spans of the same lengths in random samples at random positions: the control of masking.

    All spans of a sample move to one sample drawn from those with enough tokens, and there to
    random positions. As many samples are masked as in ``plan``, in spans of as many tokens. In both
    plans a token that shares a character with a span is masked with it.

    Args:
        plan: ``PLAN`` table of ``mask_plan``.
        num_tokens: Tokens of each sample's text, in the row order of ``plan``.
        offsets_of: Returns the token offsets of the samples in the given rows, in their order.
        seed: Seed of all draws.
    """
    rng = np.random.default_rng(seed)
    # The longest first, so that a sample with enough tokens is always left.
    donors = sorted(_masked_lengths(plan, offsets_of), key=sum, reverse=True)
    recipients = sorted(range(plan.height), key=num_tokens.__getitem__)
    moved: dict[int, list[tuple[int, int]]] = {}
    candidates: list[int] = []
    for lengths in donors:
        while recipients and num_tokens[recipients[-1]] >= sum(lengths):
            candidates.append(recipients.pop())
        row = candidates.pop(int(rng.integers(len(candidates))))
        moved[row] = _random_positions(lengths, num_tokens[row], rng)
    masked = dict(zip(moved, _as_spans(moved, offsets_of(list(moved))), strict=True))
    spans = [masked.get(row, []) for row in range(plan.height)]
    return plan.with_columns(
        pl.Series("masked", spans, dtype=MASKED),
        action=pl.Series(["mask" if found else "keep" for found in spans], dtype=pl.String),
        reason=pl.lit("dealt out by chance"),
    )


def _masked_lengths(
    plan: pl.DataFrame, offsets_of: Callable[[Sequence[int]], Sequence[Offsets]]
) -> list[list[int]]:
    """Lengths of the spans of each masked sample, in tokens."""
    rows = plan.with_row_index("row").filter(pl.col("masked").list.len() > 0)
    samples = zip(offsets_of(rows["row"].to_list()), rows["masked"].to_list(), strict=True)
    lengths = [_run_lengths(masked_tokens(offsets, masked)) for offsets, masked in samples]
    return [runs for runs in lengths if runs]


def _run_lengths(is_masked: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of masked tokens, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_masked, [False]])))
    return [int(length) for length in edges[1::2] - edges[::2]]


def _random_positions(
    lengths: Sequence[int], num_tokens: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """First and last token of spans of these lengths, in random order, without overlap."""
    shuffled = rng.permutation(np.array(lengths, dtype=np.int64))
    num_free = num_tokens - int(shuffled.sum())
    # Free tokens and spans in one row: the slots of the spans are drawn.
    slots = np.sort(rng.choice(num_free + len(lengths), size=len(lengths), replace=False))
    firsts = slots - np.arange(len(lengths)) + shuffled.cumsum() - shuffled
    return list(zip(firsts.tolist(), (firsts + shuffled - 1).tolist(), strict=True))


def _as_spans(
    token_runs: Mapping[int, Sequence[tuple[int, int]]], offsets: Sequence[Offsets]
) -> list[list[dict[str, int]]]:
    return [
        [{"start": sample[first][0], "end": sample[last][1]} for first, last in runs]
        for runs, sample in zip(token_runs.values(), offsets, strict=True)
    ]
