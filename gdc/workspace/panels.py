"""A trace folder -> losses at frozen checkpoints, and when each text was first trained on."""

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from gdc.errors import ConfigError, SchemaError
from gdc.mapping.profile import Panel
from gdc.recording.trace import Trace
from gdc.schema import CORPUS
from gdc.workspace import tables, traces

MIN_CHECKPOINTS: Final = 2


def read_panel(folder: Path, trace: Trace) -> Panel:
    """Losses of all texts of a trace at its frozen checkpoints, training texts first.

    Args:
        folder: Of the trace.
        trace: What lies in it.

    Raises:
        ConfigError: The trace has too few frozen checkpoints.
        SchemaError: It does not say when its samples were first trained on.
        DataError: A file is damaged.
    """
    first_seen = traces.read_first_seen(folder)
    if first_seen is None:
        raise SchemaError(
            f"{folder / traces.FIRST_SEEN_FILE}: not found. A trace of an older version does not "
            "say when its samples were first trained on. Record it again."
        )
    columns = trace.columns("probe")
    if len(columns) < MIN_CHECKPOINTS:
        raise ConfigError(
            f"{folder}: expected at least {MIN_CHECKPOINTS} frozen checkpoints (probe), got "
            f"{len(columns)}. Raise train.probes_per_epoch, or call probe while you train."
        )
    with tables.naming_damage(folder, remedy=traces.ANEW):
        losses = pl.concat([part.select(columns) for part in (trace.losses, trace.heldout_losses)])
        values = losses.collect().to_numpy()
    steps = trace.checkpoints.filter(pl.col("mode") == "probe").sort("checkpoint")["step"]
    first = _first_of_copies(first_seen)["step"].cast(pl.Float64).fill_null(np.inf)
    never = np.full(trace.heldout_index.height, np.inf)
    return Panel(values, steps.to_numpy(), np.concatenate([first.to_numpy(), never]))


def _first_of_copies(first_seen: pl.DataFrame) -> pl.DataFrame:
    """The step at which any copy of each text was seen, where the corpus knows the samples."""
    path = tables.TABLES["corpus"][0]
    if not path.exists():
        return first_seen
    contents = tables.scan_table(path, CORPUS).select("sample_id", "content_id").collect()
    known = first_seen.join(contents, on="sample_id", how="left", maintain_order="left")
    if known["content_id"].null_count():
        return first_seen
    return known.with_columns(pl.col("step").min().over("content_id")).drop("content_id")
