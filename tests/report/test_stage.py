"""Stage report in a folder with everything that it reads."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from markupsafe import escape
from PIL import Image
from plotly.offline import get_plotlyjs

from gdc.errors import DataError, SchemaError
from gdc.report import build, console, sample_table
from gdc.report.model import ReportSettings, read_report
from gdc.schema import (
    QUARANTINE,
)
from gdc.stages import report as stage
from gdc.workspace import files, paths, reference_tables, tables, tracking
from tests.builders import write_trace
from tests.report.builders import (
    HALVES_OF_TWO,
    FakeRun,
    audit_of,
    calibration_of,
    card_of,
    membership_of,
    page_of,
    params_of,
    plan_of,
    reference_of,
    report_of,
    tables_of,
    trace_with_heldout,
)

pytestmark = pytest.mark.slow

CALIBRATION = calibration_of(
    card_of("memorization", (0.75, 0.625, 1.0), "predicts memorization here"), is_validated=True
)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A folder with everything that stage report reads; the run that it opens is returned."""
    monkeypatch.chdir(tmp_path)
    # The score has the name of a column of the corpus.
    made = replace(tables_of(), scores=tables_of().scores.with_columns(num_copies=pl.lit(1.0)))
    for name in ("corpus", "canaries", "scores", "quadrants", "spans"):
        tables.write(name, getattr(made, name))
    tables.write("quarantine", pl.DataFrame(schema=QUARANTINE))
    keeping = made.plans["none"]
    arms = params_of().intervene.arms
    tables.write_plans({arm: made.plans.get(arm, keeping) for arm in arms})
    files.write_json(paths.SCORES_SUMMARY, made.scores_summary.to_json())
    files.write_json(paths.QUADRANTS_SUMMARY, made.quadrants_summary.to_json())
    files.write_json(paths.CALIBRATION, asdict(CALIBRATION))
    files.write_json(paths.SPANS_SUMMARY, made.spans_summary.to_json())
    for (arm, seed), metrics in made.metrics.items():
        files.write_json(paths.metrics_path(arm, seed), metrics.model_dump())
    for arm, seed in made.metrics:
        tables.write_audit(arm, seed, audit_of(extracted=arm == "none"))
        tables.write_membership(arm, seed, membership_of(loss=2.0 if arm == "none" else 2.5))
    files.write_json(paths.CORPUS_SUMMARY, {"num_left_out": 0, "unread": {}})
    write_trace(params_of().train.seeds[0], trace_with_heldout("y-0", 4.0))
    tables.write("halves", HALVES_OF_TWO)
    for number, loss in enumerate((0.5, 3.0)):
        reference_tables.write_reference(number, reference_of(loss))
    # JSON is YAML.
    files.write_json(paths.PARAMS, params_of().model_dump(mode="json"))
    fake = FakeRun()

    @contextmanager
    def stage_run(stage: str, params: Mapping[str, Any]) -> Iterator[FakeRun]:
        assert (stage, sorted(params)) == ("report", sorted(ReportSettings.model_fields))
        yield fake

    monkeypatch.setattr(tracking, "stage_run", stage_run)
    return fake


def assert_dvc_has_its_files() -> None:
    numbers = {path.stem: files.read_json(path) for path in paths.ARM_NUMBERS.iterdir()}
    assert sorted(numbers) == ["none", "paper"]
    assert numbers["paper"] == {
        "extraction": 0.0, "perplexity": 12.18, "ratio": 1.649, "ratio_low": 1.649,
        "ratio_high": 1.649,
    }  # fmt: skip
    assert paths.LOSS_CURVES.read_text() == "step,train,heldout\n0,4.0,4.0\n10,4.0,4.0\n"
    with Image.open(paths.LOSSES) as drawn:
        assert drawn.size == (1200, 600)


def test_the_stage_writes_and_logs_its_files(workspace: FakeRun) -> None:
    stage.main()
    names = [
        "report.json", "report.html", "data_map.png", "roc.png", "leakage.png", "front.png",
    ]  # fmt: skip
    expected = [f"reports/{name}" for name in names]
    assert workspace.artifacts == expected
    assert {name: n for name, n in workspace.metrics.items() if n is not None} == {
        "none/perplexity": pytest.approx(3200**0.5),
        "none/extraction_rate": 0.375,
        "paper/perplexity": pytest.approx(3000**0.5),
        "paper/extraction_rate": 0.25,
        "quadrants/hotspot-memorized/auc": 1.0,
        "quadrants/hotspot-memorized/extracted": 1.0,
        "deciles/6/auc": 1.0,
        "deciles/6/extracted": 1.0,
    }
    built = files.read_json(Path(expected[0]))
    audited = ("arm_audits", "groups", "attacks", "leaked_samples", "num_leaked", "warnings",
               "pareto_front", "next_layer", "choice", "memorized")  # fmt: skip
    plain = report_of(replace(tables_of(), calibration=CALIBRATION), params_of())
    assert {k: v for k, v in built.items() if k not in audited} == {
        k: v for k, v in plain.items() if k not in audited
    }
    assert built["leaked_samples"] == [
        {
            "sample_id": "c-0",
            "num_suffix_tokens": 10,
            "num_models": 2,
            "quadrant": "hotspot-memorized",
            "source": "file:c-0",
        }
    ]
    paper = built["arm_audits"]["paper"]
    assert paper["extraction_change"] == {"value": -1.0, "low": -1.0, "high": -1.0, "num_seeds": 2}
    assert paper["perplexity_ratio"]["value"] == pytest.approx(np.exp(0.5))
    assert paper["rare_perplexity_ratio"]["value"] == pytest.approx(np.exp(0.5))
    assert paper["verdict"] == (
        "paper reduces extraction: -100.0 points [-100.0, -100.0] at perplexity x1.649 "
        "[1.649, 1.649], 2 seeds; no random arm of its size to compare with."
    )
    assert [(p["arm"], p["num_changed"], p["is_on_front"]) for p in built["pareto_front"]] == [
        ("none", 0, True),
        ("paper", 3, True),
    ]
    page = Path(expected[1]).read_text(encoding="utf-8")
    assert "paper reduces extraction" in page
    assert page.replace(get_plotlyjs(), "").count('src="data:image/png;base64,') == 3
    assert_dvc_has_its_files()
    before = [Path(file).read_bytes() for file in expected]
    stage.main()
    assert [Path(file).read_bytes() for file in expected] == before


