"""Memorization over time of a trace of one pass: numbers, picture, quadrants, refusals."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import gdc
from gdc.cli import app
from gdc.commands import profile
from gdc.commands.map import table_of
from gdc.errors import ConfigError, SchemaError
from gdc.schema import CORPUS, QUADRANT_TABLE, SCORES
from gdc.stages import report
from gdc.workspace import files, paths, tables
from tests.builders import params_with

pytestmark = pytest.mark.slow

# Two samples a step; a frozen look before training and after every step.
NUM_STEPS = 4
SAMPLES = [f"s{i}-0" for i in range(2 * NUM_STEPS)]


def recorded(folder: Path, *, num_probes: int = NUM_STEPS + 1) -> Path:
    """Losses fall by 1 a step for all; a sample's own training lowers its loss by 2, later by 1."""
    recorder = gdc.TraceRecorder(folder, SAMPLES, heldout=["h0", "h1"])
    for step in range(NUM_STEPS + 1):
        if step:
            recorder.record([2 * step - 2, 2 * step - 1], [1.0, 1.0])
            recorder.checkpoint(step=step)
        if step < num_probes:
            seen = [step - (i // 2 + 1) for i in range(len(SAMPLES))]
            gains = [0 if age < 0 else 2 if age == 0 else 1 for age in seen]
            usual = [10.0 + i - step for i in range(len(SAMPLES))]
            known = [loss - gain for loss, gain in zip(usual, gains, strict=True)]
            recorder.record(range(len(SAMPLES)), known)
            recorder.record([0, 1], [20.0 - step, 30.0 - step], split="heldout")
            recorder.checkpoint(step=step, mode="probe")
    recorder.close()
    return folder


def quadrants_of(folder: Path, ids: list[str]) -> Path:
    names = ["hotspot-memorized" if i < 4 else "stable-easy" for i in range(len(ids))]
    rows = {"sample_id": ids, "quadrant": names, "stability": None}
    folder.mkdir()
    pl.DataFrame(rows, schema=QUADRANT_TABLE).write_parquet(folder / "scores.parquet")
    return folder / "scores.parquet"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_one_pass_over_the_data_tells_what_each_step_memorized() -> None:
    trace, quadrants = recorded(Path("t")), quadrants_of(Path("m"), SAMPLES)
    done = CliRunner().invoke(app, ["profile", str(trace), "--map", "m", "--out", "out"])
    assert done.exit_code == 0, done.output
    found = files.read_json(Path("out/profile.json"))
    assert set(found) == {"all", "stable-easy", "hotspot-memorized"}
    for of in found.values():
        assert of["instantaneous"]["value"] == pytest.approx(2)
        assert of["pre_trend"]["value"] == pytest.approx(0)
        assert of["num_left_out"] == 0
    assert [lag["steps"] for lag in found["all"]["lags"]] == [-4, -3, -2, 0, 1, 2, 3]
    # Of four groups one has just been seen at the end.
    assert found["all"]["residual"]["value"] == pytest.approx((3 * 1 + 2) / 4)
    assert found["hotspot-memorized"]["residual"]["value"] == pytest.approx(1)
    assert "| hotspot-memorized | 4 | 0.000" in done.output
    picture = Path("out/profile.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    profile.run(trace, quadrants, Path("again"))
    assert Path("again/profile.png").read_bytes() == picture


def test_a_map_in_shards_has_the_quadrants_of_one_in_a_file() -> None:
    trace, quadrants = recorded(Path("t")), quadrants_of(Path("m"), SAMPLES)
    expected, whole = profile.run(trace, quadrants, Path("out")), pl.read_parquet(quadrants)
    quadrants.unlink()
    Path("m/scores").mkdir()
    for shard, rows in enumerate((whole[:3], whole[3:])):
        rows.write_parquet(f"m/scores/shard_0000{shard}.parquet")
    assert profile.run(trace, table_of(Path("m")), Path("again")) == expected
    done = CliRunner().invoke(app, ["profile", str(trace), "--map", "m", "--out", "again"])
    assert done.exit_code == 0, done.output
    assert (Path("again/profile.json")).read_bytes() == Path("out/profile.json").read_bytes()


def test_a_copy_that_was_seen_counts_for_all_copies_of_its_text() -> None:
    trace = recorded(Path("t"))
    blank = dict.fromkeys(CORPUS)
    rows = [
        blank | {"sample_id": name, "content_id": "s0" if name in {"s0-0", "s6-0"} else name}
        for name in SAMPLES
    ]
    tables.write("corpus", pl.DataFrame(rows, schema=CORPUS))
    found = profile.run(trace, None, Path("out"))["all"]
    # The copy's loss has not fallen by itself when the other was trained on.
    assert found.instantaneous is not None
    assert found.instantaneous.value < 2


def test_what_a_profile_cannot_be_made_of_is_refused() -> None:
    trace = recorded(Path("t"))
    with pytest.raises(ConfigError, match=r"expected the quadrants of samples of this trace, got"):
        profile.run(trace, quadrants_of(Path("m"), ["x", "y"]), Path("out"))
    former, odd = Path("m/former.parquet"), Path("m/odd.parquet")
    pl.DataFrame(schema=SCORES).write_parquet(former)
    pl.DataFrame(schema={**SCORES, "quadrant": pl.Int64}).write_parquet(odd)
    for path, got in (former, "none, as in maps of former versions"), (odd, "Int64"):
        with pytest.raises(SchemaError, match=rf"expected a column quadrant of strings, got {got}"):
            profile.run(trace, path, Path("out"))
    with pytest.raises(ConfigError, match=r"at least 2 frozen checkpoints \(probe\), got 1"):
        profile.run(recorded(Path("few"), num_probes=1), None, Path("out"))
    (trace / "first_seen.parquet").unlink()
    with pytest.raises(SchemaError, match=r"first_seen\.parquet: not found\. A trace of an older"):
        profile.run(trace, None, Path("out"))
    assert not Path("out").exists()


def test_the_report_of_a_run_has_the_same_numbers_and_none_of_too_few_looks() -> None:
    params = params_with()
    folder = paths.trace_path(params.train.seeds[0])
    folder.parent.mkdir(parents=True)
    quadrants = pl.read_parquet(quadrants_of(Path("m"), SAMPLES))
    recorded(folder)
    assert report._profiles(quadrants, params) == profile.run(
        folder, Path("m/scores.parquet"), Path("out")
    )
    shutil.rmtree(folder)
    recorded(folder, num_probes=1)
    assert report._profiles(quadrants, params) == {}
