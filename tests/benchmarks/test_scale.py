"""The estimate of a large run, by numbers small enough to check by hand; where it is written."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest

from benchmarks import estimate, result_pages
from benchmarks.estimate import Machines, Measured, Size
from gdc.schema import SOURCE_ROWS
from tests.builders import REPOSITORY

SIZE = Size(
    tokens=1000.0,
    documents=10.0,
    token_bytes=4.0,
    epochs=1,
    checkpoints=5,
    references=2,
    retrained=1,
    plans=3,
    largest_model=100.0,
    copies=3.0,
)
MEASURED = Measured(
    corpus=0.5,
    curated=0.25,
    loss=1.0,
    index=20.0,
    halves=1.0,
    reference=4.0,
    scores=50.0,
    quadrants=10.0,
    plan=30.0,
    ingested=2.0,
    compared=5.0,
    mapped=10.0,
    hashed=100.0,
)
MACHINES = Machines(gpus=10, peak=1e15, utilisation=0.5, cores=4, network=100.0)


def test_a_byte_of_text_is_less_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the corpus and in curated data, whose columns the script makes up."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    texts = [f"{number} tells of what is said again and again. " * 40 for number in range(200)]
    rows = pl.DataFrame({"text": texts, "source": "a"}, schema=SOURCE_ROWS)
    found = import_module("scale").of_text(tmp_path, rows)
    assert found.keys() == {"corpus", "curated"}
    assert all(0 < value < 0.5 for value in found.values())


def test_every_part_is_stored_as_counted_by_hand() -> None:
    assert {part.name: part.amount for part in estimate.storage(SIZE, MEASURED)} == {
        "corpus": 1000 * 4 * 0.5,
        "trace": 10 * (5 * 4 + 20),
        "reference losses": 10 * (2 * 4 + 1),
        "scores": 10 * 50,
        "quadrants": 10 * 10,
        "plans": 3 * 10 * 30,
        "curated data": 1000 * 4 * 0.25,
        "models": 2 * 100 * 4,
    }


def test_every_storage_location_keeps_everything() -> None:
    parts = estimate.storage(SIZE, MEASURED)
    assert estimate.kept(parts, 1) == 2000 + 400 + 90 + 500 + 100 + 900 + 1000 + 800
    assert estimate.kept(parts, SIZE.copies) == 3 * estimate.kept(parts, 1)


def test_without_reference_models_there_are_no_halves() -> None:
    parts = estimate.storage(replace(SIZE, references=0), MEASURED)
    assert next(part.amount for part in parts if part.name == "reference losses") == 0


@pytest.mark.parametrize(
    ("epochs", "flops"),
    [
        # Of 1,000 tokens and 100 parameters a forward pass takes 200,000.
        pytest.param(1, [600_000, 1_000_000, 1_000_000, 600_000], id="one epoch"),
        pytest.param(2, [1_200_000, 1_000_000, 1_600_000, 1_200_000], id="twice the training"),
    ],
)
def test_flops_by_hand(epochs: int, flops: list[float]) -> None:
    work = estimate.gpu_work(replace(SIZE, epochs=epochs), 100.0)
    assert [part.amount for part in work] == flops


def test_two_half_models_train_as_long_as_one_whole_one() -> None:
    work = {part.name: part.amount for part in estimate.gpu_work(SIZE, 100.0)}
    asked = 2 * estimate.forward(100.0, SIZE.tokens)
    assert work["reference models of halves"] - asked == work["the tracked run"]


def test_hours_by_hand() -> None:
    # 5e15 FLOP/s together.
    assert estimate.gpu_hours(3.6e19, MACHINES) == 2.0
    assert estimate.core_hours(28_800.0, MACHINES) == 2.0
    assert estimate.transfer_hours(720_000.0, MACHINES) == 2.0


def test_seconds_of_a_core_by_hand() -> None:
    stored = estimate.kept(estimate.storage(SIZE, MEASURED), 1)
    seconds = [part.amount for part in estimate.core_work(SIZE, MEASURED)]
    assert seconds == [10 / 2, 10 / 5, 50 / 10, stored / 100]


def test_a_state_to_go_on_from_holds_weights_and_two_moments() -> None:
    assert estimate.training_state(1e9) == 12e9


PAGE = """a
<!-- written by x -->
old
<!-- until here -->
b
<!-- written by y -->
<!-- until here -->
"""


def test_what_a_script_writes_takes_the_place_of_what_it_wrote() -> None:
    once = result_pages.replaced(PAGE, "x", "new\n")
    assert once == PAGE.replace("old\n", "\nnew\n\n")
    assert result_pages.replaced(once, "x", "new\n") == once
    assert "old" in result_pages.replaced(PAGE, "y", "new\n")


@pytest.mark.parametrize("page", ["no marks", "<!-- written by x -->\nwithout an end\n"])
def test_a_page_without_a_place_for_it_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="expected the lines '<!-- written by x -->"):
        result_pages.replaced(page, "x", "new\n")


@pytest.mark.parametrize("command", result_pages.PAGES)
def test_a_page_of_the_results_has_a_place_for_each_command(command: str) -> None:
    page = result_pages.PAGES[command].read_text(encoding="utf-8")
    assert result_pages.replaced(page, command, "new\n") != page
