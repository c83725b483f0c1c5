"""Recorded losses -> epsilon, the loss below which a sample counts as learned."""

from collections.abc import Sequence
from typing import Final

from gdc.config import Threshold
from gdc.errors import DataError
from gdc.recording.trace import Trace, TraceScan
from gdc.statistics import streaming_quantile

# Of more losses of a run than this, epsilon is a quantile of a part of them, as reading all of them
# once more takes as long as all the rest. The part costs as much as reading 120 million.
_MAX_EXACT_LOSSES: Final = 2**27


def epsilon_of(traces: Sequence[Trace | TraceScan], mode: str, threshold: Threshold) -> float:
    """The forget threshold in nats per token: as given, or a quantile of all recorded losses.

    Of a run with more than 2^27 (134 million) losses, only 2^23 (8.4 million), those of n samples,
    are read: the rows are cut into 64 equal parts, and each gives a block of neighbouring rows
    whose place a fixed seed draws. The same trace has the same epsilon, however it is cut into
    shards. The rank of epsilon among all losses is then a little off: by less than 1/64 where
    samples are sorted by loss, and where their order has nothing to do with it by
    sqrt(q (1 - q) / n) at a quantile q (standard error).

    Raises:
        DataError: The threshold is a quantile and no loss is recorded.
    """
    if threshold.kind == "absolute":
        return threshold.value
    losses = [
        (trace.losses if isinstance(trace, Trace) else trace.samples).select(trace.columns(mode))
        for trace in traces
    ]
    num_samples = [
        trace.index.height if isinstance(trace, Trace) else trace.num_samples for trace in traces
    ]
    for run, (table, num_rows) in enumerate(zip(losses, num_samples, strict=True)):
        if _is_read_in_part(num_rows, len(traces[run].columns(mode))):
            rows = streaming_quantile.spread_rows(table, num_rows)
            losses[run], num_samples[run] = rows.lazy(), rows.height
    epsilon = streaming_quantile.quantile(losses, threshold.value, num_samples)
    if epsilon is None:
        raise DataError(
            f"{traces[0].name}: expected {mode} losses, got no loss in {len(traces)} run(s). "
            "Record some (in the pipeline: stage train), or change score.mode (--mode)."
        )
    return epsilon


def part_warnings(threshold: Threshold, num_samples: int, num_checkpoints: int) -> list[str]:
    """A sentence on how exact epsilon is, where it is a quantile of a part of the losses."""
    if threshold.kind == "absolute" or not _is_read_in_part(num_samples, num_checkpoints):
        return []
    share = threshold.value
    num_read = streaming_quantile.num_spread_rows(num_samples, num_checkpoints)
    error = (share * (1 - share) / num_read) ** 0.5
    return [
        f"epsilon is the quantile {share} of the losses of {num_read:,} samples, in "
        f"{streaming_quantile.NUM_PLACES} places spread over {num_samples:,}. Among all losses its "
        f"rank has a standard error of {error:.1g} where the order of the samples has nothing to "
        f"do with their losses, and is off by less than {1 / streaming_quantile.NUM_PLACES:.2g} "
        "where they are sorted by them."
    ]


def _is_read_in_part(num_samples: int, num_checkpoints: int) -> bool:
    return num_samples * num_checkpoints > _MAX_EXACT_LOSSES
