"""A trace folder -> memorization over time, of all samples and of each quadrant, with a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from gdc.errors import ConfigError, SchemaError
from gdc.filesystem import durable
from gdc.mapping.profile import Panel, Profile, profile_of
from gdc.recording.trace import Trace
from gdc.report import plots
from gdc.schema import CORPUS, QUADRANT_TABLE, QUADRANTS
from gdc.statistics import wording
from gdc.statistics.markdown import table
from gdc.workspace import files, outputs, tables, traces

WRITTEN: Final = ("profile.json", "profile.png")
ALL: Final = "all"
MIN_CHECKPOINTS: Final = 2


def run(trace: Path, quadrants: Path | None, out: Path) -> dict[str, Profile]:
    """Profile a trace; write ``profile.json`` and ``profile.png``.

    Args:
        trace: A trace folder, of the pipeline or of ``gdc.TraceRecorder``.
        quadrants: ``quadrants.parquet`` of a map of its samples; None: there is none.
        out: Folder of the files.

    Returns:
        By quadrant, those without a text left out; before them that of all samples.

    Raises:
        ConfigError: The folder cannot be written, or the trace has too few frozen checkpoints.
        SchemaError: The trace does not say when its samples were first trained on, or it or the map
            lacks a file.
        DataError: A file is damaged.
    """
    outputs.require_free(out, WRITTEN, {"TRACE": trace, "--map": quadrants})
    read = traces.read_folder(trace)
    panel = _panel(trace, read)
    found = {ALL: profile_of(panel, np.isfinite(panel.first_steps))}
    for name, chosen in _chosen(read, quadrants, len(panel.first_steps)).items():
        of_quadrant = profile_of(panel, chosen)
        if of_quadrant.num_texts:
            found[name] = of_quadrant
    outputs.claim(out, WRITTEN)
    files.write_json(out / "profile.json", to_json(found))
    with durable.new_file(out / "profile.png") as temporary:
        plots.profile_png(found, temporary)
    return found


def to_json(profiles: Mapping[str, Profile]) -> dict[str, object]:
    """The profiles as values of JSON."""
    return {name: profile.to_json() for name, profile in profiles.items()}


def told(profiles: Mapping[str, Profile]) -> list[str]:
    """The profiles as a table, and what to know of it."""
    heading = ["samples", "number", "before", "instantaneous", "residual"]
    rows = [
        [
            name,
            f"{profile.num_texts:,}",
            *(
                wording.interval(effect, wording.decimals)
                for effect in (profile.pre_trend, profile.instantaneous, profile.residual)
            ),
        ]
        for name, profile in profiles.items()
    ]
    lines = [
        table(heading, rows).rstrip("\n"),
        "Nats per token by which training on a sample lowers its own loss, with 95 % intervals: at "
        "the first frozen checkpoint after it (instantaneous) and at the last one (residual).",
        "It holds where the trends are parallel: `before` is the same just before, and has to be "
        "near 0.",
    ]
    num_left_out = profiles[ALL].num_left_out
    if num_left_out:
        lines.append(
            f"{num_left_out:,} samples were trained on before the first frozen checkpoint and are "
            "left out. More checkpoints in the first pass tell of more samples."
        )
    return lines


def _panel(folder: Path, trace: Trace) -> Panel:
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


def _chosen(
    trace: Trace, quadrants: Path | None, num_texts: int
) -> Mapping[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    if quadrants is None:
        return {}
    mapped = tables.read_table(quadrants, QUADRANT_TABLE, "Make it: gdc map.")
    found = trace.index.join(mapped, on="sample_id", how="left", maintain_order="left")["quadrant"]
    if not found.count():
        raise ConfigError(
            f"{quadrants}: expected the quadrants of samples of this trace, got none. Name its map."
        )
    masks = {}
    for name in QUADRANTS:
        masks[name] = np.zeros(num_texts, dtype=np.bool_)
        masks[name][: len(found)] = (found == name).fill_null(value=False).to_numpy()
    return masks
