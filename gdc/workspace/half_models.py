"""The files of a leaderboard: halves of the corpus, and losses of the model trained on each."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.config import Params
from gdc.corpus import halves, near_duplicates
from gdc.errors import ConfigError, DataError
from gdc.filesystem import table_files
from gdc.schema import HALF_MODEL_LOSS, HALVES, require
from gdc.workspace import paths, reference_tables, tables
from gdc.workspace.code_digests import code_digest

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
    """Folder of the losses, named by a digest of code, corpus, model, training and their number."""
    sections = params.model_dump(mode="json", include={"seed", "model", "training", "reference"})
    # The reference models of the scores change nothing here.
    sections["reference"].pop("models")
    # Files of other columns lie in other folders.
    code = code_digest("ground_truth", cache_file=paths.CODE_CACHE)
    contents = [sections, num_models, list(HALF_MODEL_LOSS), code]
    digest = hashlib.sha256(json.dumps(contents, sort_keys=True).encode())
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


def loss_table(index: pl.DataFrame, token_losses: NDArray[np.floating]) -> pl.DataFrame:
    """``HALF_MODEL_LOSS`` table of samples whose token losses stand end to end.

    Args:
        index: ``TRACE_INDEX`` table of the samples.
        token_losses: Nats, ``num_tokens`` for each sample in turn.
    """
    row = np.repeat(np.arange(index.height), index["num_tokens"].to_numpy())
    of_sample = pl.DataFrame(
        {"row": row, "token_losses": pl.Series(token_losses, dtype=pl.Float32)}
    ).group_by("row", maintain_order=True)
    columns = of_sample.agg(pl.col("token_losses").cast(pl.Float64).mean().alias("loss")).join(
        of_sample.agg("token_losses"), on="row", maintain_order="left"
    )
    return pl.concat(
        [
            index.select("sample_id"),
            columns.select(pl.col("loss").cast(pl.Float32), "token_losses"),
        ],
        how="horizontal",
    )


def write_losses(path: Path, table: pl.DataFrame) -> None:
    """Write the ``HALF_MODEL_LOSS`` table of one half-model."""
    tables.write_table(path, table, HALF_MODEL_LOSS)


def read_references(params: Params, num_models: int) -> pl.DataFrame:
    """Read the ``REFERENCES`` table of the half-models, sorted by ``sample_id``.

    Raises:
        DataError: The losses of a model are missing, or those of some training samples.
    """
    losses = [table.drop("token_losses") for table in _read_losses(params, num_models)]
    table, num_missing = reference_tables.with_losses(make_halves(params, num_models), losses)
    if num_missing:
        raise DataError(
            f"{folder(params, num_models)}: expected every training sample in each model's losses, "
            f"got {num_missing} samples that are not. Delete the folder, then run: gdc leaderboard"
        )
    return table


def read_token_losses(params: Params, num_models: int) -> list[pl.Series]:
    """Losses of all tokens under each half-model: lists of Float32, nats, by ``sample_id``."""
    return [table.sort("sample_id")["token_losses"] for table in _read_losses(params, num_models)]


def _read_losses(params: Params, num_models: int) -> Iterator[pl.DataFrame]:
    # The name of the folder is a digest of the whole corpus.
    place = folder(params, num_models)
    return (_read(place / f"{number}.parquet", HALF_MODEL_LOSS) for number in range(num_models))


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
