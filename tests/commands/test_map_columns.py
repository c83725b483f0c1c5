"""A map holds what is asked for, reads no more than that takes, and is read by what follows it."""

from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from gdc.commands import map_corpus, plan_map
from gdc.commands.map import Request, map_on_cluster, map_trace, rules_of, run, table_of
from gdc.curation.reader import Plan
from gdc.errors import ConfigError, DataError
from gdc.scores import FORGETTING, STREAMED
from gdc.workspace import files, paths, ray_cluster
from tests.builders import params_with, trace_of, write_trace
from tests.mapping.builders import config as cuts
from tests.mapping.builders import quantile
from tests.scores.builders import config as rules
from tests.workspace.builders import damage

OUT = Path("map")
CURVES = {"a": [4.0, 2.0, 0.5, 1.5], "b": [2.0, 0.5, 3.5, 0.25], "c": [5.0, 4.0, 3.0, 2.0]}


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(num_shards: int = 1) -> Path:
    write_trace(7, trace_of(CURVES, "probe"), num_processes=num_shards)
    return paths.trace_path(7)


def mapped(**asked: object) -> pl.DataFrame:
    run(Request(written(), OUT, **asked))  # type: ignore[arg-type]  # of the request
    return pl.read_parquet(OUT / "scores.parquet")


def test_a_known_default_map() -> None:
    """Difficulty of the first two checkpoints, the fall from first to last, and the quadrant."""
    assert mapped().drop("quadrant").rows(named=True) == [
        {"sample_id": "a", "difficulty": 3.0, "total_drop": 2.5},
        {"sample_id": "b", "difficulty": 1.25, "total_drop": 1.75},
        {"sample_id": "c", "difficulty": 4.5, "total_drop": 3.0},
    ]
    summary = files.read_json(OUT / "scores.json")
    assert (summary["num_samples"], summary["num_checkpoints"]) == (3, 4)
    unknown = ("epsilon", "num_never_learned", "num_distinct_memorization")
    assert [summary[name] for name in unknown] == [None] * 3


@pytest.mark.parametrize(
    ("asked", "further"),
    [
        pytest.param({"axis": "difficulty"}, [], id="the axis is there anyway"),
        pytest.param({"scores": ("std", "iqr")}, ["std", "iqr", "total_drop"], id="two scores"),
        pytest.param({"axis": "std", "scores": ("std",)}, ["std"], id="the axis named twice"),
        pytest.param(
            {"axis": "memorization"}, ["memorization", "never_learned"],
            id="and of whom the paper's says nothing",
        ),
        pytest.param(
            {"scores": ("std", "never_learned", "first_learned")},
            ["first_learned", "never_learned", "std", "total_drop"], id="the pipeline's first",
        ),
    ],
)  # fmt: skip
def test_a_map_holds_what_is_asked_for(asked: dict[str, object], further: list[str]) -> None:
    whole = mapped(axis="difficulty", scores=(*FORGETTING, *STREAMED))
    found = mapped(**asked)
    assert found.columns == ["sample_id", "difficulty", *further, "quadrant"]
    assert_frame_equal(found.drop("quadrant"), whole.select(found.columns[:-1]), check_exact=True)


def test_the_summary_of_a_map_by_memorization_says_of_how_many_it_says_nothing() -> None:
    mapped(axis="memorization")
    summary = files.read_json(OUT / "scores.json")
    assert summary["epsilon"] > 0
    assert summary["num_never_learned"] == 1
    assert any("only 2 distinct values" in warning for warning in summary["warnings"])


def test_the_summary_of_a_map_counts_what_it_holds() -> None:
    mapped(scores=("never_learned",))
    summary = files.read_json(OUT / "scores.json")
    assert summary["num_never_learned"] == 1
    assert summary["num_distinct_memorization"] is None


