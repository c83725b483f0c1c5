"""Builders of what attacks read."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gdc.audit.attack_inputs import AttackInputs, Population, References, TokenTable


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
        min_k_share=0.3,
        is_variance_fixed=False,
        rmia_gamma=1.0,
        rmia_offline=0.3,
    )
