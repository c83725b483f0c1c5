"""A preset of the pipeline on a GPU."""

import json
import os
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from gpu_bench import TINY, Bench, Size

from gdc.workspace import files


def pipeline(bench: Bench) -> dict[str, Any]:
    """Preset `gpt2-wikitext` on CPython's documentation: arms, seeds, leakage and perplexity."""
    with tempfile.TemporaryDirectory() as folder:
        preset = resources.files("gdc") / "presets" / "gpt2-wikitext.yaml"
        values = files.parse_yaml(preset.read_text(encoding="utf-8"), Path("gpt2-wikitext.yaml"))
        adapt(values, bench.size)
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
        _gdc(folder, bench, "init", "docs", "--force")
        # JSON is YAML.
        Path(folder, "params.yaml").write_text(json.dumps(values), encoding="utf-8")
        seconds = bench.seconds_of(lambda: _gdc(folder, bench, "run"))
        report = json.loads(Path(folder, "reports/report.json").read_text(encoding="utf-8"))
        summary = json.loads(Path(folder, "data/corpus.json").read_text(encoding="utf-8"))
    arms = {
        arm["arm"]: {
            "perplexity": arm["perplexity"]["mean"],
            "extraction_rate": arm["extraction_rate"]["mean"],
        }
        for arm in report["arms"]
    }
    return {"seconds": seconds, "train_tokens": summary["num_train_tokens"], "arms": arms}


def adapt(values: dict[str, Any], size: Size) -> None:
    """Make the preset's run fit the time: another source, fewer arms and no reference models."""
    values["ingest"] |= {
        "source": {"kind": "python-library"}, "max_samples": size.max_samples,
        "validation_fraction": 0.1,
    }  # fmt: skip
    is_tiny = size is TINY
    if is_tiny:
        # Texts of the library are longer than its windows.
        values["ingest"]["canaries"]["natural"] = None
    values["ingest"]["tokenizer"]["vocab_size"] = 400 if is_tiny else 8192
    for family in filter(None, values["ingest"]["canaries"].values()):
        family |= {"per_level": 2 if is_tiny else 10, "num_twins": 9 if is_tiny else 50}
    values["model"] = size.gpt2.model_dump(mode="json")
    values["training"] |= {"epochs": size.pipeline_epochs, "warmup_steps": 2, "num_threads": 1}
    values["training"]["batch_tokens"] = size.batch_rows * size.gpt2.block_size
    values["evaluate"] |= {"num_threads": 1}
    values["train"] |= {"probes_per_epoch": 2}
    values["reference"]["models"] = []
    values["score"]["enabled"].remove("reference_gap")
    values["retrain"] |= {"arms": ["none", "paper", "random"], "seeds": [1] if is_tiny else [1, 2]}


def _gdc(folder: str, bench: Bench, *arguments: str) -> None:
    variables = {**os.environ, "GDC_DEVICE": bench.device.type, "MLFLOW_TRACKING_URI": ""}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gdc", *arguments],
        cwd=folder, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(" ".join(done.stdout.split()[-60:]) + done.stderr[-500:])
