"""Stage `spans`: token losses and quadrants -> memorized spans, and the losses of turns."""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.config import Params
from gdc.corpus.chat import scored_offsets, with_unscored
from gdc.corpus.tokenizer import Offsets, chunk_rows, load_tokenizer
from gdc.filesystem import scratch
from gdc.mapping import spans
from gdc.mapping.spans import SpansSummary
from gdc.mapping.turns import scored_turns, turn_losses
from gdc.schema import FLAGGED, TURN_LOSSES
from gdc.stages.runner import run
from gdc.workspace import files, paths, tables, traces, tracking


def main() -> None:
    """Find the memorized spans of samples above the memorization threshold, and losses by turn."""
    params = files.load_params()
    sections = params.model_dump(mode="json", include={"train", "spans"})
    with tracking.stage_run("spans", sections) as stage:
        turns, flagged = tables.read("turns"), _flagged()
        # Of conversations the turns of all samples are looked at.
        asked = flagged if turns.is_empty() else None
        recorded = [traces.read_token_losses(seed, asked) for seed in params.train.seeds]
        runs = [losses for losses in recorded if losses is not None]
        if len(runs) < len(recorded):
            table, found = spans.nothing_recorded()
            by_turn = pl.DataFrame(schema=TURN_LOSSES)
        else:
            table, found = _find(runs, flagged, turns, params)
            by_turn = _by_turn(runs, turns, params)
        summary = found.to_json()
        tables.write("spans", table)
        tables.write("turn_losses", by_turn)
        files.write_json(paths.SPANS_SUMMARY, summary)
        stage.log_metrics({k: v for k, v in summary.items() if isinstance(v, int)})
        stage.log_artifact(tables.TABLES["spans"][0])
        stage.log_artifact(paths.SPANS_SUMMARY)


def _flagged() -> pl.Series:
    """Ids of the samples above the memorization threshold."""
    is_flagged = pl.col("quadrant").is_in(FLAGGED)
    flagged = tables.scan("quadrants").filter(is_flagged).select("sample_id").collect()
    return flagged["sample_id"]


def _find(
    runs: Sequence[tuple[pl.DataFrame, pl.DataFrame]],
    flagged: pl.Series,
    turns: pl.DataFrame,
    params: Params,
) -> tuple[pl.DataFrame, SpansSummary]:
    is_flagged = pl.col("sample_id").is_in(flagged.implode())
    flagged_losses = [training.filter(is_flagged) for training, _ in runs]
    texts = tables.stored_texts(flagged_losses[0]["sample_id"])
    if not turns.is_empty():
        has_loss = list(_has_loss(texts, turns))
        flagged_losses = [spans.at_all_tokens(losses, has_loss) for losses in flagged_losses]
    heldout = [of_run for _, of_run in runs]
    return spans.find_spans(flagged_losses, heldout, _offsets(texts), params.spans)


def _offsets(texts: scratch.Texts) -> Iterator[Offsets]:
    """Offsets of the tokens of each text; memory holds those of a few megabytes of text."""
    tokenizer = load_tokenizer(paths.TOKENIZER)
    for part in _parts(texts):
        yield from tokenizer.offsets(part["text"].to_list())


def _has_loss(texts: scratch.Texts, turns: pl.DataFrame) -> Iterator[NDArray[np.bool_]]:
    """Whether each token of each conversation has a loss."""
    tokenizer = load_tokenizer(paths.TOKENIZER)
    for part in _parts(texts):
        unscored = with_unscored(part, turns)["unscored"]
        yield from tokenizer.has_loss(part["text"].to_list(), unscored.to_list())


def _parts(texts: scratch.Texts) -> Iterator[pl.DataFrame]:
    for rows in chunk_rows(texts.num_bytes):
        yield pl.DataFrame({"text": [texts[row] for row in range(rows.start, rows.stop)]})


def _by_turn(
    runs: Sequence[tuple[pl.DataFrame, pl.DataFrame]], turns: pl.DataFrame, params: Params
) -> pl.DataFrame:
    """The ``TURN_LOSSES`` of the conversations; texts alone have none."""
    lists = scored_turns(turns)
    if lists.is_empty():
        return pl.DataFrame(schema=TURN_LOSSES)
    ids = runs[0][0].select("sample_id")
    texts = tables.scan("corpus").select("sample_id", "content_id", "text")
    samples = (
        ids.lazy()
        .join(texts, on="sample_id", how="left", maintain_order="left")
        .join(lists.lazy(), on="content_id", how="left", maintain_order="left")
        .collect()
    )
    offsets = scored_offsets(load_tokenizer(paths.TOKENIZER), with_unscored(samples, turns))
    training, heldout = ([pair[side] for pair in runs] for side in (0, 1))
    return turn_losses(training, heldout, samples["turns"], offsets, params.spans.p_value)


if __name__ == "__main__":
    run(main)
