"""A trace folder mapped from disk: what the pipeline's own functions say of it in memory."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from gdc.cli import app
from gdc.commands import map as mapping
from gdc.commands.map import UNTESTED_AXIS, map_on_cluster, map_trace
from gdc.config import ScoreConfig
from gdc.errors import ConfigError, DataError, GdcError
from gdc.mapping import quadrants
from gdc.mapping.quadrants import partition
from gdc.recording.trace import Trace
from gdc.schema import SCORES, SCORES_BY_RUN
from gdc.scores import FORGETTING, STREAMED, score_samples
from gdc.workspace import files, outputs, paths, ray_cluster, trace_checks, traces
from tests.builders import params_with, trace_of, write_trace
from tests.mapping.builders import absolute, quantile
from tests.mapping.builders import config as cuts
from tests.scores.builders import config
from tests.workspace.builders import damage

OUT = Path("map")
# All that a map of losses alone can hold.
EVERYTHING = (*FORGETTING, *STREAMED)


def rules(**changes: object) -> ScoreConfig:
    """With the columns that the pipeline's table has."""
    return config(**{"enabled": FORGETTING, **changes})


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(trace: Trace) -> Path:
    write_trace(7, trace)
    return paths.trace_path(7)


def random_trace(num_samples: int) -> Trace:
    """Ids in order; a tenth of the losses, never the first two, is missing."""
    rng = np.random.default_rng(0)
    losses = np.abs(rng.normal(2, 1, (num_samples, 5)))
    losses[:, 2:][rng.random((num_samples, 3)) < 0.1] = np.nan
    return trace_of({f"s{i:06d}": curve for i, curve in enumerate(losses.tolist())})


def test_a_known_map() -> None:
    trace = trace_of({"b": [4.0, 2.0, 0.5, 1.5], "a": [2.0, 0.5, 0.5, 0.5]})
    summary = map_trace(written(trace), OUT, rules(), cuts(absolute(3.0), absolute(0.1)))
    mapped = pl.read_parquet(OUT / "scores.parquet")
    assert mapped.rows() == [
        ("b", 4.0, 1 / 3, 2.0, False, "noisy-outlier"),
        ("a", 2.0, 0.0, 1.0, False, "stable-easy"),
    ]
    assert mapped.schema == pl.Schema({**SCORES, "quadrant": pl.String()})
    assert summary.to_json() == files.read_json(OUT / "quadrants.json")
    assert files.read_json(OUT / "scores.json")["num_samples"] == 2


