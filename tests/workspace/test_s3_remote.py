"""DVC's remote on a server with the interface of S3, as the guide sets it up."""

import shutil
from pathlib import Path

import pytest
from dvc.cli import main as dvc

from tests.flows.s3 import BUCKET, s3_server

pytestmark = pytest.mark.slow


def test_what_was_pushed_to_s3_is_pulled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = b"what a stage wrote\n" * 1000
    Path("data.txt").write_bytes(content)
    with s3_server() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        assert dvc(["init", "--quiet", "--no-scm"]) == 0
        assert dvc(["remote", "add", "--default", "storage", f"s3://{BUCKET}/data"]) == 0
        assert dvc(["remote", "modify", "storage", "endpointurl", store.address]) == 0
        assert dvc(["add", "--quiet", "data.txt"]) == 0
        assert dvc(["push", "--quiet"]) == 0
        ((key, pushed),) = store.objects().items()
        assert key.startswith("data/files/md5/")
        assert pushed == content
        shutil.rmtree(".dvc/cache")
        Path("data.txt").unlink()
        assert dvc(["pull", "--quiet"]) == 0
    assert Path("data.txt").read_bytes() == content
