"""The examples run, and find what they were made to show."""

import json
import re
import runpy
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest

from tests.builders import REPOSITORY

# What libraries say of each other there would be an error here.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """Runs an example in this process, which has the imports that take seconds; what it prints."""

    def run(name: str) -> str:
        path = str(REPOSITORY / "examples" / name)
        monkeypatch.setattr(sys, "argv", [path, str(tmp_path)])
        monkeypatch.chdir(tmp_path)
        runpy.run_path(path, run_name="__main__")
        return capfd.readouterr().out

    return run


def test_a_trace_is_mapped_and_the_forgotten_samples_are_flagged(
    run: Callable[[str], str], tmp_path: Path
) -> None:
    told = run("map_a_trace.py")
    assert "most often forgotten: sample-0000" in told
    mapped = pl.read_parquet(tmp_path / "map/scores.parquet")
    flagged = mapped.filter(quadrant="hotspot-memorized")["sample_id"].to_list()
    assert 30 < len(flagged) <= 50
    assert set(flagged) <= {f"sample-{i:06d}" for i in range(50)}


def test_a_trainer_is_recorded_and_its_repeated_secret_stands_out(
    run: Callable[[str], str], tmp_path: Path
) -> None:
    told = run("record_a_trainer.py")
    secrets = ", ".join(f"secret-{i}" for i in range(8))
    assert told.endswith(f"lost most of their loss: {secrets}\n")
    gains = pl.read_parquet(tmp_path / "trace/self_influence.parquet")
    assert (gains.height, gains["gain"].null_count()) == (104, 0)


def test_a_model_is_audited_and_gives_the_planted_secret_away(
    run: Callable[[str], str], tmp_path: Path
) -> None:
    told = run("audit_a_model.py")
    assert "planted secrets extracted: 100 %" in told
    audit = pl.read_parquet(tmp_path / "audit/audit.parquet")
    assert audit.filter(pl.col("num_repeats") == 0)["extracted"].sum() == 0
    assert (audit.height, json.loads((tmp_path / "audit/report.json").read_text()) != {}) == (
        10, True,
    )  # fmt: skip


def test_a_diffusion_model_gives_repeated_images_back_until_the_map_takes_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "examples")
    example = import_module("diffusion")
    monkeypatch.setattr(sys, "argv", ["diffusion.py", str(tmp_path)])
    # Half of its steps, which take a minute, show it already.
    monkeypatch.setattr(example, "NUM_STEPS", 1600)
    example.main()
    told = capfd.readouterr().out
    shares = dict(re.findall(r"from (.+): ([\d.]+)% of the generated images are a rep", told))
    before, mapped, random = (float(share) for share in shares.values())
    assert before >= 2
    assert mapped <= before / 5
    assert random >= before / 4
    assert (tmp_path / "diffusion.png").stat().st_size > 10_000
