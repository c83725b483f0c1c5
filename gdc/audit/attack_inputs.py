"""What membership attacks read: log-probabilities of tokens, and losses of reference models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gdc.errors import DataError


@dataclass(frozen=True)
class TokenTable:
    """One row is a predicted token under the audited model; rows are sorted by ``text``.

    ``text`` counts from 0. ``log_prob`` is the token's, ``mean`` and ``std`` are the expectation of
    the log-probability over the vocabulary at that position and its standard deviation; nats.

    Raises:
        DataError: The columns differ in length, the rows are not sorted by text, a text is not in
            [0, ``num_texts``), a number is not finite.
    """

    text: NDArray[np.int64]
    log_prob: NDArray[np.floating]
    mean: NDArray[np.floating]
    std: NDArray[np.floating]
    num_texts: int

    def __post_init__(self) -> None:
        columns = (self.log_prob, self.mean, self.std)
        lengths = [len(self.text), *(len(column) for column in columns)]
        if len(set(lengths)) > 1:
            raise DataError(f"token table: expected columns of one length, got lengths {lengths}")
        if np.any(np.diff(self.text) < 0):
            raise DataError("token table: expected rows sorted by text. Sort them first.")
        if len(self.text) and not 0 <= self.text[0] <= self.text[-1] < self.num_texts:
            raise DataError(
                f"token table: expected texts in [0, {self.num_texts}), got "
                f"{self.text[0]} to {self.text[-1]}"
            )
        _require_finite("token table", *columns)


@dataclass(frozen=True)
class References:
    """Losses under reference models: a row is a text, a column is a model.

    ``seen`` tells whether that model was trained on that text (an *in* loss) or not (*out*).
    ``token_loss`` holds the loss of every token of the texts, one text after the other: its mean
    under the models that did not see the text, nats; None: not recorded.

    Raises:
        DataError: The shapes differ or a loss is not finite.
    """

    loss: NDArray[np.floating]
    seen: NDArray[np.bool_]
    token_loss: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        if self.loss.ndim != 2 or self.loss.shape != self.seen.shape:
            raise DataError(
                "references: expected loss and seen of one shape (texts, models), got "
                f"{self.loss.shape} and {self.seen.shape}"
            )
        _require_finite("references", self.loss)
        if self.token_loss is not None:
            _require_finite("references", self.token_loss)


def without_tokens(references: References | None) -> References | None:
    """The losses of the texts alone."""
    return None if references is None else replace(references, token_loss=None)


def join_references(parts: Sequence[References | None]) -> References | None:
    """Losses of the texts of all parts, without tokens; None: not of each part."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return References(
        np.concatenate([part.loss for part in known]), np.concatenate([part.seen for part in known])
    )


@dataclass(frozen=True)
class Population:
    """Texts of the same source that the audited model never saw, the comparison of ``rmia``.

    ``loss`` is theirs under the audited model, ``references`` theirs under the reference models.

    Raises:
        DataError: There is no text, the number of rows differs or a loss is not finite.
    """

    loss: NDArray[np.floating]
    references: References

    def __post_init__(self) -> None:
        if not len(self.loss) == len(self.references.loss) > 0:
            raise DataError(
                "population: expected a loss and a row of references for at least one text, got "
                f"{len(self.loss)} and {len(self.references.loss)}"
            )
        _require_finite("population", self.loss)


@dataclass(frozen=True)
class AttackInputs:
    """What attacks may read; each is called with the fields that its ``needs`` name.

    Attributes:
        tokens: Of the audited texts; every other array has a row for each of them.
        is_greedy: Whether each token is the most likely one given the true tokens before it.
        token_reference: Log-probability of each token under models that did not see its text.
        zlib_sizes: Bytes of the compressed text.
        reference_loss: Mean loss under models that did not see the text.
        references: Losses under the reference models.
        base: Losses under the pretrained model that training started from, a reference of its own.
        base_tokens: Log-probability of each token under it.
        base_loss: Loss of each text under it.
        population: Texts that no model was trained on.
        min_k_share: Share of the tokens, in (0, 1], that ``min_k`` and ``min_k_plus_plus`` read.
        is_variance_fixed: Whether ``lira`` pools one variance over all texts; few models need it.
        rmia_gamma: How many times likelier than a population text a member is, at least 1.
        rmia_offline: The ``a`` of ``rmia``, in [0, 1].
    """

    tokens: TokenTable
    is_greedy: NDArray[np.bool_] | None = None
    token_reference: NDArray[np.floating] | None = None
    zlib_sizes: NDArray[np.int64] | None = None
    reference_loss: NDArray[np.floating] | None = None
    references: References | None = None
    base: References | None = None
    base_tokens: NDArray[np.floating] | None = None
    base_loss: NDArray[np.floating] | None = None
    population: Population | None = None
    min_k_share: float | None = None
    is_variance_fixed: bool | None = None
    rmia_gamma: float | None = None
    rmia_offline: float | None = None


def _require_finite(where: str, *columns: NDArray[np.floating]) -> None:
    num_bad = sum(int((~np.isfinite(column)).sum()) for column in columns)
    if num_bad:
        raise DataError(f"{where}: expected finite numbers, got {num_bad} that are not")
