"""What the pipeline writes is known, and nothing of the user's may lie there."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from gdc.config import Params, parse_params
from gdc.errors import ConfigError
from gdc.filesystem.path_checks import overlapping
from gdc.workspace import files, mlflow_store, outputs, paths, project
from gdc.workspace.project import IGNORED, TEMPORARIES
from tests.builders import REPOSITORY, Call, command_line, preset_text
from tests.tasks.builders import init_dvc

OWN_TEXT = '{"text": "mine"}\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one."""
    (tmp_path / "ws").mkdir()
    monkeypatch.chdir(tmp_path / "ws")
    return tmp_path / "ws"


@pytest.fixture
def our_folder(folder: Path) -> Path:
    """A folder with params.yaml and dvc.yaml, without git and DVC."""
    Path("params.yaml").write_text(preset_text("own-data"))
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    return folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process, which starts nothing: exit code, output, errors."""
    for flow in ("curate", "leaderboard", "single_stage"):
        monkeypatch.setattr(f"flows.{flow}.run", lambda *_, **__: pytest.fail("a flow has started"))
    return command_line(monkeypatch, capsys)


def write(path: str, text: str = OWN_TEXT) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def params_of(path: str, kind: str = "jsonl") -> Params:
    values = files.parse_yaml(preset_text("own-data"), paths.PARAMS)
    fields: Mapping[str, Mapping[str, Any]] = {
        "jsonl": {"text_field": "text", "key_field": None},
        "text": {"unit": "line"},
        "huggingface": {"name": None, "split": "train", "revision": None, "text_field": "text"},
    }
    values["ingest"]["source"] = {"kind": kind, "path": path, **fields[kind]}
    return parse_params(values, name="test")


# ---- what is written


@pytest.fixture(scope="module")
def made_by_dvc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What DVC makes of an empty folder."""
    made = tmp_path_factory.mktemp("dvc")
    init_dvc(made, no_scm=True)
    return made


@pytest.fixture
def dvc_folder(our_folder: Path, made_by_dvc: Path) -> Path:
    shutil.copytree(made_by_dvc, our_folder, dirs_exist_ok=True)
    return our_folder


def test_every_out_that_dvc_knows_is_known(dvc_folder: Path) -> None:
    with Repo(str(dvc_folder)) as repo:
        outs = {Path(out.fs_path).relative_to(dvc_folder) for out in repo.index.outs}
    known = outputs.pipeline_outputs()
    assert {paths.MANIFEST, Path("data/models/none-1"), Path("metrics/none-1.json")} <= outs
    for out in outs:
        assert set(known) & {out, *out.parents}, out
    # No more than is needed: beside the outs a folder for data is free.
    for free in ("data/raw/mine.jsonl", "my.jsonl", "reports/audit", "reports/map", "../mine"):
        assert overlapping(Path(free), known) is None


def test_every_other_file_that_the_code_names_is_known(our_folder: Path) -> None:
    assert our_folder.is_dir()
    named = re.compile(r'Path\(f?"([\w.-]+/[\w./-]+|work|mlflow\.db)')
    found = {
        match[1]
        for package in ("gdc", "tasks", "flows")
        for module in (REPOSITORY / package).rglob("*.py")
        for match in named.finditer(module.read_text(encoding="utf-8"))
    } | {mlflow_store.DATABASE, "mlartifacts"}
    assert {"work/checkpoints", "work/.lock", "data/corpus.parquet"} <= found
    known = set(outputs.pipeline_outputs())
    # The default folders of `gdc audit`, `gdc map` and `gdc profile`.
    for name in found - {"reports/audit", "reports/map", "reports/profile"}:
        assert known & {Path(name), *Path(name).parents}, name


@pytest.mark.parametrize("value", ["$(touch X)1", "1; touch X;", "'; touch X; '", '"`touch X`"'])
def test_no_shell_reads_what_stands_in_params(dvc_folder: Path, value: str) -> None:
    values = YAML(typ="safe").load(preset_text("own-data"))
    values["train"]["seeds"] = [value]
    values["retrain"] = {"arms": [value], "seeds": [value], "match": "steps"}
    values["reference"]["models"] = [value]
    Path("params.yaml").write_text(json.dumps(values))
    with Repo(str(dvc_folder)) as repo:
        cells = {s.addressing.partition("@")[0]: s.cmd for s in repo.index.stages if "@" in s.name}
    expected = {
        "train": ["--seed", value],
        "reference": ["--model", value],
        "retrain": ["--arm", value, "--seed", value],
        "evaluate": ["--arm", value, "--seed", value],
    }
    assert {name: shlex.split(cmd)[3:] for name, cmd in cells.items()} == expected
    for cmd in cells.values():
        subprocess.run(cmd.replace("python -m", "echo", 1), shell=True, check=True)  # noqa: S602
    assert not Path("X").exists()


