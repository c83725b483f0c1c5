"""One pass of a model over texts -> a row per predicted token, the input of every audit."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.schema import TOKEN_RECORDS


@dataclass(frozen=True)
class TokenRecords:
    """Predicted tokens of some sequences, one row each, sorted by sequence, then position.

    Attributes:
        sequence: Index of the sequence.
        position: Index of the token in the text; the last token is the end of text.
        nll: Negative log-likelihood, nats.
        is_greedy: Whether the token is the most likely one given all tokens before it.
        mean: Expectation of the log-probability over the vocabulary at that position, nats.
        std: Standard deviation of the log-probability there, nats.
        greedy_id: The most likely id there.
    """

    sequence: NDArray[np.int64]
    position: NDArray[np.int64]
    nll: NDArray[np.float32]
    is_greedy: NDArray[np.bool_]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    greedy_id: NDArray[np.int32]

    def select_sequences(self, first: int, last: int) -> "TokenRecords":
        """Records of the sequences ``first`` to ``last - 1``, which are numbered from 0 again."""
        rows = slice(*np.searchsorted(self.sequence, [first, last]))
        return TokenRecords(
            self.sequence[rows] - first,
            self.position[rows],
            self.nll[rows],
            self.is_greedy[rows],
            self.mean[rows],
            self.std[rows],
            self.greedy_id[rows],
        )

    def to_table(self) -> pl.DataFrame:
        """The records as a ``TOKEN_RECORDS`` table."""
        return pl.DataFrame(
            {name: getattr(self, name) for name in TOKEN_RECORDS}, schema=TOKEN_RECORDS
        )

    @classmethod
    def from_table(cls, table: pl.DataFrame) -> "TokenRecords":
        """The records of a ``TOKEN_RECORDS`` table."""
        return cls(**{name: table[name].to_numpy() for name in TOKEN_RECORDS})
