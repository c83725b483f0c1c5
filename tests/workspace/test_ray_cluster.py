"""What a cluster of Ray is started with, and what is said where it cannot be."""

import os
import socket
import sys
from pathlib import Path

import pytest

from gdc.errors import ConfigError
from gdc.workspace import ray_cluster


def test_a_cluster_reports_nothing_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.setattr("ray.init", lambda *_, **__: started.append(dict(os.environ)))
    started: list[dict[str, str]] = []
    with ray_cluster.connected(ray_cluster.LOCAL):
        pass
    assert started[0]["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_cluster_that_is_started_here_listens_to_this_machine_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[dict[str, object]] = []
    monkeypatch.setattr("ray.init", lambda *_, **options: started.append(options))
    for address in (ray_cluster.LOCAL, "auto"):
        with ray_cluster.connected(address):
            pass
    assert [options.get("_node_ip_address") for options in started] == ["127.0.0.1", None]


def test_a_cluster_without_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'gendatacarto\[ray\]'"),
        ray_cluster.connected("auto"),
    ):
        pass


def test_a_worker_that_does_not_see_a_folder_says_so_and_does_nothing(tmp_path: Path) -> None:
    done: list[Path] = []
    row, unseen = {"path": str(tmp_path)}, tmp_path / "of another machine"
    refused = ray_cluster._tried(done.append, [tmp_path, unseen], row)
    assert refused["unseen"] == (
        f"--ray: expected {unseen} on all machines of the cluster, got none on "
        f"{socket.gethostname()}. Put it on a disk that they share."
    )
    assert done == []
    assert ray_cluster._tried(done.append, [tmp_path], row) == {"error": "", "unseen": ""}
    assert done == [tmp_path]
