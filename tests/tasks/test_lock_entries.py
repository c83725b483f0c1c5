"""dvc.lock as we write it is, byte for byte, what DVC writes."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from dvc.dvcfile import Lockfile
from dvc.repo import Repo

from tasks import lock_entries

GRAPH: Final = """
stages:
  first:
    cmd: echo a > a.txt
    params: [plain, nested, wide, listed]
    outs: [a.txt]
  second:
    matrix:
      seed: [0, 1]
    cmd: echo ${item.seed} > b-${item.seed}.txt
    deps: [a.txt]
    params: [nested.kind, lines]
    outs: ["b-${item.seed}.txt"]
"""
PARAMS: Final = r"""
plain: 0.1
nested: {kind: "a: b # c", none: null, "yes": "no", empty: {}}
wide: a text that is longer than a line of YAML may be, so that whoever writes it has to break it
listed: [1, [2, {deep: "é\u2028\t"}], []]
lines: "  one\n  two:\n\nthree\n"
"""
ALIASED: Final = PARAMS.replace("[1, [2", "[*x, *x, [2").replace("nested: {", "nested: &x {")


@pytest.mark.parametrize(("params", "num_by_dvc"), [(PARAMS, 1), (ALIASED, 4)])
@pytest.mark.slow
def test_the_lock_is_what_dvc_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: str, num_by_dvc: int
) -> None:
    by_dvc = []
    theirs = Lockfile.dump_stages

    def counted(*stages: Any) -> None:  # noqa: ANN401 - as DVC calls it
        by_dvc.append(stages)
        theirs(*stages)

    texts = [params, params.replace("plain: 0.1", "plain: 0.2")]
    expected = _locks(tmp_path / "dvc", texts)
    monkeypatch.setattr(Lockfile, "dump_stages", counted)
    lock_entries.install()
    assert _locks(tmp_path / "ours", texts) == expected
    assert len(by_dvc) == num_by_dvc


def _locks(folder: Path, texts: Sequence[str]) -> list[str]:
    """The text of dvc.lock after a run with each text of params.yaml."""
    folder.mkdir()
    with contextlib.chdir(folder):
        Repo.init(no_scm=True).close()
        Path("dvc.yaml").write_text(GRAPH)
        return [_lock_after_a_run(text) for text in texts]


def _lock_after_a_run(params: str) -> str:
    Path("params.yaml").write_text(params)
    with Repo() as repo:
        repo.reproduce()
    return Path("dvc.lock").read_text()
