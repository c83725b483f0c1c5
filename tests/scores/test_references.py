"""Gaps to the models that did not see a sample: hand-made answers, an oracle, refusals."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.config import parse_params
from gdc.errors import ConfigError, DataError, SchemaError
from gdc.scores import REFERENCES, REGISTRY, cost_class, score_samples
from gdc.scores.references import references_of
from tests.builders import trace_of
from tests.config.builders import changed
from tests.scores.builders import config

GAPS = ("reference_gap", "reference_gap_calibrated")
Rows = Sequence[tuple[str, list[float], list[bool]]]
# `a` was not seen by models 0 and 1, `b` by 2 and 3, `c` by 0, `d` by none at all.
ROWS: Rows = [
    ("a", [3.0, 5.0, 1.0, 1.0], [False, False, True, True]),
    ("b", [1.0, 1.0, 4.0, 8.0], [True, True, False, False]),
    ("c", [7.0, 1.0, 1.0, 1.0], [False, True, True, True]),
    ("d", [1.0, 1.0, 1.0, 1.0], [True, True, True, True]),
]
CURVES = {"a": [6.0, 1.0], "b": [6.0, 2.0], "c": [6.0, 3.0], "d": [6.0, 4.0], "e": [6.0, 5.0]}


def references(rows: Rows = ROWS) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=REFERENCES, orient="row")


def gaps(table: pl.DataFrame) -> pl.DataFrame:
    trace = trace_of(CURVES)
    corpus = trace.index.select("sample_id")
    rules = config(enabled=GAPS)
    scores, *_ = score_samples([trace], [corpus], rules, seed=0, references=table)
    return scores.select("sample_id", *GAPS)


def test_known_gaps() -> None:
    """Variances 2 and 8, so the usual one is 5; `c` takes it, `d` and `e` have no such model."""
    assert gaps(references()).rows() == [
        ("a", 3.0, 3 / 7**0.5),
        ("b", 4.0, 4 / 13**0.5),
        ("c", 4.0, 4 / 10**0.5),
        ("d", None, None),
        ("e", None, None),
    ]


def test_two_runs_share_the_references() -> None:
    traces = [trace_of({"a": [6.0, last]}) for last in (1.0, 2.0)]
    scores, *_ = score_samples(
        traces, [traces[0].index], config(enabled=GAPS), seed=0, references=references()
    )
    assert scores.select(GAPS).row(0) == (2.5, 2.5 / 7**0.5)


def test_the_gap_to_the_base_model_is_its_loss_minus_the_last_one() -> None:
    trace = trace_of({"a": [2.0, 1.5, 0.5], "b": [3.0, 2.5, 2.75]})
    base = pl.DataFrame({"sample_id": ["a", "b"], "loss": [2.25, 2.5]}).cast({"loss": pl.Float32})
    found = [replace(trace, base=base)]
    corpus = trace.index.select("sample_id")
    table, *_ = score_samples(found, [corpus], config(enabled=("base_gap",)), seed=0)
    assert table["base_gap"].to_list() == [1.75, -0.25]


@given(seed=st.integers(0, 2**16))
def test_means_and_variances_are_numpys_whatever_the_row_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    loss, seen = rng.gamma(4, 1, (9, 6)).astype(np.float32), rng.random((9, 6)) < 0.5
    seen[:, :2] = False
    rows = [
        (f"s{k}", *pair) for k, pair in enumerate(zip(loss.tolist(), seen.tolist(), strict=True))
    ]
    ours = references_of(references(rows))
    mixed = references_of(references(rows).sample(fraction=1, shuffle=True, seed=seed))
    assert mixed.table.equals(ours.table)
    assert mixed.usual_variance == ours.usual_variance
    unseen = [one[~known].astype(np.float64) for one, known in zip(loss, seen, strict=True)]
    assert ours.table["reference_loss"].to_list() == pytest.approx([u.mean() for u in unseen])
    variances = [u.var(ddof=1) for u in unseen]
    assert ours.table["reference_variance"].to_list() == pytest.approx(variances)
    assert ours.usual_variance == pytest.approx(np.median(variances))


@pytest.mark.parametrize(
    ("rows", "variance"),
    [
        pytest.param([("a", [3.0, 1.0], [False, True])], "None", id="one model each"),
        pytest.param([("a", [3.0, 3.0], [False, False])], "0.0", id="models that agree"),
    ],
)
def test_a_calibrated_gap_without_a_usual_variance_is_refused(rows: Rows, variance: str) -> None:
    with pytest.raises(DataError, match=f"at least 2 models .* median variance of {variance}"):
        gaps(references(rows))


def test_a_sample_with_more_losses_than_models_is_refused() -> None:
    with pytest.raises(DataError, match="as many losses as entries of seen, got 1 samples"):
        gaps(references([*ROWS[:1], ("b", [1.0, 2.0], [True])]))


def test_a_table_without_losses_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"references: expected columns .*loss"):
        gaps(references().drop("loss"))


@pytest.mark.parametrize(
    "score", [name for name in REGISTRY if cost_class(name) == "reference models"]
)
def test_params_refuse_a_score_whose_reference_models_are_not_trained(score: str) -> None:
    enabled = {"score.enabled": [score, "final_loss", "random"], "train.token_losses": True}
    with pytest.raises(ConfigError, match=rf"enabled: {score} needs \d or more reference models"):
        parse_params(changed({**enabled, "reference.models": []}), name="params.yaml")
    models = {"reference.models": [0, 1, 2, 3]}
    assert score in parse_params(changed({**enabled, **models}), name="params.yaml").score.enabled
