"""Every script of benchmarks/ that trains nothing, started in small; none is left out."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from importlib import import_module, util
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from PIL import Image

from gdc.config import parse_params
from gdc.report import build
from gdc.report.model import to_json
from gdc.workspace import dvc, files, paths
from tasks.graph import load_graph
from tests.benchmarks.conftest import BENCHMARKS, Start
from tests.builders import REPOSITORY, preset_text, rows_of
from tests.comparison.builders import arm_audits, measured
from tests.docs.commands import check_gdc
from tests.flows import killing
from tests.flows.toy_pipeline import make_pipeline
from tests.report.builders import params_of, tables_of

pytestmark = pytest.mark.slow

# Tested in a file of its own.
ELSEWHERE = {"compare_workspaces", "gpu", "scoring", "told_truth"}
# Runs a stage, by its name and arguments.
Stage = Callable[[str, Sequence[str]], None]
WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath"]


def texts(count: int) -> list[str]:
    return [f"{WORDS[i % 8]} tells {WORDS[i % 5]} of number {i}. " * 5 for i in range(count)]


def test_every_script_is_started_by_a_test() -> None:
    scripts = {
        path.stem
        for path in BENCHMARKS.glob("*.py")
        if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    }
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    started = set(re.findall(r'start\(\s*"(\w+)"', tests))
    assert scripts - ELSEWHERE == started


def test_bench(start: Start, page: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(f"print('table {name}')", encoding="utf-8")
    assert all((BENCHMARKS / f"{name}.py").exists() for name in import_module("bench").SCRIPTS)
    printed = start("bench", HERE=tmp_path, SCRIPTS=("one", "two"))
    assert printed.endswith(" 0 minutes.\n\ntable one\n\ntable two\n")
    assert printed in page.read_text(encoding="utf-8")


def test_startup(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pipeline(tmp_path)
    # The programs that it starts write to it.
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    printed = start("startup", ROOT=tmp_path, NUM_RUNS=1)
    assert "| `dvc repro` with nothing to do, of 5 s |" in printed
    assert (tmp_path / "dvc.lock").exists()


def fake_gdc(folder: Path, *arguments: str, capture: bool = False) -> str:
    """Reads the arguments as `gdc` does; makes what a run of a preset leaves."""
    check_gdc(arguments)
    if arguments[0] == "init":
        (folder / "params.yaml").write_text(preset_text(arguments[1]), encoding="utf-8")
    if arguments == ("run",):
        params = files.parse_yaml(files.read_text(folder / "params.yaml"), folder)
        parse_params(params, name="params.yaml")
        (folder / "reports").mkdir(exist_ok=True)
        audits = {arm: arm_audits(measured(0.5, 0.4, 0.6)) for arm in ("none", "paper")}
        report = build.build_report(replace(tables_of(), arm_audits=audits), params_of())
        files.write_json(folder / paths.REPORT, to_json(report))
        (folder / "reports/leaderboard.md").write_text("# Leaderboard\n\nscores\n", "utf-8")
    return "| arms |\n" if capture else ""


@pytest.mark.parametrize("preset", ["paper-lstm", "paper-gpt2", "budgets", "leaderboard"])
def test_experiment(preset: str, start: Start, page: Path, tmp_path: Path) -> None:
    printed = start("experiment", preset, SOURCE=tmp_path, gdc=fake_gdc)
    is_board = preset == "leaderboard"
    assert printed.startswith(f"Preset `{preset}`, ")
    assert ("\n\nscores\n" if is_board else "\n\n| arms |\n") in printed
    assert printed.endswith("\nCode: `today`.\n")
    assert (printed in page.read_text(encoding="utf-8")) == is_board


def test_budgets(start: Start, page: Path, tmp_path: Path) -> None:
    corpora = {"code": ("Source code", lambda _: texts(90)), "man": ("Pages", lambda _: [])}
    sizes = {"CORPORA": corpora, "SOURCE": tmp_path, "gdc": fake_gdc}
    assert start("budgets", "code", "--tiny", **sizes) == "| arms |\n"
    start("budgets", "code", "--dry-run", **sizes)
    assert "Source code" not in page.read_text(encoding="utf-8")
    start("budgets", "code", **sizes)
    written = page.read_text(encoding="utf-8")
    assert ". Code: `today`.\n\n| arms |\n\n| arm | rows changed |" in written
    assert "## Pages" not in written


def test_default_preset(start: Start, tmp_path: Path) -> None:
    fake_gdc(tmp_path, "init", "docs")
    fake_gdc(tmp_path, "run")
    start("default_preset", str(tmp_path), "--out", str(tmp_path / "default.md"))
    assert (tmp_path / "default.md").read_text("utf-8").startswith("# The default preset\n")


def test_cells(start: Start, page: Path) -> None:
    """Of `gdc run` only that its graph has the cells, as it takes 20 seconds."""

    def run(command: list[str], cwd: Path, **_: object) -> SimpleNamespace:
        check_gdc(command[command.index("gdc") + 1 :])
        cells = [name for name in load_graph(cwd).upstream if "cells@" in name]
        for cell in cells:
            (cwd / "data/cells" / cell.partition("@")[2]).mkdir(parents=True)
        return SimpleNamespace(returncode=0, stdout="")

    # Runs of 1, 2 and 3 cells take so many processor seconds.
    used = iter([0.0, 1.0, 1.0, 3.0, 3.0, 6.0])
    programs = SimpleNamespace(run=run)
    printed = start("cells", "2", "3", "--write", subprocess=programs, _used=lambda: next(used))
    assert "| 3 | 3.0 | 1.00 | 1.00 | 1.3 | reached |" in printed
    assert printed in page.read_text(encoding="utf-8")


def test_texts(start: Start, page: Path, tmp_path: Path) -> None:
    printed = start("texts", "--rows", "2000", "--folder", str(tmp_path / "texts"), "--write")
    assert "2,000 texts" in printed
    assert "| the map of all texts, of 1 s |" in printed
    assert printed in page.read_text(encoding="utf-8")


@pytest.fixture
def scored_inputs(tmp_path: Path) -> Path:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    return tmp_path


@pytest.mark.usefixtures("scored_inputs")
def test_scale(start: Start, page: Path) -> None:
    source = SimpleNamespace(rows=rows_of(texts(400)))
    sizes = {
        "NUM_SAMPLES": 2000, "NUM_RUNS": 1, "HASHED_BYTES": 2**10, "VOCABULARY": 280,
        "read_source": lambda *_, **__: source,
    }  # fmt: skip
    printed = start("scale", "--documents", "1e9", "--write", **sizes)
    assert "| **all, once** |" in printed
    assert printed in page.read_text(encoding="utf-8")


def test_pictures(start: Start, tmp_path: Path) -> None:
    for name in ("data/audits", "metrics", "reports", "docs"):
        (tmp_path / name).mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "reports/data_map.png")
    for cell, extracted, perplexity in (
        ("none-1", [True, False], 10.0), ("paper-1", [False, False], 11.0),
        ("tracked-1", [True, True], 9.0),
    ):  # fmt: skip
        canaries = pl.DataFrame({"num_repeats": [1, 2, 0], "extracted": [*extracted, True]})
        canaries.write_parquet(tmp_path / f"data/audits/{cell}.parquet")
        (tmp_path / f"metrics/{cell}.json").write_text(json.dumps({"perplexity": perplexity}))
    start("pictures", str(tmp_path), PICTURES=tmp_path / "docs/pictures")
    found = import_module("pictures").arms_of(tmp_path)
    assert found.rows() == [("none", "1", 50.0, 0.0), ("paper", "1", 0.0, pytest.approx(10.0))]
    assert {path.name for path in (tmp_path / "docs/pictures").iterdir()} == {
        "arms.png", "map.png",
    }  # fmt: skip


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Runs a stage in this process, which has its imports."""
    for name, value in dvc.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")

    def run(name: str, arguments: Sequence[str]) -> None:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        import_module(f"gdc.stages.{name}").main()

    return run


