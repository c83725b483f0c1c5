"""Builders of what attacks read."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gdc.audit.attack_inputs import AttackInputs, Population, References, TokenTable
from gdc.audit.attacks import length


def tokens_of(
    log_probs: Sequence[Sequence[float]],
    means: Sequence[Sequence[float]] | None = None,
    stds: Sequence[Sequence[float]] | None = None,
) -> TokenTable:
    """A token table from one list of log-probabilities for each text; mean 0 and deviation 1."""

    def joined(values: Sequence[Sequence[float]]) -> NDArray[np.float32]:
        return np.array([v for text in values for v in text], dtype=np.float32)

    return TokenTable(
        text=np.repeat(np.arange(len(log_probs)), [len(text) for text in log_probs]),
        log_prob=joined(log_probs),
        mean=joined(means or [[0.0] * len(text) for text in log_probs]),
        std=joined(stds or [[1.0] * len(text) for text in log_probs]),
        num_texts=len(log_probs),
    )


def texts_of_losses(losses: Sequence[float]) -> TokenTable:
    """Texts of one token with these losses."""
    return tokens_of([[-loss] for loss in losses])


def all_out(losses: Sequence[Sequence[float]]) -> References:
    """References that saw none of the texts."""
    table = np.array(losses)
    return References(table, np.zeros(table.shape, dtype=bool))


def inputs_of(
    seed: int, num_texts: int, num_models: int = 4, num_population: int = 6
) -> AttackInputs:
    """Random inputs: 1 to 12 tokens for each text, each text seen by about half of the models."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 13, num_texts)
    size = int(lengths.sum())
    seen = rng.random((num_texts, num_models)) < 0.5
    seen[0] = np.arange(num_models) % 2 == 0
    unseen = np.zeros((num_population, num_models), dtype=bool)
    return AttackInputs(
        tokens=TokenTable(
            text=np.repeat(np.arange(num_texts), lengths),
            log_prob=-rng.exponential(3, size).astype(np.float32),
            mean=-rng.exponential(3, size).astype(np.float32),
            std=rng.exponential(1, size).astype(np.float32),
            num_texts=num_texts,
        ),
        is_greedy=rng.random(size) < 0.5,
        token_reference=-rng.exponential(3, size).astype(np.float32),
        zlib_sizes=rng.integers(9, 40, num_texts),
        reference_loss=rng.exponential(3, num_texts),
        references=References(rng.exponential(3, seen.shape).astype(np.float32), seen),
        population=Population(
            rng.exponential(3, num_population), References(rng.exponential(3, unseen.shape), unseen)
        ),
        base=References(rng.exponential(3, (num_texts, 1)), np.zeros((num_texts, 1), dtype=bool)),
        base_tokens=-rng.exponential(3, size).astype(np.float32),
        base_loss=rng.exponential(3, num_texts),
        min_k_share=0.3,
        is_variance_fixed=False,
        rmia_gamma=1.0,
        rmia_offline=0.3,
    )


def reordered(inputs: AttackInputs, order: NDArray[np.int64]) -> AttackInputs:
    """The same texts in another order."""
    tokens, references, base = inputs.tokens, inputs.references, inputs.base
    assert references is not None
    assert base is not None
    assert inputs.base_tokens is not None
    assert inputs.base_loss is not None
    assert inputs.zlib_sizes is not None
    assert inputs.reference_loss is not None
    assert inputs.token_reference is not None
    assert inputs.is_greedy is not None
    rows = np.concatenate([np.flatnonzero(tokens.text == text) for text in order])
    return replace(
        inputs,
        tokens=TokenTable(
            text=np.repeat(np.arange(len(order)), length(tokens).astype(int)[order]),
            log_prob=tokens.log_prob[rows],
            mean=tokens.mean[rows],
            std=tokens.std[rows],
            num_texts=tokens.num_texts,
        ),
        is_greedy=inputs.is_greedy[rows],
        token_reference=inputs.token_reference[rows],
        zlib_sizes=inputs.zlib_sizes[order],
        reference_loss=inputs.reference_loss[order],
        references=References(references.loss[order], references.seen[order]),
        base=References(base.loss[order], base.seen[order]),
        base_tokens=inputs.base_tokens[rows],
        base_loss=inputs.base_loss[order],
    )
