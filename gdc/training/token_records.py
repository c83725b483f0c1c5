"""One pass of a model over texts: what every audit is computed from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenRecords:
    """One row is a predicted token of a sequence, sorted by sequence, then position.

    ``position`` p is the p-th id of the text (the last is its end of text). ``nll`` is float32,
    nats; ``is_greedy`` tells whether the token is the most likely one given all before it.
    ``mean`` and ``std`` float32 are the expectation of the log-probability over the vocabulary at
    that position and its standard deviation, nats; ``greedy_id`` int32 is the most likely id.
    """

    sequence: NDArray[np.int64]
    position: NDArray[np.int64]
    nll: NDArray[np.float32]
    is_greedy: NDArray[np.bool_]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    greedy_id: NDArray[np.int32]

    def select_sequences(self, first: int, last: int) -> "TokenRecords":
        """Records of the sequences from ``first`` to before ``last``, counted from 0 again."""
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