def test_corpus(start: Start, tmp_path: Path, stage: Stage) -> None:
    def run(name: str) -> float:
        stage(name, ())
        return 1.0

    printed = start("corpus", "--megabytes", "0.3", "0.4", FOLDER=tmp_path / "corpus", run=run)
    assert printed.count(" MB of text, for 0.3 MB | 1 | 1 | 1 | <= 1.25 | reached |") == 3


def test_memory(
    start: Start, page: Path, tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = import_module("memory")

    def run(named: tuple[str, str, Sequence[str]]) -> tuple[str, object]:
        name, module, arguments = named
        stage(module, arguments)
        return name, memory.Peak(1.0, 2.0)

    model = import_module("gdc.training.losses").TargetLosses
    monkeypatch.setattr(model, "forward", memory.losses_of_tokens)
    sizes = {
        "FOLDER": tmp_path / "memory", "STAGES": memory.STAGES[:3], "HELDOUT": 0.2,
        "ProcessPoolExecutor": lambda *_: nullcontext(SimpleNamespace(map=map)), "run_stage": run,
    }  # fmt: skip
    printed = start("memory", "--megabytes", "0.3", "0.4", "--write", **sizes)
    assert "| train | 1 | 1 | 2 | 2 | 1.00 | 1.00 | reached |" in printed
    assert printed in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("page")
def test_what_a_process_holds_is_watched_until_it_ends() -> None:
    # It ends when it is told to, however long it took to start.
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True)
    watched = import_module("memory").held_bytes(process.pid)
    assert any(held > 2**20 for held in watched)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.close()
    assert all(held >= 0 for held in watched)
    assert process.wait() == 0


