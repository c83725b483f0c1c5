"""What ``import gdc``, ``python -m gdc`` and the help of every command offer."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import polars as pl
import pytest
from typer.main import get_command

import gdc
from gdc import cli
from gdc.errors import EXIT_CODES
from tests.builders import params_with, trace_of, write_trace

# What is used inside a trainer.
NEED_TORCH = ("WeightedCollator", "use_weights", "weighted_loss")


def ran(*command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_every_public_name_is_there_and_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, gdc\n"
        "print(*{'polars', 'numpy', 'pydantic', 'torch', 'prefect', 'mlflow'} & {*sys.modules})\n"
        "heavy = {name for name in gdc.__all__ if name.startswith('Trace')}\n"
        f"heavy |= {{*{NEED_TORCH}}}\n"
        "print(*[name for name in {*gdc.__all__} - heavy if not hasattr(gdc, name)])\n"
        "print('torch' in sys.modules)\n"
        "print(*[name for name in heavy if not hasattr(gdc, name)])"
    )
    done = ran("-c", program)
    assert (done.stdout, done.stderr) == ("\n\nFalse\n\n", "")
    assert set(gdc.__all__) <= set(dir(gdc))
    assert gdc.__version__ == version("gendatacarto")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = gdc.nothing  # type: ignore[attr-defined]  # what is not there


@pytest.mark.slow
def test_a_folder_of_the_user_does_not_take_the_place_of_our_packages(tmp_path: Path) -> None:
    for name in ("flows", "tasks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not of gdc')")
    done = ran("-m", "gdc", "serve", "--cron", "never", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --cron: expected minute, hour")


def test_the_version_is_printed() -> None:
    assert ran("-m", "gdc", "--version").stdout == f"gdc {version('gendatacarto')}\n"


COMMANDS = sorted(getattr(get_command(cli.app), "commands", {}))


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.app([*arguments, "-h"], prog_name="gdc")
    assert not ended.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"benchmark", "recommend"}))
def test_every_command_has_a_short_option_for_its_help(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"gdc {command}" in help_of(capsys, command)


@pytest.mark.parametrize("command", ["audit", "leaderboard", "map", "plan", "run", "show"])
def test_every_command_that_prints_a_table_can_print_json(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--json" in help_of(capsys, command)


def test_the_help_names_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    said = " ".join(help_of(capsys).split())
    assert all(f"{code} {meaning}" in said for code, meaning in EXIT_CODES.items())
    assert {error.exit_code for error in (gdc.GdcError, gdc.TransientError)} <= set(EXIT_CODES)


@pytest.mark.parametrize(
    ("former", "new"), [("benchmark", "gdc leaderboard"), ("recommend", "gdc plan")]
)
def test_a_former_name_names_the_new_one(former: str, new: str) -> None:
    done = ran("-m", "gdc", former, "--num-models", "4", "-x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: gdc {former}: expected {new}, got its former name. Run: {new}\n"


@pytest.mark.parametrize("port", ["0", "65536"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    done = ran("-m", "gdc", "ui", "--port", port)
    assert done.returncode == 2
    assert "--port" in done.stderr


def test_a_plan_is_asked_for_by_an_arm_or_by_a_whole_target() -> None:
    for arguments in (["none", "--max-extraction", "0.1"], ["--max-perplexity", "1"]):
        done = ran("-m", "gdc", "plan", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "expected an arm, or both --max-extraction and --max-perplexity" in done.stderr


# ---- the library


def test_a_trace_is_opened_and_mapped_by_plain_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    curves = {f"s{i}": [3.0 + i, 0.5, 2.0 + i, 0.25] for i in range(8)}
    folder = write_trace(0, trace_of(curves))
    trace = gdc.load_trace(str(folder), mode="online")
    assert trace.num_samples == trace.samples.collect().height == 8
    assert trace.columns("online") == ("loss_000", "loss_001", "loss_002", "loss_003")

    params = params_with()
    params = params.model_copy(update={"score": params.score.model_copy(update={"num_early": 1})})
    mapped = gdc.map_trace(folder, tmp_path / "map", params, mode="online").collect()
    assert mapped["sample_id"].to_list() == list(curves)
    assert mapped["difficulty"].to_list() == [3.0 + i for i in range(8)]
    written = pl.read_parquet(tmp_path / "map/scores.parquet")
    assert mapped["quadrant"].to_list() == written["quadrant"].to_list()


def test_params_are_read_from_a_file_or_refused(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    with pytest.raises(gdc.ConfigError, match=r"params\.yaml"):
        gdc.load_params(tmp_path / "params.yaml")
    with pytest.raises(gdc.GdcError, match=r"other\.yaml"):
        gdc.load_params(tmp_path / "other.yaml")