@pytest.mark.parametrize(
    ("epsilon", "num_held"), [(absolute(1.5), 2**29), (quantile(0.3), 2**29), (quantile(0.3), 0)]
)
def test_a_map_from_disk_is_that_of_the_pipeline(
    epsilon: dict[str, object], num_held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enough samples for several blocks; whether or not scores and axes are held."""
    monkeypatch.setattr(quadrants, "_MAX_HELD_SAMPLES", num_held)
    monkeypatch.setattr(mapping, "_MAX_HELD_NUMBERS", num_held)
    trace = random_trace(20_000)
    score = rules(enabled=STREAMED, epsilon=epsilon, num_early=2)
    split = cuts(quantile(0.5), quantile(0.9))
    asked = score.model_copy(update={"enabled": EVERYTHING})
    summary = map_trace(written(trace), OUT, asked, split)
    scored = score_samples([trace], [trace.index.select("sample_id")], score, seed=0)
    assert files.read_json(OUT / "scores.json") == scored.summary.to_json()
    table, expected = partition(scored.samples, pl.DataFrame(schema=SCORES_BY_RUN), split)
    both = scored.samples.with_columns(table["quadrant"])
    assert_frame_equal(pl.read_parquet(OUT / "scores.parquet"), both, check_exact=True)
    assert summary == expected
    assert sorted(path.name for path in OUT.iterdir()) == [
        outputs.RESULTS, "quadrants.json", "scores.json", "scores.parquet",
    ]  # fmt: skip


def test_a_map_has_the_same_bytes_whatever_the_threads_and_wherever_scores_wait(
    tmp_path: Path,
) -> None:
    """Enough samples for several row groups."""
    folder = written(random_trace(300_000))
    program = f"""
from pathlib import Path
from gdc.commands import map
from tests.mapping.builders import config, quantile
from tests.scores.builders import config as rules

for name, num_held in (("memory", 2**29), ("file", 0)):
    map._MAX_HELD_NUMBERS = num_held
    out = Path("{tmp_path}", name + "THREADS")
    map.map_trace(
        Path("{folder.absolute()}"), out,
        rules(enabled=("memorization", "std"), epsilon=quantile(0.3)),
        config(quantile(0.5), quantile(0.9), axis="std"),
    )
"""
    for threads in ("1", "2", "5"):
        subprocess.run(
            [sys.executable, "-c", program.replace("THREADS", threads)],
            check=True, timeout=300, env={**os.environ, "POLARS_MAX_THREADS": threads},
        )  # fmt: skip
    for name in ("scores.parquet", "scores.json", "quadrants.json"):
        found = {path.read_bytes() for path in tmp_path.glob(f"*[125]/{name}")}
        assert len(found) == 1, name


def test_what_a_former_map_has_left_does_not_stay_beside_a_new_one() -> None:
    folder, split = written(trace_of({"a": [1.0, 2.0]})), cuts(absolute(1.0), absolute(0.1))
    former = ["quadrants.parquet", "samples.parquet", "report.html", "quadrants", "scores"]
    left = [OUT / name for name in former[:3]]
    left += [OUT / name / "train.parquet" for name in former[3:]]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for ours in ([], former):
        outputs.claim(OUT, ours)
        map_trace(folder, OUT, rules(), split)
        assert [(OUT / name).exists() for name in former] == [not ours] * 5


@pytest.mark.parametrize("name", ["scores.parquet", "quadrants.json"])
def test_a_map_replaces_no_file_of_the_user_and_what_a_map_has_written(name: str) -> None:
    folder, split = written(trace_of({"a": [1.0, 2.0]})), cuts(absolute(1.0), absolute(0.1))
    OUT.mkdir()
    (OUT / name).write_text("mine")
    with pytest.raises(ConfigError, match=rf"--out .* got {name}, which was not written there"):
        map_trace(folder, OUT, rules(), split)
    assert [path.name for path in OUT.iterdir()] == [name]
    assert (OUT / name).read_text() == "mine"
    (OUT / name).unlink()
    map_trace(folder, OUT, rules(), split)
    first = (OUT / name).read_bytes()
    map_trace(folder, OUT, rules(), split)
    assert (OUT / name).read_bytes() == first


def test_a_map_on_a_cluster_replaces_no_folder_of_the_user() -> None:
    folder = written(trace_of({"a": [1.0, 2.0]}))
    (OUT / "scores").mkdir(parents=True)
    (OUT / "scores/train.parquet").write_bytes(b"of a former map")
    (OUT / "scores/mine.parquet").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"got scores, which was not written there"):
        map_on_cluster(folder, OUT, rules(), cuts(absolute(1.0), absolute(0.1)))
    outputs.claim(OUT, ["scores"])
    with pytest.raises(ConfigError, match=r"--out .*no folder scores, .* got one with mine"):
        map_on_cluster(folder, OUT, rules(), cuts(absolute(1.0), absolute(0.1)))
    assert len(list((OUT / "scores").iterdir())) == 2


@pytest.mark.slow
def test_a_trace_in_shards_is_mapped_on_a_cluster_as_it_is_here() -> None:
    trace = random_trace(1000)
    folder = write_trace(7, trace, num_processes=3)
    score = rules(enabled=EVERYTHING, epsilon=quantile(0.3), num_early=2)
    split = cuts(quantile(0.5), quantile(0.9))
    here = map_trace(folder, OUT, score, split)
    there = Path("there")
    with ray_cluster.connected(ray_cluster.LOCAL):
        map_trace(folder, there, score, split)
        assert map_on_cluster(folder, there, score, split) == here
        mapped = sorted((there / "scores").iterdir())
        assert not (there / "scores.parquet").exists()
        assert [file.stem for file in mapped] == [f"shard_{i:05d}" for i in range(3)]
        found = pl.concat(pl.read_parquet(file) for file in mapped)
        assert_frame_equal(found, pl.read_parquet(OUT / "scores.parquet"), check_exact=True)
        for name in ("scores.json", "quadrants.json"):
            assert files.read_json(there / name) == files.read_json(OUT / name)
        damage(folder / "train/shard_00001/loss_003.parquet", 4)
        given = rules(enabled=EVERYTHING, epsilon=absolute(1.0), num_early=2)
        with pytest.raises(DataError, match=r"(?s)shard_00001/loss_003\.parquet: not a Parquet"):
            map_on_cluster(folder, there, given, split)


def test_a_sample_without_a_value_on_an_axis_is_named_and_no_file_is_claimed() -> None:
    trace = written(trace_of({"a": [1.0, 2.0], "b": [float("nan"), 2.0]}))
    with pytest.raises(DataError, match=r"1 samples have no difficulty, first b\."):
        map_trace(trace, OUT, rules(), cuts(absolute(1.0), absolute(0.1)))
    assert list(OUT.iterdir()) == []


def test_a_score_that_reads_more_than_the_losses_is_refused() -> None:
    trace = written(trace_of({"a": [1.0, 2.0]}))
    with pytest.raises(ConfigError, match=r"expected names of \['memorization', .*got \['zlib'\]"):
        map_trace(trace, OUT, rules(enabled=("zlib",)), cuts(absolute(1.0), absolute(0.1)))


def test_an_axis_that_is_not_scored_is_refused_before_anything_is_written() -> None:
    trace = written(trace_of({"a": [1.0, 2.0]}))
    with pytest.raises(ConfigError, match=r"partition\.axis: expected one of .*, got 'iqr'"):
        map_trace(trace, OUT, rules(), cuts(absolute(1.0), absolute(0.1), axis="iqr"))
    assert not OUT.exists()


def test_a_damaged_file_is_named() -> None:
    folder = written(random_trace(100))
    damage(folder / "train/loss_003.parquet", 4)
    with pytest.raises(DataError, match=r"(?s)loss_003\.parquet: not a Parquet file"):
        map_trace(folder, OUT, rules(), cuts(absolute(1.0), absolute(0.1)))


def test_losses_of_another_mode_are_not_read() -> None:
    """So a damaged one does no harm."""
    trace = trace_of({"a": [4.0, 2.0, 0.5, 1.5]})
    modes = trace.checkpoints.with_columns(mode=pl.Series(["online", "probe", "online", "online"]))
    folder = written(replace(trace, checkpoints=modes))
    damage(folder / "train/loss_001.parquet", 4)
    map_trace(folder, OUT, rules(), cuts(absolute(1.0), absolute(0.1)))
    found = pl.read_parquet(OUT / "scores.parquet").select("difficulty", "memorization").row(0)
    assert found == (4.0, 0.5)
    with pytest.raises(DataError, match="expected at least 2 probe checkpoints, got 1"):
        map_trace(folder, OUT, rules(mode="probe"), cuts(absolute(1.0), absolute(0.1)))
    trace.checkpoints.write_parquet(folder / "checkpoints.parquet")
    with pytest.raises(DataError, match="expected at least 2 probe checkpoints, got 0"):
        map_trace(folder, OUT, rules(mode="probe"), cuts(absolute(1.0), absolute(0.1)))


def test_a_loss_that_is_not_a_number_was_not_seen() -> None:
    """As a foreign writer leaves it, who has no null."""
    trace = trace_of({"a": [0.5, 2.0, 0.5, float("nan"), 2.0], "b": [0.5, 2.0, 0.5, 0.5, 2.0]})
    folder = written(trace)
    path = folder / "train/loss_003.parquet"
    pl.read_parquet(path).fill_null(float("nan")).write_parquet(path)
    map_trace(folder, OUT, rules(enabled=EVERYTHING), cuts(absolute(1.0), absolute(0.1)))
    scored = score_samples(
        [trace], [trace.index.select("sample_id")], rules(enabled=STREAMED), seed=0
    )
    found = pl.read_parquet(OUT / "scores.parquet")
    assert_frame_equal(found.drop("quadrant"), scored.samples, check_exact=True)
    assert found["memorization"].to_list() == [1 / 2, 2 / 4]


def test_the_command_maps_by_the_rules_of_the_default_preset() -> None:
    """No canaries choose the preset's axis auto: it is the one that is taken untested."""
    trace = random_trace(1000)
    trace = replace(trace, losses=trace.losses.fill_null(1.0).fill_nan(1.0))
    probes = trace.checkpoints.with_columns(mode=pl.lit("probe"))
    folder = written(replace(trace, checkpoints=probes))
    done = CliRunner().invoke(app, ["map", str(folder), "--out", "map", "--score", "iqr"])
    assert done.exit_code == 0
    params = params_with()
    summary = map_trace(
        folder,
        Path("again"),
        params.score.model_copy(update={"enabled": ("iqr", UNTESTED_AXIS)}),
        params.partition.model_copy(update={"axis": UNTESTED_AXIS}),
    )
    assert Path("again/scores.parquet").read_bytes() == Path("map/scores.parquet").read_bytes()
    for name, num_samples in summary.counts.items():
        assert f"{name:<18} {num_samples}" in done.output


def test_the_command_refuses_a_mode_that_the_trace_lacks() -> None:
    folder = written(random_trace(10))
    done = CliRunner().invoke(app, ["map", str(folder), "--mode", "probe"])
    assert isinstance(done.exception, GdcError)
    assert "expected at least 2 such checkpoints, got 5 online" in str(done.exception)


# ---- what another program may write, and no map can be made of


def refused(folder: Path, *options: str) -> str:
    """The one message of a map that writes nothing."""
    done = CliRunner().invoke(
        app, ["map", str(folder), "--out", "map", "--mode", "online", *options]
    )
    assert isinstance(done.exception, GdcError), done.output
    assert done.exception.exit_code == 2
    assert not OUT.exists()
    message = str(done.exception)
    assert "gdc stage" not in message
    assert "data/scores" not in message
    return message


def foreign(num_shards: int = 1) -> Path:
    """Six samples, not in order, moved to where the pipeline writes nothing."""
    ids = ["f", "b", "d", "a", "e", "c"]
    trace = trace_of({name: [4.0 - i / 2, 2.0, i / 4] for i, name in enumerate(ids)})
    return write_trace(7, trace, num_shards).rename("theirs")


def edit(path: Path, **columns: pl.Expr) -> None:
    pl.read_parquet(path).with_columns(**columns).write_parquet(path)


def in_row(row: int, value: float | str | None, name: str) -> pl.Expr:
    return pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value)).otherwise(pl.col(name))


