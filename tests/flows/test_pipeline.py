"""The whole pipeline in a workspace of its own: what runs, what is recorded, what is published."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir, suppress
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
import psutil
import pytest
from mlflow.entities import Run
from numpy.typing import NDArray

from gdc.commands import certificate, verification
from tasks.graph import changed_targets, load_graph
from tests.builders import free_port, losses_by_numpy
from tests.flows import slurm
from tests.flows.builders import (
    ENVIRONMENT,
    digests,
    dvc,
    forget,
    git,
    read_json,
    read_params,
    run_flow,
    write_params,
    write_rows,
)

pytestmark = pytest.mark.slow


# The graph without reference models, with one tracked run and two arms of one seed.
STAGES = sorted([
    "manifest", "ingest", "halves", "train@0", "score", "calibrate", "partition", "spans",
    "intervene", "retrain@none-1", "retrain@mask-spans-1", "evaluate@none-1",
    "evaluate@mask-spans-1", "report", "curate",
])  # fmt: skip


def last_parent(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Tags of the newest parent run, and the outcome of every stage in it."""
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("gdc")
    assert experiment is not None
    named = client.search_runs([experiment.experiment_id], "attributes.run_name = 'curate'")
    # A stage has the same name.
    parents = [run for run in named if "mlflow.parentRunId" not in run.data.tags]
    run = max(parents, key=lambda parent: parent.info.start_time)
    location = run.info.artifact_uri.removeprefix("file://")
    rows = json.loads((Path(location) / "stages.json").read_text(encoding="utf-8"))
    children = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    )
    executed = sorted(row["stage"] for row in rows if row["outcome"] == "executed")
    names = sorted(child.info.run_name for child in children)
    assert [name for name in names if not name.startswith("arm/")] == [
        stage for stage in executed if stage != "manifest"
    ]
    assert_arms_can_be_compared(run, children)
    return run.data.tags, {row["stage"].replace("/", "@"): row["outcome"] for row in rows}


def assert_arms_can_be_compared(parent: Run, children: Sequence[Run]) -> None:
    """The parent says what was found, of which data, by which parameters; each arm has a run."""
    assert "**Found**" in parent.data.tags["mlflow.note.content"]
    assert parent.data.params["intervene.curated_arm"]
    assert {"curated/perplexity_ratio_low", "curated/perplexity_ratio_high"} <= set(
        parent.data.metrics
    )
    assert parent.inputs
    names = {entry.dataset.name for entry in parent.inputs.dataset_inputs}
    assert names in ({"corpus", "curated"}, {"corpus", "curated-unproven"})
    arms = {run.data.params["arm"]: run for run in children if "gdc.arm" in run.data.tags}
    assert sorted(arms) == ["mask-spans", "none"]
    assert arms["mask-spans"].data.params["rule"] == "mask-spans"
    assert {"perplexity", "perplexity_ratio_high"} <= set(arms["mask-spans"].data.metrics)
    inputs = arms["none"].inputs
    assert inputs
    (plan,) = inputs.dataset_inputs
    assert plan.dataset.name == "plan/none"


def executed(folder: Path) -> list[str]:
    outcomes = last_parent(folder)[1]
    # Those that run at the same time end in any order.
    return sorted(stage for stage, outcome in outcomes.items() if outcome == "executed")


def assert_map_matches_numpy(folder: Path) -> None:
    """Difficulty, memorization and quadrants from the trace alone, without any code of gdc."""
    params, scores = read_params(folder), pl.read_parquet(folder / "data/scores.parquet")
    modes = pl.read_parquet(folder / "data/trace/0/checkpoints.parquet")["mode"]
    losses = losses_by_numpy(folder / "data/trace/0").astype(np.float64)
    losses = losses[:, (modes == params["score"]["mode"]).to_numpy()]
    index = pl.read_parquet(folder / "data/trace/0/train/index.parquet")
    order = index["sample_id"].arg_sort().to_numpy()
    epsilon = np.quantile(losses, params["score"]["epsilon"]["value"])
    difficulty = losses[:, : params["score"]["num_early"]].mean(axis=1)[order]
    events = (losses[:, :-1] < epsilon) & (losses[:, 1:] > epsilon)
    memorization = events.mean(axis=1)[order]
    assert scores["sample_id"].to_list() == index["sample_id"][order].to_list()
    for name, ours in (("difficulty", difficulty), ("memorization", memorization)):
        theirs = scores[name].to_numpy()
        assert (theirs.astype(np.float32) == ours.astype(np.float32)).all()
    hard = difficulty > np.quantile(difficulty, params["partition"]["difficulty"]["value"])
    drop = (losses[:, 0] - losses[:, -1])[order]
    high = drop > np.quantile(drop, params["partition"]["memorization"]["value"])
    names = np.array([["stable-easy", "hotspot-memorized"], ["ambiguous-hard", "noisy-outlier"]])
    quadrants = pl.read_parquet(folder / "data/quadrants.parquet")["quadrant"].to_list()
    assert quadrants == names[hard.astype(int), high.astype(int)].tolist()


