"""Tables of what reference models say: joined by hand, the models that are asked, refusals."""

from pathlib import Path

import polars as pl
import pytest

from gdc.config import BASE
from gdc.errors import DataError, SchemaError
from gdc.schema import HALVES, REFERENCE_LOSS, REFERENCE_TOKENS
from gdc.workspace import paths, reference_tables, tables


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def halves_of(**seen: list[bool]) -> pl.DataFrame:
    return pl.DataFrame({"sample_id": list(seen), "seen": list(seen.values())}, schema=HALVES)


def test_references_join_the_losses_of_all_models() -> None:
    tables.write("halves", halves_of(b=[True, False], a=[False, True]))
    for number, losses in enumerate(([1.0, 2.0], [3.0, 4.0])):
        table = pl.DataFrame({"sample_id": ["a", "b"], "loss": losses}, schema=REFERENCE_LOSS)
        reference_tables.write_reference(number, table)
    references = reference_tables.read_references([0, 1])
    assert references is not None
    assert references.rows() == [("a", [1.0, 3.0], [False, True]), ("b", [2.0, 4.0], [True, False])]
    assert reference_tables.read_references([]) is None


@pytest.fixture
def token_losses() -> pl.DataFrame:
    """Of three models, of which the last recorded none; returns the samples asked for."""
    tables.write("halves", halves_of(a=[False, True], b=[True, False], c=[False, False]))
    rows: list[list[tuple[str, list[float]]]] = [
        [("a", [1.0, 2.0]), ("b", [3.0]), ("c", [9.0])],
        [("b", [4.0]), ("a", [5.0, 6.0])],
        [],
    ]
    for number, of_model in enumerate(rows):
        table = pl.DataFrame(of_model, schema=REFERENCE_TOKENS, orient="row")
        reference_tables.write_reference_tokens(number, table)
    return pl.DataFrame({"sample_id": ["b", "a"]})


def test_token_losses_are_those_of_the_models_that_did_not_see_the_samples(
    token_losses: pl.DataFrame,
) -> None:
    found = reference_tables.read_unseen_tokens([0, 1], token_losses)
    assert found is not None
    assert found.rows() == [("a", [1.0, 2.0]), ("b", [4.0])]
    assert reference_tables.read_unseen_tokens([3], token_losses) is None
    paths.reference_tokens_path(1).write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"tokens-1\.parquet: not a Parquet file .*gdc run"):
        reference_tables.read_unseen_tokens([0, 1], token_losses)


def test_token_losses_under_the_pretrained_model_are_of_every_sample() -> None:
    table = pl.DataFrame([("a", [1.0])], schema=REFERENCE_TOKENS, orient="row")
    reference_tables.write_reference_tokens(BASE, table)
    found = reference_tables.read_unseen_tokens([BASE], table.select("sample_id"))
    assert found is not None
    assert found.equals(table)


def test_token_losses_under_all_models_stand_beside_each_other(token_losses: pl.DataFrame) -> None:
    found = reference_tables.read_all_reference_tokens([1, 0], token_losses)
    assert found is not None
    assert found.columns == ["sample_id", "1", "0"]
    assert found.sort("sample_id").rows() == [
        ("a", [5.0, 6.0], [1.0, 2.0]),
        ("b", [4.0], [3.0]),
    ]
    for unrecorded in ([], [0, 2], [0, 3]):
        assert reference_tables.read_all_reference_tokens(unrecorded, token_losses) is None


def test_references_that_miss_a_sample_are_refused() -> None:
    tables.write("halves", halves_of(a=[True], b=[False]))
    table = pl.DataFrame({"sample_id": ["a"], "loss": [1.0]}, schema=REFERENCE_LOSS)
    reference_tables.write_reference(0, table)
    with pytest.raises(SchemaError, match=r"got fewer\. Re-run: gdc stage reference"):
        reference_tables.read_references([0])
