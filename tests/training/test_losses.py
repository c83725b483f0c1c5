"""Losses against known values, plain loops, and laws of batching."""

import math
from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from gdc.config import Gpt2Model, LstmModel
from gdc.filesystem import scratch
from gdc.training import losses
from gdc.training.batches import TokenizedTexts
from gdc.training.losses import (
    sample_losses,
    sample_losses_from_tokens,
    target_nll,
    token_losses,
    token_nll,
    token_records,
    weighted_loss,
)
from gdc.training.models import TargetStates, build_model, target_states
from gdc.training.token_records import TokenRecords

VOCAB_SIZE, END_OF_TEXT, BLOCK_SIZE = 30, 29, 6
# Shorter, as long as, and longer than a block; empty; more than two blocks.
TEXTS = [[1, 2, 3], [4, 5, 6, 7, 8], [9, 1, 2, 3, 4, 5, 6, 7], [], [*range(14)], [3], [3]]


def built(kind: str) -> nn.Module:
    common = {"block_size": BLOCK_SIZE, "precision": "float32", "dropout": 0.5, "num_layers": 1}
    config = (
        LstmModel.model_validate({**common, "kind": "lstm", "hidden_size": 8})
        if kind == "lstm"
        else Gpt2Model.model_validate({**common, "kind": "gpt2", "hidden_size": 8, "num_heads": 2})
    )
    model = build_model(config, vocab_size=VOCAB_SIZE, end_of_text=END_OF_TEXT, seed=0)
    with torch.no_grad():  # untrained models give nearly equal losses; these differ
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.eval()


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["lstm", "gpt2"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    return built(request.param)


def tokenized(texts: list[list[int]]) -> TokenizedTexts:
    return TokenizedTexts.from_ids(texts, END_OF_TEXT)


def losses_of(
    model: nn.Module, texts: list[list[int]], *, block_size: int = BLOCK_SIZE, batch: int = 20
) -> list[float]:
    losses = sample_losses(model, tokenized(texts), block_size=block_size, batch_tokens=batch)
    assert losses.dtype == np.float64
    return [float(loss) for loss in losses]


def tokens_by_hand(model: nn.Module, text: list[int], block_size: int) -> list[tuple[float, bool]]:
    """Loss and greediness of each token, window by window, one text at a time."""
    sequence, found = [END_OF_TEXT, *text, END_OF_TEXT], []
    for start in range(0, len(sequence) - 1, block_size):
        window = sequence[start : start + block_size + 1]
        ids = torch.tensor([window[:-1]])
        with torch.no_grad():
            states = target_states(model, ids, torch.ones_like(ids, dtype=torch.bool))
            logits = states.logits().double()
        for row, target in zip(logits, window[1:], strict=True):
            found.append((float(row.logsumexp(0) - row[target]), int(row.argmax()) == target))
    return found


@pytest.mark.parametrize(
    ("logits", "target", "nll"),
    [
        ([-0.3, 1.5, 0.2], 1, 0.36313551),
        ([2.0, 3.0, 0.5], 0, 1.37153903),
        ([2.0, 0.3, 0.2], 0, 0.29860897),
        ([0.3, -0.5, 0.2], 2, 0.95618669),
    ],
)
def test_known_cross_entropies(logits: list[float], target: int, nll: float) -> None:
    """Values of tensorflow/privacy."""
    found = token_nll(torch.tensor([logits]), torch.tensor([target]))
    assert found.item() == pytest.approx(nll, abs=1e-7)


def test_a_bfloat16_logit_has_a_float32_loss() -> None:
    found = token_nll(torch.zeros(2, 7, dtype=torch.bfloat16), torch.tensor([0, 6]))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([math.log(7)] * 2, abs=1e-6)


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


def test_losses_match_a_plain_loop(model: nn.Module) -> None:
    by_hand = [
        float(np.mean([nll for nll, _ in tokens_by_hand(model, text, BLOCK_SIZE)]))
        for text in TEXTS
    ]
    assert losses_of(model, TEXTS) == pytest.approx(by_hand, abs=1e-5)
    assert max(by_hand) - min(by_hand) > 0.1


def test_a_long_text_is_the_sum_of_its_windows(model: nn.Module) -> None:
    text = TEXTS[4]
    by_hand = [float(np.mean([nll for nll, _ in tokens_by_hand(model, text, b)])) for b in (2, 6)]
    found = [losses_of(model, [text], block_size=block_size)[0] for block_size in (2, 6)]
    assert found == pytest.approx(by_hand, abs=1e-5)
    assert found[0] != pytest.approx(found[1], abs=1e-3)


@given(order=st.permutations(range(len(TEXTS))), batch=st.sampled_from([1, 2, 7, 30, 1000]))
def test_losses_do_not_depend_on_batches_or_row_order(order: list[int], batch: int) -> None:
    for model in (LSTM, GPT2):
        expected = losses_of(model, TEXTS)
        found = losses_of(model, [TEXTS[i] for i in order], batch=batch)
        assert found == pytest.approx([expected[i] for i in order], abs=1e-5)


LSTM, GPT2 = built("lstm"), built("gpt2")


@pytest.mark.parametrize("has_linear_cross_entropy", [True, False])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_losses_and_gradients_made_in_parts_are_those_made_at_once(
    precision: torch.dtype,
    has_linear_cross_entropy: bool,
    model: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = torch.arange(12).view(2, 6)

    def losses_and_gradients() -> list[Tensor]:
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            states = target_states(model, ids, torch.ones_like(ids, dtype=torch.bool))
            nll = target_nll(states, torch.arange(12) + 5)
        assert nll.dtype == torch.float32
        loss = (torch.linspace(-1, 2, 12) * nll).sum()
        return [nll, *torch.autograd.grad(loss, list(model.parameters()))]

    expected = losses_and_gradients()
    monkeypatch.setattr(losses, "MAX_LOGITS", 5 * VOCAB_SIZE + 1)
    monkeypatch.setattr(losses, "_HAS_LINEAR_CROSS_ENTROPY", has_linear_cross_entropy)
    for found, known in zip(losses_and_gradients(), expected, strict=True):
        torch.testing.assert_close(
            found, known, rtol=1e-4, atol=1e-5 if precision == torch.float32 else 0.1
        )


@pytest.mark.parametrize("logits_at_a_time", [1, 2 * VOCAB_SIZE, 2**20])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_that_take_the_place_of_the_logits_are_softmax_less_the_target(
    precision: torch.dtype, logits_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_CACHED_LOGITS", logits_at_a_time)
    generator = torch.Generator().manual_seed(0)
    drawn = 4 * torch.randn(5, VOCAB_SIZE, generator=generator)
    hidden = drawn.to(precision).requires_grad_()
    targets, weights = torch.tensor([0, 3, 3, 29, 7]), torch.tensor([1.0, 0.0, -2.0, 0.5, 3.0])
    # A copy, as the logits of a model are: they are overwritten.
    nll = target_nll(TargetStates(hidden.clone(), None, None), targets)
    known = hidden.detach().double()
    assert nll.tolist() == token_nll(hidden, targets).tolist()
    (gradient,) = torch.autograd.grad((weights * nll).sum(), hidden, retain_graph=True)
    expected = weights[:, None] * (known.softmax(1) - F.one_hot(targets, VOCAB_SIZE))
    rounding = 1e-6 if precision == torch.float32 else 2e-2
    torch.testing.assert_close(gradient.double(), expected, rtol=rounding, atol=1e-6)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(nll.sum(), hidden)


@pytest.mark.parametrize("offset", [0.0, -100.0, 1000.0])
def test_gradients_do_not_depend_on_what_all_logits_have_in_common(offset: float) -> None:
    generator = torch.Generator().manual_seed(0)
    # Powers of two, which the offset does not round; the last token is all but certain.
    drawn = torch.randint(-16, 16, (6, VOCAB_SIZE), generator=generator) / 4
    drawn[5, 4] = 20.0
    targets = torch.tensor([0, 3, 3, 29, 7, 4])
    logits = (drawn + offset).requires_grad_()
    (gradient,) = torch.autograd.grad(
        target_nll(TargetStates(logits.clone(), None, None), targets).sum(), logits
    )
    expected = drawn.double().softmax(1) - F.one_hot(targets, VOCAB_SIZE)
    assert expected[5, 4] != 0
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-6, atol=2e-7)


def test_losses_and_records_do_not_depend_on_the_logits_held_at_once(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses_and_records() -> tuple[list[float], TokenRecords]:
        records = token_records(model, tokenized(TEXTS), block_size=BLOCK_SIZE, batch_tokens=20)
        return losses_of(model, TEXTS), records

    expected, expected_records = losses_and_records()
    monkeypatch.setattr(losses, "MAX_LOGITS", 4 * VOCAB_SIZE)
    found, records = losses_and_records()
    assert found == pytest.approx(expected, abs=1e-5)
    for column, expected_column in zip(astuple(records), astuple(expected_records), strict=True):
        np.testing.assert_allclose(column, expected_column, atol=1e-5)


def test_copies_of_a_text_have_equal_losses(model: nn.Module) -> None:
    losses = losses_of(model, TEXTS)
    assert losses[5] == pytest.approx(losses[6], abs=1e-6)


def test_token_records_match_a_plain_loop(model: nn.Module) -> None:
    records = token_records(model, tokenized(TEXTS), block_size=BLOCK_SIZE, batch_tokens=20)
    by_hand = [
        (i, position, nll, is_greedy)
        for i, text in enumerate(TEXTS)
        for position, (nll, is_greedy) in enumerate(tokens_by_hand(model, text, BLOCK_SIZE))
    ]
    sequence, position, nll, is_greedy = zip(*by_hand, strict=True)
    assert records.sequence.tolist() == list(sequence)
    assert records.position.tolist() == list(position)
    assert records.nll.tolist() == pytest.approx(nll, abs=1e-5)
    assert records.is_greedy.tolist() == list(is_greedy)
    assert records.nll.dtype == np.float32


def test_a_model_that_always_says_one_token_is_greedy_only_there() -> None:
    model = built("lstm")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.get_parameter("bias")[3] = 5.0
    texts = tokenized([[3, 1, 3], [2]])
    records = token_records(model, texts, block_size=2, batch_tokens=4)
    assert records.is_greedy.tolist() == [True, False, True, False, False, False]
    log_sum = math.log(math.exp(5) + VOCAB_SIZE - 1)
    miss, hit = log_sum, log_sum - 5
    assert records.nll.tolist() == pytest.approx([hit, miss, hit, miss, miss, miss], abs=1e-6)


def test_token_records_sum_to_the_sample_losses(model: nn.Module) -> None:
    texts = tokenized(TEXTS)
    records = token_records(model, texts, block_size=BLOCK_SIZE, batch_tokens=9)
    sums = np.bincount(records.sequence, weights=records.nll)
    assert sums.tolist() == pytest.approx(
        (np.array(losses_of(model, TEXTS)) * texts.num_tokens).tolist(), abs=1e-4
    )


def test_token_losses_match_a_plain_loop(model: nn.Module) -> None:
    by_hand = [nll for text in TEXTS for nll, _ in tokens_by_hand(model, text, BLOCK_SIZE)]
    found = token_losses(model, tokenized(TEXTS), block_size=BLOCK_SIZE, batch_tokens=20)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx(by_hand, abs=1e-5)


@given(order=st.permutations(range(len(TEXTS))), batch=st.sampled_from([1, 2, 7, 30, 1000]))
def test_token_losses_do_not_depend_on_batches_padding_or_row_order(
    order: list[int], batch: int
) -> None:
    for model in (LSTM, GPT2):
        ends = tokenized(TEXTS).num_tokens.cumsum()[:-1]
        one = token_losses(model, tokenized(TEXTS), block_size=BLOCK_SIZE, batch_tokens=20)
        texts = tokenized([TEXTS[i] for i in order])
        other = token_losses(model, texts, block_size=BLOCK_SIZE, batch_tokens=batch)
        parts = np.split(one, ends)
        assert other == pytest.approx(np.concatenate([parts[i] for i in order]), abs=1e-5)


@pytest.mark.parametrize("block_size", [2, BLOCK_SIZE])
def test_the_mean_of_token_losses_is_the_sample_loss_to_the_last_bit(
    model: nn.Module, block_size: int
) -> None:
    texts = tokenized(TEXTS)
    nll = token_losses(model, texts, block_size=block_size, batch_tokens=20)
    means = sample_losses_from_tokens(nll, texts, block_size=block_size)
    assert means.tolist() == losses_of(model, TEXTS, block_size=block_size, batch=20)


def test_no_texts_have_no_losses_and_no_records(model: nn.Module) -> None:
    assert losses_of(model, []) == []
    assert token_losses(model, tokenized([]), block_size=BLOCK_SIZE, batch_tokens=9).size == 0
    records = token_records(model, tokenized([]), block_size=BLOCK_SIZE, batch_tokens=9)
    columns = (records.sequence, records.position, records.nll, records.is_greedy)
    assert [len(column) for column in columns] == [0, 0, 0, 0]
    assert records.is_greedy.dtype == np.bool_


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored(model: nn.Module, training: bool) -> None:
    model.train(training)
    losses = losses_of(model, TEXTS)
    assert model.training is training
    assert losses == losses_of(model.eval(), TEXTS)


def test_dropout_and_gradients_are_off(model: nn.Module) -> None:
    model.train()
    assert losses_of(model, TEXTS) == losses_of(model, TEXTS)
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()


@pytest.mark.parametrize("piece", [1, 7, 20])
def test_means_from_tokens_do_not_depend_on_how_much_is_read_at_a_time(
    monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    texts = TokenizedTexts.from_ids(TEXTS, END_OF_TEXT)
    nll = np.random.default_rng(0).random(int(texts.num_tokens.sum()), dtype=np.float32)
    whole = sample_losses_from_tokens(nll, texts, block_size=BLOCK_SIZE)
    ends = np.cumsum(texts.num_tokens)[:-1]
    assert whole == pytest.approx([part.mean() for part in np.split(nll, ends)], rel=1e-6)
    monkeypatch.setattr(scratch, "PIECE", piece)
    assert (sample_losses_from_tokens(nll, texts, block_size=BLOCK_SIZE) == whole).all()