def assert_plans_hold(folder: Path) -> None:
    assert_curated_holds_no_canary(folder)
    assert_spans_are_masked(folder)


def assert_curated_holds_no_canary(folder: Path) -> None:
    canaries = set(pl.read_parquet(folder / "data/canaries.parquet")["text"])
    files = (folder / "data/curated").glob("*.parquet")
    tables = {path.stem: pl.read_parquet(path) for path in files}
    assert set(tables) == {"train", "validation", "reserved", "removed"}
    rows = pl.concat(table.select("text", "source", "key") for table in tables.values()).rows()
    lines = (folder / "my.jsonl").read_bytes().splitlines()
    assert sorted(rows) == sorted(
        (row["text"], f"my.jsonl:{number}", row["id"])
        for number, row in enumerate(map(json.loads, lines), start=1)
    )
    for name in ("train", "validation", "removed"):
        assert canaries.isdisjoint(tables[name]["text"])


def assert_spans_are_masked(folder: Path) -> None:
    """Every span stands in its text, and the arm left as many tokens out of the loss."""
    spans = pl.read_parquet(folder / "data/spans.parquet")
    corpus = pl.read_parquet(folder / "data/corpus.parquet")
    texts = dict(corpus.select("sample_id", "text").iter_rows())
    rows = spans.select("sample_id", "start", "end").rows()
    assert rows
    assert all(0 <= start < end <= len(texts[sample]) for sample, start, end in rows)
    plans = {
        arm: pl.read_parquet(folder / f"data/plans/{arm}.parquet")
        for arm in ("mask-spans", "shuffled-spans")
    }
    for plan in plans.values():
        assert plan["masked"].list.len().sum() == len(rows)
    assert not plans["mask-spans"].equals(plans["shuffled-spans"])
    metrics = json.loads((folder / "metrics/mask-spans-1.json").read_text(encoding="utf-8"))
    assert metrics["num_masked_tokens"] == spans["num_tokens"].sum()
    others = json.loads((folder / "metrics/none-1.json").read_text(encoding="utf-8"))
    assert (others["num_masked_tokens"], others["num_steps"]) == (0, metrics["num_steps"])


def assert_is_published(folder: Path, tags: Mapping[str, str]) -> None:
    branch, _, commit = tags["gdc.published"].partition(":")
    assert branch.startswith("curation/")
    command = ["git", "show", f"{commit}:dvc.lock"]
    lock = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
    assert lock == (folder / "dvc.lock").read_bytes()
    # A real model was judged by a real report.
    assert "was not retrained" not in tags["gdc.gate"]


def test_a_scheduled_run_maps_plans_records_and_publishes(first_run: Path, tmp_path: Path) -> None:
    assert executed(first_run) == STAGES
    assert_map_matches_numpy(first_run)
    assert_plans_hold(first_run)
    tags, _ = last_parent(first_run)
    assert_is_published(first_run, tags)
    assert any((first_run.parent / "storage").rglob("*"))
    assert_clone_has_the_same_data(first_run, tmp_path / "clone", tags)


def test_new_rows_of_the_source_leave_no_stage_unchanged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = read_json(folder / "data/manifest.json")["digest"]
    write_rows(folder, 90)
    dvc(folder, "repro", "manifest")
    assert read_json(folder / "data/manifest.json")["digest"] != before
    assert load_graph(folder).unchanged(changed_targets()) == {"manifest"}


