"""Two workspaces compared: equal bytes, equal values under new names, differences."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import pytest

from benchmarks.compare_workspaces import compare, is_equal, page

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "compare_workspaces.py"
SCORES: dict[str, object] = {
    "sample_id": ["a", "b"],
    "twin_ids": [["b"], []],
    "final_loss": [0.5, None],
}
REPORT: dict[str, object] = {
    "evidence": {"none": [1, 0.25]},
    "seeds": [1, 2],
    "reason": "the old sentence",
}


def make_workspace(folder: Path) -> Path:
    for name in ("data", "metrics", "reports"):
        (folder / name).mkdir(parents=True)
    pl.DataFrame(SCORES).write_parquet(folder / "data/scores.parquet")
    pl.DataFrame({"exposure": [1.5]}).write_parquet(folder / "data/probes.parquet")
    (folder / "data/code.json").write_text("{}", "utf-8")
    (folder / "data/model.safetensors").write_bytes(b"\x00\x01")
    (folder / "metrics/none-1.json").write_text('{"loss": 1.0}', "utf-8")
    (folder / "reports/report.json").write_text(json.dumps(REPORT), "utf-8")
    (folder / "reports/report.html").write_text("not compared", "utf-8")
    return folder


def rename_everything(folder: Path) -> None:
    """As a newer version of gdc writes it."""
    scores = pl.DataFrame(SCORES).rename({"twin_ids": "duplicate_ids"})
    scores.write_parquet(folder / "data/scores.parquet")
    (folder / "data/probes.parquet").rename(folder / "data/canary_memorization.parquet")
    (folder / "data/code.json").write_text('{"scores": "another digest"}', "utf-8")
    report: dict[str, object] = {"schema_version": 1, "arm_audits": REPORT["evidence"]}
    report |= {name: REPORT[name] for name in ("seeds", "reason")}
    (folder / "reports/report.json").write_text(json.dumps(report), "utf-8")


def change_a_byte(folder: Path) -> None:
    (folder / "data/model.safetensors").write_bytes(b"\x00\x02")


def change_a_value(folder: Path) -> None:
    scores = {**SCORES, "final_loss": [0.5, 0.0]}
    pl.DataFrame(scores).write_parquet(folder / "data/scores.parquet")


def change_a_type(folder: Path) -> None:
    pl.DataFrame({"exposure": [1.5]}, schema={"exposure": pl.Float32}).write_parquet(
        folder / "data/probes.parquet"
    )


def change_a_number(folder: Path) -> None:
    write_report(folder, {**REPORT, "evidence": {"none": [1, 0.26]}})


def make_an_integer_a_float(folder: Path) -> None:
    write_report(folder, {**REPORT, "seeds": [1, 2.0]})


def add_a_key(folder: Path) -> None:
    write_report(folder, {**REPORT, "more": 1})


def remove_a_file(folder: Path) -> None:
    (folder / "metrics/none-1.json").unlink()


def add_a_file(folder: Path) -> None:
    (folder / "data/more.parquet").write_bytes(b"")


def write_report(folder: Path, report: Mapping[str, object]) -> None:
    renamed = {"evidence": "arm_audits"}
    content = {renamed.get(name, name): value for name, value in report.items()}
    (folder / "reports/report.json").write_text(json.dumps(content), "utf-8")


def test_a_workspace_equals_itself_byte_by_byte(tmp_path: Path) -> None:
    old = make_workspace(tmp_path / "old")
    found = compare(old, old)
    assert is_equal(found, allow_wording=False)
    assert "| **all** | 5 | 0 | 0 | 1 | 0 | 0 |" in page(found)


def test_renamed_files_columns_and_keys_have_equal_values(tmp_path: Path) -> None:
    old, new = (make_workspace(tmp_path / name) for name in ("old", "new"))
    rename_everything(new)
    found = compare(old, new)
    assert is_equal(found, allow_wording=False)
    assert "| **all** | 3 | 2 | 0 | 1 | 0 | 0 |" in page(found)
    line = "| data/probes.parquet | equal bytes | now data/canary_memorization.parquet |"
    assert line in page(found)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (change_a_byte, "| data/model.safetensors | differs | bytes |"),
        (change_a_value, "| data/scores.parquet | differs | column final_loss |"),
        (change_a_type, "| data/probes.parquet | differs | column exposure |"),
        (change_a_number, "| reports/report.json | differs | value of arm_audits.none.1 |"),
        (make_an_integer_a_float, "| reports/report.json | differs | value of seeds.1 |"),
        (add_a_key, "| reports/report.json | differs | key more is new |"),
        (remove_a_file, "| metrics/none-1.json | missing | expected metrics/none-1.json in NEW |"),
        (add_a_file, "| data/more.parquet | missing | only in NEW |"),
    ],
)
def test_a_difference_is_named_and_fails(
    tmp_path: Path, change: Callable[[Path], None], line: str
) -> None:
    old, new = (make_workspace(tmp_path / name) for name in ("old", "new"))
    change(new)
    found = compare(old, new)
    assert not is_equal(found, allow_wording=True)
    assert line in page(found)


def test_a_reworded_sentence_fails_unless_it_is_allowed(tmp_path: Path) -> None:
    old, new = (make_workspace(tmp_path / name) for name in ("old", "new"))
    write_report(new, {**REPORT, "reason": "the new sentence"})
    found = compare(old, new)
    assert "| reports/report.json | reworded | wording of reason |" in page(found)
    assert not is_equal(found, allow_wording=False)
    assert is_equal(found, allow_wording=True)


def test_folders_without_outputs_are_not_equal(tmp_path: Path) -> None:
    assert not is_equal(compare(tmp_path, tmp_path), allow_wording=True)


def test_the_script_prints_the_table_and_exits_with_1_on_a_difference(tmp_path: Path) -> None:
    old, new = (make_workspace(tmp_path / name) for name in ("old", "new"))
    change_a_byte(new)
    for other, code in ((old, 0), (new, 1)):
        command = [sys.executable, str(SCRIPT), str(old), str(other)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (code, "")
        assert done.stdout == page(compare(old, other))
