"""Table contracts: what is accepted, what is refused, and that no column hides."""

import polars as pl
import pytest

from gdc import schema
from gdc.errors import SchemaError
from gdc.schema import QUADRANT_TABLE, SCORES, require

SCHEMAS = {name: value for name, value in vars(schema).items() if isinstance(value, pl.Schema)}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_contract_accepts_its_own_empty_table(name: str) -> None:
    require(pl.DataFrame(schema=SCHEMAS[name]), SCHEMAS[name], name=name)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_contract_refuses_a_table_without_one_of_its_columns(name: str) -> None:
    table = pl.DataFrame(schema=SCHEMAS[name])
    for column in table.columns:
        with pytest.raises(SchemaError, match=rf"^{name}: expected columns .*'{column}'.*, got "):
            require(table.drop(column), SCHEMAS[name], name=name)


def test_more_columns_may_follow() -> None:
    require(pl.DataFrame(schema=SCORES).with_columns(final_loss=1.0), SCORES, name="scores")


def test_another_order_is_refused() -> None:
    turned = pl.DataFrame(schema=QUADRANT_TABLE).select("quadrant", "sample_id")
    with pytest.raises(SchemaError, match=r"quadrants: expected columns \{'sample_id'"):
        require(turned, QUADRANT_TABLE, name="quadrants")


def test_a_former_column_is_refused_with_its_new_name() -> None:
    old = pl.DataFrame(schema=SCORES).with_columns(twin_ids=pl.lit([], pl.List(pl.String)))
    with pytest.raises(SchemaError, match=r"^scores: `twin_ids` is called `duplicate_ids` now\..*"):
        require(old, SCORES, name="scores")


def test_another_dtype_is_refused_and_named() -> None:
    narrow = pl.DataFrame(schema=SCORES).with_columns(pl.col("difficulty").cast(pl.Float32))
    with pytest.raises(SchemaError, match=r"got .*'difficulty': Float32.* Re-run the stage"):
        require(narrow, SCORES, name="scores")


def test_the_quadrants_are_the_four_of_the_paper() -> None:
    """Names of arXiv:2509.00083 in lower case, in the order of its map."""
    assert schema.QUADRANTS == (
        "stable-easy",
        "ambiguous-hard",
        "hotspot-memorized",
        "noisy-outlier",
    )