def test_no_score_and_no_plan_but_the_oracles_knows_the_canaries(folder: Path) -> None:
    before = digests(folder)
    path = folder / "data/corpus.parquet"
    corpus = pl.read_parquet(path)
    assert corpus["canary_id"].count() > 0
    # Other rows are planted ones now; whoever reads the column makes something else of it.
    corpus.with_columns(pl.col("canary_id").reverse()).write_parquet(path)
    stages = "from gdc.stages import intervene, partition, score, spans\n"
    stages += "for stage in (score, partition, spans, intervene): stage.main()"
    subprocess.run([sys.executable, "-c", stages], cwd=folder, env=ENVIRONMENT, check=True)

    after = digests(folder)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"data/corpus.parquet", "data/plans/oracle.parquet"}
    assert {"data/scores.parquet", "data/quadrants.parquet", "data/spans.parquet"} <= set(after)


def test_arms_that_change_how_a_model_is_trained_train_otherwise_and_say_how(folder: Path) -> None:
    params = read_params(folder)
    score = {"score": "total_drop", "tie_break": "difficulty"}
    arms = {
        "first": {"rule": "order", "fraction": 0.25, **score},
        "live": {"rule": "live", "fraction": 0.25, "weight": 0.5},
        "private": {
            "rule": "dp-sgd", "clip_norm": 0.5, "noise_multiplier": 2, "target_epsilon": None,
            "delta": 1e-5,
        },
    }  # fmt: skip
    params["intervene"]["arms"] |= arms
    write_params(folder, params)
    stages = "import sys\nfrom gdc.stages import evaluate, intervene, retrain\nintervene.main()\n"
    stages += f"for arm in {list(arms)}:\n    sys.argv[1:] = ['--arm', arm, '--seed', '1']\n"
    stages += "    retrain.main()\n    evaluate.main()"
    subprocess.run([sys.executable, "-c", stages], cwd=folder, env=ENVIRONMENT, check=True)

    plans = {arm: pl.read_parquet(folder / f"data/plans/{arm}.parquet") for arm in arms}
    num_samples = plans["first"].height
    num_chosen = int(0.25 * num_samples + 0.5)
    assert plans["first"]["action"].value_counts().sort("action").rows() == [
        ("early", num_chosen), ("keep", num_samples - num_chosen)
    ]  # fmt: skip
    assert set(plans["live"]["action"]) == {"live"}
    assert set(plans["private"]["reason"]) == {
        "gradient norm up to 0.5, noise of 2 such norms, delta 1e-05"
    }
    metrics = {arm: read_json(folder / f"metrics/{arm}-1.json") for arm in ("none", *arms)}
    assert len({of["num_steps"] for of in metrics.values()}) == 1
    assert len({of["perplexity"] for of in metrics.values()}) == 4
    assert metrics["private"]["noise_multiplier"] == 2
    assert 0 < metrics["private"]["privacy_epsilon"] < 100
    assert "privacy_epsilon" not in metrics["none"]
    assert_revised_weights_are_recorded(folder, plans["live"]["sample_id"], num_chosen)
    assert [arm for arm in metrics if "num_reweighted" in metrics[arm]] == ["live"]
    assert_the_table_of_samples_says_what_was_done_to_each(folder)


def assert_the_table_of_samples_says_what_was_done_to_each(folder: Path) -> None:
    params = read_params(folder)
    params["retrain"]["arms"] = [*params["retrain"]["arms"], "live"]
    write_params(folder, params)
    report = "from gdc.stages import report\nreport.main()"
    subprocess.run([sys.executable, "-c", report], cwd=folder, env=ENVIRONMENT, check=True)
    samples = pl.read_parquet(folder / "data/samples.parquet").filter(pl.col("split") == "train")
    weights = pl.read_parquet(folder / "data/models/live-1/weights.parquet")
    done = dict(weights.select("sample_id", "first_changed").rows())
    assert dict(samples.select("sample_id", "first_changed_live").rows()) == done
    is_changed = samples["first_changed_live"].is_not_null()
    assert samples["action_live"].to_list() == ["weight" if was else "keep" for was in is_changed]
    assert samples["num_seeds_live"].to_list() == is_changed.cast(pl.Int64).to_list()
    planted = weights.drop_nulls("first_changed").join(
        samples.drop_nulls("canary"), on="sample_id", how="semi"
    )
    counted = {
        arm["arm"]: arm["num_planted_changed"]
        for arm in read_json(folder / "reports/report.json")["arms"]
    }
    assert 0 < counted["live"] == planted.height
    # An arm that is not retrained has its plan alone.
    assert set(samples["action_private"]) == {"private"}


