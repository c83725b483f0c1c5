"""The leaderboard in a workspace of its own: what it trains, skips, writes and refuses."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import mlflow  # noqa: TID251 - looks at what MLflow holds
import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from gdc.errors import ConfigError
from gdc.leaderboard.board import Leaderboard, LeaderboardRow
from gdc.scores import REGISTRY
from tasks.half_models import require_scores
from tests.flows.builders import ENVIRONMENT, dvc, make_workspace, read_params, write_params

NUM_MODELS = 4
# As after a kill of the leaderboard's first half-model; one process, as imports take seconds.
STAGES = f"""
import sys
from gdc.stages import ground_truth, halves, ingest, manifest, reference, score, train
references = [(reference, f"--model {{number}}") for number in range(4)]
half_model = (ground_truth, "--model 0 --num-models {NUM_MODELS}")
before = [(manifest, ""), (ingest, ""), (halves, ""), (train, "--seed 0")]
for stage, options in [*before, *references, (score, ""), half_model]:
    sys.argv = ["stage", *options.split()]
    stage.main()
"""


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**ENVIRONMENT, "GDC_CHECKPOINT_SECONDS": "600"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def leaderboard(folder: Path) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).parent / "gdc")
    return run(
        folder, program, "leaderboard", "--num-models", str(NUM_MODELS), "--max-workers", "2"
    )


def memorization_by_numpy(folder: Path) -> pl.DataFrame:
    """Counterfactual memorization from the files alone, without any code of gdc."""
    (losses,) = (folder / "work/leaderboard").iterdir()
    table = pl.read_parquet(losses / "halves.parquet").sort("sample_id")
    seen = np.array(table["seen"].to_list())
    models = [pl.read_parquet(losses / f"{k}.parquet") for k in range(NUM_MODELS)]
    assert all(model["sample_id"].equals(table["sample_id"]) for model in models)
    loss = np.stack([model["loss"].to_numpy().astype(np.float64) for model in models], axis=1)
    inside, outside = (np.where(chosen, loss, np.nan) for chosen in (seen, ~seen))
    memorization = np.nanmean(outside, axis=1) - np.nanmean(inside, axis=1)
    return table.select("sample_id", ground_truth=memorization)


def mean_peak_by_loop(folder: Path, window: int) -> float:
    """Mean peak of ordinary text in bits, from the files alone."""
    (losses,) = (folder / "work/leaderboard").iterdir()
    seen = dict(pl.read_parquet(losses / "halves.parquet").select("sample_id", "seen").iter_rows())
    models = [
        dict(
            pl.read_parquet(losses / f"{k}.parquet").select("sample_id", "token_losses").iter_rows()
        )
        for k in range(NUM_MODELS)
    ]
    corpus = pl.read_parquet(folder / "data/corpus.parquet")
    ordinary = corpus.filter((pl.col("split") == "train") & pl.col("canary_id").is_null())
    peaks = []
    for sample in ordinary["sample_id"]:
        tokens = np.array([model[sample] for model in models], dtype=np.float64)
        was = np.array(seen[sample])
        gaps = tokens[~was].mean(axis=0) - tokens[was].mean(axis=0)
        size = min(window, len(gaps))
        peaks.append(max(gaps[i : i + size].sum() for i in range(len(gaps) - size + 1)))
    return float(np.mean(peaks) / np.log(2))


def test_a_leaderboard_without_scores_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"scores\.parquet: expected .*got no file.*gdc run"):
        require_scores()


def killed_leaderboard(folder: Path) -> Path:
    """A small workspace where stage `score` is done, and one model of four."""
    make_workspace(folder)
    params = read_params(folder)
    params["train"]["self_influence"] = True
    params["reference"]["models"] = [0, 1, 2, 3]
    params["score"]["enabled"] += ["hard_token_drop", "self_influence", "distilled_window_gap"]
    params["ingest"]["validation_fraction"] = 0.3
    write_params(folder, params)
    done = run(folder, sys.executable, "-c", STAGES)
    assert done.returncode == 0, done.stderr
    references = [f"reference@{number}" for number in range(4)]
    stages = ["manifest", "ingest", "halves", "train@0", *references, "score"]
    dvc(folder, "commit", "--force", *stages)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("own_prefect_home")
def test_a_killed_leaderboard_continues_and_evaluates_every_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = killed_leaderboard(tmp_path / "workspace")
    (made,) = (folder / "work/leaderboard").glob("*/0.parquet")
    before = made.stat().st_mtime_ns

    done = leaderboard(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert made.stat().st_mtime_ns == before
    assert_board_is_right(folder)
    assert (folder / "reports/leaderboard.md").read_text(encoding="utf-8") in done.stdout
    told = done.stderr.splitlines()
    assert sorted(told)[:3] == [f"half-model@{number}: trained" for number in (1, 2, 3)]
    assert not [line for line in told if "prefect" in line or "Flow run" in line]
    assert_is_recorded(folder, made.parent.name)

    params = read_params(folder)
    params["score"]["num_early"] = 3
    write_params(folder, params)
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=r"got older ones: score changed since. Run first"):
        require_scores()
    with (folder / "gdc/corpus/halves.py").open("a", encoding="utf-8") as file:
        file.write("EDITED = True\n")
    with pytest.raises(ConfigError, match=r"got older ones: halves, score changed since"):
        require_scores()


def assert_board_is_right(folder: Path) -> None:
    text = (folder / "reports/leaderboard.json").read_text(encoding="utf-8")
    board = Leaderboard.from_json(json.loads(text))
    assert_scores_are_evaluated(folder, board.scores)
    for grain in (board.mean, board.peak):
        assert 0 <= grain.ceiling.all <= 1
    assert board.ground_truth[0].family is None
    assert board.ground_truth[0].peak == pytest.approx(
        mean_peak_by_loop(folder, board.window_tokens), rel=1e-4
    )
    assert set(board.families) == {"digits", "words", "natural"}
    assert (folder / "reports/leaderboard.png").read_bytes().startswith(b"\x89PNG")


def assert_scores_are_evaluated(folder: Path, rows: Sequence[LeaderboardRow]) -> None:
    scores = pl.read_parquet(folder / "data/scores.parquet").join(
        memorization_by_numpy(folder), on="sample_id", how="left", maintain_order="left"
    )
    floats = [name for name, dtype in scores.schema.items() if dtype == pl.Float64]
    assert {row.score for row in rows} == set(floats) - {"ground_truth"}
    for row in rows:
        assert (row.seconds is None) == (row.score not in REGISTRY)
        known = scores.drop_nulls(row.score)
        if known[row.score].n_unique() > 1:
            expected = spearmanr(known[row.score], known["ground_truth"]).statistic
            assert row.mean.spearman
            assert row.mean.spearman.value == pytest.approx(expected, abs=1e-6)


def assert_is_recorded(folder: Path, digest: str) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("gdc")
    assert experiment is not None
    (entry,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'leaderboard'")
    assert entry.info.status == "FINISHED"
    assert entry.data.tags["gdc.leaderboard"] == digest
    assert {"num_models", "ceiling/all", "spearman/final_loss"} <= set(entry.data.metrics)
    names = {file.path for file in client.list_artifacts(entry.info.run_id)}
    assert names == {"leaderboard.json", "leaderboard.md", "leaderboard.png"}
