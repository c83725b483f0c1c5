"""A training loop of any kind records a trace that reads as what it recorded, or says why not."""

import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # it has none
import polars as pl
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

import gdc
from gdc.errors import ConfigError, DataError
from gdc.recording import trace_files
from gdc.workspace import trace_checks, traces

NAN = float("nan")


def losses_of(folder: Path) -> dict[str, list[float | None]]:
    """Every sample's losses, by its id."""
    samples = gdc.load_trace(folder).samples.drop("num_tokens").collect()
    return {row[0]: list(row[1:]) for row in samples.iter_rows()}


# ---- recording


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_a_loss_is_the_sum_over_all_parts_of_a_sample_by_all_its_tokens(
    kind: Callable[[list[Any]], Any], tmp_path: Path
) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", ["a", "b", "c"])
    # In two windows in one batch, then once more; one sample is not seen.
    recorder.record(kind([2, 0, 2]), kind([3.0, 1.5, 1.0]), kind([3, 1, 1]))
    recorder.record(kind([2]), kind([2.0]), kind([4]))
    assert recorder.checkpoint(step=5, epoch=1.0, learning_rate=0.1) == 2
    recorder.record(kind([1, 0]), kind([4.0, 0.0]), kind([2, 1]))
    recorder.checkpoint(step=9)
    recorder.close()
    assert losses_of(tmp_path / "t") == {"a": [1.5, 0.0], "b": [None, 2.0], "c": [0.75, None]}
    index = pl.read_parquet(tmp_path / "t/train/index.parquet")
    assert index["num_tokens"].to_list() == [1, 2, 4]
    checkpoints = gdc.load_trace(tmp_path / "t").checkpoints
    # Seven records of three samples by the second checkpoint.
    assert checkpoints.rows() == [(0, 5, 1.0, "online", 0.1), (1, 9, 2.0, "online", None)]
    assert traces.verify(tmp_path / "t") == 5
    trace_checks.require_samples(tmp_path / "t")


def first_steps_of(folder: Path) -> list[int | None]:
    table = traces.read_first_seen(folder)
    assert table is not None
    return table["step"].to_list()


def test_the_step_at_which_a_sample_was_first_trained_on_is_kept(tmp_path: Path) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(6))
    for batch in ([0, 1], [1, 2], [0]):
        recorder.record(batch, [1.0] * len(batch))
    recorder.checkpoint()
    recorder.flush()
    # A call is a step where no other number is said.
    assert first_steps_of(tmp_path / "t") == [1, 1, 2, None, None, None]
    for batch in ([3], [4], [0], [4]):
        recorder.record(batch, [1.0])
    # Four calls in two steps, as with gradients of two batches.
    recorder.checkpoint(step=5)
    recorder.close()
    assert first_steps_of(tmp_path / "t") == [1, 1, 2, 4, 4, None]


def test_what_is_evaluated_by_the_loop_itself_is_not_seen(tmp_path: Path) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(2))
    recorder.record([0, 1], [1.0, 1.0])
    recorder.checkpoint(step=0, mode="probe")
    recorder.record([1], [1.0])
    recorder.checkpoint(step=1)
    recorder.close()
    assert first_steps_of(tmp_path / "t") == [None, 1]


def test_a_run_that_was_killed_after_a_look_before_training_still_tells_first_steps(
    tmp_path: Path,
) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(2))
    recorder.record([0, 1], [1.0, 1.0])
    recorder.checkpoint(step=0, mode="probe")
    recorder.record([1], [1.0])
    state = recorder.state_dict()
    again = gdc.TraceRecorder(tmp_path / "t", range(2), resume=True)
    again.load_state_dict(state)
    again.record([0], [1.0])
    again.checkpoint(step=2)
    again.close()
    assert first_steps_of(tmp_path / "t") == [2, 1]


def test_a_sample_that_only_a_lost_part_of_the_run_saw_is_not_seen(tmp_path: Path) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(2))
    for step in (0, 1):
        recorder.record([step], [1.0])
        recorder.checkpoint()
    recorder.flush()
    recorder.keep_until(1)
    recorder.close()
    assert first_steps_of(tmp_path / "t") == [1, None]


def test_an_older_trace_that_goes_on_says_nothing_of_what_it_had_seen(tmp_path: Path) -> None:
    recorded(tmp_path / "t", 3).close()
    (tmp_path / "t/first_seen.parquet").unlink()
    recorded(
        tmp_path / "t", 6, first=3, recorder=gdc.TraceRecorder(tmp_path / "t", "ab", resume=True)
    ).close()
    assert traces.read_first_seen(tmp_path / "t") is None


