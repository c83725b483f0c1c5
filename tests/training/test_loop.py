"""Training: known steps, equal bytes, resuming, what is recorded, refusals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from gdc.config import Gpt2Model, LstmModel, TrainingConfig
from gdc.errors import ConfigError, DataError
from gdc.schema import CHECKPOINTS
from gdc.training import loop
from gdc.training.batches import TokenizedTexts, padded, windows_of
from gdc.training.loop import (
    Recipe,
    Recording,
    TrainingData,
    count_steps,
    learning_rate,
    train,
    weighted_loss,
)
from gdc.training.losses import mean_of_tokens, sample_losses, token_losses
from gdc.training.models import build_model, target_states

VOCAB_SIZE, END_OF_TEXT, BLOCK_SIZE = 30, 29, 6
RANDOM = np.random.default_rng(0)
TEXTS = [RANDOM.integers(0, 28, size=size).tolist() for size in (3, 5, 9, 0, 14, 3, 4, 7, 2, 6)]
HELDOUT = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10]]

Values = NDArray[Any]


class Losses(Protocol):
    """``sample_losses`` or ``token_losses``."""

    __name__: str

    def __call__(self, *_: object, block_size: int, batch_tokens: int) -> Values: ...


class Killed(BaseException):
    """What the operating system does to a run."""


class Held:
    """A trace in memory, which outlives a killed run."""

    def __init__(self) -> None:
        self.losses: list[NDArray[np.float32]] = []
        self.heldout: list[NDArray[np.float32]] = []

    def resume(self, run: str, num_checkpoints: int) -> None:  # noqa: ARG002
        del self.losses[num_checkpoints:], self.heldout[num_checkpoints:]

    def append(self, losses: NDArray[np.float32], heldout: NDArray[np.float32]) -> None:
        self.losses.append(losses)
        self.heldout.append(heldout)

    def flush(self) -> None:
        """Everything is kept already."""


@dataclass
class Recorded(Recording):
    """A recording, and the trace beside it."""

    losses: list[NDArray[np.float32]] = field(default_factory=list)
    heldout: list[NDArray[np.float32]] = field(default_factory=list)


TRACES: dict[Path, Held] = {}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def config_with(**changes: object) -> TrainingConfig:
    values = {
        "epochs": 3,
        "batch_tokens": 14,
        "learning_rate": 0.01,
        "schedule": "cosine",
        "warmup_steps": 2,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "num_threads": 1,
    }
    return TrainingConfig.model_validate({**values, **changes})


def recipe_with(
    *,
    seed: int = 0,
    probes_per_epoch: int = 0,
    num_steps: int | None = None,
    precision: str = "float32",
    records: bool = False,
    **config: object,
) -> Recipe:
    return Recipe(
        config_with(**config),
        BLOCK_SIZE,
        precision,
        seed,
        probes_per_epoch,
        num_steps,
        token_losses=records,
        self_influence=records,
    )


def built(
    kind: str = "gpt2", *, dropout: float = 0.0, seed: int = 0, num_heads: int = 2
) -> nn.Module:
    common = {"block_size": BLOCK_SIZE, "precision": "float32", "dropout": dropout, "kind": kind}
    size = {"hidden_size": 8, "num_layers": 2}
    config = (
        LstmModel.model_validate({**common, **size})
        if kind == "lstm"
        else Gpt2Model.model_validate({**common, **size, "num_heads": num_heads})
    )
    return build_model(config, vocab_size=VOCAB_SIZE, end_of_text=END_OF_TEXT, seed=seed)


def tokenized(texts: Sequence[Sequence[int]]) -> TokenizedTexts:
    return TokenizedTexts.from_ids(texts, END_OF_TEXT)


def training_data(
    weights: Sequence[float] | None = None,
    copies: Sequence[int] | None = None,
    texts: Sequence[Sequence[int]] = TEXTS,
    heldout: Sequence[Sequence[int]] = HELDOUT,
    masked: NDArray[np.bool_] | None = None,
) -> TrainingData:
    return TrainingData(
        tokenized(texts),
        np.array(weights if weights else [1.0] * len(texts)),
        np.array(copies if copies else [1] * len(texts)),
        tokenized(heldout),
        masked,
    )


def masked_at(*places: int) -> NDArray[np.bool_]:
    """A mask of these places in the ids of ``TEXTS``."""
    masked = np.zeros(len(tokenized(TEXTS).ids), dtype=bool)
    masked[list(places)] = True
    return masked


def trained(
    folder: Path, model: nn.Module, recipe: Recipe, data: TrainingData | None = None
) -> Recorded:
    trace = TRACES.setdefault(folder, Held())
    recording = train(
        model, data or training_data(), recipe, checkpoints=folder, name="test", trace=trace
    )
    return Recorded(**vars(recording), losses=list(trace.losses), heldout=list(trace.heldout))


def weights_of(model: nn.Module) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())


def outcome_of(model: nn.Module, recording: Recorded) -> tuple[object, ...]:
    """Everything a run leaves behind, bit by bit."""
    losses = [loss.tobytes() for loss in (*recording.losses, *recording.heldout)]
    gain = None if recording.gain is None else recording.gain.tobytes()
    looks = [(step, one.tobytes(), other.tobytes()) for step, one, other in recording.looks]
    return weights_of(model), losses, recording.checkpoints, recording.curve, gain, looks


# ---- the loss and the learning rate


@pytest.mark.parametrize(
    ("nll", "weights", "loss"),
    [
        pytest.param([1.0, 2.0, 6.0], [1.0, 1.0, 1.0], 3.0, id="unit weights are the plain mean"),
        pytest.param([1.0, 2.0, 6.0], [5.0, 5.0, 5.0], 3.0, id="the scale of all does not matter"),
        pytest.param([1.0, 2.0, 6.0], [1.0, 1.0, 0.0], 1.5, id="weight 0 equals absence"),
        pytest.param([1.0, 2.0], [3.0, 1.0], 1.25, id="a weighted mean"),
        pytest.param([1.0, 2.0], [3.0, -1.0], 0.25, id="the denominator is the sum of |w|"),
        pytest.param([1.0, 2.0], [0.0, 0.0], 0.0, id="nothing is divided by 0"),
    ],
)
def test_known_weighted_losses(nll: list[float], weights: list[float], loss: float) -> None:
    weight = torch.tensor(weights)
    assert weighted_loss(torch.tensor(nll), weight, weight).item() == loss


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 8)), min_size=1, max_size=9))
def test_weighted_losses_match_a_plain_loop(tokens: list[tuple[int, int]]) -> None:
    by_hand = sum(nll * w for nll, w in tokens) / sum(w for _, w in tokens)
    nll, weights = torch.tensor(tokens, dtype=torch.float64).T
    assert weighted_loss(nll, weights, weights).item() == pytest.approx(by_hand)
    shares = [
        weighted_loss(nll[part], weights[part], weights) for part in (slice(3), slice(3, None))
    ]
    assert sum(share.item() for share in shares) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("schedule", "step", "rate"),
    [
        pytest.param("constant", 0, 0.25, id="the first step of four warm-up steps"),
        pytest.param("constant", 3, 1.0, id="the last of them"),
        pytest.param("constant", 11, 1.0, id="constant"),
        pytest.param("cosine", 1, 0.5, id="cosine warms up alike"),
        pytest.param("cosine", 4, 1.0, id="cosine begins at the top"),
        pytest.param("cosine", 8, 0.5, id="half way"),
        pytest.param("cosine", 12, 0.0, id="and would end at zero"),
    ],
)
def test_known_learning_rates(schedule: str, step: int, rate: float) -> None:
    config = config_with(learning_rate=1.0, warmup_steps=4, schedule=schedule)
    assert learning_rate(config, step, num_steps=12) == pytest.approx(rate, abs=1e-12)


def test_a_warmup_as_long_as_the_run_is_allowed() -> None:
    config = config_with(learning_rate=1.0, warmup_steps=4)
    assert [learning_rate(config, step, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_one_step_is_a_step_of_adamw_on_the_weighted_loss(tmp_path: Path) -> None:
    weights = [1.0, 0.5, 2.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 1.0]
    data = training_data(weights)
    model, twin = built(), built().train()
    recipe = recipe_with(batch_tokens=10_000, num_steps=1, clip_norm=0.1, warmup_steps=0)
    recording = trained(tmp_path, model, recipe, data)
    windows = windows_of(data.texts, BLOCK_SIZE)
    numerator, denominator = torch.zeros(()), 0.0
    for i in range(len(windows)):
        inputs, targets = (torch.from_numpy(a) for a in padded(data.texts, windows, np.array([i])))
        states = target_states(twin, inputs, torch.ones_like(targets, dtype=torch.bool))
        logits = states.logits()
        weight = weights[windows.sequence[i]]
        numerator = numerator + weight * nn.functional.cross_entropy(
            logits, targets[0], reduction="sum"
        )
        denominator += weight * len(targets[0])
    loss = numerator / denominator
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
    torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.01).step()
    assert recording.curve[0][1] == pytest.approx(loss.item(), abs=1e-5)
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=0)


# ---- equal bytes


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_one_seed_gives_equal_bytes_and_another_does_not(kind: str, tmp_path: Path) -> None:
    outcomes = []
    for seed in (0, 0, 1):
        model = built(kind, dropout=0.2)
        recording = trained(tmp_path, model, recipe_with(seed=seed, probes_per_epoch=1))
        outcomes.append(outcome_of(model, recording))
    assert outcomes[0] == outcomes[1]
    weights, losses, _, curve, *_ = outcomes[0]
    other_weights, other_losses, _, other_curve, *_ = outcomes[2]
    assert weights != other_weights
    assert losses != other_losses
    assert curve != other_curve


def kill_after(
    num_steps: int,
    folder: Path,
    model: nn.Module,
    recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    advance = loop._Run.advance

    def advance_or_die(run: loop._Run) -> int:
        if run.step == num_steps:
            raise Killed
        return advance(run)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "advance", advance_or_die)
        with pytest.raises(Killed):
            trained(folder, model, recipe)


def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that fills with the steps that runs take from now on."""
    advance, steps = loop._Run.advance, []

    def advance_and_note(run: loop._Run) -> int:
        steps.append(run.step)
        return advance(run)

    monkeypatch.setattr(loop._Run, "advance", advance_and_note)
    return steps


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
@pytest.mark.parametrize("num_steps", [1, 7, 12])
def test_a_killed_run_resumes_to_the_same_bytes(
    kind: str, num_steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_with(probes_per_epoch=2, records=True)
    model = built(kind, dropout=0.2)
    whole = trained(tmp_path, model, recipe)
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    kill_after(num_steps, tmp_path, built(kind, dropout=0.2), recipe, monkeypatch)
    assert [file.suffix for file in tmp_path.iterdir()] == [".pt"]
    steps, resumed = steps_taken(monkeypatch), built(kind, dropout=0.2)
    rest = trained(tmp_path, resumed, recipe)
    assert outcome_of(resumed, rest) == outcome_of(model, whole)
    assert steps == list(range(num_steps, len(whole.curve)))
    assert list(tmp_path.iterdir()) == []


def flipped(content: bytes) -> bytes:
    """One bit of a weight is another: torch would load it without a word."""
    return content[:2000] + bytes([content[2000] ^ 1]) + content[2001:]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="cut off"),
        pytest.param(lambda content: b"", id="empty"),  # noqa: ARG005
        pytest.param(lambda content: bytes(len(content)), id="zeros, as after a power cut"),
        pytest.param(flipped, id="one bit"),
    ],
)
def test_a_damaged_checkpoint_is_put_aside_and_the_run_begins_anew(
    damage: Callable[[bytes], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe, model = recipe_with(probes_per_epoch=2, records=True), built(dropout=0.2)
    whole = trained(tmp_path, model, recipe)
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    kill_after(7, tmp_path, built(dropout=0.2), recipe, monkeypatch)
    (checkpoint,) = tmp_path.iterdir()
    damaged = damage(checkpoint.read_bytes())
    checkpoint.write_bytes(damaged)
    kill_after(3, tmp_path, built(dropout=0.2), recipe, monkeypatch)
    said = capsys.readouterr().err
    assert f"{checkpoint}: expected a training checkpoint as it was written, got" in said
    assert checkpoint.with_suffix(".damaged").read_bytes() == damaged
    steps, resumed = steps_taken(monkeypatch), built(dropout=0.2)
    rest = trained(tmp_path, resumed, recipe)
    assert outcome_of(resumed, rest) == outcome_of(model, whole)
    assert steps == list(range(3, len(whole.curve)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", ["abc", "nan", "-1", ""])
def test_seconds_between_checkpoints_that_are_none_are_refused(
    seconds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", seconds)
    expected = f"GDC_CHECKPOINT_SECONDS: expected seconds, at least 0, got {seconds!r}"
    with pytest.raises(ConfigError, match=expected):
        trained(tmp_path, built(), recipe_with())


def test_a_run_killed_twice_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, model, resumed = recipe_with(), built(dropout=0.2), built(dropout=0.2)
    whole = trained(tmp_path, model, recipe)
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    kill_after(5, tmp_path, built(dropout=0.2), recipe, monkeypatch)
    kill_after(11, tmp_path, built(dropout=0.2), recipe, monkeypatch)
    assert outcome_of(resumed, trained(tmp_path, resumed, recipe)) == outcome_of(model, whole)


def test_a_run_killed_between_two_saves_repeats_only_the_steps_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, model, resumed = recipe_with(), built(), built()
    whole = trained(tmp_path, model, recipe)
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "5")
    clock = SimpleNamespace(monotonic=iter(range(10_000)).__next__)  # a second per look at it
    monkeypatch.setattr(loop, "time", clock)
    kill_after(7, tmp_path, built(), recipe, monkeypatch)
    steps = steps_taken(monkeypatch)
    assert outcome_of(resumed, trained(tmp_path, resumed, recipe)) == outcome_of(model, whole)
    assert 0 < steps[0] < 7


def test_a_kill_in_the_middle_of_a_save_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_half(state: object, path: Path) -> None:
        path.write_bytes(repr(state).encode()[:100])
        raise Killed

    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    with monkeypatch.context() as patch:
        patch.setattr("torch.save", save_half)
        with pytest.raises(Killed):
            trained(tmp_path, built(), recipe_with())
    assert [file.suffix for file in tmp_path.iterdir()] == [".tmp"]
    steps = steps_taken(monkeypatch)
    trained(tmp_path, built(), recipe_with())
    assert steps[0] == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "data", "recipe"),
    [
        pytest.param({}, {"texts": [*TEXTS[:-1], [1] * len(TEXTS[-1])]}, {}, id="texts"),
        pytest.param({}, {"heldout": [[1]]}, {}, id="held-out texts"),
        pytest.param({}, {"weights": [*[1.0] * 9, 2.0]}, {}, id="weights"),
        pytest.param({}, {"copies": [*[1] * 9, 2]}, {}, id="copies"),
        pytest.param({}, {"masked": masked_at(2)}, {}, id="masked tokens"),
        pytest.param({}, {}, {"seed": 1}, id="the seed of the batches"),
        pytest.param({}, {}, {"learning_rate": 0.02}, id="the learning rate"),
        pytest.param({}, {}, {"num_steps": 30}, id="the number of steps"),
        pytest.param({"seed": 1}, {}, {}, id="the first weights"),
        pytest.param({"dropout": 0.3}, {}, {}, id="dropout"),
        pytest.param({"num_heads": 4}, {}, {}, id="heads, whose weights have the same shapes"),
    ],
)
def test_a_run_that_differs_in_anything_does_not_go_on_from_the_checkpoint(
    model: dict[str, Any],
    data: dict[str, Any],
    recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    kill_after(7, tmp_path, built(dropout=0.2), recipe_with(), monkeypatch)
    (checkpoint,) = tmp_path.iterdir()
    steps, other = steps_taken(monkeypatch), built(**{"dropout": 0.2} | model)
    trained(tmp_path, other, recipe_with(**recipe), training_data(**data))
    assert steps[0] == 0
    assert list(tmp_path.iterdir()) == [checkpoint]


# ---- what is recorded


def test_online_losses_are_those_before_the_update(tmp_path: Path) -> None:
    data, model = training_data(), built()
    untrained = sample_losses(model, data.texts, block_size=BLOCK_SIZE, batch_tokens=99)
    recording = trained(tmp_path, model, recipe_with(batch_tokens=10_000, epochs=2), data)
    assert recording.losses[0].tolist() == pytest.approx(untrained.tolist(), abs=1e-5)
    assert recording.losses[0].dtype == np.float32
    assert (recording.losses[1] < recording.losses[0]).all()


def test_the_first_batch_has_the_losses_of_the_untrained_model(tmp_path: Path) -> None:
    data, model = training_data(texts=[[1], [2], [3], [4]]), built()
    recipe = recipe_with(batch_tokens=4, epochs=1, learning_rate=0.1, warmup_steps=0)
    untrained = sample_losses(model, data.texts, block_size=BLOCK_SIZE, batch_tokens=99)
    recording = trained(tmp_path, model, recipe, data)
    unchanged = np.isclose(recording.losses[0], untrained, atol=1e-5)
    assert len(recording.curve) == 2
    assert unchanged.sum() == 2
    assert recording.curve[0][1] == pytest.approx(untrained[unchanged].mean(), abs=1e-5)


def test_probes_and_heldout_losses_are_those_of_the_frozen_model(tmp_path: Path) -> None:
    data, model = training_data(), built(dropout=0.3)
    recording = trained(tmp_path, model, recipe_with(probes_per_epoch=1), data)
    assert model.training
    frozen = sample_losses(model, data.texts, block_size=BLOCK_SIZE, batch_tokens=14)
    heldout = sample_losses(model, data.heldout, block_size=BLOCK_SIZE, batch_tokens=14)
    assert recording.losses[-2].tolist() == frozen.astype(np.float32).tolist()
    assert [loss.tolist() for loss in recording.heldout[-2:]] == [
        heldout.astype(np.float32).tolist()
    ] * 2


def test_two_probes_per_epoch_and_the_online_losses_are_in_order(tmp_path: Path) -> None:
    recording = trained(tmp_path, built(), recipe_with(probes_per_epoch=2))
    table = recording.checkpoint_table()
    assert table.schema == CHECKPOINTS
    assert table["checkpoint"].to_list() == list(range(9))
    assert table["mode"].to_list() == ["probe", "probe", "online"] * 3
    assert table["step"].is_sorted()
    probes = table.filter(mode="probe")
    assert probes["step"].is_unique().all()
    assert table.filter(mode="online")["epoch"].to_list() == [1.0, 2.0, 3.0]
    assert probes["epoch"].to_list() == pytest.approx([0.5, 1, 1.5, 2, 2.5, 3], abs=0.1)
    assert len(recording.losses) == len(recording.heldout) == 9
    assert table["step"].to_list()[-1] == len(recording.curve)


def test_probing_changes_nothing_in_the_training(tmp_path: Path) -> None:
    plain, probed = built(dropout=0.2), built(dropout=0.2)
    recording = trained(tmp_path, plain, recipe_with())
    with_probes = trained(tmp_path, probed, recipe_with(probes_per_epoch=3))
    assert weights_of(plain) == weights_of(probed)
    assert recording.curve == with_probes.curve


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
@pytest.mark.parametrize("probes_per_epoch", [0, 2])
def test_recording_tokens_and_gains_changes_nothing_else(
    kind: str, probes_per_epoch: int, tmp_path: Path
) -> None:
    plain, recorded = built(kind, dropout=0.2), built(kind, dropout=0.2)
    one = trained(tmp_path, plain, recipe_with(probes_per_epoch=probes_per_epoch))
    recipe = recipe_with(probes_per_epoch=probes_per_epoch, records=True)
    other = trained(tmp_path, recorded, recipe)
    assert outcome_of(plain, one)[:4] == outcome_of(recorded, other)[:4]
    assert (one.gain, one.looks) == (None, [])


# ---- the looks at every token


@pytest.mark.parametrize(
    ("probes_per_epoch", "epochs", "looks"),
    [
        pytest.param(2, 3, ["probe", "last"], id="the first probe"),
        pytest.param(0, 3, ["online", "last"], id="without probes the first pass"),
        pytest.param(0, 1, ["last"], id="one pass: both are one look"),
        pytest.param(1, 1, ["last"], id="one probe: both are one look"),
    ],
)
def test_looks_are_the_first_frozen_one_and_the_last(
    probes_per_epoch: int, epochs: int, looks: list[str], tmp_path: Path
) -> None:
    recipe = recipe_with(probes_per_epoch=probes_per_epoch, epochs=epochs, records=True)
    recording = trained(tmp_path, built(), recipe)
    first = {mode: step for _, step, _, mode, _ in reversed(recording.checkpoints)}
    steps = {**first, "last": len(recording.curve)}
    assert [look.step for look in recording.looks] == [steps[look] for look in looks]


def test_a_run_that_ends_within_its_first_pass_is_looked_at_once(tmp_path: Path) -> None:
    recording = trained(tmp_path, built(), recipe_with(num_steps=2, records=True))
    assert [look.step for look in recording.looks] == [2]
    assert recording.checkpoints == []


def test_the_last_look_is_the_trained_model_and_the_first_the_first_probe(tmp_path: Path) -> None:
    data, model = training_data(), built(dropout=0.3)
    recording = trained(tmp_path, model, recipe_with(probes_per_epoch=1, records=True), data)
    early, late = recording.looks
    assert model.training
    for found, texts in ((late.train, data.texts), (late.heldout, data.heldout)):
        frozen = token_losses(model, texts, block_size=BLOCK_SIZE, batch_tokens=14)
        assert found.tobytes() == frozen.tobytes()
    means = mean_of_tokens(early.train, data.texts, block_size=BLOCK_SIZE)
    assert recording.losses[0].tobytes() == means.astype(np.float32).tobytes()


def test_no_text_is_asked_twice_at_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen, asked = loop._Run._frozen, []

    def ask_and_note(run: loop._Run, losses_of: Losses, texts: TokenizedTexts) -> Values:
        asked.append(losses_of.__name__)
        return frozen(run, losses_of, texts)

    monkeypatch.setattr(loop._Run, "_frozen", ask_and_note)
    trained(tmp_path, built(), recipe_with(probes_per_epoch=1, epochs=3, records=True))
    assert asked == ["token_losses"] * 2 + ["sample_losses"] * 2 + ["token_losses"] * 2


# ---- the gains of the steps


def gains_by_replay(model: nn.Module, data: TrainingData, recipe: Recipe) -> list[float]:
    """The whole run again in a plain loop over batches, windows and tokens, without dropout."""
    windows, size = windows_of(data.texts, BLOCK_SIZE), len(data.texts)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.0, weight_decay=recipe.config.weight_decay
    )
    num_steps, step, gains = count_steps(data, recipe), 0, [0.0] * size

    def nll_of(window: int) -> torch.Tensor:
        inputs, targets = padded(data.texts, windows, np.array([window]))
        ids, wanted = torch.from_numpy(inputs), torch.from_numpy(targets[0])
        states = target_states(model, ids, torch.ones_like(ids, dtype=torch.bool))
        logits = states.logits()
        return nn.functional.cross_entropy(logits, wanted, reduction="sum")

    for epoch in range(recipe.config.epochs):
        for batch in loop._plan(windows, recipe, epoch):
            before = [nll_of(window) for window in batch]
            optimizer.zero_grad()
            loss = torch.stack(before).sum() / int(windows.length[batch].sum())
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            nn.utils.clip_grad_norm_(model.parameters(), recipe.config.clip_norm)
            optimizer.param_groups[0]["lr"] = learning_rate(recipe.config, step, num_steps)
            optimizer.step()
            step += 1
            for window, nll in zip(batch, before, strict=True):
                gains[windows.sequence[window]] += float((nll - nll_of(window)).detach())
    return [gain / n for gain, n in zip(gains, data.texts.num_tokens, strict=True)]


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_gains_match_a_plain_replay_of_the_run(kind: str, tmp_path: Path) -> None:
    data, recipe = training_data(), recipe_with(epochs=2, records=True)
    recording = trained(tmp_path, built(kind), recipe, data)
    expected = gains_by_replay(built(kind).train(), data, recipe)
    assert recording.gain is not None
    assert recording.gain.tolist() == pytest.approx(expected, abs=2e-5)
    assert max(expected) > 0.02


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_a_step_of_no_length_gains_nothing_whatever_the_dropout(kind: str, tmp_path: Path) -> None:
    recipe = recipe_with(records=True, learning_rate=1e-30, weight_decay=0.0)
    gain = trained(tmp_path, built(kind, dropout=0.5), recipe).gain
    assert gain is not None
    assert gain.tolist() == [0.0] * len(TEXTS)


def test_a_step_on_all_texts_gains_the_drop_of_the_next_online_loss(tmp_path: Path) -> None:
    """One batch a pass: what a step gained is what the next pass finds, copies or not."""
    data = training_data(copies=[2, 1, 3, 1, 2, 1, 1, 1, 1, 1])
    recipe = recipe_with(batch_tokens=10_000, epochs=3, records=True)
    recording = trained(tmp_path, built(), recipe, data)
    first, *_ = recording.losses
    last = mean_of_tokens(recording.looks[-1].train, data.texts, block_size=BLOCK_SIZE)
    assert recording.gain is not None
    assert recording.gain.tolist() == pytest.approx((first - last).tolist(), abs=1e-5)


def test_a_sample_that_was_in_no_step_has_no_gain(tmp_path: Path) -> None:
    weights, copies = [*[1.0] * 9, 0.0], [0, *[1] * 9]
    gain = trained(
        tmp_path, built(), recipe_with(records=True), training_data(weights, copies)
    ).gain
    assert gain is not None
    assert np.isnan(gain).tolist() == [True, *[False] * 8, True]


def test_a_sample_not_reached_yet_has_no_gain_and_one_reached_in_part_has(tmp_path: Path) -> None:
    recipe = recipe_with(num_steps=1, records=True)
    data = training_data()
    gain = trained(tmp_path, built(), recipe, data).gain
    windows = windows_of(data.texts, BLOCK_SIZE)
    reached = set(windows.sequence[loop._plan(windows, recipe, 0)[0]].tolist())
    assert gain is not None
    assert np.flatnonzero(np.isfinite(gain)).tolist() == sorted(reached)
    assert 0 < len(reached) < len(TEXTS)


def test_the_rate_of_a_checkpoint_is_that_of_its_last_step(tmp_path: Path) -> None:
    recipe = recipe_with()
    recording = trained(tmp_path, built(), recipe)
    num_steps = len(recording.curve)
    assert [rate for *_, rate in recording.checkpoints] == [
        learning_rate(recipe.config, step - 1, num_steps) for _, step, *_ in recording.checkpoints
    ]


# ---- weights and copies


def test_weight_0_and_no_copies_are_the_same_absence(tmp_path: Path) -> None:
    models = [built(dropout=0.2) for _ in range(2)]
    weightless = trained(tmp_path, models[0], recipe_with(), training_data([*[1.0] * 9, 0.0]))
    copyless = trained(tmp_path, models[1], recipe_with(), training_data(copies=[*[1] * 9, 0]))
    assert outcome_of(models[0], weightless) == outcome_of(models[1], copyless)
    for losses in weightless.losses:
        assert np.isfinite(losses[:9]).all()
        assert np.isnan(losses[9])


def test_a_dropped_sample_is_absent(tmp_path: Path) -> None:
    dropped, absent = built(dropout=0.2), built(dropout=0.2)
    trained(tmp_path, dropped, recipe_with(), training_data(copies=[*[1] * 9, 0]))
    trained(tmp_path, absent, recipe_with(), training_data(texts=TEXTS[:9]))
    assert weights_of(dropped) == weights_of(absent)


def test_a_dropped_sample_is_still_probed(tmp_path: Path) -> None:
    data = training_data([*[1.0] * 9, 0.0])
    recording = trained(tmp_path, built(), recipe_with(probes_per_epoch=1, epochs=1), data)
    probe, online = recording.losses
    assert np.isfinite(probe).all()
    assert np.isnan(online).tolist() == [False] * 9 + [True]


def test_the_online_loss_of_copies_is_their_mean(tmp_path: Path) -> None:
    data, model = training_data(copies=[2, 1, 3, 1, 2, 1, 1, 1, 1, 1]), built()
    untrained = sample_losses(model, data.texts, block_size=BLOCK_SIZE, batch_tokens=99)
    recipe = recipe_with(batch_tokens=10_000, epochs=1)
    recording = trained(tmp_path, model, recipe, data)
    assert recording.losses[0].tolist() == pytest.approx(untrained.tolist(), abs=1e-5)
    tokens = data.texts.num_tokens * data.copies
    assert recording.curve[0][1] == pytest.approx(np.average(untrained, weights=tokens), abs=1e-5)


def test_a_weight_leaves_the_recorded_loss_alone(tmp_path: Path) -> None:
    data, model = training_data([0.1, 7.0, *[1.0] * 8]), built()
    untrained = sample_losses(model, data.texts, block_size=BLOCK_SIZE, batch_tokens=99)
    recording = trained(tmp_path, model, recipe_with(batch_tokens=10_000, epochs=1), data)
    assert recording.losses[0].tolist() == pytest.approx(untrained.tolist(), abs=1e-5)


# ---- masked tokens


def with_last_id(last: int, masked: NDArray[np.bool_] | None) -> TrainingData:
    """Texts whose very last id, which no token follows, is another."""
    data = training_data(masked=masked)
    data.texts.ids[-1] = last
    return data


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_what_a_masked_token_is_changes_no_weight(kind: str, tmp_path: Path) -> None:
    def weights_after(last: int, masked: NDArray[np.bool_] | None) -> bytes:
        model = built(kind, dropout=0.2)
        trained(tmp_path, model, recipe_with(), with_last_id(last, masked))
        return weights_of(model)

    masked = masked_at(-1)
    assert weights_after(3, masked) == weights_after(4, masked)
    assert weights_after(3, None) != weights_after(4, None)
    assert weights_after(3, masked) != weights_after(3, None)
    assert weights_after(3, masked_at()) == weights_after(3, None)


def test_the_loss_is_the_mean_over_unmasked_tokens_and_samples_keep_all_of_theirs(
    tmp_path: Path,
) -> None:
    texts, model = [[1, 2, 3], [4, 5]], built()
    masked = np.zeros(9, dtype=bool)
    masked[[1, 2, 3, 4]] = True  # all that the first text predicts
    data = training_data(texts=texts, masked=masked)
    untrained = sample_losses(model, data.texts, block_size=BLOCK_SIZE, batch_tokens=99)
    recording = trained(tmp_path, model, recipe_with(batch_tokens=99, epochs=1), data)
    assert recording.curve[0][1] == pytest.approx(untrained[1], abs=1e-5)
    assert recording.losses[0].tolist() == pytest.approx(untrained.tolist(), abs=1e-5)
    assert recording.num_masked_tokens == 4


def test_a_batch_that_is_masked_as_a_whole_teaches_nothing(tmp_path: Path) -> None:
    data = training_data(masked=np.ones(len(tokenized(TEXTS).ids), dtype=bool))
    model, recipe = built(), recipe_with(weight_decay=0.0)
    before = weights_of(model)
    recording = trained(tmp_path, model, recipe, data)
    assert weights_of(model) == before
    assert len(recording.curve) == count_steps(training_data(), recipe)
    assert {loss for _, loss in recording.curve} == {0.0}


# ---- the number of steps


@pytest.mark.parametrize("num_steps", [2, 9, 50])
def test_num_steps_is_exact_and_only_whole_passes_are_recorded(
    num_steps: int, tmp_path: Path
) -> None:
    recording = trained(tmp_path, built(), recipe_with(num_steps=num_steps))
    assert [step for step, _ in recording.curve] == list(range(1, num_steps + 1))
    ends = [count_steps(training_data(), recipe_with(epochs=n)) for n in range(1, 20)]
    assert 2 < ends[0] < 9 < ends[1]
    assert [step for _, step, *_ in recording.checkpoints] == [n for n in ends if n <= num_steps]


def test_fewer_steps_are_the_beginning_of_more(tmp_path: Path) -> None:
    long = trained(tmp_path, built(), recipe_with(schedule="constant"))
    short = trained(tmp_path, built(), recipe_with(schedule="constant", num_steps=4))
    assert short.curve == long.curve[:4]


def test_steps_are_counted_as_they_are_taken(tmp_path: Path) -> None:
    data = training_data(copies=[2, 0, 3, 1, 1, 1, 0, 1, 1, 1])
    recording = trained(tmp_path, built(), recipe_with(), data)
    assert count_steps(data, recipe_with()) == len(recording.curve)
    assert [mode for *_, mode, _ in recording.checkpoints] == ["online"] * 3


# ---- refusals and bfloat16


@pytest.mark.parametrize("absence", ["weights", "copies"])
def test_nothing_left_to_train_on_is_refused(absence: str, tmp_path: Path) -> None:
    data = training_data(**{absence: [0] * len(TEXTS)})  # type: ignore[arg-type]  # one of both
    with pytest.raises(DataError, match="no sample is left to train on"):
        trained(tmp_path, built(), recipe_with(), data)


@pytest.mark.parametrize("num_steps", [1, 2, None])
def test_a_diverging_run_is_refused_at_once(num_steps: int | None, tmp_path: Path) -> None:
    recipe = recipe_with(learning_rate=1e39, warmup_steps=0, num_steps=num_steps)
    with pytest.raises(DataError, match=r"finite .* at step 1\. Lower .*rate \(1e\+39\)"):
        trained(tmp_path, built(), recipe)


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_bfloat16_trains_float32_weights(kind: str, tmp_path: Path) -> None:
    recipe = recipe_with(precision="bfloat16", epochs=2, batch_tokens=100, probes_per_epoch=1)
    data = training_data(texts=[[1, 2, 3], [4, 5]])
    outcomes = []
    for _ in range(2):
        model = built(kind)
        recording = trained(tmp_path, model, recipe, data)
        outcomes.append(outcome_of(model, recording))
    assert outcomes[0] == outcomes[1]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    plain = trained(tmp_path, built(kind), recipe_with(epochs=2, batch_tokens=100), data)
    assert recording.curve[0][1] == pytest.approx(plain.curve[0][1], rel=0.01)
    assert recording.curve != plain.curve
