"""A toy workspace with the forms that the graph has, each stage of which copies its inputs."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl

from gdc.workspace import files, paths
from gdc.workspace.code_digests import code_digests
from tests.comparison.builders import arm_audits, measured
from tests.report.builders import params_of, report_of, tables_of
from tests.tasks.builders import commit_all, git, init_dvc

# A phase copies its inputs; `retrain` also logs a model, so that there is one to promote.
PHASE_STAGE = """
import sys
from pathlib import Path

stage, cell, target, *inputs = sys.argv[1:]
text = "".join(Path(path).read_text() for path in inputs)
if "mistake" in text:
    sys.exit((sys.stderr.write("error: there was a mistake\\n"), 2)[1])
Path(target).parent.mkdir(parents=True, exist_ok=True)
Path(target).write_text(text)
if stage == "retrain":
    from gdc.workspace import tracking

    with tracking.stage_run(stage, {}, cell=cell) as run:
        run.log_model(Path("model"))
"""
ARMS = ("none", "paper")


def report_of_arms() -> dict[str, Any]:
    """A report whose arm ``paper`` leaks half as much at the same perplexity."""
    report = report_of(tables_of(), params_of())
    rates = {"none": 0.5, "paper": 0.25}
    for arm in report["arms"]:
        rate = rates[arm["arm"]]
        arm["perplexity"]["mean"] = 10.0
        arm["extraction_rate"]["mean"] = rate
        arm |= {"perplexity_ratio": 1.0, "extraction_difference": rate - 0.5}
    audits = arm_audits(
        extraction_change=measured(-0.25, -0.5, -0.01), perplexity_ratio=measured(1.0, 0.99, 1.01)
    )
    report["arm_audits"] = {"paper": asdict(audits)}
    return report


CHAIN = ("ingest", "halves", "train", "score")
WHOLE_CHAIN = (*CHAIN, "calibrate", "partition", "spans", "intervene")


def phase_graph(chain: Sequence[str] = CHAIN) -> dict[str, Any]:
    """As dvc.yaml: a chain, two stages beside each other, two arms that meet in the report.

    The stages that the real graph has besides would lengthen the chain, and each takes a second.
    """

    def entry(stage: str, target: str, inputs: list[str], cell: str = "") -> dict[str, Any]:
        command = f"python phase.py {stage} '{cell}' {target} {' '.join(inputs)}"
        return {"cmd": command, "deps": inputs, "outs": [target]}

    manifest = entry("manifest", "data/manifest.json", ["source.json"]) | {"always_changed": True}
    del manifest["deps"]
    graph = {"manifest": manifest}
    before = "data/manifest.json"
    for stage in chain:
        graph[stage] = entry(stage, f"data/{stage}", [before])
        before = f"data/{stage}"
    if "score" in chain:
        # Beside `train`, from what it reads too.
        graph["reference"] = entry("reference", "data/reference", ["data/halves"])
        graph["score"] = entry("score", "data/score", ["data/train", "data/reference"])
    matrix = {"matrix": {"arm": list(ARMS), "seed": [1]}}
    cell = "${item.arm}-${item.seed}"
    graph["retrain"] = matrix | entry("retrain", f"data/{cell}", [before, "${item.arm}.txt"], cell)
    graph["retrain"]["outs"].append(f"lineage/retrain-{cell}.json")
    graph["evaluate"] = matrix | entry("evaluate", f"metrics/{cell}", [f"data/{cell}"])
    deps = [f"metrics/{arm}-1" for arm in ARMS]
    graph["report"] = entry("report", "reports/report.json", ["report.json"])
    graph["report"]["deps"] += deps
    return {"stages": graph}


def make_pipeline(folder: Path) -> None:
    params = (resources.files("gdc") / "presets" / "docs.yaml").read_text(encoding="utf-8")
    params = re.sub(r"(?m)^  arms: \[none.*$", "  arms: [none, paper]", params)
    params = params.replace("seeds: [1, 2]", "seeds: [1]")
    (folder / "params.yaml").write_text(params)
    (folder / "dvc.yaml").write_text(json.dumps(phase_graph()))
    (folder / "phase.py").write_text(PHASE_STAGE)
    (folder / "source.json").write_text('{"digest": "abc"}')
    (folder / "report.json").write_text(json.dumps(report_of_arms()))
    files.write_json(folder / paths.CODE, code_digests())
    (folder / "model").mkdir()
    (folder / "model/config.json").write_text("{}")
    for arm in ARMS:
        (folder / f"{arm}.txt").write_text(arm)
    # Tables that a run records at its end; no toy stage makes them.
    for name in ("corpus", "curated/train", *(f"plans/{arm}" for arm in ARMS)):
        table = folder / f"data/{name}.parquet"
        table.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame({"sample_id": ["a"]}).write_parquet(table)
    # Else these would be taken for files of the user's, in the way of a first run.
    (folder / "work").mkdir()
    (folder / ".gitignore").write_text("/data\n/lineage\n/metrics\n/reports\n/work\n/ml*\n")
    git(folder, "init", "--initial-branch=main")
    init_dvc(folder)
    commit_all(folder)


def write_graph(folder: Path, graph: Mapping[str, Any]) -> None:
    """Put another graph in the place of that of ``make_pipeline``."""
    (folder / "dvc.yaml").write_text(json.dumps(graph))
    commit_all(folder)


def whole_graph() -> dict[str, Any]:
    """With every stage of the real graph: ``gdc run`` refuses one that lacks any."""
    graph = phase_graph(WHOLE_CHAIN)
    graph["stages"]["curate"] = {
        "cmd": "python phase.py curate '' data/kept reports/report.json",
        "deps": ["reports/report.json"],
        "outs": ["data/kept"],
    }
    return graph
