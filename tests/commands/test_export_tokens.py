"""From token ids over a map and a plan to the ids to train on: whole documents, nothing else."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from gdc.cli import app
from gdc.commands.export import Request, export
from gdc.commands.map_corpus import Request as MapRequest
from gdc.commands.map_corpus import run
from gdc.corpus.tokenizer import save_tokenizer, train_tokenizer
from gdc.errors import ConfigError, DataError
from gdc.schema import PLAN
from gdc.workspace import paths
from tests.builders import trace_of, write_trace
from tests.corpus.token_bytes import write_indexed, write_stream

END = 0
DOCUMENTS = [[500, 600, END], [700, END], [800, 900, END], [1000, END]]
OUT = Path("new.bin")
PLANNED = {"1": ("drop", 0.0, 0), "3": ("keep", 1.0, 2), "0": ("keep", 1.0, 1), "2": ("drop", 0, 0)}


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_plan(
    planned: Mapping[str, tuple[str, float, int]],
    path: str = "plan.parquet",
    *,
    masks: bool = False,
) -> Path:
    masked = [{"start": 0, "end": 1}] if masks else []
    rows = [(name, *of, "because", masked) for name, of in planned.items()]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=PLAN, orient="row").write_parquet(path)
    return Path(path)


def same(path: Path, other: Path) -> bool:
    pairs = [(path, other), (path.with_suffix(".idx"), other.with_suffix(".idx"))]
    return all(one.read_bytes() == two.read_bytes() for one, two in pairs)


def expect(name: str, documents: list[list[int]]) -> Path:
    write_indexed(Path(name), [[ids] for ids in documents])
    return Path(name)


def test_whole_documents_are_dropped_and_repeated_with_their_index() -> None:
    corpus = expect("a.bin", DOCUMENTS)
    done = export(Request(write_plan(PLANNED), corpus, OUT))
    assert (done.num_kept, done.num_removed, done.num_not_planned) == (2, 2, 0)
    assert same(OUT, expect("x.bin", [DOCUMENTS[0], DOCUMENTS[3], DOCUMENTS[3]]))
    assert same(Path("new.removed.bin"), expect("y.bin", DOCUMENTS[1:3]))


def test_documents_that_come_first_in_an_epoch_stand_first() -> None:
    planned = {str(i): ("early" if i in {1, 3} else "keep", 1.0, 1) for i in range(4)}
    export(Request(write_plan(planned), expect("a.bin", DOCUMENTS), OUT))
    assert same(OUT, expect("x.bin", [DOCUMENTS[i] for i in (1, 3, 0, 2)]))


def test_a_stream_needs_its_separator_named() -> None:
    corpus = Path("a.bin")
    write_stream(corpus, [id_ for ids in DOCUMENTS for id_ in ids])
    plan = write_plan(PLANNED)
    with pytest.raises(ConfigError, match=r"a\.idx beside it, or the id .*--separator"):
        export(Request(plan, corpus, OUT))
    export(Request(plan, corpus, OUT, separator=END))
    write_stream(Path("x.bin"), [500, 600, END, 1000, END, 1000, END])
    assert OUT.read_bytes() == Path("x.bin").read_bytes()
    assert not OUT.with_suffix(".idx").exists()
    expect("b.bin", DOCUMENTS)
    with pytest.raises(ConfigError, match=r"--separator 0: expected none, as b\.idx"):
        export(Request(plan, Path("b.bin"), OUT, separator=END))


def test_a_plan_of_the_pipeline_finds_its_documents_by_their_place() -> None:
    corpus = expect("a.bin", DOCUMENTS)
    planned = {"ff-0": ("drop", 0.0, 0), "aa-0": ("keep", 1.0, 3), "cc-0": ("keep", 1.0, 1)}
    plan = write_plan(planned, "data/plans/paper.parquet")
    with pytest.raises(DataError, match=r"numbers of documents, or the corpus .*corpus\.parquet"):
        export(Request(plan, corpus, OUT))
    rows = [("ff-0", "a.bin:1"), ("aa-0", "a.bin:4"), ("bb-0", "a.bin:2"), ("cc-0", "canary")]
    pl.DataFrame(rows, schema=["sample_id", "source"], orient="row").write_parquet(
        "data/corpus.parquet"
    )
    done = export(Request(plan, corpus, OUT))
    assert (done.num_kept, done.num_removed, done.num_not_planned) == (3, 1, 2)
    assert same(OUT, expect("x.bin", [*DOCUMENTS[1:3], *DOCUMENTS[3:] * 3]))


@pytest.mark.parametrize("masks", [False, True])
def test_weights_and_masks_have_no_place_in_the_file(masks: bool) -> None:
    planned = {**PLANNED, "3": ("keep", 1.0, 2) if masks else ("weight", 0.5, 1)}
    plan = write_plan(planned, masks=masks)
    with pytest.raises(ConfigError, match=r"plan\.parquet: expected documents kept, dropped or"):
        export(Request(plan, expect("a.bin", DOCUMENTS), OUT))
    assert not OUT.exists()


def test_a_plan_of_other_documents_and_files_in_use_are_refused() -> None:
    corpus = expect("a.bin", DOCUMENTS)
    plan = write_plan(PLANNED)
    with pytest.raises(DataError, match=r"a\.bin: expected as many rows as one\.parquet"):
        export(Request(write_plan({"0": ("keep", 1, 1)}, "one.parquet"), corpus, OUT))
    odd = write_plan(dict.fromkeys(("1", "01", "2", "3"), ("keep", 1.0, 1)), "odd.parquet")
    with pytest.raises(DataError, match="numbers from 0 to 3, each once"):
        export(Request(odd, corpus, OUT))
    for out in ("a.bin", "new.jsonl"):
        with pytest.raises(ConfigError, match=rf"--out {out}: expected"):
            export(Request(plan, corpus, Path(out)))
    with pytest.raises(ConfigError, match="--canaries: expected none beside token ids"):
        export(Request(plan, corpus, OUT, canaries=Path("c.parquet")))
    with pytest.raises(ConfigError, match=r"a\.idx: expected the \.bin file"):
        export(Request(plan, corpus.with_suffix(".idx"), OUT))


def test_map_shows_the_texts_and_the_command_writes_the_ids() -> None:
    texts = [f"the key of door {i} is {i * 7919}" for i in range(4)]
    tokenizer = train_tokenizer(texts, 300)
    save_tokenizer(tokenizer, Path("tok"))
    ids = [[*ids, tokenizer.end_of_text] for ids in tokenizer.encode(texts)]
    expect("a.bin", ids)
    write_trace(7, trace_of({str(i): [6.0, 6.0 - i] for i in range(4)}, "probe"))
    trace = paths.trace_path(7)
    with pytest.raises(ConfigError, match="--tokenizer: expected the tokenizer that made the ids"):
        run(MapRequest(trace, "a.bin"), Path("map"), 2)
    report = run(MapRequest(trace, "a.bin", tokenizer="tok"), Path("map"), 2)
    assert [(row.sample_id, row.text) for row in report.highest[:2]] == [
        ("3", texts[3]), ("2", texts[2]),
    ]  # fmt: skip
    for command in (
        ["plan", "--map", "map", "--rule", "top-fraction", "--fraction", "0.25"],
        ["export", "map/plan.parquet", "a.bin", "--out", "new.bin"],
    ):
        assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    assert same(OUT, expect("x.bin", ids[:3]))
