"""A plan on other people's data sets: rows, weights, masks, and labels that survive their way."""

from pathlib import Path

import datasets
import numpy as np
import polars as pl
import pytest

from gdc.curation.reader import Plan
from gdc.errors import ConfigError, DataError, SchemaError
from gdc.schema import PLAN

# Twice a, half of b, no c, and of d all but its first two characters.
ROWS = [
    ("a", "copy", 1.0, 2, "hard", []),
    ("b", "weight", 0.5, 1, "hot", []),
    ("c", "drop", 0.0, 0, "near copy of a", []),
    ("d", "mask", 1.0, 1, "spans", [{"start": 0, "end": 2}]),
]
NAMES = ("a", "b", "c", "d")


@pytest.fixture
def plan() -> Plan:
    return Plan(pl.DataFrame(ROWS, schema=PLAN, orient="row"))


def dataset(**columns: list[object]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"id": list(NAMES), "text": ["A", "B", "C", "D"], **columns})


def test_rows_are_dropped_and_repeated_with_all_their_columns(plan: Plan) -> None:
    planned = plan.apply(dataset(more=[1, 2, 3, 4]), id_field="id")
    assert planned["text"] == ["A", "A", "B", "D"]
    assert planned["more"] == [1, 1, 2, 4]
    assert planned["weight"] == [1.0, 1.0, 0.5, 1.0]
    assert planned["masked"][3] == [{"start": 0, "end": 2}]


def test_a_map_style_data_set_gives_the_same_rows(plan: Plan) -> None:
    rows = dataset().to_list()
    planned = plan.apply(rows, id_field="id")
    assert [planned[index] for index in range(len(planned))] == [
        dict(row) for row in plan.apply(dataset(), id_field="id")
    ]


def test_labels_hold_the_weight_and_leave_out_what_is_masked(plan: Plan) -> None:
    tokens = dataset(input_ids=[[5, 6, 7]] * 4, offset_mapping=[[[0, 1], [1, 3], [3, 4]]] * 4)
    labels = plan.apply(tokens, id_field="id")["labels"]
    assert labels[0] == [5, 6, 7]
    assert [label & 0xFFFFFFFF for label in labels[2]] == [5, 6, 7]
    assert labels[2] != [5, 6, 7]
    assert labels[3] == [-100, -100, 7]
    with pytest.raises(ConfigError, match="return_offsets_mapping=True"):
        plan.apply(dataset(input_ids=[[5]] * 4), id_field="id")


def test_masks_and_weights_are_those_of_the_ids_asked_for(plan: Plan) -> None:
    mask_d, mask_a = plan.label_mask(["d", "a"], [[(0, 1), (1, 3), (3, 4)], [(0, 1)]])
    assert mask_d.tolist() == [True, True, False]
    assert mask_a.tolist() == [False]
    assert plan.weights(["c", "b", "a"]).tolist() == [0.0, 0.5, 1.0]


def test_a_sampler_draws_each_row_as_often_as_planned_in_another_order_each_epoch(
    plan: Plan,
) -> None:
    sampler = plan.sampler(NAMES, seed=0)
    epochs = [list(sampler) for _ in range(20)]
    assert {tuple(sorted(epoch)) for epoch in epochs} == {(0, 0, 1, 3)}
    assert len({tuple(epoch) for epoch in epochs}) > 1
    sampler.set_epoch(0)
    assert list(sampler) == epochs[0]
    assert len(sampler) == 4


def test_row_numbers_are_ids_where_no_field_is_named() -> None:
    rows: list[tuple[object, ...]] = [("0", "drop", 0.0, 0, "r", [])]
    rows += [(str(number), "keep", 1.0, 1, "r", []) for number in (1, 2)]
    plan = Plan(pl.DataFrame(rows, schema=PLAN, orient="row"))
    assert plan.apply([{"text": "x"}, {"text": "y"}, {"text": "z"}])[0]["text"] == "y"
    with pytest.raises(DataError, match=r"as many rows as it has samples, 3.*got 2"):
        plan.apply([{"text": "x"}, {"text": "y"}])


def test_ids_that_a_plan_lacks_and_files_that_are_no_plans_are_refused(
    plan: Plan, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"got none for 1, such as 'z'; its 4 samples are such as"):
        plan.weights(["a", "z"])
    with pytest.raises(DataError, match="such as 'z'"):
        plan.labels("z", [1])
    with pytest.raises(SchemaError, match=r"no\.parquet: not found. Make it: gdc plan"):
        Plan.load(tmp_path / "no.parquet")
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(SchemaError, match="Make it again: gdc plan"):
        Plan.load(tmp_path / "other.parquet")
    plan.table.write_parquet(tmp_path / "plan.parquet")
    assert Plan.load(tmp_path / "plan.parquet").table.equals(plan.table)
    with pytest.raises(DataError, match="expected every sample once, got 'a'"):
        Plan(pl.concat([plan.table, plan.table]))


@pytest.mark.parametrize("action", ["live", "private"])
def test_a_plan_that_changes_how_a_model_is_trained_is_refused(action: str) -> None:
    rows: list[tuple[object, ...]] = [("0", "keep", 1.0, 1, "r", [])]
    rows += [("1", action, 1.0, 1, "r", [])]
    with pytest.raises(ConfigError, match=f"a data set can show, got action '{action}', which"):
        Plan(pl.DataFrame(rows, schema=PLAN, orient="row"))


def test_numbers_of_any_type_are_ids() -> None:
    plan = Plan(pl.DataFrame([("7", "keep", 1.0, 1, "r", [])], schema=PLAN, orient="row"))
    assert plan.weights([7, np.int64(7)]).tolist() == [1.0, 1.0]
