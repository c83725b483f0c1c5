import pytest

from gdc.statistics import markdown


def test_a_table_has_its_heading_a_rule_and_one_line_for_each_row() -> None:
    assert markdown.table(["arm", "loss"], [["none", "1.2"], ["paper", "-"]]) == (
        "| arm | loss |\n| --- | --- |\n| none | 1.2 |\n| paper | - |\n"
    )


def test_a_table_without_rows_keeps_its_heading() -> None:
    assert markdown.table(["arm"], []) == "| arm |\n| --- |\n"


def test_a_bar_or_a_line_break_in_a_cell_does_not_end_the_cell() -> None:
    last = markdown.table(["arm", "note"], [["a|b", "two\nlines"]]).splitlines()[-1]
    assert last == r"| a\|b | two lines |"


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected 2 cells in every row, got \['none'\]"):
        markdown.table(["arm", "loss"], [["none"]])
