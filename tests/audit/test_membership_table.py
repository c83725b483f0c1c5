"""Members and held-out texts in one table: choice, hand-made numbers, the null."""

import numpy as np
import polars as pl
import pytest

from gdc.audit import membership_table
from gdc.audit.membership_table import (
    SuffixExtraction,
    align_base,
    align_references,
    attacks_in,
    audit_samples,
    blind_in,
    choose_samples,
    membership_metrics,
)
from gdc.corpus.samples import build_corpus, samples_from
from gdc.errors import DataError
from gdc.schema import CANARIES, MEMBERSHIP, REFERENCE_LOSS, REFERENCE_TOKENS, REFERENCES
from gdc.training.token_records import TokenRecords
from tests.audit.model_builders import records_of
from tests.builders import rows_of


def corpus_of(num_texts: int, copies: int = 1) -> pl.DataFrame:
    rows = rows_of([f"text {i}" for i in range(num_texts)] * copies)
    canaries = pl.DataFrame(
        [("digits-2-00", "digits", "code", " 5", "code 5", 2)], schema=CANARIES, orient="row"
    )
    samples = samples_from(rows, max_samples=None, seed=0)
    return build_corpus(samples, canaries, validation_fraction=0.3, seed=0)


def test_of_a_conversation_the_second_half_of_what_is_said_is_extracted() -> None:
    # Ten tokens of a question, then 21 of an answer and the end of text.
    greedy = [False] * 21 + [True] * 10 + [False]
    records = records_of([[1.0] * 32], [greedy])
    is_scored = np.arange(32) >= 10
    answer = TokenRecords(*(getattr(records, name)[is_scored] for name in vars(records)))
    halves = membership_table._second_halves(answer, 1, block_size=64)
    assert (halves.starts.item(), halves.ends.item()) == (21, 31)
    assert (halves.num_tokens.item(), halves.is_extracted.item()) == (10, True)
    # In a window of 26 tokens there are 16 of the answer.
    cut = membership_table._second_halves(answer, 1, block_size=26)
    assert (cut.starts.item(), cut.ends.item(), cut.num_tokens.item()) == (18, 26, 8)
    assert not cut.is_extracted.item()
    # A question that fills the window leaves nothing to extract.
    assert membership_table._second_halves(answer, 1, block_size=10).num_tokens.item() == 0


def test_every_content_is_chosen_once_and_no_canary() -> None:
    corpus = corpus_of(40, copies=2)
    samples = choose_samples(corpus, 1000, seed=0)
    assert sorted(samples["text"]) == sorted({f"text {i}" for i in range(40)})
    heldout = set(corpus.filter(pl.col("split") == "validation")["text"])
    assert set(samples.filter(~pl.col("is_member"))["text"]) == heldout


def test_fewer_members_are_a_choice_by_hash() -> None:
    corpus = corpus_of(40)
    few, all_of_them = (choose_samples(corpus, n, seed=0) for n in (5, 1000))
    assert few["is_member"].sum() == 5
    assert set(few["sample_id"]) < set(all_of_them["sample_id"])
    other = choose_samples(corpus, 5, seed=1)
    assert set(other["sample_id"]) != set(few["sample_id"])


