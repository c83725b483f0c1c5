"""Token ids and weights -> labels of 64 bits that hold both, which no trainer takes apart.

A trainer removes columns that it does not know, pads, packs and cuts samples, and sends them from
one process to another. Labels are one of the few things that come through all of it, position by
position, and a label of 64 bits has room for a token id (the lower half) and a weight of 32 bits
(the upper half). A weight of 1 is written as 0, so its labels are ordinary labels; a weight of 0 is
written as -100, which every loss ignores.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

IGNORED: Final = -100
ID_BITS: Final = 32
# The bits of the float32 number 1, which stand for no change.
ONE_BITS: Final = 0x3F800000


def weigh_labels(
    labels: Sequence[int] | NDArray[np.int64], weights: float | NDArray[np.floating]
) -> NDArray[np.int64]:
    """Write a weight into each label, in place of one that it holds.

    Args:
        labels: Token ids or labels of this function, (T,); ``IGNORED`` stays as it is.
        weights: One for all of them, or (T,).

    Returns:
        Labels, int64 (T,).
    """
    given = np.asarray(labels, dtype=np.int64)
    ids = np.where(given == IGNORED, given, given & (2**ID_BITS - 1))
    weight = np.ascontiguousarray(np.broadcast_to(np.asarray(weights, np.float32), ids.shape))
    code = weight.view(np.uint32) ^ np.uint32(ONE_BITS)
    weighted = ids | (code.astype(np.uint64) << np.uint64(ID_BITS)).view(np.int64)
    return np.where((ids == IGNORED) | (weight == 0), IGNORED, weighted)