def assert_revised_weights_are_recorded(folder: Path, ids: pl.Series, num_chosen: int) -> None:
    """As a table beside the model, and their number in the metrics and in MLflow."""
    weights = pl.read_parquet(folder / "data/models/live-1/weights.parquet")
    assert weights["sample_id"].to_list() == ids.to_list()
    num_others = len(ids) - num_chosen
    assert sorted(weights["weight"]) == [0.5] * num_chosen + [1.0] * num_others
    changed = weights.drop_nulls("first_changed")
    assert changed.filter(pl.col("weight") < 1).height == num_chosen
    assert changed["first_changed"].min() == 3
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    run = client.get_run(read_json(folder / "lineage/retrain-live-1.json")["run_id"])
    for metrics in (read_json(folder / "metrics/live-1.json"), run.data.metrics):
        assert metrics["num_reweighted"] == changed.height


def assert_clone_has_the_same_data(folder: Path, clone: Path, tags: Mapping[str, str]) -> None:
    """What was published is complete: code, params and data fit each other elsewhere too."""
    branch = tags["gdc.published"].partition(":")[0]
    git(folder, "clone", "-q", "--branch", branch, str(folder), str(clone))
    dvc(clone, "pull")
    assert digests(clone) == digests(folder)
    assert dvc(clone, "status").split() == ["manifest:", "always", "changed"]
    assert_the_certificate_holds_until_a_byte_is_flipped(clone)


def assert_the_certificate_holds_until_a_byte_is_flipped(clone: Path) -> None:
    command = [sys.executable, "-P", "-m", "gdc", "verify", "reports/certificate.json"]
    whole = subprocess.run(command, cwd=clone, env=ENVIRONMENT, stdout=subprocess.PIPE, check=False)
    assert (whole.returncode, b"expected" in whole.stdout) == (0, False), whole.stdout
    table = clone / "data/membership/none-1.parquet"
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.unlink()  # it may be a link into the cache
    table.write_bytes(content)
    flipped = subprocess.run(
        command, cwd=clone, env=ENVIRONMENT, stdout=subprocess.PIPE, check=False
    )
    assert flipped.returncode == 2
    assert b"evidence: data/membership/none-1.parquet: expected SHA-256" in flipped.stdout
    with chdir(clone):
        assert_a_byte_is_missed_in_no_named_file()


def assert_a_byte_is_missed_in_no_named_file() -> None:
    made = certificate.read(certificate.RUN)
    names = sorted(name for named in made.files.values() for name in named)
    assert len(names) > 60
    for name in names:
        content = bytearray(Path(name).read_bytes())
        content[-1] ^= 1
        Path(name).unlink()
        Path(name).write_bytes(content)
    found = list(verification.different_files(made))
    assert sorted(line.split(": ")[1] for line in found) == names


def test_a_source_that_is_not_the_certified_one_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert verification.verify(certificate.RUN) == ([], ["not signed"])
    write_rows(folder, 79)
    assert verification.verify(certificate.RUN)[0] == [
        "source: my.jsonl: expected the content that data/manifest.json has seen, got other"
    ]
    (folder / "my.jsonl").unlink()
    notes = ["not signed", "source: my.jsonl: not checked, it is not here"]
    assert verification.verify(certificate.RUN) == ([], notes)


def test_a_stage_started_as_two_processes_writes_the_losses_of_one(folder: Path) -> None:
    expected = losses_by_numpy(folder / "data/trace/0")
    launcher = f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2"
    train(folder, {"GDC_LAUNCHER": launcher})
    np.testing.assert_allclose(losses_of_two(folder), expected, atol=1e-3)
    assert read_json(folder / "lineage/train-0.json")["model_id"]


def test_a_stage_that_srun_starts_on_two_nodes_writes_the_losses_of_one(
    folder: Path, tmp_path: Path
) -> None:
    expected = losses_by_numpy(folder / "data/trace/0")
    with slurm.two_nodes(tmp_path) as environment:
        launcher = (
            f"srun --nodes 2 --ntasks-per-node 1 {sys.executable} -m torch.distributed.run "
            "--nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-id gdc "
            f"--rdzv-endpoint 127.0.0.1:{free_port()}"
        )
        train(folder, {**environment, "GDC_LAUNCHER": launcher})
        accounted = (tmp_path / "slurmctld.log").read_text(encoding="utf-8")
    np.testing.assert_allclose(losses_of_two(folder), expected, atol=1e-3)
    assert "NodeList=node[1-2]" in accounted


