"""An audit of conversations -> a row for each turn of each of the user's rows."""

from typing import Final

import polars as pl

from gdc.audit.turn_table import audit_turns
from gdc.commands.audit import Audited
from gdc.corpus.chat import scored_offsets, turns_of
from gdc.mapping.turns import scored_turns
from gdc.training.token_records import TokenRecords

OWN_TURNS: Final = pl.Schema(
    {
        "sample_id": pl.String,  # the user's
        "source": pl.String,  # file and line
        "turn": pl.Int64,  # of all turns of the row, from 0
        "num_tokens": pl.Int64,
        "loss": pl.Float64,  # nats per token
        "reference_loss": pl.Float64,  # under the reference model; null without one
        "extracted": pl.Boolean,  # as in AUDITED_TURNS
    }
)


def audited_turns(audited: Audited) -> pl.DataFrame:
    """The turns with a loss of all rows that were asked about, in the order of the rows.

    Returns:
        ``OWN_TURNS`` table; empty where the rows are no conversations.
    """
    named = audited.rows
    if "turns" not in named.columns:
        return pl.DataFrame(schema=OWN_TURNS)
    lists = scored_turns(turns_of(named["content_id"], named["turns"]))
    # Members come first among the samples.
    members = audited.samples.filter("is_member").select("text", "unscored", content_id="sample_id")
    members = members.join(lists, on="content_id", how="left", maintain_order="left")
    offsets = scored_offsets(audited.tokenizer, members)
    block_size = audited.measured.report.settings.block_size

    def asked(records: TokenRecords) -> pl.DataFrame:
        of_members = records.select_sequences(0, members.height)
        return audit_turns(of_members, members["turns"], offsets, block_size=block_size)

    found = asked(audited.records)
    if audited.reference is not None:
        found = found.with_columns(reference_loss=asked(audited.reference)["loss"])
    texts = members.with_row_index("sequence").select(
        pl.col("sequence").cast(pl.Int64), "content_id"
    )
    return (
        named.drop("turns")
        .join(texts, on="content_id", maintain_order="left")
        .join(found, on="sequence", maintain_order="left_right")
        .match_to_schema(OWN_TURNS, extra_columns="ignore", missing_columns="insert")
    )


def sentences(turns: pl.DataFrame) -> list[str]:
    """How many turns come out whole, for the terminal; nothing where there are none."""
    if turns.is_empty():
        return []
    asked = turns["extracted"].drop_nulls()
    loss = turns.select((pl.col("loss") * pl.col("num_tokens")).sum() / pl.sum("num_tokens")).item()
    return [
        f"{turns.height:,} turns of the assistant, loss {loss:.3f} nats per token; "
        f"{asked.sum():,} of the {len(asked):,} long enough come out whole (turns.parquet)"
    ]
