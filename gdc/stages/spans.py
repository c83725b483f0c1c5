"""Stage `spans`: token losses and quadrants -> memorized spans of the flagged samples."""

import polars as pl

from gdc.config import Params
from gdc.corpus.chat import with_unscored
from gdc.corpus.tokenizer import load_tokenizer, tokens_with_loss
from gdc.mapping import spans
from gdc.mapping.spans import SpansSummary
from gdc.schema import FLAGGED
from gdc.stages.runner import run
from gdc.workspace import files, paths, tables, traces, tracking


def main() -> None:
    """Find the memorized spans of every sample above the memorization threshold."""
    params = files.load_params()
    sections = params.model_dump(mode="json", include={"train", "spans"})
    with tracking.stage_run("spans", sections) as stage:
        table, found = _find(params)
        summary = found.to_json()
        tables.write("spans", table)
        files.write_json(paths.SPANS_SUMMARY, summary)
        stage.log_metrics({k: v for k, v in summary.items() if isinstance(v, int)})
        stage.log_artifact(tables.TABLES["spans"][0])
        stage.log_artifact(paths.SPANS_SUMMARY)


def _find(params: Params) -> tuple[pl.DataFrame, SpansSummary]:
    recorded = [traces.read_token_losses(seed) for seed in params.train.seeds]
    runs = [losses for losses in recorded if losses is not None]
    if len(runs) < len(recorded):
        return spans.nothing_recorded()
    flagged = tables.read("quadrants").filter(pl.col("quadrant").is_in(FLAGGED))
    flagged_losses = [training.join(flagged, on="sample_id", how="semi") for training, _ in runs]
    texts = pl.DataFrame({"text": tables.texts_of(flagged_losses[0]["sample_id"])})
    offsets = load_tokenizer(paths.TOKENIZER).offsets(texts["text"].to_list())
    unscored = with_unscored(texts, tables.read("turns"))
    if "unscored" in unscored.columns:
        has_loss = tokens_with_loss(offsets, unscored["unscored"].to_list())
        flagged_losses = [spans.at_all_tokens(losses, has_loss) for losses in flagged_losses]
    return spans.find_spans(flagged_losses, [heldout for _, heldout in runs], offsets, params.spans)


if __name__ == "__main__":
    run(main)