def test_a_hand_made_table() -> None:
    samples = pl.DataFrame(
        {"sample_id": ["a", "b"], "text": ["xyz", "uvw"], "is_member": [True, False]}
    )
    records = records_of(
        [[1.0, 1.0, 0.5, 0.5, 2.0], [3.0, 1.0]],
        [[False, False, True, True, False], [False, True]],
    )
    table = audit_samples(samples, records, block_size=64, min_k_share=0.4)
    assert pl.Schema(list(table.schema.items())[: len(MEMBERSHIP)]) == MEMBERSHIP
    # The suffix is the second half of the text without its end: positions 2 and 3, and none.
    assert table["num_tokens"].to_list() == [5, 2]
    assert table["loss"].to_list() == [1.0, 2.0]
    assert table["num_suffix_tokens"].to_list() == [2, 0]
    assert table["suffix_nll"].to_list() == [1.0, 0.0]
    assert table["suffix_extracted"].to_list() == [True, False]
    # 40 % of 5 tokens are the two least likely, -2 and -1; of 2 tokens one.
    assert table["min_k"].to_list() == [-1.5, -3.0]
    assert table["min_k_plus_plus"].to_list() == [(0.0 + 2.0) / 2, -2.0]
    metrics = membership_metrics(table)
    assert metrics.membership["loss"].auc == 1.0
    assert metrics.heldout_loss == 2.0
    assert metrics.perplexity == pytest.approx(np.exp(2.0))
    assert metrics.tail_rates == {"0.99": 1.0, "0.999": 1.0}
    assert metrics.suffix_extraction == SuffixExtraction(members=1.0, heldout=0.0)
    membership = metrics.to_json()["membership"]
    assert isinstance(membership, dict)
    assert membership["loss"] == {
        "auc": 1.0, "leak": "none", "tpr_at_1_percent_fpr": 1.0, "tpr_at_01_percent_fpr": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("loss", [710.0, 1e30])
def test_a_model_that_has_diverged_is_refused(loss: float) -> None:
    samples = pl.DataFrame(
        {"sample_id": ["a", "b"], "text": ["xyz", "uvw"], "is_member": [True, False]}
    )
    records = records_of([[loss] * 5, [loss] * 5], [[False] * 5] * 2)
    table = audit_samples(samples, records, block_size=64, min_k_share=0.4)
    with pytest.raises(DataError, match=r"got (710|1e\+30) nats per token: the model has diverged"):
        membership_metrics(table)


def test_a_model_that_memorized_nothing_is_at_chance() -> None:
    rng = np.random.default_rng(0)
    size = 600
    nll = [list(rng.exponential(3.0, size=rng.integers(2, 20))) for _ in range(size)]
    samples = pl.DataFrame(
        {
            "sample_id": [str(i) for i in range(size)],
            "text": [f"{i:x}" for i in range(size)],
            "is_member": [i % 2 == 0 for i in range(size)],
        }
    )
    records = records_of(nll, [[False] * len(text) for text in nll])
    metrics = membership_metrics(audit_samples(samples, records, block_size=64, min_k_share=0.2))
    attacks = {**metrics.membership, **metrics.blind}
    assert {attack.leak for attack in attacks.values()} == {"none"}
    assert all(abs(attack.auc - 0.5) < 0.08 for attack in attacks.values())
    assert all(attack.tpr_at_1_percent_fpr < 0.06 for attack in attacks.values())


def test_reference_models_add_attacks_and_a_blind_baseline() -> None:
    samples = pl.DataFrame(
        {"sample_id": ["a", "b", "c"], "text": ["x", "y", "z"], "is_member": [True, False, False]}
    )
    records = records_of([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], [[False, False]] * 3)
    rows = [("c", [3.5, 9.0], [False, True]), ("a", [8.0, 4.0], [True, False])]
    rows += [("b", [2.5, 9.0], [False, True])]
    table = pl.DataFrame(rows, schema=REFERENCES, orient="row")
    references = align_references(samples, table)
    audit = audit_samples(samples, records, block_size=64, min_k_share=0.2, references=references)
    # What the one model that did not see the text says, minus what the audited one says.
    assert audit["reference_ratio"].to_list() == [3.0, 0.5, 0.5]
    assert audit["reference_loss"].to_list() == [4.0, 2.5, 3.5]
    # Both held-out texts are alike, and neither counts itself.
    assert audit["rmia"].to_list() == [1.0, 1.0, 1.0]
    later = records_of([[1.0, 1.0], [2.0, 2.0], [3.25, 3.25]], [[False, False]] * 3)
    again = audit_samples(samples, later, block_size=64, min_k_share=0.2, references=references)
    assert again["rmia"].to_list() == [1.0, 1.0, 0.0]
    assert attacks_in(audit) == [
        "loss", "zlib", "reference_ratio", "min_k", "min_k_plus_plus", "rmia",
    ]  # fmt: skip
    assert blind_in(audit) == ["length", "zlib_size", "reference_loss"]


def test_token_losses_of_references_add_two_attacks() -> None:
    samples = pl.DataFrame(
        {"sample_id": ["b", "a"], "text": ["x", "y"], "is_member": [True, False]}
    )
    records = records_of([[1.0, 1.0, 1.0], [2.0, 5.0, 2.0]], [[False] * 3] * 2)
    rows = [("a", [2.0, 9.0], [False, True]), ("b", [3.0, 9.0], [False, True])]
    table = pl.DataFrame(rows, schema=REFERENCES, orient="row")
    tokens = pl.DataFrame(
        [("a", [2.0, 2.0, 4.0]), ("b", [2.0, 0.5, 4.0]), ("b", [4.0, 0.5, 2.0])],
        schema=REFERENCE_TOKENS, orient="row",
    )  # fmt: skip
    references = align_references(samples, table, tokens)
    assert references is not None
    assert references.token_loss is not None
    assert references.token_loss.tolist() == [3.0, 0.5, 3.0, 2.0, 2.0, 4.0]
    audit = audit_samples(samples, records, block_size=64, min_k_share=0.2, references=references)
    # After the first token b gains -0.5 and 2, a gains -3 and 2.
    assert audit["ez"].to_list() == pytest.approx([1.5 / 2.5, -1 / 5])
    # Windows of b gain 1.5 and 1.5; of a -3 and -1; the whole of b 3.5, of a -1.
    assert audit["wbc"].to_list() == pytest.approx([1.0, 0.0])
    assert attacks_in(audit)[-2:] == ["ez", "wbc"]
    assert membership_metrics(audit).membership["ez"].auc == 1.0
    with pytest.raises(DataError, match=r"got none of 1\. Re-run: gdc stage reference"):
        align_references(samples, table, tokens.filter(pl.col("sample_id") == "a"))


def test_the_pretrained_model_is_a_reference_with_attacks_of_its_own() -> None:
    samples = pl.DataFrame(
        {"sample_id": ["b", "a"], "text": ["x", "y"], "is_member": [True, False]}
    )
    records = records_of([[1.0, 1.0, 1.0], [2.0, 5.0, 2.0]], [[False] * 3] * 2)
    table = pl.DataFrame([("a", 2.5), ("b", 3.0)], schema=REFERENCE_LOSS, orient="row")
    tokens = pl.DataFrame(
        [("a", [2.0, 2.0, 4.0]), ("b", [3.0, 0.5, 3.0])], schema=REFERENCE_TOKENS, orient="row"
    )
    halves = pl.DataFrame(
        [("a", [9.0, 2.0], [True, False]), ("b", [1.5, 9.0], [False, True])],
        schema=REFERENCES, orient="row",
    )  # fmt: skip
    audits = [
        audit_samples(
            samples, records, block_size=64, min_k_share=0.2,
            references=align_references(samples, halves), base=align_base(samples, table, of_base),
        )
        for of_base in (tokens, None)
    ]  # fmt: skip
    # Loss under the base model minus that under the audited one, beside that of the half-models.
    assert audits[0]["base_ratio"].to_list() == [2.0, -0.5]
    assert audits[0]["reference_ratio"].to_list() == [0.5, -1.0]
    # By token as `ez` and `wbc` where a half-model says the same.
    assert audits[0]["base_ez"].to_list() == pytest.approx([1.5 / 2.5, -1 / 5])
    assert audits[0]["base_wbc"].to_list() == pytest.approx([1.0, 0.0])
    assert audits[0]["base_loss"].to_list() == [3.0, 2.5]
    assert attacks_in(audits[0])[-3:] == ["base_ratio", "base_ez", "base_wbc"]
    assert attacks_in(audits[1])[-1:] == ["base_ratio"]
    assert blind_in(audits[0]) == ["length", "zlib_size", "reference_loss", "base_loss"]


def test_eight_reference_models_allow_lira() -> None:
    samples = pl.DataFrame(
        {"sample_id": ["a", "b"], "text": ["x", "y"], "is_member": [True, False]}
    )
    records = records_of([[1.0], [2.0]], [[False], [False]])
    rows = [("a", [9.0, 4.0, 9.0, 6.0, 9.0, 4.0, 9.0, 6.0], [True, False] * 4)]
    rows += [("b", [0.0, 9.0, 4.0, 9.0, 0.0, 9.0, 4.0, 9.0], [False, True] * 4)]
    table = pl.DataFrame(rows, schema=REFERENCES, orient="row")
    audit = audit_samples(
        samples,
        records,
        block_size=64,
        min_k_share=0.2,
        references=align_references(samples, table),
    )
    # Means 5 and 2, standard deviations 1 and 2, losses 1 and 2.
    assert audit["lira"].to_list() == pytest.approx([4.0, 0.0])
