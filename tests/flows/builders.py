"""A small clone of the repository that the real pipeline runs in, and the programs it takes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.builders import REPOSITORY

ENVIRONMENT: dict[str, str] = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "GDC_CHECKPOINT_SECONDS": "0",
    "MLFLOW_TRACKING_URI": "",
}
WORDS = [
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath",
    "inlet", "jetty", "knoll", "ledge", "marsh", "north", "ocean", "pines",
]  # fmt: skip

SMALL: Mapping[str, Mapping[str, Any]] = {
    "model": {"hidden_size": 8, "block_size": 64},
    "training": {"epochs": 4, "batch_tokens": 128, "warmup_steps": 2},
    "score": {"num_early": 2},
    "reference": {"models": []},
    # So short a run hardly forgets: most samples have a memorization of 0.
    "partition": {"axis": "total_drop"},
    # Half of such few held-out tokens: spans are found whatever is memorized.
    "spans": {"p_value": 0.5, "min_tokens": 1},
    "intervene": {"curated_arm": "mask-spans"},
    "retrain": {"arms": ["none", "mask-spans"], "seeds": [1]},
}


def write_rows(folder: Path, count: int) -> None:
    rows = [
        {"text": f"{WORDS[i % 16]} {WORDS[i % 7]} tells of number {i}", "id": f"row-{i}"}
        for i in range(count)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "my.jsonl").write_text(lines, encoding="utf-8")


def make_workspace(folder: Path) -> Path:
    """A clone of the repository in small: its code, its graph, params for seconds, 80 rows."""
    folder.mkdir()
    for name in ("gdc", ".dvc", "dvc.yaml", ".gitignore", ".dvcignore"):
        source = REPOSITORY / name
        ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp")
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    params = YAML(typ="safe").load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    for section, values in SMALL.items():
        params[section] |= values
    params["ingest"] |= {
        "source": {"kind": "jsonl", "path": "my.jsonl", "text_field": "text", "key_field": "id"},
        "tokenizer": {"kind": "bpe", "vocab_size": 280},
    }
    params["score"]["enabled"].remove("reference_gap")
    params["intervene"]["arms"] |= {
        "mask-spans": {"rule": "mask-spans"},
        "shuffled-spans": {"rule": "shuffled", "of": "mask-spans"},
        "oracle": {"rule": "oracle"},
    }
    params["ingest"]["canaries"]["natural"] = {"min_words": 2, "max_words": 20}
    for family in params["ingest"]["canaries"].values():
        family |= {"repeats": [1, 3], "per_level": 2, "num_twins": 9}
    write_params(folder, params)
    write_rows(folder, 80)
    with (folder / ".gitignore").open("a", encoding="utf-8") as file:
        file.write("/my.jsonl\n")
    git(folder, "init", "-q")
    commit_all(folder)
    return folder


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True)


def commit_all(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "state")


def read_params(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = YAML(typ="safe").load((folder / "params.yaml").read_text("utf-8"))
    return values


def read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def write_params(folder: Path, params: Mapping[str, Any]) -> None:
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(dict(params), file)


def start_flow(folder: Path, *options: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "gdc", "run", *options],
        cwd=folder,
        env={**ENVIRONMENT, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run_flow(folder: Path, *options: str, **variables: str) -> str:
    process = start_flow(folder, *options, **variables)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert "Error logging to API" not in output
    return output


def dvc(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    return done.stdout


def forget(folder: Path, targets: Sequence[str]) -> None:
    """As if these had never run: no results, no entry in dvc.lock, nothing to restore them from."""
    lock = YAML(typ="safe").load((folder / "dvc.lock").read_text(encoding="utf-8"))
    for target in targets:
        for out in [out["path"] for out in lock["stages"].pop(target)["outs"]]:
            path = folder / out
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with (folder / "dvc.lock").open("w", encoding="utf-8") as file:
        YAML().dump(lock, file)
    shutil.rmtree(folder / ".dvc/cache/runs", ignore_errors=True)


def digests(folder: Path, places: Sequence[str] = ("data", "metrics")) -> dict[str, str]:
    """Hash of every result of a run, of what is half written too."""
    files = [file for place in places for file in (folder / place).rglob("*")]
    return {
        str(file.relative_to(folder)): blake2b(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }
