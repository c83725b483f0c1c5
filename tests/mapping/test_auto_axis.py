"""Which axis ``auto`` stands for: who chooses, who reports, what is never taken."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from gdc.errors import DataError
from gdc.mapping import canary_families
from gdc.mapping.auto_axis import choose_axis
from gdc.mapping.quadrants import resolve_axis
from gdc.mapping.score_cards import AutoAxis, CanaryCounts, ScoreCard
from gdc.schema import SCORES_BY_RUN
from gdc.stages import partition as stage
from gdc.statistics.bootstrap import Estimate
from gdc.workspace import files, paths, tables, tracking
from tests.builders import params_with
from tests.mapping.calibration_builders import (
    PERFECT,
    calibrated,
    card_of,
    rule,
    tables_of,
)


def test_families_that_can_judge_take_turns_by_name_and_a_single_one_reports() -> None:
    names = {"d": PERFECT, "a": PERFECT, "b": [(False, 1.0)], "c": PERFECT}
    families = calibrated(*tables_of(names), rule(), seed=0)["families"]
    assert {name: family["role"] for name, family in families.items()} == {
        "a": "choose",
        "b": None,
        "c": "report",
        "d": "choose",
    }
    alone = calibrated(*tables_of({"a": PERFECT}), rule(), seed=0)
    assert alone["families"]["a"]["role"] == "report"
    assert card_of(alone)["auroc_choose"] is None
    assert card_of(alone)["verdict"] == "predicts memorization here"
    assert (alone["auto"]["axis"], alone["auto"]["is_validated"]) == ("memorization", False)
    assert alone["auto"]["reason"].startswith(
        "auto cannot choose: one family of canaries has to choose and another one to report, and "
        "1 can judge. So auto takes memorization, the paper's. Plant canaries"
    )


@pytest.mark.parametrize("seed", range(5))
def test_what_is_reported_has_no_part_in_the_order_in_which_scores_are_tested(seed: int) -> None:
    scores, copies, canaries = tables_of({"a": PERFECT, "b": PERFECT})
    rng, is_reporting = np.random.default_rng(seed), pl.col("sample_id").str.starts_with("b")
    names = ["memorization", "iqr", "std", "min_loss"]
    drawn = scores.with_columns(
        pl.Series(name, rng.normal(size=scores.height)) + 2 * pl.col("memorization") * i / 3
        for i, name in enumerate(names)
    )
    # The reporting family the other way round, and other labels.
    turned = drawn.with_columns(pl.when(is_reporting).then(-pl.col(names)).otherwise(pl.col(names)))
    labels = pl.Series(rng.permutation(canaries["is_memorized"].to_numpy()[12:]))
    relabelled = canaries.with_columns(
        is_memorized=pl.concat([canaries["is_memorized"][:12], labels], rechunk=True)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canary_families, "NUM_RESAMPLES", 20)
        built = calibrated(drawn, copies, canaries, rule(), seed=0)
        other = calibrated(turned, copies, relabelled, rule(), seed=0)
    order = [[(c["score"], c["auroc_choose"]) for c in b["cards"]] for b in (built, other)]
    assert order[0] == order[1]


def judged_score(name: str, choose: float, low: float, *, may: bool = True) -> ScoreCard:
    return ScoreCard(
        score=name,
        cost="one run",
        may_be_axis=may,
        auroc_choose=choose,
        auroc_report=Estimate(0.75, 0.5, 1.0),
        low_for_auto=low,
        precision=None,
        recall=None,
        verdict="predicts memorization here",
        why=None,
    )


USABLE = CanaryCounts(5, 5, 20, why=None, role="report")
TWO = {"a": USABLE, "b": USABLE}


def test_the_best_by_choice_that_is_validated_is_taken() -> None:
    cards = [
        judged_score("num_copies", 1.0, 0.6, may=False),
        judged_score("iqr", 0.9, 0.5),
        judged_score("std", 0.8, 0.6),
        judged_score("min_loss", 0.7, 0.6),
    ]
    assert choose_axis(cards, TWO) == AutoAxis(
        "std",
        is_validated=True,
        reason="std is the first of the best in the choosing families that predicts memorization "
        "in the reporting ones: AUROC 0.80 there, 0.75 [0.50, 1.00] in the reporting ones, number "
        "2 by choice. 2 tested, of at most 3, each at 0.83% one-sided.",
    )


def test_of_scores_that_are_equally_good_those_that_lead_elsewhere_are_tested_first() -> None:
    cards = [
        judged_score("final_loss", 1.0, 0.6),
        judged_score("total_drop", 0.95, 0.6),
        judged_score("std", 0.91, 0.6),
        judged_score("iqr", 0.9, 0.6),
    ]
    assert choose_axis(cards, TWO).axis == "std"
    # A tenth below the best is no longer as good as the best.
    assert choose_axis([cards[0], cards[3]], TWO).axis == "final_loss"


def test_with_none_of_the_best_three_validated_the_best_by_choice_is_taken_unproven() -> None:
    cards = [judged_score(f"s{i}", 0.9 - i / 10, 0.6 if i == 3 else 0.4) for i in range(4)]
    cards.append(judged_score("wrong", 0.25, 0.6))
    choice = choose_axis(cards, TWO | {"c": replace(USABLE, why="0 of 5 are memorized")})
    assert (choice.axis, choice.is_validated) == ("s0", False)
    assert choice.reason.startswith(
        "No score that may be an axis and is above chance in the choosing families is validated in "
        "the reporting ones: 3 tested, of at most 3, each at 0.83% one-sided. So auto takes "
        "s0, unproven. Best by choice: s0 AUROC 0.90 there, 0.75 [0.50, 1.00]"
    )
    assert ("s2 " in choice.reason, "s3 " in choice.reason) == (True, False)
    assert "Families that cannot judge: c: 0 of 5 are memorized." in choice.reason


def test_where_none_is_validated_the_preferred_score_that_all_samples_have_is_taken() -> None:
    cards = [
        judged_score("std", 0.9, 0.4),
        judged_score("unseen_loss_contrast", 0.8, 0.4, may=False),
        judged_score("online_late_contrast", 0.4, 0.4),
    ]
    choice = choose_axis(cards, TWO)
    assert (choice.axis, choice.is_validated) == ("online_late_contrast", False)
    assert "So auto takes online_late_contrast, unproven. Best by choice: std" in choice.reason
    assert choose_axis(cards[:2], TWO).axis == "std"
    assert choose_axis(cards, TWO, fallback="total_drop").axis == "total_drop"
    refused = choose_axis(cards, TWO, fallback="unseen_loss_contrast")
    assert refused.axis == "online_late_contrast"


def unmeasured(name: str, *, may: bool = True) -> ScoreCard:
    return replace(judged_score(name, 0.0, 0.0, may=may), auroc_choose=None, low_for_auto=None)


@pytest.mark.parametrize(
    ("cards", "axis"),
    [
        pytest.param([], "memorization", id="no card speaks against it"),
        pytest.param(
            [unmeasured("final_loss"), unmeasured("memorization")],
            "memorization",
            id="it comes before others of which no canary says anything",
        ),
        pytest.param(
            [judged_score("final_loss", 0.7, 0.4), judged_score("memorization", 0.6, 0.4)],
            "final_loss",
            id="and behind one that canaries put higher",
        ),
        pytest.param(
            [unmeasured("final_loss"), unmeasured("memorization", may=False)],
            "final_loss",
            id="where it is refused any other comes first",
        ),
        pytest.param(
            [
                judged_score("min_loss", 0.4, 0.4),
                judged_score("iqr", 0.3, 0.4, may=False),
                judged_score("memorization", 0.2, 0.4, may=False),
            ],
            "min_loss",
            id="even one that canaries put low, if it is not refused",
        ),
    ],
)
def test_the_papers_score_is_the_last_resort_and_never_taken_where_it_is_refused(
    cards: list[ScoreCard], axis: str
) -> None:
    choice = choose_axis(cards, TWO)
    assert (choice.axis, choice.is_validated) == (axis, False)


def test_where_every_score_is_refused_auto_has_no_axis_and_a_named_one_stays() -> None:
    # What the model says verbatim lies below both ordinary texts; the family has too few twins to
    # judge scores, which changes nothing of that.
    tables = tables_of({"a": PERFECT}, 2, ordinary=[4.0, 4.0], are_extracted=True)
    assert calibrated(*tables, rule(), seed=0)["auto"]["axis"] is None
    with pytest.raises(DataError) as refusal:
        calibrated(*tables, rule(axis="auto"), seed=0)
    assert str(refusal.value) == (
        "axis auto: expected a score that may be an axis, got none: difficulty, first_learned "
        "(no sign of memorization); memorization (extracted canaries below ordinary text). Name an "
        "axis (partition.axis or --axis), enable other scores (score.enabled or --score) or plant "
        "other canaries."
    )
    # A score that may be one, of which the family says nothing: taken, and not the refused one.
    scores, copies, canaries = tables
    other = scores.with_columns(final_loss=-pl.col("memorization"))
    built = calibrated(other, copies, canaries, rule(axis="auto"), seed=0)
    assert (built["auto"]["axis"], built["auto"]["is_validated"]) == ("final_loss", False)


def test_auto_needs_more_than_a_verdict_does() -> None:
    # All in order: by chance 1 in 70, which is less than 2.5 % and more than a third of it.
    built = calibrated(*tables_of({"a": PERFECT, "b": PERFECT[2:10]}), rule(), seed=0)
    assert card_of(built)["verdict"] == "predicts memorization here"
    assert not built["auto"]["is_validated"]
    assert ": 1 tested, of at most 3" in built["auto"]["reason"]


def test_scores_that_need_no_model_and_the_other_axis_are_never_taken() -> None:
    scores, copies, canaries = tables_of({"a": PERFECT, "b": PERFECT})
    score = pl.col("memorization")
    known = scores.with_columns(
        difficulty=score, first_learned=score, random=score, num_copies=score, iqr=score,
        memorization=pl.lit(0.0),
    )  # fmt: skip
    built = calibrated(known, copies, canaries, rule(), seed=0)
    assert {card["score"] for card in built["cards"] if card["auroc_choose"] == 1.0} == {
        "difficulty", "first_learned", "random", "num_copies", "iqr",
    }  # fmt: skip
    assert (built["auto"]["axis"], built["auto"]["is_validated"]) == ("iqr", True)


class FakeRun:
    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        assert metrics

    def log_artifact(self, path: Path) -> None:
        assert path.exists()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags = dict(tags)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """An empty folder; the run that stage partition opens is returned."""
    monkeypatch.chdir(tmp_path)
    fake = FakeRun()

    @contextmanager
    def stage_run(_stage: str, _params: Mapping[str, Any]) -> Iterator[FakeRun]:
        yield fake

    monkeypatch.setattr(tracking, "stage_run", stage_run)
    return fake


@pytest.mark.parametrize(
    ("asked", "is_validated", "axis"),
    [
        pytest.param("auto", True, "iqr", id="auto takes what is validated"),
        pytest.param("auto", False, "memorization", id="auto falls back and says so"),
        pytest.param("memorization", True, "memorization", id="a named axis stays"),
    ],
)
def test_the_map_is_cut_on_the_axis_that_auto_stands_for(
    workspace: FakeRun, asked: str, is_validated: bool, axis: str
) -> None:
    partition = rule().model_dump(mode="json") | {"axis": asked}
    files.write_json(paths.PARAMS, params_with(partition=partition).model_dump(mode="json"))
    families = {"a": PERFECT, "b": PERFECT}
    scores, copies, canaries = tables_of(families, ordinary=[0.0] * 9)
    scores = scores.with_columns(iqr=pl.col("memorization"), memorization=pl.lit(0.0))
    seen = scores if is_validated else scores.drop("iqr")
    built = calibrated(seen, copies, canaries, rule(), seed=0)
    assert built["auto"]["is_validated"] == is_validated
    tables.write("scores", scores)
    tables.write("scores_by_run", pl.DataFrame(schema=SCORES_BY_RUN))
    files.write_json(paths.CALIBRATION, built)
    stage.main()
    summary = files.read_json(paths.QUADRANTS_SUMMARY)
    assert (summary["axis"], workspace.tags) == (axis, {"gdc.axis": axis})
    warnings = [w for w in summary["warnings"] if w.startswith("No score that may be an axis")]
    assert warnings == ([] if is_validated else [built["auto"]["reason"]])
    num_hot = sum(summary["counts"][q] for q in ("hotspot-memorized", "noisy-outlier"))
    assert num_hot == (12 if axis == "iqr" else 0)


def test_a_named_axis_is_left_as_it_is() -> None:
    auto = AutoAxis("iqr", is_validated=False, reason="no")
    assert resolve_axis(rule(), auto) == (rule(), ())
