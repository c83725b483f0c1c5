"""An audited model: losses of direct calls, windows, nulls, a refusal."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from gdc.audit.attack_inputs import References
from gdc.audit.model_audit import AuditedTexts, audit_in_parts, audit_model, record_secrets
from gdc.config import EvaluateConfig
from gdc.errors import DataError
from gdc.schema import CANARIES
from tests.audit.model_builders import ids_of, nll_after, samples_of, subject_of

CONFIG = EvaluateConfig(num_members=10, min_k_share=0.2, batch_tokens=64, num_threads=1)
# The longest has 17 bytes, and with so few entries a token is a byte.
CANARY_TEXTS = [("the code is", " 12"), ("my pin", " 9"), ("a", " b")]


def canaries_of(*texts: tuple[str, str]) -> pl.DataFrame:
    rows = [(f"digits-1-{i}", "digits", p, s, p + s, 1) for i, (p, s) in enumerate(texts)]
    return pl.DataFrame(rows, schema=CANARIES, orient="row")


@pytest.mark.parametrize("block_size", [17, 24, 200])
def test_a_secret_is_measured_after_its_whole_prefix_at_both_positions(block_size: int) -> None:
    model, tokenizer, _ = subject = subject_of(block_size)
    end = tokenizer.end_of_text
    filler = "some other text that stands before"
    table, _ = audit_model(
        subject, AuditedTexts(canaries_of(*CANARY_TEXTS), samples_of("x", filler)), CONFIG
    )
    for (prefix, secret), row in zip(CANARY_TEXTS, table.iter_rows(named=True), strict=True):
        prefix_ids, secret_ids = ids_of(tokenizer, prefix), ids_of(tokenizer, secret)
        direct = nll_after(model, [end, *prefix_ids], secret_ids)
        assert row["secret_nll"] == pytest.approx(direct, rel=1e-5)
        room = block_size - len(prefix_ids) - len(secret_ids) - 2
        before = [end, *ids_of(tokenizer, filler)[-room:], end, *prefix_ids]
        expected = nll_after(model, before, secret_ids) if room > 0 else None
        assert row["secret_nll_shifted"] == (expected and pytest.approx(expected, rel=1e-5))
        assert (row["extracted_shifted"] is None) == (room <= 0)


def test_a_long_text_is_measured_in_its_first_window() -> None:
    model, tokenizer, _ = subject = subject_of(block_size=8)
    texts = ["short", "one that is longer than a window"]
    _, table = audit_model(subject, AuditedTexts(canaries_of(), samples_of(*texts)), CONFIG)
    assert table["num_tokens"].to_list() == [6, 33]
    # 6 tokens: positions 3 and 4, for the last is the end; 33 tokens: positions 4 to 7 of 8.
    assert table["num_suffix_tokens"].to_list() == [2, 4]
    ids = ids_of(tokenizer, texts[1])
    direct = nll_after(model, [tokenizer.end_of_text, *ids[:4]], ids[4:8])
    assert table["suffix_nll"][1] == pytest.approx(direct, rel=1e-5)


def test_parts_give_what_all_texts_at_once_give() -> None:
    subject = subject_of(block_size=64)
    canaries = canaries_of(*CANARY_TEXTS)
    samples = samples_of("one", "two and a half", "three and four", "five").with_columns(
        is_member=pl.Series([True, True, False, False])
    )
    losses = np.array([[1.0, 2.0], [3.0, 1.0], [0.5, 1.0], [2.0, 0.25]])
    seen = np.array([[True, False]] * 4)
    num_tokens = [len(ids_of(subject.tokenizer, text)) + 1 for text in samples["text"]]
    tokens = np.linspace(0.1, 5, sum(num_tokens))
    whole = AuditedTexts(canaries, samples, References(losses, seen, tokens))
    ends = np.cumsum([0, *num_tokens])
    parts = [
        AuditedTexts(
            canaries if row == 0 else canaries.clear(),
            samples[row : row + 1],
            References(
                losses[row : row + 1], seen[row : row + 1], tokens[ends[row] : ends[row + 1]]
            ),
        )
        for row in range(4)
    ]
    expected = audit_model(subject, whole, CONFIG)
    found = audit_in_parts(subject, parts, CONFIG, texts=samples["text"])
    assert "ez" in expected[1].columns
    assert_frame_equal(found[1], expected[1])
    shifted = pl.selectors.contains("shifted")
    assert_frame_equal(found[0].drop(shifted), expected[0].drop(shifted))


def test_neither_order_nor_other_texts_matter() -> None:
    subject = subject_of(block_size=64)
    canaries, samples = canaries_of(*CANARY_TEXTS), samples_of("one", "two", "three and four")
    table, members = audit_model(subject, AuditedTexts(canaries, samples), CONFIG)
    alone, _ = audit_model(subject, AuditedTexts(canaries[::-1], samples), CONFIG)
    assert np.allclose(alone["secret_nll"].to_numpy()[::-1], table["secret_nll"], rtol=1e-5)
    _, without = audit_model(subject, AuditedTexts(canaries_of(), samples), CONFIG)
    assert np.allclose(without["loss"], members["loss"], rtol=1e-5)


def test_secrets_recorded_alone_are_those_of_the_audit() -> None:
    subject, canaries = subject_of(block_size=64), canaries_of(*CANARY_TEXTS)
    table, _ = audit_model(subject, AuditedTexts(canaries, samples_of("one", "two")), CONFIG)
    alone = record_secrets(subject, canaries, batch_tokens=16).nll
    assert np.allclose(alone, table["secret_nll"], rtol=1e-5)
    assert len(record_secrets(subject, canaries_of(), batch_tokens=16).nll) == 0


def test_a_canary_longer_than_the_window_is_refused() -> None:
    with pytest.raises(DataError, match=r"at most 15 tokens.*block_size 16.*got one of 17"):
        audit_model(
            subject_of(16),
            AuditedTexts(canaries_of(("the code is 1234", "5")), samples_of("x")),
            CONFIG,
        )
