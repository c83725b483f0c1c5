"""The GPU benchmark: what it runs is valid, what it found is told, and it runs where a GPU is."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gdc.config import parse_params
from gdc.workspace import files
from tests.builders import REPOSITORY, preset_text

SCRIPT = REPOSITORY / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return import_module("gpu")


@pytest.mark.parametrize("size", ["FULL", "TINY"])
def test_the_adapted_preset_is_valid_and_has_the_model_that_is_trained(
    gpu: ModuleType, size: str
) -> None:
    values = files.parse_yaml(preset_text("gpt2-wikitext"), Path("preset"))
    import_module("gpu_pipeline").adapt(values, getattr(gpu, size))
    params = parse_params(values, name="test")
    assert params.model == getattr(gpu, size).gpt2
    assert (params.ingest.source.kind, params.reference.models) == ("python-library", ())
    assert params.retrain.arms == ("none", "paper", "random")


def test_every_number_and_every_failure_is_a_line_of_the_page(gpu: ModuleType) -> None:
    found: dict[str, object] = {part: {"failed": "not done in 9 seconds"} for part in gpu.PUBLIC}
    found["memory"] = {
        "gigabytes": {"512 ids, ours": 1.25, "512 ids, plain logits": None, "more": "none"}
    }
    lines = gpu.page({"device": "a card", "torch": "2", **found}).splitlines()
    assert lines[0] == "a card, torch 2."
    assert lines[4:] == [
        "| train | failed | not done in 9 seconds |",
        "| llama | failed | not done in 9 seconds |",
        "| audit | failed | not done in 9 seconds |",
        "| memory | gigabytes: 512 ids, ours | 1.25 |",
        "| memory | gigabytes: 512 ids, plain logits | not measured |",
        "| memory | gigabytes: more | none |",
        "| resume | failed | not done in 9 seconds |",
        "| pipeline | failed | not done in 9 seconds |",
    ]


def test_without_a_gpu_it_says_so_and_runs_nothing(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == 0
    assert capsys.readouterr().out == (
        "benchmarks/gpu.py: no CUDA GPU on this machine, so nothing was run.\n"
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")
def test_every_part_runs_on_a_gpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    subprocess.run([sys.executable, str(SCRIPT), "--tiny", "--out", str(out)], check=True)
    found = json.loads(out.read_text())
    assert not {name: part for name, part in found.items() if "failed" in part}
    assert found["resume"]["largest_difference_after_a_kill"] < 1e-3