def test_a_trace_may_be_read_while_it_grows(tmp_path: Path) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(2), heldout=["v"])
    recorder.record([0, 1], [1.0, 2.0])
    recorder.record([0], [6.0], 4, split="heldout")
    recorder.checkpoint()
    recorder.flush()
    assert losses_of(tmp_path / "t") == {"0": [1.0], "1": [2.0]}
    heldout = pl.read_parquet(tmp_path / "t/heldout/loss_000.parquet")
    assert heldout["loss_000"].to_list() == [1.5]


def test_half_precision_and_losses_that_were_rounded_below_zero(tmp_path: Path) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(2))
    recorder.record(torch.tensor([0]), torch.tensor([1.5], dtype=torch.bfloat16), torch.tensor([2]))
    recorder.record(torch.tensor([1]), torch.tensor([-1e-7]), torch.tensor([3]))
    recorder.checkpoint()
    recorder.close()
    assert losses_of(tmp_path / "t") == {"0": [0.75], "1": [0.0]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (([3], [1.0], [1]), r"expected row numbers from 0 to 2, got 3 for sample 3"),
        (([-1], [1.0], [1]), r"expected row numbers from 0 to 2, got -1"),
        ((["a"], [1.0], [1]), r"expected row numbers as integers in sample_index, got <U1.*not i"),
        (([0, 1], [1.0, NAN], [1, 1]), r"expected finite loss sums .*, got nan for sample 1 \(1"),
        (([0], [-1.0], [1]), r"expected finite loss sums of at least 0, got -1.0"),
        (([0], [1.0], [-2]), r"expected whole numbers of tokens, .*, got -2 for sample 0"),
        (([0], [1.0], [0]), r"expected whole numbers of tokens, above 0 where there is a loss"),
        (([0], [1.0], [1.5]), r"expected whole numbers of tokens, .*, got 1\.5"),
        (([0, 1], [1.0], [1]), r"expected one value for each sample .*sample_index \[2\], loss_su"),
        (([[0]], [[1.0]], [[1]]), r"expected one value for each sample .*sample_index \[1, 1\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_loss_is_refused(
    record: tuple[Any, Any, Any], message: str, tmp_path: Path
) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(3))
    with pytest.raises(DataError, match=message):
        recorder.record(*record)


def test_samples_without_tokens_here_are_not_seen_and_nothing_makes_no_checkpoint(
    tmp_path: Path,
) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(2))
    with pytest.raises(DataError, match=r"checkpoint: expected losses recorded since the last one"):
        recorder.checkpoint()
    recorder.record([0, 1], [0.0, 1.0], [0, 2])
    recorder.checkpoint(step=4)
    recorder.record([0], [1.0])
    with pytest.raises(DataError, match=r"expected a step of at least 4.*, got 3"):
        recorder.checkpoint(step=3)
    with pytest.warns(UserWarning, match=r"losses of 1 samples were recorded after the last"):
        recorder.close()
    assert losses_of(tmp_path / "t") == {"0": [None], "1": [0.5]}


def test_a_disk_that_is_full_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left")

    recorder = gdc.TraceRecorder(tmp_path / "t", range(2))
    monkeypatch.setattr(trace_files, "write_parquet", refuse)
    recorder.record([0], [1.0])

    def write() -> None:
        recorder.checkpoint()
        recorder.flush()

    with pytest.raises(OSError, match="no space left"):
        write()


# ---- ids

KEY = uuid.UUID(int=5)