def test_a_foreign_trace_whose_ids_are_not_in_order_is_mapped() -> None:
    for num_shards in (1, 3):
        folder = foreign(num_shards)
        map_trace(folder, OUT, rules(), cuts(absolute(3.0), absolute(0.1)))
        assert "".join(pl.read_parquet(OUT / "scores.parquet")["sample_id"]) == "fbdaec"
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("row", "value", "message"),
    [
        (4, "b", r"expected every sample_id once, got 'b' in 2 rows; in all 1 rows too many"),
        (2, None, r"expected a sample_id in every row, got 1 without, the first in row 2: None"),
    ],
)
def test_ids_that_do_not_tell_samples_apart_are_refused(
    row: int, value: str | None, message: str
) -> None:
    folder = foreign()
    edit(folder / "train/index.parquet", sample_id=in_row(row, value, "sample_id"))
    assert re.match(
        rf"theirs/train/index\.parquet: {message}.* Write the trace again", refused(folder)
    )


def test_one_id_for_all_samples_is_refused() -> None:
    folder = foreign()
    edit(folder / "train/index.parquet", sample_id=pl.lit("x" * 1000))
    assert re.match(
        r"theirs/train/index\.parquet: .* got 'x{79}\.\.\. in 6 rows; in all 5 rows too many",
        refused(folder),
    )