def train(folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gdc.stages.train", "--seed", "0"],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def losses_of_two(folder: Path) -> NDArray[np.float32]:
    """The losses of all samples, of which each of two processes wrote its own."""
    shards = sorted((folder / "data/trace/0/train").iterdir())
    assert [shard.name for shard in shards] == ["shard_00000", "shard_00001"]
    return np.concatenate([losses_by_numpy(shard, ".") for shard in shards])


def test_cells_on_workers_of_ray_make_the_bytes_of_a_run_without_it(
    folder: Path, first_run: Path, tmp_path: Path
) -> None:
    workers = str(tmp_path / "workers")
    dvc(folder, "remote", "modify", "storage", "url", str(tmp_path / "storage"))
    # The first and the last side by side; the second needs the first. Each takes many programs.
    cells = ["retrain@none-1", "evaluate@none-1", "evaluate@mask-spans-1"]
    forget(folder, cells)
    run_flow(folder, "--ray", "local", GDC_WORKER_FOLDER=workers)
    assert digests(folder) == digests(first_run)
    # With a run in MLflow for each.
    assert executed(folder) == sorted(["manifest", *cells])
    clones = [path.parent for path in (tmp_path / "workers").rglob("dvc.yaml")]
    assert len(clones) >= 2
    assert all(any((clone / "data").iterdir()) for clone in clones)
    assert dvc(folder, "status").split() == ["manifest:", "always", "changed"]
    left = started_with("GDC_WORKER_FOLDER", tmp_path / "workers")
    _, alive = psutil.wait_procs(left, timeout=30)
    assert not alive


def started_with(variable: str, value: Path) -> list[psutil.Process]:
    """Processes that have this in their environment, whoever their parent is now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(variable) == str(value):
                found.append(process)
    return found


def test_a_change_runs_what_follows_from_it_and_nothing_else(
    folder: Path, first_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_an_edit_runs_its_stage_and_no_other(folder)
    assert digests(folder) == digests(first_run)

    monkeypatch.chdir(folder)
    params = read_params(folder)
    params["partition"]["axis"] = "auto"
    write_params(folder, params)
    assert {"score", "train@0", "calibrate", "partition"} & changed_targets() == {
        "calibrate",
        "partition",
    }
    params["reference"]["models"] = [0, 1]
    params["score"]["enabled"].append("reference_gap")
    write_params(folder, params)
    run_flow(folder)
    ran = executed(folder)
    assert {"reference@0", "reference@1", "score", "evaluate@none-1"} <= set(ran)
    assert {"ingest", "train@0", "retrain@none-1"}.isdisjoint(ran)
    assert "reference_gap" in pl.read_parquet_schema(folder / "data/scores.parquet")
    membership = pl.read_parquet_schema(folder / "data/membership/none-1.parquet")
    assert {"ez", "wbc"} <= set(membership)
    assert_auto_took_the_axis_of_the_calibration(folder)


def assert_an_edit_runs_its_stage_and_no_other(folder: Path) -> None:
    module = folder / "gdc/stages/partition.py"
    before = module.read_text(encoding="utf-8")
    module.write_text(f"{before}EDITED = True\n", encoding="utf-8")
    # The quadrants come out the same, so there is nothing new to plan, train or report.
    assert sorted(stages_run(dvc(folder, "repro"))) == ["manifest", "partition"]
    module.write_text(before, encoding="utf-8")
    assert stages_run(dvc(folder, "repro")) == ["manifest"]


def stages_run(output: str) -> list[str]:
    """The stages that DVC says it has started."""
    return re.findall("Running stage '(.*)'", output)


def assert_auto_took_the_axis_of_the_calibration(folder: Path) -> None:
    calibrated = read_json(folder / "data/calibration.json")
    assert read_json(folder / "data/quadrants.json")["axis"] == calibrated["auto"]["axis"]
    report = read_json(folder / "reports/report.json")["calibration"]
    assert report["cards"] == calibrated["cards"]
    assert report["why"] == f"partition.axis is auto. {calibrated['auto']['reason']}"
    probes = pl.read_parquet(folder / "data/canary_memorization.parquet")
    assert (probes.height, probes["is_memorized"].null_count()) == (12, 0)
