"""A real model that saw no canary and no member: every audit must be at its null."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from gdc.audit.model_audit import AuditedTexts, Subject, audit_model
from gdc.comparison import leakage
from gdc.config import EvaluateConfig, LstmModel, PythonDocsSource, TrainingConfig
from gdc.corpus.canaries import make_canaries
from gdc.corpus.samples import samples_from
from gdc.corpus.sources import read_source
from gdc.corpus.tokenizer import train_tokenizer
from gdc.statistics.bootstrap import Measured
from gdc.statistics.exposure import null_exposure
from gdc.training import models
from gdc.training.batches import TokenizedTexts
from gdc.training.loop import train
from gdc.training.recipe import Recipe, TrainingData
from tests.builders import MadeOnce, params_with

NUM_TRAINED, NUM_ASKED, NUM_PER_FAMILY = 300, 600, 300
TABLES = ("audit.parquet", "membership.parquet")
CONFIG = EvaluateConfig(num_members=1000, min_k_share=0.2, batch_tokens=8192, num_threads=1)
MODEL = LstmModel(
    kind="lstm", block_size=128, precision="float32", hidden_size=48, num_layers=1, dropout=0.0
)
TRAINING = TrainingConfig(
    epochs=3, batch_tokens=2048, learning_rate=1e-2, schedule="constant", warmup_steps=5,
    weight_decay=0.0, clip_norm=1.0, num_threads=1,
)  # fmt: skip


def canaries_called_planted(samples: pl.DataFrame) -> pl.DataFrame:
    """Twins alone, half of which are said to be planted sixteen times."""
    families = params_with().ingest.canaries
    twins_only = families.model_copy(
        update={
            name: family.model_copy(
                update={"repeats": (), "per_level": 1, "num_twins": NUM_PER_FAMILY}
            )
            for name, family in (("digits", families.digits), ("words", families.words))
            if family is not None
        }
        | {"natural": None}
    )
    twins = make_canaries(twins_only, [samples], seed=0)
    # By turns: the order in which they were drawn says nothing.
    return twins.with_columns(num_repeats=pl.int_range(pl.len(), dtype=pl.Int64) % 2 * 16)


@pytest.fixture
def audited(made_once: MadeOnce) -> tuple[pl.DataFrame, pl.DataFrame]:
    """AUDIT and MEMBERSHIP of a model trained on other texts of CPython's documentation."""

    def write_tables(folder: Path) -> None:
        for name, table in zip(TABLES, train_and_audit(folder), strict=True):
            table.write_parquet(folder / name)

    folder = made_once("audited-null", write_tables)
    audit, membership = (pl.read_parquet(folder / name) for name in TABLES)
    return audit, membership


def train_and_audit(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows = read_source(PythonDocsSource(kind="python-docs"), max_chars=2000, seed=0).rows
    samples = samples_from(rows, max_samples=NUM_TRAINED + NUM_ASKED, seed=0)
    texts = samples.unique("content_id", keep="first").sort("content_id")
    trained, asked = texts[:NUM_TRAINED], texts[NUM_TRAINED:]
    tokenizer = train_tokenizer(trained["text"], 512)
    model = models.build_model(
        MODEL, vocab_size=tokenizer.vocab_size, end_of_text=tokenizer.end_of_text, seed=0
    )
    ids = TokenizedTexts.from_ids(
        tokenizer.encode(trained["text"].to_list()), tokenizer.end_of_text
    )
    recipe = Recipe(TRAINING, MODEL.block_size, MODEL.precision, 0)
    train(model, TrainingData.unweighted(ids, ids), recipe, checkpoints=folder, name="null")
    members = asked.select(
        "text", sample_id="content_id", is_member=pl.int_range(pl.len()) % 2 == 0
    )
    subject = Subject(model, tokenizer, MODEL.block_size)
    asked_texts = AuditedTexts(canaries_called_planted(samples), members)
    return audit_model(subject, asked_texts, CONFIG)


def assert_near(found: Measured, expected: float) -> None:
    """Within four standard errors, where an interval has two on either side.

    Each version of Python has another documentation, and of the many checks on one corpus some
    would miss by two.
    """
    assert abs(found.value - expected) < found.high - found.low


def known(found: Measured | None) -> Measured:
    """What must have been measured."""
    assert found is not None
    return found


@pytest.mark.slow
def test_exposure_is_that_of_a_uniform_rank(audited: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    for family in ("digits", "words"):
        found = leakage.canary_leakage([audited[0].filter(family=family)], seed=0).planted
        null = null_exposure(NUM_PER_FAMILY // 2)
        assert null == pytest.approx(1.44, abs=0.06)
        assert_near(known(found.exposure), null)
        assert_near(known(found.exposure_fitted), np.log2(np.e))


@pytest.mark.slow
def test_extraction_is_that_of_the_twins(audited: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    found = leakage.canary_leakage([audited[0]], seed=0)
    planted, twins = found.planted, found.twins
    assert known(planted.extracted).value == known(twins.extracted).value == 0.0
    assert known(planted.extracted).high < 0.02
    shares = [known(kind.discoverable["10000"]).value for kind in (planted, twins)]
    assert shares == [0.0, 0.0]
    assert_near(known(planted.edit_similarity), known(twins.edit_similarity).value)
    assert_near(known(planted.substring_share), known(twins.substring_share).value)


@pytest.mark.slow
def test_no_attack_tells_members_from_others(audited: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    table = audited[1]
    assert min(table["is_member"].sum(), (~table["is_member"]).sum()) > 200
    for attack in ("loss", "zlib", "min_k", "min_k_plus_plus"):
        found = leakage.sample_leakage([table], leakage.Attack(attack), seed=0)
        assert_near(known(found.auc), 0.5)
        assert known(found.tpr_at_1_percent_fpr).value < 0.05
        assert found.epsilon_bound == 0.0
    assert leakage.all_attacks([table], seed=0).blind_leaks == []
    assert np.isfinite(table["loss"].to_numpy()).all()