@pytest.mark.parametrize(
    ("dataset", "id_column", "text", "original", "dtype"),
    [
        (["b", "a"], None, ["b", "a"], ["b", "a"], pl.String),
        (np.array([7, 3]), None, ["7", "3"], [7, 3], pl.Int64),
        (torch.tensor([7, 3]), None, ["7", "3"], [7, 3], pl.Int64),
        ([7.0, 3.0], None, ["7", "3"], [7.0, 3.0], pl.Float64),
        ([7.5, 3.0], None, ["7.5", "3.0"], [7.5, 3.0], pl.Float64),
        ([b"\x01", b"\xff"], None, ["01", "ff"], [b"\x01", b"\xff"], pl.Binary),
        ([KEY, 7], "key", ["00000000-0000-0000-0000-000000000005", "7"], None, pl.String),
        ([{"id": 4, "x": 1}, {"id": 2, "x": 1}], None, ["4", "2"], [4, 2], pl.Int64),
        ([{"x": 1}, {"x": 1}], None, ["0", "1"], [0, 1], pl.Int64),
        ([torch.zeros(3), torch.ones(3)], None, ["0", "1"], [0, 1], pl.Int64),
        (pl.DataFrame({"key": ["b", "a"]}), "key", ["b", "a"], ["b", "a"], pl.String),
        (pd.DataFrame({"id": [4, 2]}), None, ["4", "2"], [4, 2], pl.Int64),
        (pl.DataFrame({"text": ["b", "a"]}), None, ["0", "1"], [0, 1], pl.Int64),
    ],
)
def test_ids_of_any_type_are_kept_as_given_and_as_text(
    dataset: Any, id_column: str | None, text: list[str], original: Any, dtype: Any, tmp_path: Path
) -> None:
    if original is None:
        dataset, original = [{"key": value} for value in dataset], text
    gdc.TraceRecorder(tmp_path / "t", dataset, id_column=id_column)
    index = pl.read_parquet(tmp_path / "t/train/index.parquet")
    assert index.columns == ["sample_id", "num_tokens", "original_id"]
    assert index["sample_id"].to_list() == text
    assert (index["original_id"].to_list(), index.schema["original_id"]) == (original, dtype)


@pytest.mark.parametrize(
    ("dataset", "id_column", "error", "message"),
    [
        (["a", "b", "a"], None, DataError, r"dataset: expected every id once, got 'a' in 2 rows"),
        (pl.DataFrame({"id": [1, None]}), None, DataError, r"expected an id in every row, got 1 w"),
        ([{"id": 1.0}, {"id": NAN}], None, DataError, r"got 1 without, the first in row 1"),
        ([{"x": 1}], "key", ConfigError, r"expected a column 'key' with the ids, got \['x'\]"),
        (iter([1]), None, ConfigError, r"expected samples that can be counted, got list_iterator"),
    ],
)
def test_ids_that_tell_no_samples_apart_are_refused(
    dataset: Any, id_column: str | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        gdc.TraceRecorder(tmp_path / "t", dataset, id_column=id_column)
    assert not (tmp_path / "t").exists()


# ---- resuming


def recorded(folder: Path, until: int, *, first: int = 0, recorder: Any = None) -> Any:
    """Batches ``first`` to ``until - 1`` of a run that makes a checkpoint after each third."""
    recorder = recorder or gdc.TraceRecorder(folder, ["a", "b"])
    for i in range(first, until):
        recorder.record([i % 2], [float(i)], [2])
        if i % 3 == 2:
            recorder.checkpoint(step=i + 1)
    return recorder


@pytest.mark.parametrize("saved", [0, 2, 3, 4, 6])
@pytest.mark.parametrize("died", [0, 1, 3])
def test_a_killed_run_that_resumes_has_the_trace_of_one_that_was_not(
    saved: int, died: int, tmp_path: Path
) -> None:
    recorded(tmp_path / "whole", 9).close()
    killed = recorded(tmp_path / "t", saved)
    state = killed.state_dict()
    recorded(tmp_path / "t", saved + died, first=saved, recorder=killed).flush()
    again = gdc.TraceRecorder(tmp_path / "t", ["a", "b"], resume=True)
    again.load_state_dict(state)
    recorded(tmp_path / "t", 9, first=saved, recorder=again).close()
    whole, resumed = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (tmp_path / "whole", tmp_path / "t")
    )
    assert resumed == whole


def test_a_trace_is_continued_only_where_that_is_asked_for(tmp_path: Path) -> None:
    recorded(tmp_path / "t", 3).close()
    with pytest.raises(DataError, match=r"expected no trace yet, got one of 1 checkpoints\. Give"):
        gdc.TraceRecorder(tmp_path / "t", ["a", "b"])
    again = gdc.TraceRecorder(tmp_path / "t", ["a", "b"], resume=True)
    again.record([1], [8.0], [4])
    again.checkpoint()
    again.close()
    assert losses_of(tmp_path / "t") == {"a": [0.5, None], "b": [0.5, 2.0]}


def test_a_run_that_was_killed_before_its_first_checkpoint_may_begin_again(tmp_path: Path) -> None:
    recorded(tmp_path / "t", 2).flush()
    recorded(tmp_path / "t", 3).close()
    assert losses_of(tmp_path / "t") == {"a": [0.5], "b": [0.5]}


