"""Builders shared by all tests; none hides a number that a test asserts."""

import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from gdc import cli
from gdc.cli import forked
from gdc.config import Params, parse_params
from gdc.recording.trace import Trace, base_table, gain_table, loss_table
from gdc.schema import AUDIT, CHECKPOINTS, MEMBERSHIP, SOURCE_ROWS, TOKEN_LOSSES
from gdc.training.distributed import Group
from gdc.workspace import paths
from gdc.workspace.trace_writer import TraceWriter

REPOSITORY = Path(__file__).parent.parent
Call = Callable[..., tuple[int, str, str]]
# Of the fixtures ``made_once`` and ``prefect_home``.
MadeOnce = Callable[[str, Callable[[Path], object]], Path]
NewHome = Callable[[], Path]
# A source of the user's, as params.yaml holds it.
OWN_TEXTS: Mapping[str, Any] = {
    "kind": "jsonl", "path": "my texts.jsonl", "text_field": "body", "key_field": None,
}  # fmt: skip


def free_port() -> int:
    """A port of this machine that nobody listens at, nor will before its test does.

    The system gives away those from 32768 on itself: a connection of another test may take one.
    """
    while True:
        # Not of `random`, whose seed is the same in all workers.
        port = 16_000 + secrets.randbelow(16_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def preset_text(name: str) -> str:
    return (resources.files("gdc") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def num_bytes_held(texts: pl.Series) -> int:
    """What texts keep in memory, also of others that they were parts of or stood beside."""
    return sum(
        chunk.to_arrow(compat_level=pl.CompatLevel.newest()).get_total_buffer_size()
        for chunk in texts.get_chunks()
    )


def rows_of(texts: Sequence[str]) -> pl.DataFrame:
    """A SOURCE_ROWS table."""
    rows = [(text, f"test:{i}") for i, text in enumerate(texts)]
    return pl.DataFrame(rows, schema=SOURCE_ROWS, orient="row")


def cut(table: pl.DataFrame, places: Iterable[int]) -> list[pl.DataFrame]:
    """The rows of a table in batches that end at these places; equal places make an empty one."""
    ends = [0, *sorted(places), table.height]
    return [table[start:end] for start, end in pairwise(ends)]


def trace_of(curves: Mapping[str, Sequence[float]], mode: str = "online") -> Trace:
    """A trace from one loss curve per sample; NaN: not seen."""
    num_checkpoints = len(next(iter(curves.values())))
    table = np.array(list(curves.values()), dtype=np.float32)
    index = pl.DataFrame({"sample_id": list(curves), "num_tokens": [7] * len(curves)})
    rows = [(t, 10 * t, float(t), mode, 0.1) for t in range(num_checkpoints)]
    return Trace(
        index=index,
        checkpoints=pl.DataFrame(rows, schema=CHECKPOINTS, orient="row"),
        losses=loss_table(list(table.T)).lazy(),
        heldout_index=index.head(0),
        heldout_losses=loss_table(list(table[:0].T)).lazy(),
    )


class SequentialGroup(Group):
    """One of several ranks in a test that runs them one after the other itself."""

    def barrier(self) -> None:
        """Nothing to wait for."""


def write_trace(seed: int, trace: Trace, num_processes: int = 1) -> Path:
    """Write a trace as so many processes do that trained together; returns its folder."""
    tables = [table.collect() for table in (trace.losses, trace.heldout_losses)]
    writers = [
        TraceWriter(seed, trace.index, trace.heldout_index, SequentialGroup(rank, num_processes))
        for rank in range(num_processes)
    ]
    for writer in writers:
        writer.resume("test", 0)
        for columns in zip(*tables, strict=True):
            writer.append(*(c.fill_null(float("nan")).to_numpy() for c in columns))
    for writer in reversed(writers):
        writer.finish(trace.checkpoints, trace.tokens, trace.gains, base=trace.base)
    return paths.trace_path(seed)


def with_records(trace: Trace, seed: int) -> Trace:
    """The trace with token losses of ragged samples and a gain for each training sample."""
    rng = np.random.default_rng(seed)

    def tokens_of(index: pl.DataFrame) -> pl.DataFrame:
        lengths = rng.integers(1, 24, index.height)
        looks = [[rng.gamma(0.1, 1, n).tolist() for n in lengths] for _ in ("early", "late")]
        return pl.DataFrame([index["sample_id"].to_list(), *looks], schema=TOKEN_LOSSES)

    return replace(
        trace,
        tokens=(tokens_of(trace.index), tokens_of(trace.heldout_index)),
        gains=gain_table(trace.index, rng.gamma(0.1, 1, trace.index.height)),
        base=base_table(trace.index, rng.gamma(2, 1, trace.index.height)),
    )


def with_mixed_records(trace: Trace, seed: int) -> Trace:
    """The same records in another row order."""
    tables = [*(trace.tokens or ()), trace.gains if trace.gains is not None else pl.DataFrame()]
    train, heldout, gains = (table.sample(fraction=1, shuffle=True, seed=seed) for table in tables)
    return replace(trace, tokens=(train, heldout), gains=gains)


def params_with(**sections: object) -> Params:
    """The repository's params.yaml with some sections replaced."""
    from ruamel.yaml import YAML  # noqa: PLC0415 - only here

    values = YAML(typ="safe").load((REPOSITORY / paths.PARAMS).read_text(encoding="utf-8"))
    return parse_params({**values, **sections}, name="test")


def losses_by_numpy(folder: Path, split: str = "train") -> NDArray[np.float32]:
    """Losses of a trace folder, samples x checkpoints, read without any code of gdc."""
    files = sorted((folder / split).glob("loss_*.parquet"))
    return np.stack([pl.read_parquet(file).to_series().to_numpy() for file in files], axis=1)


def audit_table(rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    """An AUDIT table; what a row leaves out is that of a canary planted four times, unextracted."""
    usual = {
        "canary_id": "digits-4-00",
        "family": "digits",
        "num_repeats": 4,
        "num_secret_tokens": 2,
        "secret_nll": 1.0,
        "secret_nll_shifted": 1.0,
        "extracted": False,
        "extracted_shifted": False,
        "edit_similarity": 0.5,
        "substring_share": 0.5,
        "exposure": 2.0,
    }
    return pl.DataFrame([{**usual, **row} for row in rows], schema=AUDIT)


def membership_of(members: Sequence[float], heldout: Sequence[float]) -> pl.DataFrame:
    """A MEMBERSHIP table from losses, ids m0, m1, ... and h0, h1, ...; below 1 is extracted."""
    rows = [(f"m{i}", True, 2, loss, 10, 1.0, loss < 1) for i, loss in enumerate(members)]
    rows += [(f"h{i}", False, 2, loss, 10, 1.0, False) for i, loss in enumerate(heldout)]
    table = pl.DataFrame(rows, schema=MEMBERSHIP, orient="row")
    score = -pl.col("loss")
    return table.with_columns(
        zlib=score, min_k=score, min_k_plus_plus=score, length=1.0, zlib_size=1.0
    )


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def stopped_by_ctrl_c(program: str, folder: Path) -> tuple[int, bytes]:
    """Interrupt a Python program once it has printed an empty line: its exit code and errors."""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """``gdc`` in this process: its arguments -> exit code, output, errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gdc", *arguments])
        # A child of this process would go on with the tests.
        monkeypatch.setattr(forked, "wait_for_child", lambda: None)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return run
