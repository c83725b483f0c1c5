"""What a user of DVC meets first: narrow metrics, plots, described stages, experiments."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.builders import REPOSITORY
from tests.tasks.builders import init_dvc

GRAPH: dict[str, Any] = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text("utf-8"))


def dvc(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_stage_says_what_it_makes_and_every_plot_is_made() -> None:
    assert all(entry["desc"] for entry in GRAPH["stages"].values())
    outs = GRAPH["stages"]["report"]["outs"]
    named = [plot for plot in GRAPH["plots"] if isinstance(plot, str)]
    assert set(GRAPH["metrics"]) | set(named) <= set(outs)
    assert {"reports/data_map.png", "reports/front.png", "reports/roc.png"} <= set(named)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The metrics and plots of our graph, with files that one small stage makes."""
    folder = tmp_path_factory.mktemp("dvc")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    init_dvc(folder)
    (folder / "make.py").write_text(
        "import json, pathlib\n"
        "rate = float(pathlib.Path('params.yaml').read_text().strip('{\"rate: }\\n'))\n"
        "folder = pathlib.Path('reports/arms'); folder.mkdir(parents=True, exist_ok=True)\n"
        "for arm in ('none', 'paper'):\n"
        "    text = json.dumps({'extraction': rate, 'perplexity': 60.5})\n"
        "    (folder / f'{arm}.json').write_text(text)\n"
        "losses = pathlib.Path('reports/loss_curves.csv')\n"
        "losses.write_text('step,train,heldout\\n1,6,6\\n2,3,5\\n')\n",
        encoding="utf-8",
    )
    (folder / "params.yaml").write_text(json.dumps({"rate": 0.5}), encoding="utf-8")
    picture = REPOSITORY / "docs/pictures/map.png"
    outs = ["reports/arms", "reports/loss_curves.csv"]
    stage = {"cmd": f"{sys.executable} make.py", "params": ["rate"], "outs": outs}
    shown = {key: GRAPH[key] for key in ("metrics", "plots")}
    (folder / "dvc.yaml").write_text(
        json.dumps({**shown, "stages": {"report": stage}}), encoding="utf-8"
    )
    dvc(folder, "repro", "-q")
    for name in ("data_map", "front", "roc", "leakage", "losses"):
        shutil.copy(picture, folder / f"reports/{name}.png")
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, "commit", "-qm", "a"], cwd=folder, check=True)
    return folder


@pytest.mark.slow
def test_metrics_are_one_row_an_arm(workspace: Path) -> None:
    rows = dvc(workspace, "metrics", "show").splitlines()
    assert [row.split()[0] for row in rows] == [
        "Path", "reports/arms/none.json", "reports/arms/paper.json",
    ]  # fmt: skip
    assert max(map(len, rows)) <= 120


@pytest.mark.slow
def test_plots_show_pictures_and_losses(workspace: Path) -> None:
    dvc(workspace, "plots", "show", "-o", "plots")
    page = (workspace / "plots/index.html").read_text("utf-8")
    for name in ("data_map", "front", "roc", "leakage"):
        assert f"{name}.png" in page
    assert "Loss of the tracked run" in page


@pytest.mark.slow
def test_an_experiment_changes_a_parameter_and_stands_in_the_table(workspace: Path) -> None:
    dvc(workspace, "exp", "run", "-q", "-S", "rate=0.25", "-n", "lower")
    dvc(workspace, "exp", "run", "-q", "--queue", "-S", "rate=0.75", "-n", "higher")
    shown = dvc(workspace, "exp", "show", "--csv").splitlines()
    rows = {row["Experiment"]: row for row in csv.DictReader(shown) if row["Experiment"]}
    assert rows["lower"]["rate"] == "0.25"
    assert rows["lower"]["reports/arms/none.json:extraction"] == "0.25"
    assert (rows["higher"]["rate"], rows["higher"]["State"]) == ("0.75", "Queued")
