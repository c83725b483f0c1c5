from dataclasses import dataclass

import pytest

from gdc.statistics import wording


@dataclass(frozen=True)
class Ends:
    value: float
    low: float
    high: float


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        (wording.number, 12345.6, "1.235e+04"),
        (wording.number, 0.12345, "0.1235"),
        (wording.number, None, "-"),
        (wording.decimals, 0.5, "0.500"),
        (wording.decimals, None, "-"),
        (wording.percent, 0.12345, "12.3 %"),
        (wording.percent, 0.0, "0 %"),
        (wording.percent, None, "-"),
        (wording.points, 0.123, "+12.3"),
        (wording.points, -0.5, "-50.0"),
        (wording.points, None, "-"),
    ],
)
def test_a_number_is_worded_alike_everywhere(
    form: wording.Form, value: float | None, expected: str
) -> None:
    assert form(value) == expected


def test_an_interval_stands_in_brackets_behind_its_value() -> None:
    measured = Ends(0.5, 0.25, 0.75)
    assert wording.interval(measured, wording.percent) == "50 % [25 %, 75 %]"
    assert wording.ends(measured, wording.number) == "[0.25, 0.75]"
    assert wording.interval(None, wording.number) == "-"


def test_a_count_has_its_noun_in_the_right_number() -> None:
    assert [wording.counted(num, "seed") for num in (0, 1, 1200)] == [
        "0 seeds",
        "1 seed",
        "1,200 seeds",
    ]
