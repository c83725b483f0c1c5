"""Builders of traces and rules, and strategies of loss curves."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from hypothesis import strategies as st
from numpy.typing import NDArray

from gdc.config import ScoreConfig
from gdc.recording.trace import Trace
from gdc.scores import score_samples
from gdc.scores.summary import ScoresSummary
from gdc.statistics import ranks
from tests.builders import trace_of

NAN = float("nan")
Curves = Mapping[str, Sequence[float]]


def config(**changes: object) -> ScoreConfig:
    values = {
        "mode": "online",
        "num_early": 1,
        "hysteresis": 0.1,
        "epsilon": {"kind": "absolute", "value": 1.0},
        "enabled": (),
    }
    return ScoreConfig.model_validate({**values, **changes})


def score(
    *runs: Curves | Trace, seed: int = 0, copies: int = 1, **changes: object
) -> tuple[pl.DataFrame, ScoresSummary]:
    traces = [run if isinstance(run, Trace) else trace_of(run) for run in runs]
    num_copies = traces[0].index.select("sample_id", num_copies=pl.lit(copies, pl.Int64))
    return score_samples(traces, [num_copies], config(**changes), seed=seed)[:2]


def shuffled(trace: Trace, seed: int) -> Trace:
    order = np.random.default_rng(seed).permutation(trace.index.height)
    return replace(trace, index=trace.index[order], losses=trace.losses.collect()[order].lazy())


# Quarters are exact in binary, so the laws below can be asserted with ==.
losses = st.integers(min_value=0, max_value=8).map(lambda quarters: quarters / 4)
maybe_losses = st.one_of(losses, st.just(NAN))


@st.composite
def curves(draw: st.DrawFn, values: st.SearchStrategy[float] = losses) -> dict[str, list[float]]:
    ids = draw(
        st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=6, unique=True)
    )
    length = draw(st.integers(2, 9))
    return {i: draw(st.lists(values, min_size=length, max_size=length)) for i in ids}


def agreement(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Rank correlation of two scores of the same samples."""
    return ranks.spearman(ranks.codes(ours), ranks.codes(theirs), np.ones(len(ours)))