def test_the_same_ids_in_two_shards_are_refused() -> None:
    folder = foreign(3)
    first, last = (folder / f"train/shard_0000{i}/index.parquet" for i in (0, 2))
    shutil.copy(first, last)
    assert refused(folder).startswith(
        f"{first} and {last}: expected every sample_id once, got 'b' in 2 rows; in all 2 rows"
    )


def test_ids_whose_hashes_collide_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_checks, "_hash", pl.col("sample_id").str.len_bytes)
    map_trace(foreign(), OUT, rules(), cuts(absolute(3.0), absolute(0.1)))
    assert pl.read_parquet(OUT / "scores.parquet").height == 6


@pytest.mark.parametrize("value", [None, 0, -3])
def test_a_sample_without_tokens_is_refused(value: int | None) -> None:
    folder = foreign(2)
    path = folder / "train/shard_00001/index.parquet"
    edit(path, num_tokens=in_row(1, value, "num_tokens"))
    assert refused(folder).startswith(
        f"{path}: expected num_tokens of at least 1 in every row, got 1 without, the first in row "
        f"1: {value}. Write the trace again"
    )


@pytest.mark.parametrize("value", [-0.5, float("inf"), float("-inf")])
@pytest.mark.parametrize("statistics", [True, False])
def test_a_loss_that_cannot_be_is_refused(value: float, statistics: bool) -> None:
    """Beside a NaN, and whether or not the file says which values are in it."""
    folder = foreign()
    path = folder / "train/loss_001.parquet"
    edit(path, loss_001=in_row(1, float("nan"), "loss_001").cast(pl.Float32))
    edit(path, loss_001=in_row(3, value, "loss_001").cast(pl.Float32))
    pl.read_parquet(path).write_parquet(path, statistics=statistics)
    assert refused(folder).startswith(
        f"{path}: expected losses of at least 0, and finite, got 1 without, the first in row 3: "
        f"{value}."
    )


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [([0, None, 2], "0, None, 2"), ([0, 1, 1], "0, 1, 1"), ([2, 1, 0], "2, 1, 0")],
)
def test_checkpoints_that_are_not_numbered_are_refused(
    numbers: list[int | None], shown: str
) -> None:
    folder = foreign()
    edit(folder / "checkpoints.parquet", checkpoint=pl.lit(pl.Series(numbers, dtype=pl.Int64)))
    assert refused(folder).startswith(
        f"theirs/checkpoints.parquet: expected checkpoints whose numbers rise from row to row, got "
        f"{shown}."
    )


