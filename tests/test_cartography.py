"""A trace folder mapped from disk: what the pipeline's own functions say of it in memory."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from gdc import ray_cluster, store
from gdc.cartography import map_on_cluster, map_trace
from gdc.cli import app
from gdc.errors import ConfigError, DataError, GdcError
from gdc.quadrants import partition
from gdc.schema import SCORES_BY_RUN
from gdc.scores import STREAMED, score_samples
from gdc.trace import Trace
from tests.builders import params_with, trace_of, write_trace
from tests.test_quadrants import absolute, quantile
from tests.test_quadrants import config as cuts
from tests.test_scores import config as rules
from tests.test_store import damage

OUT = Path("map")


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(trace: Trace) -> Path:
    write_trace(7, trace)
    return store.trace_path(7)


def random_trace(num_samples: int) -> Trace:
    """Ids in order; a tenth of the losses, never the first two, is missing."""
    rng = np.random.default_rng(0)
    losses = np.abs(rng.normal(2, 1, (num_samples, 5)))
    losses[:, 2:][rng.random((num_samples, 3)) < 0.1] = np.nan
    return trace_of({f"s{i:06d}": curve for i, curve in enumerate(losses.tolist())})


def test_a_known_map() -> None:
    trace = trace_of({"b": [4.0, 2.0, 0.5, 1.5], "a": [2.0, 0.5, 0.5, 0.5]})
    summary = map_trace(written(trace), OUT, rules(), cuts(absolute(3.0), absolute(0.1)))
    assert pl.read_parquet(OUT / "scores.parquet").rows() == [
        ("b", 4.0, 1 / 3, 2.0, False),
        ("a", 2.0, 0.0, 1.0, False),
    ]
    assert pl.read_parquet(OUT / "quadrants.parquet").rows() == [
        ("b", "noisy-outlier", None),
        ("a", "stable-easy", None),
    ]
    assert summary == store.read_json(OUT / "quadrants.json")
    assert store.read_json(OUT / "scores.json")["num_samples"] == 2


@pytest.mark.parametrize("epsilon", [absolute(1.5), quantile(0.3)])
def test_a_map_from_disk_is_that_of_the_pipeline(epsilon: dict[str, object]) -> None:
    """Enough samples for several blocks."""
    trace = random_trace(20_000)
    score = rules(enabled=STREAMED, epsilon=epsilon, num_early=2)
    split = cuts(quantile(0.5), quantile(0.9))
    summary = map_trace(written(trace), OUT, score, split)
    scored = score_samples([trace], [trace.index.select("sample_id")], score, seed=0)
    assert_frame_equal(pl.read_parquet(OUT / "scores.parquet"), scored.samples, check_exact=True)
    assert store.read_json(OUT / "scores.json") == scored.summary
    table, expected = partition(scored.samples, pl.DataFrame(schema=SCORES_BY_RUN), split)
    assert_frame_equal(pl.read_parquet(OUT / "quadrants.parquet"), table)
    assert summary == expected


@pytest.mark.slow
def test_a_trace_in_shards_is_mapped_on_a_cluster_as_it_is_here() -> None:
    trace = random_trace(1000)
    folder = write_trace(7, trace, num_processes=3)
    score = rules(enabled=STREAMED, epsilon=quantile(0.3), num_early=2)
    split = cuts(quantile(0.5), quantile(0.9))
    here = map_trace(folder, OUT, score, split)
    there = Path("there")
    with ray_cluster.connected(ray_cluster.LOCAL):
        assert map_on_cluster(folder, there, score, split) == here
        for name in ("scores", "quadrants"):
            files = sorted((there / name).iterdir())
            assert [file.stem for file in files] == [f"shard_{i:05d}" for i in range(3)]
            found = pl.concat(pl.read_parquet(file) for file in files)
            assert_frame_equal(found, pl.read_parquet(OUT / f"{name}.parquet"), check_exact=True)
            summary = store.read_json(there / f"{name}.json")
            assert summary == store.read_json(OUT / f"{name}.json")
        damage(folder / "train/shard_00001/loss_003.parquet", 4)
        given = rules(enabled=STREAMED, epsilon=absolute(1.0), num_early=2)
        with pytest.raises(DataError, match=r"(?s)shard_00001/loss_003\.parquet: not a Parquet"):
            map_on_cluster(folder, there, given, split)


def test_a_cluster_reports_nothing_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.setattr("ray.init", lambda *_, **__: started.append(dict(os.environ)))
    started: list[dict[str, str]] = []
    with ray_cluster.connected(ray_cluster.LOCAL):
        pass
    assert started[0]["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_cluster_without_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'gendatacarto\[ray\]'"),
        ray_cluster.connected("auto"),
    ):
        pass


def test_a_score_that_reads_more_than_the_losses_is_refused() -> None:
    trace = written(trace_of({"a": [1.0, 2.0]}))
    with pytest.raises(ConfigError, match=r"expected names of \['final_loss', .*got \['zlib'\]"):
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
    map_trace(folder, OUT, rules(enabled=STREAMED), cuts(absolute(1.0), absolute(0.1)))
    scored = score_samples(
        [trace], [trace.index.select("sample_id")], rules(enabled=STREAMED), seed=0
    )
    found = pl.read_parquet(OUT / "scores.parquet")
    assert_frame_equal(found, scored.samples, check_exact=True)
    assert found["memorization"].to_list() == [1 / 2, 2 / 4]


def test_the_command_maps_by_the_rules_of_the_default_preset() -> None:
    trace = random_trace(1000)
    probes = trace.checkpoints.with_columns(mode=pl.lit("probe"))
    folder = written(replace(trace, checkpoints=probes))
    done = CliRunner().invoke(app, ["map", str(folder), "--out", "map", "--score", "iqr"])
    assert done.exit_code == 0
    params = params_with()
    summary = map_trace(
        folder,
        Path("again"),
        params.score.model_copy(update={"enabled": ("iqr",)}),
        params.partition,
    )
    assert Path("again/scores.parquet").read_bytes() == Path("map/scores.parquet").read_bytes()
    for name, num_samples in summary["counts"].items():
        assert f"{name:<18} {num_samples}" in done.output


def test_the_command_refuses_a_mode_that_the_trace_lacks() -> None:
    folder = written(random_trace(10))
    done = CliRunner().invoke(app, ["map", str(folder), "--mode", "probe"])
    assert isinstance(done.exception, GdcError)
    assert "expected at least 2 probe checkpoints, got 0" in str(done.exception)
