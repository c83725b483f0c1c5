"""The half-models of a leaderboard: their halves, folders and losses."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from gdc.config import Params
from gdc.corpus.halves import assign_halves
from gdc.errors import ConfigError, DataError
from gdc.schema import CORPUS, REFERENCES
from gdc.workspace import half_models, paths, tables
from tests.builders import params_with


@pytest.mark.parametrize("num_models", [0, 2, 5])
def test_fewer_than_two_pairs_of_models_are_refused(num_models: int) -> None:
    with pytest.raises(ConfigError, match=f"--num-models: .*at least 4, got {num_models}"):
        half_models.require_num_models(num_models)


def make_workspace(folder: Path) -> Params:
    """A corpus of four training samples and two held-out ones, as stage `ingest` leaves it."""
    rows = [(f"{i}-0", f"{i}", 1, f"{i} is a text", 10, 4, "x", "train", None) for i in range(4)]
    rows += [(f"v{i}-0", f"v{i}", 1, f"v{i}", 2, 1, "x", "validation", None) for i in range(2)]
    tables.write("corpus", pl.DataFrame(rows, schema=CORPUS, orient="row"))
    (folder / paths.TOKENIZER).mkdir()
    (folder / paths.TOKENIZER / "tokenizer.json").write_text("{}", encoding="utf-8")
    return params_with()


def test_halves_differ_from_those_of_reference_models_and_cover_the_training_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = make_workspace(tmp_path)
    table = half_models.make_halves(params, 64)
    assert table["sample_id"].to_list() == ["0-0", "1-0", "2-0", "3-0"]
    assert_frame_equal(half_models.make_halves(params, 64), table)
    samples = tables.read("corpus").filter(pl.col("split") == "train")
    duplicates = pl.DataFrame(schema={"sample_id": pl.String, "duplicate_of": pl.String})
    reference_halves = assign_halves(samples, duplicates, num_models=64, seed=params.seed)
    for ours, theirs in zip(table["seen"], reference_halves["seen"], strict=True):
        assert 8 < (ours == theirs).sum() < 56


def test_losses_of_other_inputs_have_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = make_workspace(tmp_path)
    here = half_models.folder(params, 4)
    slower = params.training.model_copy(update={"learning_rate": 0.5})
    fewer = params.reference.model_copy(update={"models": ()})
    assert half_models.folder(params, 4) == here
    assert half_models.folder(params.model_copy(update={"reference": fewer}), 4) == here
    assert half_models.folder(params.model_copy(update={"training": slower}), 4) != here
    assert half_models.folder(params, 6) != here
    with monkeypatch.context() as patch:
        patch.setattr(half_models, "code_digest", lambda stage, **_: f"edited {stage}")
        assert half_models.folder(params, 4) != here
    assert half_models.folder(params, 4) == here
    tables.write("corpus", tables.read("corpus")[:5])
    assert half_models.folder(params, 4) != here


def test_losses_without_a_model_or_a_sample_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = make_workspace(tmp_path)
    ids = half_models.make_halves(params, 4)["sample_id"]
    index = pl.DataFrame({"sample_id": ids, "num_tokens": [1, 2, 1, 1]})
    table = half_models.loss_table(index, np.array([1.0, 1.5, 2.5, 3.0, 4.0]))
    for number in range(3):
        half_models.write_losses(half_models.losses_path(params, 4, number), table)
    with pytest.raises(DataError, match=r"3\.parquet: expected a Parquet file.*gdc leaderboard"):
        half_models.read_references(params, 4)
    half_models.write_losses(half_models.losses_path(params, 4, 3), table[1:])
    with pytest.raises(DataError, match="got 1 samples that are not"):
        half_models.read_references(params, 4)
    half_models.write_losses(half_models.losses_path(params, 4, 3), table)
    references = half_models.read_references(params, 4)
    assert references.schema == REFERENCES
    assert references["loss"].to_list() == [[i + 1.0] * 4 for i in range(4)]
    tokens = half_models.read_token_losses(params, 4)
    assert [losses.to_list() for losses in tokens] == [[[1.0], [1.5, 2.5], [3.0], [4.0]]] * 4
