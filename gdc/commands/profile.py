"""A trace folder -> memorization over time, of all samples and of each quadrant, with a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import polars as pl

from gdc.commands.map import read_mapped
from gdc.errors import ConfigError
from gdc.filesystem import durable
from gdc.filesystem.json_values import JsonObject
from gdc.mapping.profile import ALL, Profile, profile_by_quadrant
from gdc.recording.trace import Trace
from gdc.report import plots
from gdc.statistics import wording
from gdc.statistics.markdown import table
from gdc.workspace import files, outputs, traces
from gdc.workspace.panels import read_panel

WRITTEN: Final = ("profile.json", "profile.png")


def run(trace: Path, quadrants: Path | None, out: Path) -> dict[str, Profile]:
    """Profile a trace; write ``profile.json`` and ``profile.png``.

    Args:
        trace: A trace folder, of the pipeline or of ``gdc.TraceRecorder``.
        quadrants: A table with ``sample_id`` and ``quadrant``: that of a map (``table_of``) or
            ``quadrants.parquet`` of the pipeline; None: there is none.
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
    panel = read_panel(trace, read)
    found = profile_by_quadrant(panel, _quadrants(read, quadrants))
    outputs.claim(out, WRITTEN)
    files.write_json(out / "profile.json", to_json(found))
    with durable.new_file(out / "profile.png") as temporary:
        plots.profile_png(found, temporary)
    return found


def to_json(profiles: Mapping[str, Profile]) -> JsonObject:
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


def _quadrants(trace: Trace, path: Path | None) -> list[str | None] | None:
    if path is None:
        return None
    mapped = read_mapped(path, pl.Schema({"sample_id": pl.String()}))
    found = trace.index.join(mapped, on="sample_id", how="left", maintain_order="left")["quadrant"]
    if not found.count():
        raise ConfigError(
            f"{path}: expected the quadrants of samples of this trace, got none. Name its map."
        )
    return found.to_list()