@pytest.mark.usefixtures("workspace")
def test_one_flat_table_holds_every_row_of_the_corpus_with_all_that_is_known_of_it() -> None:
    sample_table.write_samples(sample_table.revising_seeds(params_of()))
    samples = pl.read_parquet(paths.SAMPLES)
    assert not [name for name in samples.columns if name.endswith("_right")]
    assert samples["sample_id"].equals(tables.read("corpus")["sample_id"])
    spanned = samples.row(by_predicate=pl.col("sample_id") == "d-0", named=True)
    expected = {
        "source": "file:d-0", "split": "train", "num_copies": 1, "canary": None,
        "text": "text of d-0", "cause": "near-copies", "duplicate_ids": ["c-0", "d-1"],
        "quadrant": "hotspot-memorized", "memorization": 0.2, "action_none": "keep",
        "action_paper": "weight", "action_top": "keep",
    }  # fmt: skip
    assert {name: spanned[name] for name in expected} == expected
    planted = samples.row(by_predicate=pl.col("sample_id") == "g-0", named=True)
    assert (planted["canary"], planted["num_copies"]) == ("digits/2", 2)
    held_out = samples.row(by_predicate=pl.col("sample_id") == "y-0", named=True)
    assert (held_out["split"], held_out["quadrant"]) == ("validation", None)
    assert held_out["action_paper"] is None
    opened = duckdb.read_parquet(str(paths.SAMPLES))
    actions = opened.aggregate("action_paper, count(*)").fetchall()
    assert dict(actions) == {"keep": 5, "drop": 1, "weight": 2, None: 2}


@pytest.mark.usefixtures("workspace")
def test_the_stage_names_a_missing_file() -> None:
    paths.metrics_path("paper", 2).unlink()
    with pytest.raises(SchemaError, match=r"metrics/paper-2\.json: not found"):
        stage.main()


def test_the_page_names_the_plan_that_reaches_the_target(workspace: FakeRun) -> None:
    target = {"max_extraction": 0.5, "max_perplexity_increase": 70.0}
    files.write_json(paths.PARAMS, params_of(target=target).model_dump(mode="json"))
    stage.main()
    built = files.read_json(paths.REPORT)
    found = built["recommendation"]
    # One canary that is not extracted may be extracted all the same in up to 97.5 %.
    assert (found["verdict"], found["arm"], found["target"]) == ("on average", "paper", target)
    page = paths.PAGE.read_text(encoding="utf-8")
    assert found["sentence"] in page.replace("&#39;", "'")
    assert "not dominated" in page
    assert console.findings(read_report())[0] == found["sentence"]
    assert "reports/front.png" in workspace.artifacts


@pytest.mark.usefixtures("workspace")
def test_what_an_arm_keeps_is_compared_by_its_gap_to_the_references() -> None:
    tables.write_plans({"none": plan_of(["c-0"]), "paper": plan_of(["c-0", "f-0"], f="drop")})
    found = stage.with_audits(stage.read_tables(params_of()), params_of()).next_layer
    assert found is not None
    (arm,) = found.arms
    assert found.has_references
    # The second model alone did not see it: 3 - 1.
    assert (found.cut, found.quantile) == (2.0, 0.9)
    assert (arm.arm, arm.control, arm.num_unchanged) == ("paper", None, 1)
    assert [m and m.value for m in (arm.change, arm.next_layer)] == [0.0, 0.0]
    with_layer = replace(tables_of(), next_layer=found)
    shown = page_of(with_layer, params_of())
    assert str(escape(arm.verdict)) in shown
    assert "With equal optimizer steps the samples that stay are seen more often" in shown
    assert "mean loss under the reference models" in shown
    report = build.build_report(with_layer, params_of())
    assert console.findings(report) == ["After the removal: paper not compared."]


@pytest.mark.usefixtures("workspace")
def test_without_a_keeping_arm_or_a_removal_there_is_no_next_layer() -> None:
    alone = params_of(arms=["paper"])
    assert stage.with_audits(stage.read_tables(alone), alone).next_layer is None
    tables.write_plans({arm: plan_of(["c-0"]) for arm in ("none", "paper")})
    assert stage.with_audits(stage.read_tables(params_of()), params_of()).next_layer is None
    assert console.findings(build.build_report(tables_of(), params_of())) == []


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("path", "key"),
    [
        (paths.CORPUS_SUMMARY, "num_left_out"),
        (paths.SCORES_SUMMARY, "mode"),
        (paths.QUADRANTS_SUMMARY, "axis"),
        (paths.SPANS_SUMMARY, "num_flagged"),
        (paths.CALIBRATION, "families"),
        (paths.metrics_path("paper", 2), "perplexity"),
    ],
)
def test_the_stage_names_a_file_of_another_form(path: Path, key: str) -> None:
    files.write_json(path, {})
    with pytest.raises(DataError, match=rf"^{path}: {key}: expected .* Make it again: gdc run\.$"):
        stage.main()