@pytest.mark.parametrize(
    ("dataset", "heldout"), [(["b", "a"], None), (["a"], None), (["a", "b"], ["v"])]
)
def test_the_trace_of_another_data_set_is_refused_and_kept(
    dataset: list[str], heldout: list[str] | None, tmp_path: Path
) -> None:
    recorded(tmp_path / "t", 3).close()
    before = {path: path.read_bytes() for path in (tmp_path / "t").rglob("*.*")}
    with pytest.raises(DataError, match=r"samples of this data set in its order, got those of"):
        gdc.TraceRecorder(tmp_path / "t", dataset, heldout, resume=True)
    assert before == {path: path.read_bytes() for path in (tmp_path / "t").rglob("*.*")}


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(DataError, match=r"expected an empty folder or a trace, got thesis\.tex"):
        gdc.TraceRecorder(tmp_path, ["a"])


def test_a_damaged_beginning_and_the_state_of_another_run_are_refused(tmp_path: Path) -> None:
    state = recorded(tmp_path / "t", 6).state_dict()
    with pytest.raises(DataError, match=r"of 2 checkpoints and .* got one of 0 and"):
        gdc.TraceRecorder(tmp_path / "other", ["a", "b"]).load_state_dict(state)
    (tmp_path / "t/train/loss_001.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"expected the 2 checkpoints .*loss_001\.parquet: exp"):
        gdc.TraceRecorder(tmp_path / "t", ["a", "b"], resume=True)


# ---- probing


class Bigrams(nn.Module):
    """A causal language model in a line, with dropout; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.dropout = nn.Embedding(7, 7), nn.Dropout(0.5)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        self.shapes.append(tuple(input_ids.shape))
        return SimpleNamespace(logits=self.dropout(self.table(input_ids)))


SAMPLES = [{"input_ids": ids} for ids in ([1, 2], [3, 4, 5, 6, 0], [5, 1, 1], [2, 0])]


def collate(samples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    longest = max(len(sample["input_ids"]) for sample in samples)
    rows = [sample["input_ids"] for sample in samples]
    return {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        "labels": torch.tensor([row + [-100] * (longest - len(row)) for row in rows]),
    }


def test_a_probe_is_a_plain_forward_pass_and_leaves_no_mark_on_the_training(tmp_path: Path) -> None:
    model = Bigrams()
    model.dropout.eval()  # as a frozen part may be, in a model that trains
    recorder = gdc.TraceRecorder(tmp_path / "t", SAMPLES, heldout=SAMPLES[:1])
    recorder.record([0], [1.0])
    random = torch.get_rng_state()
    recorder.probe(model, collate, batch_size=2, step=3)
    assert (model.training, model.dropout.training) == (True, False)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.shapes == [(2, 2), (2, 5), (1, 2)]  # of about one length together
    recorder.checkpoint(step=3)
    recorder.close()
    table = model.table.weight.detach()
    expected = [
        float(F.cross_entropy(table[ids[:-1]], torch.tensor(ids[1:])))
        for ids in (sample["input_ids"] for sample in SAMPLES)
    ]
    found = losses_of(tmp_path / "t")
    assert [losses[0] for losses in found.values()] == pytest.approx(expected, rel=1e-6)
    assert [losses[1] for losses in found.values()] == [1.0, None, None, None]
    heldout = pl.read_parquet(tmp_path / "t/heldout/loss_000.parquet").to_series()
    assert heldout.to_list() == pytest.approx(expected[:1], rel=1e-6)
    assert gdc.load_trace(tmp_path / "t").columns("probe") == ("loss_000",)
    index = pl.read_parquet(tmp_path / "t/train/index.parquet")
    assert index["num_tokens"].to_list() == [1, 4, 2, 1]


def tokens_of(folder: Path, name: str = "tokens") -> pl.DataFrame:
    return pl.read_parquet(folder / f"{name}.parquet")


def probed(folder: Path, num_probes: int, *, resume: bool = False) -> Bigrams:
    """A trace of so many probes with token losses, the model changed before each."""
    model = Bigrams()
    recorder = gdc.TraceRecorder(folder, SAMPLES, heldout=SAMPLES[1:3], resume=resume)
    for number in range(num_probes):
        with torch.no_grad():
            model.table.weight *= 1 + number
        if number >= num_checkpoints_of(folder):
            recorder.probe(model, collate, batch_size=2, step=number, token_losses=True)
    recorder.close()
    return model


def num_checkpoints_of(folder: Path) -> int:
    path = folder / "checkpoints.parquet"
    return pl.read_parquet(path).height if path.is_file() else 0


def test_losses_of_tokens_are_those_of_a_plain_forward_pass(tmp_path: Path) -> None:
    model = probed(tmp_path, 2)
    # The second look is at twice the weights.
    for samples, name in ((SAMPLES, "tokens"), (SAMPLES[1:3], "heldout_tokens")):
        table = tokens_of(tmp_path, name)
        for sample, early, late, ids in zip(
            samples, table["early"], table["late"], table["token_ids"], strict=True
        ):
            tokens = torch.tensor(sample["input_ids"])
            assert ids.to_list() == tokens[1:].tolist()
            for losses, scale in ((early, 0.5), (late, 1.0)):
                logits = model.table.weight.detach()[tokens[:-1]] * scale
                expected = F.cross_entropy(logits, tokens[1:], reduction="none")
                assert losses.to_list() == pytest.approx(expected.tolist(), rel=1e-5)
    assert tokens_of(tmp_path).select("early_checkpoint", "late_checkpoint").row(0) == (0, 1)
    # As the losses of whole samples say.
    means = tokens_of(tmp_path)["late"].list.mean().to_list()
    assert means == pytest.approx([of[1] for of in losses_of(tmp_path).values()], rel=1e-6)
    read = traces.read_folder(tmp_path).tokens
    assert read is not None
    assert [table.height for table in read] == [4, 2]
    assert traces.verify(tmp_path) == 9


@pytest.mark.parametrize("num_kept", [0, 1, 2])
def test_losses_of_tokens_go_back_with_a_run_that_was_killed(num_kept: int, tmp_path: Path) -> None:
    probed(tmp_path / "whole", 3)
    probed(tmp_path / "t", 3)
    killed = gdc.TraceRecorder(tmp_path / "t", SAMPLES, heldout=SAMPLES[1:3], resume=True)
    killed.keep_until(num_kept - 1)
    killed.close()
    assert (tmp_path / "t/tokens.parquet").is_file() == (num_kept > 0)
    if num_kept:
        assert set(tokens_of(tmp_path / "t")["late_checkpoint"]) == {0}
        assert traces.verify(tmp_path / "t")
    probed(tmp_path / "t", 3, resume=True)
    for name in ("tokens.parquet", "heldout_tokens.parquet", "checksums.json"):
        assert (tmp_path / "t" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_losses_of_tokens_that_nothing_can_be_done_with_are_refused(tmp_path: Path) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "a", SAMPLES)
    with pytest.raises(ConfigError, match=r"a: token_losses: expected held-out samples, which"):
        recorder.probe(Bigrams(), collate, token_losses=True)
    samples = [*SAMPLES, {"input_ids": [1]}]
    recorder = gdc.TraceRecorder(tmp_path / "b", samples, heldout=SAMPLES)
    with pytest.raises(
        DataError, match=r"a token with a loss in every sample, got none in 1, th.* 4"
    ):
        recorder.probe(Bigrams(), collate, token_losses=True)
    recorder = gdc.TraceRecorder(tmp_path / "own", SAMPLES, heldout=SAMPLES)
    with pytest.raises(ConfigError, match=r"token_losses: expected a function .* got True\. Give"):
        recorder.probe(Bigrams(), collate, losses=lambda *_: (0, 1), token_losses=True)
    with pytest.raises(ConfigError, match=r"token_losses: expected probes and held-out samples"):
        gdc.TraceCallback(tmp_path / "c", SAMPLES, token_losses=True)


def test_any_model_is_probed_by_a_loss_of_ones_own(tmp_path: Path) -> None:
    images = torch.arange(6.0).view(3, 2)
    recorder = gdc.TraceRecorder(tmp_path / "t", images)
    recorder.probe(nn.Identity(), torch.stack, losses=lambda model, x: (model(x).sum(1), 1))
    recorder.close()
    assert losses_of(tmp_path / "t") == {"0": [1.0], "1": [5.0], "2": [9.0]}


@pytest.mark.parametrize(
    ("dataset", "batch", "message"),
    [
        (["a"], {}, r"expected a data set of samples, got their ids alone, such as 'a'"),
        (
            SAMPLES,
            {"input_ids": torch.zeros(1, 2)},
            r"expected labels in what collate returns",
        ),
    ],
)
def test_a_probe_that_cannot_be_made_says_what_is_missing(
    dataset: Any, batch: dict[str, torch.Tensor], message: str, tmp_path: Path
) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", dataset)
    with pytest.raises(ConfigError, match=message):
        recorder.probe(Bigrams(), lambda _: batch)