def test_fuzz(start: Start, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, whose memory stays as it is."""
    fuzz = import_module("fuzz")
    monkeypatch.setattr(fuzz.resource, "setrlimit", lambda *_: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("DO_NOT_TRACK", "true")

    def attacked(name: str, num_inputs: int, seed: int) -> tuple[Counter[str], float]:
        sent: list[Counter[str]] = []
        fuzz.attack_one(SimpleNamespace(send=sent.append), tmp_path, name, num_inputs, seed)
        return sent[-1], 0.0

    options = ("--share", "0.0001", "--seed", "1", "--write")
    with pytest.raises(SystemExit) as ended:
        start("fuzz", *options, "rows of text", in_a_process=attacked)
    assert ended.value.code == 0
    row = r"\| rows of text \| 1 \| [01] \| [01] \| 0 \| 0 \| 0 \|"
    assert re.search(row, page.read_text(encoding="utf-8"))


class Undisturbed:
    """A trial in which nothing is killed."""

    def __init__(self, folder: Path, *_: object, start: killing.Start) -> None:
        assert (folder / "dvc.yaml").exists()
        self.start = start

    def kill_often(self, count: int) -> Iterator[killing.Kill]:
        for _ in range(count):
            yield killing.Kill("DVC", "SIGKILL", "any", "train", 1.0, ())

    def finish(self, _expected: Mapping[str, str]) -> list[str]:
        return []


def test_kills(start: Start, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the kills, of which tests/flows/test_kills.py has some."""
    kills, forked_flow = import_module("kills"), import_module("forked_flow")
    assert all(util.find_spec(name) for name in forked_flow.IMPORTS)
    monkeypatch.setattr(forked_flow, "load", lambda: None)
    monkeypatch.setattr(kills.killing, "Trial", Undisturbed)
    monkeypatch.setattr(kills.builders, "forget", lambda *_: None)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    (tmp_path / "reference").mkdir()
    make_pipeline(tmp_path / "reference")
    rows = tmp_path / "kills.jsonl"
    with pytest.raises(SystemExit) as ended:
        start(
            "kills", "--rounds", "7", "--reference", str(tmp_path / "reference"),
            "--rows", str(rows), "--write", shared_server=nullcontext,
        )  # fmt: skip
    assert ended.value.code == 0
    assert [json.loads(line)["code"] for line in rows.read_text("utf-8").splitlines()] == (
        ["today"] * 14
    )
    written = page.read_text(encoding="utf-8")
    assert "| DVC | SIGKILL | 12 | 12 |" in written
    assert "12 rounds in 0 minutes; 2 workspaces were run to their end" in written
    assert "Code: `today`.\n" in written


def test_a_forked_flow_is_a_run_of_the_folder(tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
import forked_flow
flow = forked_flow.start(Path({str(tmp_path)!r}), os.environ)
print(flow.communicate(timeout=300)[0], flow.poll())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{BENCHMARKS}{os.pathsep}{REPOSITORY}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.search(r"^error: params.yaml: not found in .* 2$", done.stdout, re.DOTALL)


def browser() -> str:
    program = next(filter(None, map(shutil.which, import_module("screens").PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    return program


def test_filters(start: Start, page: Path) -> None:
    browser()
    printed = start("filters", "--write", NUM_TEXTS=300, NUM_TIMES=1, QUIET_MS=100)
    assert "300 texts." in printed
    assert "| a part of a source, ms, of 200 |" in printed
    assert printed in page.read_text(encoding="utf-8")


def test_screens(start: Start, tmp_path: Path) -> None:
    """With a page in place of those of MLflow, whose server takes long to start."""
    browser()
    make_pipeline(tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "map.png")
    graph = files.parse_yaml((tmp_path / "dvc.yaml").read_text("utf-8"), tmp_path)
    (tmp_path / "dvc.yaml").write_text(json.dumps(graph | {"plots": ["map.png"]}), "utf-8")
    shown = tmp_path / "runs.html"
    shown.write_text("<p>curate</p><div class=ag-row><button>+</button></div>", "utf-8")

    @contextmanager
    def started(command: list[str], **_: object) -> Iterator[SimpleNamespace]:
        check_gdc(command[command.index("gdc") + 1 :])
        lines = ["report  x\n", f"runs  {shown.as_uri()}\n"]
        yield SimpleNamespace(stdout=lines, terminate=lambda: None)

    programs = SimpleNamespace(Popen=started, PIPE=subprocess.PIPE, run=subprocess.run)
    start("screens", str(tmp_path), PICTURES=tmp_path, DRAWING_MS=0, subprocess=programs)
    assert all((tmp_path / name).exists() for name in ("mlflow.png", "dvc-plots.png"))
