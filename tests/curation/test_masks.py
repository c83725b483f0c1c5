"""Plans that mask memorized spans, and the same masks in random samples."""

from collections.abc import Sequence

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from gdc.corpus.tokenizer import Offsets, masked_tokens
from gdc.curation.span_masks import mask_plan, shuffled_mask_plan
from gdc.schema import CURATED, PLAN, SPANS
from tests.curation.builders import FIVE, corpus_of, curated, quadrants_of


def spans_of(*spans: tuple[str, int, int, int]) -> pl.DataFrame:
    """A SPANS table from (sample_id, start, end, num_tokens)."""
    return pl.DataFrame([(*span, 1.0) for span in spans], schema=SPANS, orient="row")


def masks_of(scored: pl.DataFrame, spans: pl.DataFrame) -> pl.DataFrame:
    return mask_plan(scored.lazy(), spans).collect()


def shuffled_masks(plan: pl.DataFrame, offsets: Sequence[Offsets], seed: int) -> pl.DataFrame:
    return shuffled_mask_plan(
        plan, [len(p) for p in offsets], lambda rows: [offsets[row] for row in rows], seed=seed
    )


def test_memorized_spans_are_masked_and_every_sample_stays() -> None:
    masks = masks_of(FIVE, spans_of(("d", 0, 4, 2), ("b", 3, 9, 5), ("d", 6, 9, 3)))
    assert masks.schema == PLAN
    assert masks.rows() == [
        ("e", "keep", 1.0, 1, "no memorized span", []),
        ("a", "keep", 1.0, 1, "no memorized span", []),
        ("d", "mask", 1.0, 1, "memorized spans of 5 tokens",
         [{"start": 0, "end": 4}, {"start": 6, "end": 9}]),
        ("c", "keep", 1.0, 1, "no memorized span", []),
        ("b", "mask", 1.0, 1, "memorized spans of 5 tokens", [{"start": 3, "end": 9}]),
    ]  # fmt: skip
    assert set(masks_of(FIVE, spans_of())["action"]) == {"keep"}


def test_the_curated_data_set_carries_the_masks() -> None:
    corpus = corpus_of([*((i, "train", None) for i in "abcde"), ("v", "validation", None)])
    tables = curated(corpus, quadrants_of(FIVE), masks_of(FIVE, spans_of(("d", 0, 4, 2))))
    masked = dict(tables["train"].select("sample_id", "masked").iter_rows())
    assert masked == {"a": [], "b": [], "c": [], "d": [{"start": 0, "end": 4}], "e": []}
    assert tables["validation"].schema == CURATED


def num_masked_tokens(offsets: Sequence[Offsets], masks: pl.DataFrame) -> list[int]:
    """Number of masked tokens of each sample."""
    spans = masks["masked"].to_list()
    return [int(masked_tokens(p, m).sum()) for p, m in zip(offsets, spans, strict=True)]


@given(
    samples=st.lists(st.lists(st.booleans(), max_size=12), min_size=1, max_size=8),
    seed=st.integers(0, 99),
)
def test_shuffled_masks_are_as_many_and_as_long_and_fit(
    samples: list[list[bool]], seed: int
) -> None:
    # A token of two characters each; marked tokens are masked one by one.
    offsets = [[(2 * t, 2 * t + 2) for t in range(len(marks))] for marks in samples]
    ids = [f"s{i}" for i in range(len(samples))]
    spans = spans_of(
        *((ids[i], *offsets[i][t], 1) for i, m in enumerate(samples) for t in range(len(m)) if m[t])
    )
    plan = masks_of(pl.DataFrame({"sample_id": ids}), spans)
    shuffled = shuffled_masks(plan, offsets, seed=seed)
    assert shuffled.schema == PLAN
    assert shuffled["sample_id"].to_list() == ids
    assert sorted(num_masked_tokens(offsets, shuffled)) == sorted(map(sum, samples))
    assert (shuffled["masked"].list.len() > 0).equals(shuffled["action"] == "mask")
    assert shuffled.equals(shuffled_masks(plan, offsets, seed=seed))


def test_shuffled_masks_go_to_other_samples_and_to_all_positions() -> None:
    offsets = [letters(20) for _ in range(200)]
    ids = [f"s{i:03}" for i in range(200)]
    plan = masks_of(
        pl.DataFrame({"sample_id": ids}),
        spans_of(*((i, start, start + 3, 3) for i in ids[:20] for start in (0, 6))),
    )
    shuffled = shuffled_masks(plan, offsets, seed=0).filter(pl.col("action") == "mask")
    assert shuffled.height == 20
    assert len(set(shuffled["sample_id"]) & set(ids[:20])) < 8
    starts = {span["start"] for spans in shuffled["masked"].to_list() for span in spans}
    assert {0, 17} <= starts
    assert len(starts) > 10
    lengths = {s["end"] - s["start"] for spans in shuffled["masked"].to_list() for s in spans}
    assert lengths == {3}


def letters(num_tokens: int) -> Offsets:
    return [(i, i + 1) for i in range(num_tokens)]
