"""Token records made by hand -> which secrets are extracted, and at what rate."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.audit.extraction import Secrets, audit_canaries, canary_metrics, secret_starts
from gdc.schema import AUDIT, CANARIES
from gdc.training.token_records import TokenRecords
from tests.builders import audit_table

# One token of a text: its loss in nats, and whether greedy decoding chooses it.
Token = tuple[float, bool]


def records_of(texts: Sequence[Sequence[Token]]) -> TokenRecords:
    rows = [
        (i, p, nll, greedy) for i, text in enumerate(texts) for p, (nll, greedy) in enumerate(text)
    ]
    sequence, position, nll, is_greedy = zip(*rows, strict=True) if rows else ((), (), (), ())
    return TokenRecords(
        sequence=np.array(sequence, dtype=np.int64),
        position=np.array(position, dtype=np.int64),
        nll=np.array(nll, dtype=np.float32),
        is_greedy=np.array(is_greedy, dtype=np.bool_),
        mean=np.zeros(len(nll), dtype=np.float32),
        std=np.ones(len(nll), dtype=np.float32),
        greedy_id=np.arange(len(nll), dtype=np.int32),
    )


def canaries_of(num_repeats: Sequence[int], family: str = "digits") -> pl.DataFrame:
    rows = [(f"{family}-{n}-{i:02d}", family, "p", "s", "ps", n) for i, n in enumerate(num_repeats)]
    return pl.DataFrame(rows, schema=CANARIES, orient="row")


def audit(
    texts: Sequence[Sequence[Token]], spans: Sequence[tuple[int, int]]
) -> list[tuple[int, float, bool]]:
    """(num_secret_tokens, secret_nll, extracted) of each text with its secret's span."""
    starts, ends = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    secrets = Secrets(records_of(texts), starts, ends)
    table = audit_canaries(canaries_of([1] * len(texts)), secrets, secrets, ["s"] * len(texts))
    assert table.schema == AUDIT
    return table.select("num_secret_tokens", "secret_nll", "extracted").rows()


@pytest.mark.parametrize(
    ("prefix", "text", "start"),
    [
        pytest.param([1, 2, 3], [1, 2, 3, 4, 5], 3, id="the prefix's ids begin the text"),
        pytest.param([1, 2, 3], [1, 2, 9, 5], 2, id="the boundary's bytes merged into one id"),
        pytest.param([7], [8, 9], 0, id="the whole prefix merged"),
        pytest.param([1, 2, 3], [1, 9, 3, 4], 1, id="equal ids after a difference do not count"),
        pytest.param([], [4, 5], 0, id="no prefix"),
        pytest.param([1, 2, 3], [1, 2], 2, id="a text that ends within its prefix"),
    ],
)
def test_known_secret_starts(prefix: list[int], text: list[int], start: int) -> None:
    assert secret_starts([prefix], [text]).tolist() == [start]


@given(prefix=st.lists(st.integers(0, 3)), rest=st.lists(st.integers(0, 3)))
def test_a_secret_starts_after_its_prefix_unless_ids_merge(
    prefix: list[int], rest: list[int]
) -> None:
    starts = secret_starts([prefix, prefix], [prefix + rest, [9, *rest]])
    assert starts.tolist() == [len(prefix), 0]


YES, NO = True, False


@pytest.mark.parametrize(
    ("text", "span", "expected"),
    [
        pytest.param(
            [(4.0, NO), (2.0, NO), (0.25, YES), (0.5, YES), (3.0, NO)],
            (2, 4),
            (2, 0.75, True),
            id="a prefix and an end of text that nobody guesses do not matter",
        ),
        pytest.param(
            [(0.0, YES), (0.25, YES), (1.5, NO), (0.0, YES)],
            (1, 3),
            (2, 1.75, False),
            id="one token missed",
        ),
        pytest.param(
            [(0.5, YES), (0.25, YES), (9.0, NO)],
            (0, 2),
            (2, 0.75, True),
            id="the whole text is secret",
        ),
        pytest.param(
            [(0.5, YES), (8.0, YES), (0.5, NO)],
            (1, 2),
            (1, 8.0, True),
            id="a likely token may have a high loss",
        ),
    ],
)
def test_known_audits(
    text: list[Token], span: tuple[int, int], expected: tuple[int, float, bool]
) -> None:
    assert audit([text], [span]) == [expected]


tokens = st.tuples(st.integers(0, 8).map(lambda quarters: quarters / 4), st.booleans())


@given(texts=st.lists(st.lists(tokens, min_size=2, max_size=6), max_size=6), data=st.data())
def test_audits_match_a_plain_loop(texts: list[list[Token]], data: st.DataObject) -> None:
    spans = [(data.draw(st.integers(0, len(text) - 2)), len(text) - 1) for text in texts]
    secrets = [text[a:b] for text, (a, b) in zip(texts, spans, strict=True)]
    assert audit(texts, spans) == [
        (len(secret), sum(nll for nll, _ in secret), all(greedy for _, greedy in secret))
        for secret in secrets
    ]


