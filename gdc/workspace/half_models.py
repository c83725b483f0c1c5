"""The files of a leaderboard: halves of the corpus, and losses of the model trained on each."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from gdc.config import Params
from gdc.corpus import halves, near_duplicates
from gdc.errors import ConfigError, DataError
from gdc.filesystem import table_files
from gdc.schema import HALVES, REFERENCE_LOSS, require
from gdc.workspace import paths, tables

FOLDER: Final = Path("work/leaderboard")
LEADERBOARD: Final = Path("reports/leaderboard.json")
TABLE: Final = Path("reports/leaderboard.md")
PICTURE: Final = Path("reports/leaderboard.png")
# Seeds of the half-models and of their halves: no tracked, retrained or reference run has them.
SEEDS_FROM: Final = 2_000_000


def require_num_models(num_models: int) -> None:
    """Raise ``ConfigError`` unless the models form at least two pairs."""
    if num_models < 4 or num_models % 2:
        raise ConfigError(
            f"--num-models: expected an even number of at least 4, got {num_models}. "
            "Each pair is trained on complementary halves of the corpus, and two pairs are needed."
        )


def folder(params: Params, num_models: int) -> Path:
    """Folder of the losses, named by a digest of corpus, model, training and number of models."""
    sections = params.model_dump(mode="json", include={"seed", "model", "training", "reference"})
    # The reference models of the scores change nothing here.
    sections["reference"].pop("models")
    digest = hashlib.sha256(json.dumps([sections, num_models], sort_keys=True).encode())
    for path in _inputs():
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.as_posix()} {content}\n".encode())
    return FOLDER / digest.hexdigest()[:16]


def make_halves(params: Params, num_models: int) -> pl.DataFrame:
    """Read the ``HALVES`` table of the half-models; make and write it where it is missing."""
    path = folder(params, num_models) / "halves.parquet"
    if path.exists():
        return _read(path, HALVES)
    is_trained = pl.col("split") == "train"
    texts = tables.chunks("corpus", ["sample_id", "text"], is_trained)
    table = halves.assign_halves(
        tables.scan("corpus").filter(is_trained).select("sample_id", "content_id").collect(),
        near_duplicates.near_copies(texts, params.reference, seed=params.seed),
        num_models=num_models,
        seed=SEEDS_FROM + params.seed,
    )
    tables.write_table(path, table, HALVES)
    return table


def losses_path(params: Params, num_models: int, number: int) -> Path:
    """File of the losses under one half-model."""
    return folder(params, num_models) / f"{number}.parquet"


def write_losses(path: Path, table: pl.DataFrame) -> None:
    """Write the ``REFERENCE_LOSS`` table of one half-model."""
    tables.write_table(path, table, REFERENCE_LOSS)


def read_references(params: Params, num_models: int) -> pl.DataFrame:
    """Read the ``REFERENCES`` table of the half-models, sorted by ``sample_id``.

    Raises:
        DataError: The losses of a model are missing, or those of some training samples.
    """
    losses = [losses_path(params, num_models, number) for number in range(num_models)]
    table, num_missing = tables.with_losses(
        make_halves(params, num_models), [_read(path, REFERENCE_LOSS) for path in losses]
    )
    if num_missing:
        raise DataError(
            f"{folder(params, num_models)}: expected every training sample in each model's losses, "
            f"got {num_missing} samples that are not. Delete the folder, then run: gdc leaderboard"
        )
    return table


def _inputs() -> Iterator[Path]:
    yield tables.TABLES["corpus"][0]
    yield from sorted(path for path in paths.TOKENIZER.rglob("*") if path.is_file())
    if paths.PRETRAINED.exists():
        yield paths.PRETRAINED


def _read(path: Path, schema: pl.Schema) -> pl.DataFrame:
    try:
        table = table_files.read_parquet(path)
    except (FileNotFoundError, pl.exceptions.ComputeError) as error:
        raise DataError(
            f"{path}: expected a Parquet file, got {error}. Delete it, then run: gdc leaderboard"
        ) from None
    require(table, schema, name=str(path))
    return table
