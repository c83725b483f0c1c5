"""A trace that cannot be mapped: the same words, of the user's folder, with texts and without."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from gdc.cli import app
from gdc.errors import GdcError
from tests.builders import trace_of, write_trace

CURVES = {"a": [3.0, 1.0, 2.5], "b": [4.0, 3.0, 1.0], "c": [2.0, 1.5, 0.5]}
THEIRS = Path("theirs")


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_trace(7, trace_of(CURVES))
    shutil.copytree("data/trace/7", THEIRS)
    rows = [{"id": name, "text": f"text {name}"} for name in CURVES]
    Path("my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def edit(name: str, **columns: pl.Expr) -> None:
    pl.read_parquet(THEIRS / name).with_columns(**columns).write_parquet(THEIRS / name)


def no_losses() -> None:
    for i in range(3):
        edit(f"train/loss_00{i}.parquet", **{f"loss_00{i}": pl.lit(None, pl.Float32)})


def never_seen() -> None:
    for i in range(3):
        name = f"loss_00{i}"
        loss = pl.when(pl.int_range(pl.len()) > 0).then(name)
        edit(f"train/{name}.parquet", **{name: loss})


def no_samples() -> None:
    for path in THEIRS.glob("train/*.parquet"):
        pl.read_parquet(path).clear().write_parquet(path)


def two_forms() -> None:
    shutil.copytree(THEIRS / "train", "copy")
    shutil.move("copy", THEIRS / "train/shard_00000")


def one_checkpoint() -> None:
    path = THEIRS / "checkpoints.parquet"
    pl.read_parquet(path)[:1].write_parquet(path)


def unknown_step() -> None:
    edit("checkpoints.parquet", step=pl.lit(None, pl.Int64))


def nothing() -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (no_losses, "--axis memorization", "theirs: expected online losses, got no loss in 1 run"),
        (never_seen, "", "theirs: 1 samples have no difficulty, first a. Record"),
        (no_samples, "", "theirs/train: expected samples, got no rows in its index. Write the"),
        (two_forms, "", "theirs/train: expected samples in index.parquet or in folders shard_"),
        (
            one_checkpoint,
            "",
            "theirs: expected at least 2 checkpoints of one mode, got 1 online. R",
        ),
        (unknown_step, "", "theirs/checkpoints.parquet: expected a step in every row, got 3"),
        (nothing, "--score nope", "--score nope: expected one of memorization, first_learned,"),
        (nothing, "--score std --score std", "--score: expected every name once, got std, std."),
        (nothing, "--axis nope", "--axis nope: expected auto or one of difficulty, memorization"),
    ],
)
@pytest.mark.parametrize("texts", ["", "--corpus my.jsonl"])
def test_what_cannot_be_mapped_is_told_of_the_folder_that_was_named(
    spoil: Callable[[], None], options: str, message: str, texts: str
) -> None:
    spoil()
    done = CliRunner().invoke(app, ["map", "theirs", *options.split(), *texts.split()])
    assert isinstance(done.exception, GdcError), done.output
    assert str(done.exception).startswith(message)
    assert not Path("reports/map/scores.parquet").exists()


@pytest.mark.parametrize("options", [["--score", "zlib"], ["--axis", "zlib"]])
def test_a_score_of_texts_is_no_unknown_name_where_there_are_none(options: list[str]) -> None:
    done = CliRunner().invoke(app, ["map", "theirs", *options])
    message = str(done.exception)
    assert message.startswith(f"{' '.join(options)}: expected ")
    assert message.endswith(
        "got a score that reads more than the losses. Choose one of them, or give the texts: "
        "--corpus."
    )


@pytest.mark.parametrize("out", ["map[1]", "my map", "$HOME", "it's"])
def test_the_command_to_type_next_names_the_same_folder_in_a_shell(out: str) -> None:
    done = CliRunner().invoke(app, ["map", "theirs", "--corpus", "my.jsonl", "--out", out])
    assert done.exit_code == 0, done.output
    (told,) = (line for line in done.output.splitlines() if line.startswith("next "))
    assert shlex.split(told)[1:5] == ["gdc", "plan", "--map", out]