def test_rates_are_by_family_and_level_and_leave_the_twins_out_of_the_total() -> None:
    levels = [0, 0, 1, 1, 4, 4, 4, 4, 16]
    extracted = [YES, NO, NO, NO, YES, YES, YES, NO, YES]
    digits = canaries_of(levels).select("canary_id", "family", "num_repeats")
    words = canaries_of([1], "words").select(digits.columns)
    ids = pl.concat([words, digits]).with_columns(
        extracted=pl.Series([YES, *extracted]),
        exposure=pl.when(pl.col("num_repeats") > 0).then(pl.col("num_repeats") / 2.0),
    )
    rates = canary_metrics(audit_table(ids.to_dicts()))
    assert rates.extraction_rate == 5 / 8
    assert rates.extraction_rate_shifted == 0.0
    assert rates.exposure == {
        "digits": {"1": 0.5, "4": 2.0, "16": 8.0}, "words": {"1": 0.5},
    }  # fmt: skip
    assert rates.extraction == {
        "digits": {"0": 0.5, "1": 0.0, "4": 0.75, "16": 1.0},
        "words": {"1": 1.0},
    }
    assert rates.to_json()["extraction"] == rates.extraction
    assert list(rates.extraction["digits"]) == ["0", "1", "4", "16"]


def test_without_canaries_there_is_no_rate() -> None:
    metrics = canary_metrics(audit_table([]))
    assert (metrics.extraction_rate, metrics.extraction_rate_shifted) == (None, None)
    assert (metrics.extraction, metrics.exposure, metrics.fit_distance) == ({}, {}, {})
    assert audit([], []) == []


def test_twins_alone_have_rates_but_no_total() -> None:
    metrics = canary_metrics(audit_table([{"num_repeats": 0, "exposure": None}]))
    assert metrics.extraction_rate is None
    assert metrics.extraction == {"digits": {"0": 0.0}}


def test_exposure_goes_beyond_the_twins_by_a_fit_to_them() -> None:
    rng = np.random.default_rng(0)
    twins = rng.normal(20.0, 2.0, size=400)
    losses = [*twins.tolist(), 12.0, 1.0]
    table = canaries_of([0] * 400 + [8, 8])
    secrets = Secrets(
        records_of([[(loss, NO), (0.0, NO)] for loss in losses]),
        np.zeros(402, int),
        np.ones(402, int),
    )
    planted = audit_canaries(table, secrets, secrets, ["s"] * 402)[-2:]
    assert planted["exposure"].to_list() == [pytest.approx(np.log2(400))] * 2
    # Four standard deviations below the mean: -log2 of 3.2e-5, within what 400 twins tell.
    assert planted["exposure_fitted"][0] == pytest.approx(14.9, abs=4.0)
    assert planted["fit_is_beyond"].to_list() == [False, True]
    assert planted["fit_distance"].to_list() == [pytest.approx(0.0, abs=0.06)] * 2


def test_what_could_not_be_shifted_is_unknown() -> None:
    records = records_of([[(1.0, YES), (1.0, YES)]])
    at = Secrets(records, np.zeros(1, int), np.ones(1, int))
    behind = Secrets(records, np.ones(1, int), np.array([2]))
    table = canaries_of([4])
    assert audit_canaries(table, at, behind, ["s"])["extracted_shifted"].to_list() == [True]
    unshifted = audit_canaries(table, at, at, ["s"])
    assert unshifted["extracted_shifted"].to_list() == [None]
    assert unshifted["secret_nll_shifted"].to_list() == [None]


def test_a_canary_is_exposed_among_the_twins_of_its_own_family() -> None:
    digits, words = canaries_of([0, 0, 0, 0, 8, 1]), canaries_of([0, 0, 4], "words")
    losses = [4.0, 3.0, 2.0, 1.0, 0.5, 2.5, 9.0, 8.0, 8.5]
    secrets = Secrets(
        records_of([[(loss, NO), (0.0, NO)] for loss in losses]), np.zeros(9, int), np.ones(9, int)
    )
    table = audit_canaries(pl.concat([digits, words]), secrets, secrets, ["s"] * 9)
    # Before all of 4 twins: 2 bits. After 2 of 4: log2(4 / 3). After 1 of 2: 0 bits.
    assert table["exposure"].to_list() == [
        None, None, None, None, 2.0, pytest.approx(np.log2(4 / 3)), None, None, 0.0,
    ]  # fmt: skip


def test_a_family_without_twins_has_no_exposure() -> None:
    secrets = Secrets(records_of([[(1.0, NO), (0.0, NO)]]), np.zeros(1, int), np.ones(1, int))
    assert audit_canaries(canaries_of([4]), secrets, secrets, ["s"])["exposure"].to_list() == [None]


def test_a_prefix_without_its_text_is_refused() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        secret_starts([[1], [2]], [[1, 3]])


def test_near_verbatim_compares_the_greedy_text_of_the_secret() -> None:
    secrets = Secrets(
        records_of([[(1.0, NO), (1.0, YES), (1.0, NO)], [(0.0, NO), (0.0, YES)]]),
        np.array([1, 0]),
        np.array([3, 1]),
    )
    # The builder counts greedy ids through: 0, 1, 2 and 3, 4.
    assert secrets.greedy_ids() == [[1, 2], [3]]
    table = audit_canaries(canaries_of([4, 0]), secrets, secrets, ["s", "x"])
    assert table["edit_similarity"].to_list() == [1.0, 0.0]
    assert table["substring_share"].to_list() == [1.0, 0.0]
