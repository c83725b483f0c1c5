"""Several processes train as one does: the same losses, and one trace without gaps or repeats."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gdc import processes, store
from gdc.errors import ConfigError
from gdc.processes import ALONE, Processes
from gdc.training import train
from tests.builders import REPOSITORY, losses_by_numpy
from tests.test_training import built, recipe_with, training_data

DIES_AT = 7
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "GDC_CHECKPOINT_SECONDS": "0"}


@given(st.integers(1, 5), st.integers(0, 40))
def test_every_sample_falls_to_one_process_and_every_row_is_written_by_one(
    count: int, num_rows: int
) -> None:
    group = [Processes(rank, count) for rank in range(count)]
    chosen = np.arange(num_rows) * 3
    assert sorted(np.concatenate([one.share(chosen) for one in group])) == chosen.tolist()
    assert np.concatenate([chosen[one.rows(num_rows)] for one in group]).tolist() == chosen.tolist()


def test_a_process_by_itself_adds_nothing() -> None:
    values = np.array([1.5, 2.0])
    assert processes.join() is ALONE
    assert ALONE.add(values) is values


def test_another_kind_of_parallel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("GDC_PARALLEL", "tensor")
    with pytest.raises(ConfigError, match=r"^GDC_PARALLEL: expected .*'ddp'.*, got 'tensor'"):
        processes.join()


def test_self_influence_wants_one_process(tmp_path: Path) -> None:
    recipe = recipe_with(records=True)
    with pytest.raises(ConfigError, match=r"^train\.self_influence: expected one process, got 2"):
        train(
            built(),
            training_data(),
            recipe,
            checkpoints=tmp_path,
            name="test",
            among=Processes(0, 2),
        )


def run(folder: Path, kind: str, *, launched: bool, parallel: str = "ddp", die_at: int = -1) -> int:
    command = [*(LAUNCH if launched else [sys.executable]), "-m", "tests.train_together"]
    done = subprocess.run(
        [*command, kind, str(folder / "out.npz"), str(die_at)],
        cwd=folder,
        env={**ENVIRONMENT, "GDC_PARALLEL": parallel},
        check=False,
        capture_output=True,
    )
    return done.returncode


def results_of(folder: Path, rank: int = 0) -> dict[str, NDArray[np.float64]]:
    with np.load(folder / f"out-{rank}.npz") as results:
        return dict(results)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "parallel"), [("lstm", "ddp"), ("gpt2", "fsdp")])
def test_two_processes_that_die_and_go_on_train_as_one_does(
    kind: str, parallel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        folder.mkdir()
    assert run(alone, kind, launched=False) == 0
    assert run(together, kind, launched=True, parallel=parallel, die_at=DIES_AT) != 0
    assert not (together / "data").exists()
    assert run(together, kind, launched=True, parallel=parallel) == 0
    expected, first, second = results_of(alone), results_of(together), results_of(together, 1)
    assert first["num_written"] == expected["num_written"] - DIES_AT
    for name in ("weights", "curve", "asked"):
        np.testing.assert_allclose(first[name], expected[name], atol=5e-5)
        np.testing.assert_array_equal(first[name], second[name])
    monkeypatch.chdir(together)
    trace, folder = store.read_trace(0), store.trace_path(0)
    assert [path.name for path in store.trace_shards(folder)] == ["shard_00000", "shard_00001"]
    assert store.verify_trace(folder) == 1 + 2 * (1 + 12) + (1 + 12)
    assert trace.index["sample_id"].to_list() == [f"t-{i}" for i in range(10)]
    losses = trace.losses.collect().to_numpy()
    np.testing.assert_allclose(losses, losses_by_numpy(alone / folder), atol=5e-5)
    np.testing.assert_allclose(
        losses_by_numpy(folder, "heldout"), losses_by_numpy(alone / folder, "heldout"), atol=5e-5
    )
    assert list(Path("work/traces").rglob("*")) == []
    assert list(Path("checkpoints").iterdir()) == []
