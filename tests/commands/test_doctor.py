"""What keeps a run from its end, found before it starts."""

import os
import re
import resource
import shutil
import socket
import sys
import time
from pathlib import Path

import pytest

from gdc.commands import doctor
from gdc.errors import ConfigError
from gdc.stages import manifest
from tests.builders import REPOSITORY, preset_text


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "GDC_LAUNCHER", "GDC_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    (tmp_path / "params.yaml").write_text(preset_text("docs"))
    return tmp_path


def failed() -> dict[str, doctor.Finding]:
    return {found.check: found for found in doctor.examine() if found.level == "failed"}


@pytest.mark.usefixtures("workspace")
def test_nothing_fails_in_a_fresh_workspace_and_nothing_takes_long() -> None:
    started = time.process_time()
    findings = doctor.examine()
    assert time.process_time() - started < 5
    assert [found.check for found in findings] == list(doctor.CHECKS)
    assert [found for found in findings if found.level == "failed"] == []
    assert doctor.exit_code(findings) == 0
    assert len(list(doctor.lines(findings))) == len(findings)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux heeds ulimit -v")
@pytest.mark.usefixtures("workspace")
def test_a_limit_on_memory_under_which_no_run_starts_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**31, 2**31))
    found = failed()
    assert set(found) == {"memory"}
    assert re.match(r"ulimit -v: expected .* got 2097152\. Raise it", found["memory"].text)


def test_what_a_user_must_mend_is_named(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = "kind: text\n    path: away\n    unit: file"
    params = preset_text("docs").replace("kind: python-library", away)
    (workspace / "params.yaml").write_text(params)
    monkeypatch.setenv("GDC_LAUNCHER", "no-such-program -n 2")
    found = failed()
    assert set(found) == {"source", "environment"}
    assert found["source"].text.startswith("ingest.source.path: expected a file or folder, got 'aw")
    assert doctor.exit_code(list(found.values())) == 2
    (workspace / "params.yaml").write_text("seed: 0\n")
    assert {"params", "source"} <= set(failed())


@pytest.mark.usefixtures("workspace")
def test_parts_of_a_model_in_several_processes_cannot_record_self_influence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GDC_PARALLEL", "fsdp")
    assert "params" not in failed()
    monkeypatch.setenv("GDC_LAUNCHER", "torchrun --nproc-per-node 2")
    expected = "train.self_influence: expected GDC_PARALLEL=ddp, got fsdp. Set train.self_influence"
    assert failed()["params"].text.startswith(expected)
    with pytest.raises(ConfigError, match="^" + re.escape(expected)):
        manifest.contents()


@pytest.mark.usefixtures("workspace")
def test_a_service_that_does_not_answer_may_answer_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    found = failed()
    assert found["services"].text.startswith("PREFECT_API_URL: expected a server at http://127")
    assert doctor.exit_code(list(found.values())) == 75


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "PREFECT_API_URL"])
def test_an_address_that_is_none_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://me:pa/ss@127.0.0.1:5000")
    found = failed()["services"]
    assert found.text.startswith(
        f"{name}: expected an address such as http://host:5000, got http://***@127.0.0.1:5000."
    )
    assert "pa/ss" not in found.text


@pytest.mark.usefixtures("workspace")
def test_the_password_of_a_service_that_answers_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        place = f"127.0.0.1:{listening.getsockname()[1]}"
        for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
            monkeypatch.setenv(name, f"http://me:hunter2@{place}")
        told = {found.check: found.text for found in doctor.examine()}["services"]
    assert told == f"MLflow at http://***@{place}, Prefect at http://***@{place}"


@pytest.mark.usefixtures("workspace")
def test_what_makes_a_run_worse_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ENOUGH_DISK", 2**60)
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(doctor, "UI_PORT", taken.getsockname()[1])
        found = {finding.check: finding.level for finding in doctor.examine()}
    assert {check for check, level in found.items() if level == "warning"} >= {
        "disk", "processors", "ports",
    }  # fmt: skip
    monkeypatch.setattr(doctor, "MIN_DISK", 2**60)
    assert failed()["disk"].text.startswith("disk: expected at least ")


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("flags", "preset", "precision", "found"),
    [
        ("avx2", "paper-gpt2", "float32", "ok: float32"),
        ("avx2", "paper-gpt2", "bfloat16", "warning: .* only emulates, .* float32 pays"),
        ("avx512_bf16", "paper-gpt2", "float32", "ok: float32; bfloat16 may pay .*"),
        ("amx_bf16", "paper-gpt2", "bfloat16", "ok: bfloat16"),
        ("amx_bf16", "docs", "float32", "ok: .* would not pay for an LSTM on a processor"),
        ("amx_bf16", "docs", "bfloat16", "warning: .* an LSTM in float32 .*: float32 pays"),
    ],
)
def test_bfloat16_is_judged_by_the_processor_and_the_model(
    monkeypatch: pytest.MonkeyPatch, flags: str, preset: str, precision: str, found: str
) -> None:
    Path("cpuinfo").write_text(f"flags : fpu {flags}\n")
    monkeypatch.setattr(doctor, "CPU_INFO", Path("cpuinfo"))
    text = re.sub(r"precision: \w+", f"precision: {precision}", preset_text(preset))
    Path("params.yaml").write_text(text)
    (told,) = [finding for finding in doctor.examine() if finding.check == "bfloat16"]
    assert re.fullmatch(found, f"{told.level}: {told.text}")