def test_commands_of_cells_are_those_that_dvc_lock_knows(dvc_folder: Path) -> None:
    with Repo(str(dvc_folder)) as repo:
        cells = {stage.addressing: stage.cmd for stage in repo.index.stages}
    assert cells["train@0"] == "python -m gdc.stages.train --seed 0"
    assert cells["reference@1"] == "python -m gdc.stages.reference --model 1"
    assert cells["retrain@none-1"] == "python -m gdc.stages.retrain --arm none --seed 1"
    assert cells["evaluate@none-1"] == "python -m gdc.stages.evaluate --arm none --seed 1"


# ---- a source


SOURCES = (
    "data/corpus.parquet", "data/curated/train.parquet", "data/curated", "data", ".", "..",
    "data/models", "data/models/paper-1", "data/trace/0", "reports/report.json", "metrics",
    "lineage/score.json", "work/x.jsonl", "mlflow.db", "mlartifacts/1", ".dvc/cache", ".git",
    "params.yaml", "dvc.lock", "sub/../data/plans", "out-link", "file-link.jsonl", "holder",
    "chain",
)  # fmt: skip


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
@pytest.mark.parametrize("path", SOURCES)
def test_a_source_where_the_pipeline_writes_is_refused(
    our_folder: Path, path: str, *, absolute: bool
) -> None:
    write("data/curated/train.parquet")
    Path("sub").mkdir()
    Path("out-link").symlink_to("data/curated")
    Path("file-link.jsonl").symlink_to(our_folder / "data/curated/train.parquet")
    write("holder/deep/mine.jsonl")
    Path("holder/deep/link.jsonl").symlink_to("../../data/curated/train.parquet")
    Path("chain").mkdir()
    Path("chain/back").symlink_to("../chain")
    Path("chain/next").symlink_to("../holder")
    given = str(our_folder / path) if absolute else path
    with pytest.raises(ConfigError, match=r"ingest\.source\.path: .* Copy it out of there"):
        outputs.require_outside_outputs(params_of(given))


def test_a_source_elsewhere_is_accepted(our_folder: Path) -> None:
    write("data/raw/mine.jsonl")
    write("holder/mine.jsonl")
    Path("holder/link.jsonl").symlink_to(our_folder / "data/raw/mine.jsonl")
    Path("holder/loop").symlink_to("loop")
    for path in ("data/raw/mine.jsonl", "data/raw", "holder", "nothing", "data2"):
        outputs.require_outside_outputs(params_of(path))
    # Nothing is here of this name: the Hub is asked for it.
    outputs.require_outside_outputs(params_of("data/curated", "huggingface"))


def test_where_an_out_is_a_link_what_it_leads_to_is_not_a_source(
    our_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "big").mkdir()
    Path("data").mkdir()
    Path("data/curated").symlink_to(tmp_path / "big")
    with pytest.raises(ConfigError, match="data/curated, which is deleted"):
        outputs.require_outside_outputs(params_of(str(tmp_path / "big/mine.jsonl")))
    assert our_folder.is_dir()


def test_a_pretrained_folder_where_the_pipeline_writes_is_refused(our_folder: Path) -> None:
    assert our_folder.is_dir()
    values = files.parse_yaml(preset_text("own-data"), paths.PARAMS)
    values["ingest"]["tokenizer"] = {"kind": "pretrained", "name": "data/models", "revision": None}
    params = parse_params(values, name="test")
    outputs.require_outside_outputs(params)
    Path("data/models").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"ingest\.tokenizer\.name: .*data/models"):
        outputs.require_outside_outputs(params)


@pytest.mark.slow
def test_every_command_refuses_a_source_among_the_outputs_before_anything_starts(
    our_folder: Path, call: Call
) -> None:
    write("data/curated/train.parquet")
    Path("work").mkdir()  # a run was here
    before = Path("params.yaml").read_text()
    found = [call("run", "--source", "data/curated/train.parquet")]
    assert Path("params.yaml").read_text() == before
    source = "  source: {kind: parquet, path: data/curated, text_field: text, key_field: null}\n"
    edited = re.sub(r"  source:.*?\n(?=  \S)", source, before, count=1, flags=re.DOTALL)
    Path("params.yaml").write_text(edited)
    found += [call("run"), call("stage", "manifest"), call("stage", "ingest")]
    for code, output, errors in found:
        assert (code, output) == (2, "")
        assert re.match(r"error: ingest\.source\.path: expected a path apart from what", errors)
    command = [sys.executable, "-m", "gdc.stages.manifest"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    stage = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert stage.returncode == 2
    assert "ingest.source.path: expected a path apart" in stage.stderr
    assert not Path("data/manifest.json").exists()
    assert Path("data/curated/train.parquet").read_text() == OWN_TEXT
    assert our_folder.is_dir()


# ---- folders for results


@pytest.mark.parametrize(
    ("out", "inputs", "message"),
    [
        pytest.param("data", {}, r"scores\.parquet would lie .* data/scores\.parquet", id="outs"),
        pytest.param("data/trace/0", {}, "below data/trace", id="below an out"),
        pytest.param("work/map", {}, "below work", id="below work"),
        pytest.param("t", {"the trace": "t"}, "apart from the trace t", id="into the input"),
        pytest.param("o", {"--corpus": "o/scores.parquet"}, "from --corpus o/s", id="at an input"),
        pytest.param("p", {}, "expected a folder, got a file", id="a file"),
    ],
)
def test_a_folder_for_results_that_would_replace_something_is_refused(
    our_folder: Path, out: str, inputs: dict[str, str], message: str
) -> None:
    write("p")
    paths = {option: Path(path) for option, path in inputs.items()}
    with pytest.raises(ConfigError, match=rf"--out {out}: .*{message}"):
        outputs.require_free(Path(out), ["scores.parquet", "scores.json"], paths)
    for free in ("reports/map", "data/mine", ".", "../elsewhere"):
        outputs.require_free(Path(free), ["scores.parquet"], {"the trace": Path("data/trace/0")})
    assert our_folder.is_dir()


def test_a_result_takes_the_place_of_results_alone(tmp_path: Path) -> None:
    names = ["scores.parquet", "report.html"]
    outputs.require_free(tmp_path / "new/folder", names, {})
    outputs.claim(tmp_path / "new/folder", names[:1])
    for name in names:
        (tmp_path / "new/folder" / name).write_text("anything")
    outputs.require_free(tmp_path / "new/folder", names[:1], {})
    with pytest.raises(ConfigError, match=r"--out .*/new/folder: .* got report\.html, "):
        outputs.require_free(tmp_path / "new/folder", names, {})
    outputs.claim(tmp_path / "new/folder", names[1:])
    outputs.require_free(tmp_path / "new/folder", names, {})


# ---- a data folder on another disk


def test_a_data_folder_that_links_out_of_the_workspace_is_refused(
    our_folder: Path, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "big").mkdir()
    Path("data").symlink_to(tmp_path / "big")
    for command in (("run",), ("stage", "manifest"), ("leaderboard",)):
        code, _, errors = call(*command)
        assert code == 2
        assert errors.startswith(f"error: data: expected a folder of this workspace, got a link to "
                                 f"{tmp_path / 'big'}")  # fmt: skip
        assert "cache.dir" in errors
    Path("data").unlink()
    Path("inside").mkdir()
    Path("data").symlink_to("inside")
    project.require_workspace()
    Path("data/models").symlink_to(tmp_path / "big")
    with pytest.raises(ConfigError, match="data/models: expected a folder of this workspace"):
        project.require_workspace()
    assert our_folder.is_dir()


# ---- gdc init


def names() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


@pytest.mark.parametrize("text", ["stages:\n  prepare:\n    cmd: x\n", "{}\n", "stages:\n"])
def test_a_graph_of_the_users_own_is_refused(folder: Path, call: Call, text: str) -> None:
    write("dvc.yaml", text)
    for command in (["init", "docs"], ["init", "docs", "--force"]):
        code, _, errors = call(*command)
        assert code == 2
        assert errors.startswith("error: dvc.yaml: expected the stages of gdc, got ")
        assert names() == ["dvc.yaml"]
    write("params.yaml", preset_text("docs"))
    for command in (["run"], ["stage", "prepare"]):
        code, _, errors = call(*command)
        assert code == 2
        assert "without manifest, ingest, " in errors
    assert (folder / "dvc.yaml").read_text() == text


def test_a_graph_with_a_file_of_a_former_name_is_refused_and_can_be_replaced(
    folder: Path, call: Call
) -> None:
    assert call("init", "docs")[0] == 0
    graph, params = (folder / "dvc.yaml").read_text(), (folder / "params.yaml").read_text()
    write("dvc.yaml", graph.replace("data/canary_memorization.parquet", "data/probes.parquet"))
    for command in (["run"], ["init", "docs", "--force"]):
        code, _, errors = call(*command)
        assert code == 2
        assert errors.startswith(
            "error: dvc.yaml: `data/probes.parquet` is called `data/canary_memorization.parquet`"
        )
    (folder / "dvc.yaml").rename(folder / "old.yaml")
    write("params.yaml", f"{params}\n# mine\n")
    assert call("init", "docs", "--force")[0] == 0
    assert (folder / "dvc.yaml").read_text() == graph
    assert (folder / "params.yaml.bak").read_text() == f"{params}\n# mine\n"


@pytest.mark.parametrize("text", ["lr: 0.1\n", "mine: [", "- 1\n", "", "seed: 0\ningest: {}\n"])
def test_params_of_the_users_own_are_never_replaced(folder: Path, call: Call, text: str) -> None:
    write("params.yaml", text)
    for options in ([], ["--force"]):
        code, _, errors = call("init", "docs", *options)
        assert code == 2
        assert errors.startswith("error: params.yaml: expected none, or one with the sections of")
        assert names() == ["params.yaml"]
    assert (folder / "params.yaml").read_text() == text


@pytest.mark.parametrize(
    "path", ["data/corpus.parquet", "data/models/mine.bin", "reports/report.html", "metrics/a.json"]
)
def test_files_of_the_user_at_the_paths_of_outputs_are_kept(
    folder: Path, call: Call, path: str
) -> None:
    write(path)
    for options in ([], ["--force"]):
        code, _, errors = call("init", "own-data", *options)
        assert code == 2
        assert errors.startswith(
            f"error: {path}: expected nothing where the pipeline writes, got 1"
        )
        assert names() == [Path(path).parts[0]]
    assert (folder / path).read_text() == OWN_TEXT


def test_files_that_dvc_lock_knows_are_its_own(our_folder: Path) -> None:
    write("data/corpus.parquet")
    write("data/plans/a.parquet")
    write("data/spans.parquet")
    graph = project.read_yaml(Path("dvc.yaml"))
    lock = {
        "stages": {"ingest": {"outs": [{"path": "data/corpus.parquet"}, {"path": "data/plans"}]}}
    }
    write("dvc.lock", json.dumps(lock))
    assert list(outputs.foreign_files(graph)) == [Path("data/spans.parquet")]
    assert our_folder.is_dir()


def test_init_keeps_what_is_there_and_adds_what_lacks(folder: Path, call: Call) -> None:
    write(".gitignore", "mine/\n/data/")
    write(".dvcignore", "theirs\n")
    write("data/raw/mine.jsonl")
    write("prefect.yaml", "name: theirs\n")
    assert call("init", "own-data")[0] == 0
    assert Path("prefect.yaml").read_text() == "name: theirs\n"
    rest = [line for line in IGNORED if line != "/data/"]
    assert (folder / ".gitignore").read_text() == "\n".join(["mine/", "/data/", *rest]) + "\n"
    assert Path(".dvcignore").read_text().splitlines() == ["theirs", TEMPORARIES]
    status = subprocess.run(
        ["git", "status", "--porcelain"], capture_output=True, text=True, check=True
    )
    assert {"?? dvc.yaml", "?? params.yaml"} <= set(status.stdout.splitlines())


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_the_message_of_git_is_shown_and_no_half_workspace_is_left(
    folder: Path, call: Call
) -> None:
    os.chown(folder, 12345, 12345)
    code, _, errors = call("init", "own-data")
    assert code == 2
    assert "safe.directory" in errors
    assert names() == []


def test_the_message_of_dvc_is_shown_and_no_half_workspace_is_left(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "import sys; sys.exit('ERROR: the disk is full')"
    write("bin/python", f'#!/bin/sh\nmkdir .dvc\nexec "{sys.executable}" -c "{broken}"\n')
    Path("bin/python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "bin/python"))
    code, _, errors = call("init", "own-data")
    assert code == 2
    assert "python -m dvc --wait-for-lock init --quiet` failed: ERROR: the disk is full" in errors
    assert names() == ["bin"]


def test_a_folder_that_cannot_be_written_is_refused_in_words(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/proc/self")
    code, _, errors = call("init", "own-data")
    assert code == 2
    assert errors.startswith("error: /proc/")
    assert "Traceback" not in errors
    assert folder.is_dir()


def test_what_a_former_call_has_left_goes_once_and_what_the_user_put_there_stays(
    folder: Path,
) -> None:
    out, names = folder / "map", ["table.parquet", "parts"]
    (out / "parts").mkdir(parents=True)
    files_there = [out / name for name in ("table.parquet", "parts/a.parquet", "parts/mine.txt")]
    for claimed, left in ([], [0, 1, 2]), (names, [2]), ([], [0, 1, 2]):
        for path in files_there:
            path.write_text("former")
        outputs.claim(out, claimed)
        outputs.drop_former(out, names, re.compile(r".+\.parquet"))
        assert [i for i, path in enumerate(files_there) if path.exists()] == left
