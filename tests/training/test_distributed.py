"""Several processes train as one does: the same losses, and one trace without gaps or repeats."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gdc.errors import ConfigError
from gdc.training import distributed
from gdc.training.distributed import SINGLE_PROCESS, Group
from gdc.training.loop import train
from gdc.workspace import paths, traces
from tests.builders import REPOSITORY, is_running, losses_by_numpy
from tests.training.builders import built, recipe_with, training_data
from tests.training.forked_ranks import run

DIES_AT = 7
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "GDC_CHECKPOINT_SECONDS": "0"}


@given(st.integers(1, 5), st.integers(0, 40))
def test_every_window_is_trained_by_one_rank_and_every_row_written_by_one(
    world_size: int, num_rows: int
) -> None:
    ranks = [Group(rank, world_size) for rank in range(world_size)]
    batch = np.arange(num_rows) * 3
    assert sorted(np.concatenate([rank.share(batch) for rank in ranks])) == batch.tolist()
    shards = [batch[rank.shard_rows(num_rows)] for rank in ranks]
    assert np.concatenate(shards).tolist() == batch.tolist()


def test_the_sum_over_a_single_process_is_its_own_values() -> None:
    values = np.array([1.5, 2.0])
    assert distributed.init_group() is SINGLE_PROCESS
    assert SINGLE_PROCESS.all_reduce(values) is values


def test_another_kind_of_parallel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("GDC_PARALLEL", "tensor")
    with pytest.raises(ConfigError, match=r"^GDC_PARALLEL: expected .* fsdp, got 'tensor'"):
        distributed.init_group()


def test_self_influence_needs_a_whole_model_in_each_process(tmp_path: Path) -> None:
    recipe = recipe_with(records=True)
    with pytest.raises(
        ConfigError, match=r"^train\.self_influence: expected GDC_PARALLEL=ddp, got"
    ):
        train(
            built(),
            training_data(),
            recipe,
            checkpoints=tmp_path,
            name="test",
            group=Group(0, 2, is_sharded=True),
        )


# Joins the group, writes its process id, and keeps running.
LASTING_PROGRAM = """
import os, sys, time
from pathlib import Path
from gdc.training import distributed

distributed.init_group()
Path(sys.argv[1], os.environ["RANK"]).write_text(f"{os.getpid()}\\n")
time.sleep(60)
"""


@pytest.mark.slow
def test_processes_end_with_the_launcher_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "lasting.py").write_text(LASTING_PROGRAM)
    command = [*LAUNCH, "2", str(tmp_path / "lasting.py"), str(tmp_path)]
    launcher = subprocess.Popen(command, env=ENVIRONMENT)
    files = [tmp_path / str(rank) for rank in range(2)]
    while not all(file.exists() and file.read_text().endswith("\n") for file in files):
        time.sleep(0.05)
    launcher.kill()
    launcher.wait()
    running = [int(file.read_text()) for file in files]
    deadline = time.monotonic() + 30
    while any(map(is_running, running)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, running))


def results_of(folder: Path, rank: int = 0) -> dict[str, NDArray[np.float64]]:
    with np.load(folder / f"out-{rank}.npz") as results:
        return dict(results)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "parallel"), [("lstm", "ddp"), ("gpt2", "fsdp")])
def test_two_processes_that_are_killed_and_resume_train_as_one_does(
    kind: str, parallel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together, whole = tmp_path / "alone", tmp_path / "together", tmp_path / "whole"
    assert run(alone, kind, 0) == 0
    assert run(whole, kind, 2, parallel=parallel) == 0
    assert run(together, kind, 2, parallel=parallel, die_at=DIES_AT) != 0
    assert not (together / "data").exists()
    assert run(together, kind, 2, parallel=parallel) == 0
    expected, first, second = results_of(alone), results_of(together), results_of(together, 1)
    if parallel == "fsdp":
        expected["gain"] = np.zeros(0)
    uninterrupted = results_of(whole)
    assert first["num_written"] == expected["num_written"] - DIES_AT
    for name in ("weights", "curve", "losses", "gain"):
        np.testing.assert_allclose(first[name], expected[name], atol=5e-5)
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_array_equal(first[name], uninterrupted[name])
    monkeypatch.chdir(together)
    trace, folder = traces.read(0), paths.trace_path(0)
    assert [path.name for path in traces.shard_folders(folder)] == ["shard_00000", "shard_00001"]
    assert traces.verify(folder) == 1 + 2 * (1 + 12) + (1 + 12)
    assert trace.index["sample_id"].to_list() == [f"t-{i}" for i in range(10)]
    losses = trace.losses.collect().to_numpy()
    np.testing.assert_allclose(losses, losses_by_numpy(alone / folder), atol=5e-5)
    np.testing.assert_allclose(
        losses_by_numpy(folder, "heldout"), losses_by_numpy(alone / folder, "heldout"), atol=5e-5
    )
    assert list(Path("work/traces").rglob("*")) == []
    assert list(Path("checkpoints").iterdir()) == []


@pytest.mark.slow
def test_processes_that_find_a_damaged_checkpoint_all_start_again(tmp_path: Path) -> None:
    whole, together = tmp_path / "whole", tmp_path / "together"
    assert run(whole, "lstm", 2) == 0
    assert run(together, "lstm", 2, die_at=DIES_AT) != 0
    (checkpoint,) = (together / "checkpoints").iterdir()
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    assert run(together, "lstm", 2) == 0
    found, expected = results_of(together), results_of(whole)
    assert found["num_written"] == expected["num_written"]
    for name in ("weights", "curve", "losses"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert list((together / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_a_single_launched_process_is_no_shard_and_resumes_bit_by_bit(tmp_path: Path) -> None:
    alone, launched = tmp_path / "alone", tmp_path / "launched"
    assert run(alone, "gpt2", 0) == 0
    assert run(launched, "gpt2", 1, parallel="fsdp", die_at=DIES_AT) != 0
    assert run(launched, "gpt2", 1, parallel="fsdp") == 0
    expected, found = results_of(alone), results_of(launched)
    assert found["num_written"] == expected["num_written"] - DIES_AT
    for name in ("weights", "curve", "losses"):
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.slow
def test_processes_that_resume_draw_the_dropout_that_was_to_come(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(whole, "gpt2", 2, dropout=0.5) == 0
    assert run(broken, "gpt2", 2, dropout=0.5, die_at=DIES_AT) != 0
    assert run(broken, "gpt2", 2, dropout=0.5) == 0
    expected, found = results_of(whole), results_of(broken)
    assert found["num_written"] == expected["num_written"] - DIES_AT
    for name in ("weights", "curve", "losses"):
        np.testing.assert_array_equal(found[name], expected[name])