def test_losses_that_no_score_of_the_map_reads_are_left_on_disk() -> None:
    """So a damaged one does no harm; a score that reads it finds it."""
    folder = written()
    damage(folder / "train/loss_002.parquet", 4)
    run(Request(folder, OUT))
    assert pl.read_parquet(OUT / "scores.parquet")["total_drop"].to_list() == [2.5, 1.75, 3.0]
    with pytest.raises(DataError, match=r"(?s)loss_002\.parquet: not a Parquet file"):
        run(Request(folder, OUT, scores=("std",)))


def test_an_axis_that_losses_cannot_give_is_refused_by_the_name_of_its_parameter() -> None:
    params = params_with()
    partition = params.partition.model_copy(update={"axis": "zlib"})
    params = params.model_copy(update={"partition": partition})
    with pytest.raises(ConfigError, match=r"partition\.axis zlib: expected auto or one of diff"):
        rules_of(Request(written(), OUT), params)
    with pytest.raises(ConfigError, match="--axis zlib: expected auto or one of difficulty, mem"):
        rules_of(Request(written(), OUT, axis="zlib"), params)


def test_a_plan_by_a_score_that_the_map_lacks_says_how_to_get_it() -> None:
    mapped()
    asked = plan_map.Request("top-fraction", score="memorization", fraction=0.4)
    with pytest.raises(ConfigError, match="that score: gdc map TRACE --score memorization"):
        plan_map.plan_map(asked, OUT, Path("plan.parquet"))
    mapped(scores=("memorization",))
    assert plan_map.plan_map(asked, OUT, Path("plan.parquet")).actions == {"keep": 2, "drop": 1}
    assert Plan.load("plan.parquet").table.filter(action="drop")["sample_id"].to_list() == ["b"]


def test_with_texts_a_score_that_is_there_anyway_may_be_asked_for() -> None:
    texts = "".join(f'{{"id": "{name}", "text": "text {name}"}}\n' for name in CURVES)
    Path("my.jsonl").write_text(texts)
    asked = map_corpus.Request(written(), "my.jsonl", scores=("first_learned", "std"))
    map_corpus.map_corpus(asked, OUT, params_with())
    assert {*FORGETTING, "std"} < {*pl.read_parquet(OUT / "scores.parquet").columns}


def test_a_folder_of_the_user_named_scores_is_not_taken_for_the_map() -> None:
    foreign = OUT / "scores/mine.parquet"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    mapped()
    assert table_of(OUT) == OUT / "scores.parquet"
    asked = plan_map.Request("top-fraction", fraction=0.4)
    assert plan_map.plan_map(asked, OUT, Path("plan.parquet")).actions == {"keep": 2, "drop": 1}
    assert foreign.read_bytes() == b"mine"


# ---- a file for each shard, as a cluster writes it


def one_after_the_other(
    work: Callable[[Path], object], shards: Iterable[Path], folders: Iterable[Path]
) -> None:
    assert all(folder.is_dir() for folder in folders)
    for shard in shards:
        work(shard)


@pytest.fixture
def of_shards(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A map in two shards, by a cluster that is this process."""
    monkeypatch.setattr(ray_cluster, "for_each", one_after_the_other)
    score = rules(mode="probe", enabled=("std",), num_early=2)
    split = cuts(quantile(0.5), quantile(0.6), axis="std")
    map_on_cluster(written(2), Path("cluster"), score, split)
    map_trace(written(2), OUT, score, split)
    return Path("cluster")


def test_a_plan_of_a_map_in_shards_is_that_of_one_file(of_shards: Path) -> None:
    assert [path.name for path in sorted(table_of(of_shards).iterdir())] == [
        "shard_00000.parquet", "shard_00001.parquet",
    ]  # fmt: skip
    asked = plan_map.Request("top-fraction", fraction=0.4)
    for folder in (of_shards, OUT):
        plan_map.plan_map(asked, folder, folder / "plan.parquet")
    found = Plan.load(of_shards / "plan.parquet").table
    assert_frame_equal(found, Plan.load(OUT / "plan.parquet").table)
    assert found.height == 3
    with pytest.raises(ConfigError, match="expected another file than cluster/scores"):
        plan_map.plan_map(asked, of_shards, of_shards / "scores/shard_00000.parquet")