@pytest.mark.parametrize(
    ("name", "values", "shown"),
    [
        ("step", [0, -5, 10], "0, -5, 10"),
        ("step", [0, 20, 10], "0, 20, 10"),
        ("epoch", [2.0, 1.0, 0.0], "2.0, 1.0, 0.0"),
        ("epoch", [0.0, float("nan"), 1.0], "0.0, nan, 1.0"),
        ("epoch", [0.0, 1.0, float("inf")], "0.0, 1.0, inf"),
    ],
)
def test_checkpoints_in_another_order_than_that_of_training_are_refused(
    name: str, values: list[float], shown: str
) -> None:
    folder = foreign()
    edit(folder / "checkpoints.parquet", **{name: pl.lit(pl.Series(values))})
    assert refused(folder).startswith(
        f"theirs/checkpoints.parquet: expected {name}s of at least 0 that do not fall from row to "
        f"row, got {shown}."
    )


@pytest.mark.parametrize("name", ["shard_00001.bak", "shard_readme.txt", "shard_"])
def test_a_file_named_like_a_shard_that_is_none_is_refused(name: str) -> None:
    folder = foreign(2)
    shutil.copytree(folder / "train/shard_00001", folder / "train" / name)
    assert refused(folder).startswith(f"theirs/train/{name}: expected no more than folders shard_")
    shutil.rmtree(folder / "train" / name)
    (folder / "train" / name).touch()
    assert refused(folder).startswith(f"theirs/train/{name}: expected no more than folders shard_")


def test_a_shard_that_is_missing_is_noticed() -> None:
    folder = foreign(3)
    shutil.rmtree(folder / "train/shard_00001")
    assert refused(folder) == (
        "theirs/train: expected shards 0 to 1, one of each, got shard_00000, shard_00002. Put back "
        "what is missing."
    )


def test_a_score_asked_for_twice_is_refused() -> None:
    assert refused(foreign(), "--score", "std", "--score", "std") == (
        "--score: expected every name once, got std, std."
    )


def test_what_is_missing_or_of_another_type_is_named_in_the_users_folder() -> None:
    folder = foreign()
    path = folder / "train/loss_002.parquet"
    edit(path, loss_002=pl.col("loss_002").cast(pl.Float64))
    assert re.match(
        r"theirs/train/loss_002\.parquet: expected .*Float32.* got .*Float64.* Write",
        refused(folder),
    )
    path.unlink()
    assert re.match(
        r"theirs/train/loss_002\.parquet: not found\. Write the trace again", refused(folder)
    )
    assert refused(folder, "--verify").endswith(traces.ANEW)


def test_a_trace_without_losses_is_named() -> None:
    folder = foreign()
    for i in range(3):
        name = f"loss_00{i}"
        edit(folder / f"train/{name}.parquet", **{name: pl.lit(None, pl.Float32)})
    message = "theirs: expected online losses, got no loss in 1 run(s)."
    assert refused(folder, "--axis", "memorization").startswith(message)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file", r"--out file: expected a folder, got a file\. Name another\."),
        ("file/map", r"--out file/map: expected a folder, got the file .*/file on its way\."),
        ("link/map", r"--out link/map: expected a folder, got the file .*/link on its way\."),
        (
            "/proc/map",
            r"--out /proc/map: expected a folder that can be written, got /proc: No",
        ),
    ],
)
def test_a_folder_that_cannot_be_made_is_refused(out: str, message: str) -> None:
    Path("file").touch()
    Path("link").symlink_to("nowhere")
    assert re.match(message, refused(foreign(), "--out", out))
