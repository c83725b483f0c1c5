"""Scores of what stage train records besides the trace: hand-made answers, plain loops, laws."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdc.errors import ConfigError, DataError
from gdc.recording.trace import Trace
from gdc.schema import SELF_INFLUENCE, TOKEN_LOSSES
from gdc.scores import score_samples
from gdc.statistics.windows import VOTED
from tests.builders import trace_of, with_mixed_records
from tests.scores.builders import config

Tokens = Mapping[str, tuple[Sequence[float], Sequence[float]]]
BOTH = ("hard_token_drop", "self_influence")
# Held-out texts of one token that loses half of its loss: first losses of 2.0, 2.25, ... 6.75.
HALVING: Tokens = {f"h{k:02d}": ([2 + k / 4], [1 + k / 8]) for k in range(20)}


def token_table(tokens: Tokens) -> pl.DataFrame:
    rows = [
        (sample, *(list(map(float, look)) for look in looks)) for sample, looks in tokens.items()
    ]
    return pl.DataFrame(rows, schema=TOKEN_LOSSES, orient="row")


def recorded(tokens: Tokens, heldout: Tokens, gains: Mapping[str, float | None]) -> Trace:
    table = pl.DataFrame(list(gains.items()), schema=SELF_INFLUENCE, orient="row")
    trace = trace_of({sample: [2.0, 1.0] for sample in {**tokens, **gains}})
    return replace(trace, tokens=(token_table(tokens), token_table(heldout)), gains=table)


def scores_of(*traces: Trace, names: Sequence[str] = BOTH) -> pl.DataFrame:
    ids = traces[0].index.select("sample_id")
    return score_samples(traces, [ids], config(enabled=names), seed=0).samples.select(
        "sample_id", *names
    )


def drops_of(tokens: Tokens, heldout: Tokens = HALVING) -> list[float | None]:
    return scores_of(recorded(tokens, heldout, {}), names=BOTH[:1])["hard_token_drop"].to_list()


@pytest.mark.parametrize(
    ("early", "late", "drop"),
    [
        pytest.param([4], [2], 0.0, id="as expected"),
        pytest.param([4], [0.5], 1.5, id="a nat and a half more than its half"),
        pytest.param([1, 4, 1, 1], [0, 3, 0, 0], -1.0, id="of four tokens one"),
        pytest.param([1, 4, 1, 1, 1, 1, 1, 1, 1], [9, 0, *[9] * 7], 2.0, id="of nine one"),
        pytest.param([5, 1, 1, 1, 1, 1, 1, 3, 1, 1], [*[1] * 10], 1.0, id="of ten two"),
        pytest.param([4, 4, 4, 4, 4], [1, 9, 9, 9, 9], 1.0, id="of equally hard tokens the first"),
        pytest.param([10], [5], 5 - 6.75 / 2, id="beyond the hardest held-out text"),
        pytest.param([1], [1], -1.0, id="beyond the easiest"),
    ],
)
def test_known_drops(early: list[float], late: list[float], drop: float) -> None:
    assert drops_of({"a": (early, late)}) == pytest.approx([drop], abs=1e-9)


PEAKS = ("worst_window_drop", "recited_run_drop")
BIT = math.log(2)


def peaks_of(tokens: Tokens, heldout: Tokens = HALVING) -> list[tuple[float, float]]:
    """Both peak scores in nats."""
    table = scores_of(recorded(tokens, heldout, {}), names=PEAKS)
    return [(window * BIT, run * BIT) for window, run in table.select(PEAKS).iter_rows()]


@pytest.mark.parametrize(
    ("early", "late", "window", "run"),
    [
        # Half of the early loss is expected; a token is recited below a loss of 0.693.
        pytest.param([4] * 8, [2] * 8, 0, 0, id="as unseen text"),
        pytest.param([4] * 3, [0.5] * 3, 4.5, 4.5, id="shorter than a window"),
        pytest.param([4] * 16, [2] * 4 + [0.25] * 8 + [2] * 4, 14, 14, id="a secret in a template"),
        pytest.param([4] * 16, [0.25] * 16, 14, 28, id="longer than a window"),
        pytest.param([4] * 8, [1] * 8, 8, 0, id="learned, yet not recited"),
        pytest.param([4] * 5, [0.5, 0.5, 3, 0.5, 0.5], 5, 3, id="recited in two runs"),
    ],
)
def test_known_peaks(early: list[float], late: list[float], window: float, run: float) -> None:
    assert peaks_of({"a": (early, late)}) == [pytest.approx((window, run), abs=1e-6)]


@given(
    tokens=st.dictionaries(
        st.sampled_from("abcd"),
        st.lists(st.tuples(looks := st.integers(0, 28).map(lambda q: q / 4), looks), min_size=1),
        min_size=1,
    )
)
def test_peaks_match_a_plain_loop(tokens: dict[str, list[tuple[float, float]]]) -> None:
    found = peaks_of({name: tuple(zip(*pairs, strict=True)) for name, pairs in tokens.items()})  # type: ignore[misc]
    for (window, run), (_, pairs) in zip(found, sorted(tokens.items()), strict=True):
        drops = [min(max(early, 2), 6.75) / 2 - late for early, late in pairs]
        size = min(8, len(drops))
        sums = [sum(drops[start : start + size]) for start in range(len(drops) - size + 1)]
        assert window == pytest.approx(max(sums), abs=1e-6)
        marked = [(drop, late < BIT) for drop, (_, late) in zip(drops, pairs, strict=True)]
        runs = [list(part) for is_in, part in groupby(marked, lambda token: token[1]) if is_in]
        expected = max((sum(drop for drop, _ in part) for part in runs), default=0)
        assert run == pytest.approx(expected, abs=1e-6)


ATTACKS = ("window_votes_drop", "error_balance_drop")


@pytest.mark.parametrize(
    ("early", "late", "votes", "balance"),
    [
        pytest.param([4] * 4, [1] * 4, 1, 1, id="every token fell more"),
        pytest.param([4] * 4, [3] * 4, 0, -1, id="every token fell less"),
        # Windows of 2: three of which one falls more; of 3: both fall less; longer: the whole.
        pytest.param([4] * 4, [1, 1, 4, 4], (1 / 3 + 0) / 10, -3 / 5, id="half of them"),
        pytest.param([4] * 4, [0, 0, 0, 0], 1, 1, id="by heart"),
        # Windows of 2: two of three; all others fall more.
        pytest.param(
            [4] * 4,
            [3, 2, 0, 0],
            (2 / 3 + 9) / 10,
            math.exp(-5 / 4),
            id="one error after the first",
        ),
    ],
)
def test_known_siblings_of_membership_attacks(
    early: list[float], late: list[float], votes: float, balance: float
) -> None:
    table = scores_of(recorded({"a": (early, late)}, HALVING, {}), names=ATTACKS)
    assert table.row(0)[1:] == pytest.approx((votes, balance), abs=1e-9)


@given(seed=st.integers(0, 2**16))
def test_siblings_of_membership_attacks_match_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = ragged(rng, 5, "s")
    found = scores_of(recorded(tokens, HALVING, {}), names=ATTACKS)
    for (_, votes, balance), (early, late) in zip(found.rows(), tokens.values(), strict=True):
        drops = [min(max(e, 2), 6.75) / 2 - end for e, end in zip(early, late, strict=True)]
        bounds = []
        # A sum that is 0 by hand is rounded, by the fitted line, to either side.
        for bar in (1e-9, -1e-9):
            shares = []
            for size in (min(window, len(drops)) for window in VOTED):
                sums = [sum(drops[i : i + size]) for i in range(len(drops) - size + 1)]
                shares.append(sum(total > bar for total in sums) / len(sums))
            bounds.append(sum(shares) / len(shares))
        assert bounds[0] - 1e-9 <= votes <= bounds[1] + 1e-9
        errors = [drop for drop, loss in zip(drops[1:], late[1:], strict=True) if loss >= BIT]
        expected = math.exp(-sum(late) / len(late))
        if len(errors) >= 2:
            expected = sum(errors) / sum(map(abs, errors))
        assert balance == pytest.approx(expected, abs=1e-6)


def drop_by_loop(looks: tuple[Sequence[float], Sequence[float]]) -> tuple[float, float]:
    """Mean early loss and mean drop of the hardest fifth."""
    pairs = sorted(zip(*looks, strict=True), key=lambda pair: -pair[0])
    hard = pairs[: max(1, len(pairs) // 5)]
    early, late = zip(*hard, strict=True)
    return sum(early) / len(hard), (sum(early) - sum(late)) / len(hard)


def ragged(
    rng: np.random.Generator, num_samples: int, prefix: str
) -> dict[str, tuple[list[float], list[float]]]:
    """Sixteenths from 0 to 10, so that ties are usual; 1 to 23 tokens."""
    found = {}
    for k in range(num_samples):
        early, late = rng.integers(0, 160, (2, rng.integers(1, 24))) / 16
        found[f"{prefix}{k:02d}"] = (early.tolist(), late.tolist())
    return found


@given(seed=st.integers(0, 2**16))
def test_drops_match_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens, heldout = ragged(rng, 12, "s"), ragged(rng, 25, "h")
    known, drops = np.array([drop_by_loop(looks) for looks in heldout.values()]).T
    line = np.polyfit(known, drops, 1)
    expected = []
    for looks in tokens.values():
        early, drop = drop_by_loop(looks)
        expected.append(drop - np.polyval(line, np.clip(early, known.min(), known.max())))
    assert drops_of(tokens, heldout) == pytest.approx(expected, abs=1e-9)


@given(seed=st.integers(0, 2**16))
def test_tokens_that_are_not_the_hardest_do_not_count(seed: int) -> None:
    """At either look: they stay easier than the others."""
    rng = np.random.default_rng(seed)
    hard = [(7 + rng.random(2)).tolist(), rng.random(2).tolist()]
    easy = rng.random((2, 2, 8))
    one, other = (
        {"a": tuple(h + e.tolist() for h, e in zip(hard, look, strict=True))} for look in easy
    )
    assert drops_of(one) == drops_of(other)


def test_where_heldout_texts_are_all_alike_their_mean_drop_is_expected() -> None:
    assert drops_of({"a": ([6], [1])}, {f"h{k:02d}": ([4], [2 + k % 2]) for k in range(20)}) == [
        pytest.approx(5 - 1.5)
    ]


def test_a_self_influence_is_the_recorded_gain_and_the_mean_over_runs() -> None:
    runs = [
        recorded({}, {}, {"b": 2.0, "a": 1.0, "c": None}),
        recorded({}, {}, {"c": None, "a": 3.0, "b": 5.0}),
    ]
    table = scores_of(*runs, names=("self_influence",))
    assert table.rows() == [("a", 2.0), ("b", 3.5), ("c", None)]


@settings(max_examples=12)
@given(seed=st.integers(0, 2**16))
def test_recorded_scores_are_never_nan_and_do_not_depend_on_row_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens, heldout = ragged(rng, 30, "s"), ragged(rng, 30, "h")
    gains = {
        sample: float(value) for sample, value in zip(tokens, rng.gamma(0.1, 1, 30), strict=True)
    }
    trace = recorded(tokens, heldout, {**gains, "s03": None})
    table = scores_of(trace)
    assert scores_of(with_mixed_records(trace, seed)).equals(table)
    assert table.schema == {"sample_id": pl.String, **dict.fromkeys(BOTH, pl.Float64)}
    assert not table.select(pl.any_horizontal(pl.col(BOTH).is_nan().any())).item()
    assert table.null_count().row(0) == (0, 0, 1)


@pytest.mark.parametrize(
    ("name", "need", "switch"),
    [
        ("hard_token_drop", "tokens", "train.token_losses: true"),
        ("self_influence", "gain", "train.self_influence: true"),
        ("base_gap", "base", "model.kind: pretrained"),
    ],
)
def test_a_run_without_the_record_is_refused(name: str, need: str, switch: str) -> None:
    trace = trace_of({"a": [2.0, 1.0]})
    expected = rf"score\.enabled: {name} needs {need}, got none\. Set {switch} and re-run stage tr"
    with pytest.raises(ConfigError, match=expected):
        scores_of(trace, names=(name,))


def test_too_few_heldout_samples_are_refused() -> None:
    few = dict(list(HALVING.items())[:19])
    expected = "hard_token_drop: expected at least 20 held-out samples .* got 19"
    with pytest.raises(DataError, match=expected):
        drops_of({"a": ([1], [1])}, few)
