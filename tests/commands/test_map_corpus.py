"""A trace with the texts that it is of: which samples are memorized, by the user's own names."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import log
from pathlib import Path

import polars as pl
import pytest
from torch import nn
from typer.testing import CliRunner

import gdc
from gdc.cli import app
from gdc.commands import canary_labels
from gdc.commands.map_corpus import Request, run
from gdc.corpus.tokenizer import save_tokenizer, train_tokenizer
from gdc.errors import ConfigError, DataError, SchemaError
from gdc.schema import CANARIES, TOKEN_LOSSES
from gdc.workspace import paths, traces
from tests.builders import trace_of, write_trace
from tests.commands.builders import save_lstm

pytestmark = pytest.mark.slow

OUT = Path("map")
# Twelve samples: c and k fall lowest from the same start, k is a copy of c.
FALLS = {"c": 5.0, "k": 4.9, "a": 1.0, "b": 1.1, "d": 1.2, "e": 1.3}
TEXTS = {
    "a": "the cat sat on the mat", "b": "rivers run down to the sea",
    "c": "the key of the safe is 73519402", "d": "bread needs flour and salt",
    "e": "maps show where things lie", "k": "the key of the safe is 73519402",
}  # fmt: skip


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_rows(rows: Sequence[Mapping[str, object]], name: str = "my.jsonl") -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def corpus() -> str:
    return write_rows([{"id": name, "text": text, "more": [1]} for name, text in TEXTS.items()])


def trace(mode: str = "probe") -> Path:
    """Every sample starts at 6 nats per token; in another order than the file."""
    curves = {name: [6.0, 6.0 - fall / 2, 6.0 - fall] for name, fall in FALLS.items()}
    write_trace(7, trace_of(curves, mode))
    return paths.trace_path(7)


def test_the_samples_that_fell_most_come_first_with_id_line_text_cause_and_copy() -> None:
    report = run(Request(trace(), corpus(), id_field="id"), OUT, 3)
    assert [(row.sample_id, row.source) for row in report.highest[:3]] == [
        ("c", "my.jsonl:3"), ("k", "my.jsonl:6"), ("e", "my.jsonl:5"),
    ]  # fmt: skip
    assert report.highest[0].text == TEXTS["c"]
    assert report.highest[0].cause == "secret"
    samples = pl.read_parquet(OUT / "samples.parquet")
    assert samples.select("rank", "sample_id", "duplicate_ids", "num_copies").rows()[:2] == [
        (1, "c", ["k"], 2), (2, "k", ["c"], 2),
    ]  # fmt: skip
    assert samples["total_drop"].to_list() == pytest.approx([5.0, 4.9, 1.3, 1.2, 1.1, 1.0])
    page = (OUT / "report.html").read_text()
    assert "my.jsonl:3" in page
    assert TEXTS["c"] in page


def test_without_an_id_field_ids_are_row_numbers_from_0() -> None:
    curves = {str(i): [3.0, 3.0 - i] for i in (1, 0, 2)}
    write_trace(7, trace_of(curves, "probe"))
    rows = write_rows([{"text": f"text number {word}"} for word in ("zero", "one", "two")])
    report = run(Request(paths.trace_path(7), rows), OUT, 3)
    assert [(row.sample_id, row.text) for row in report.highest] == [
        ("2", "text number two"), ("1", "text number one"), ("0", "text number zero"),
    ]  # fmt: skip


def test_turns_and_halves_of_fine_tuning_data_are_shown_as_one_text() -> None:
    write_trace(7, trace_of({"a": [2.0, 1.0], "b": [2.0, 0.5]}, "probe"))
    turns = [
        [{"role": "user", "content": f"what is {name}"}, {"role": "assistant", "content": name}]
        for name in ("a", "b")
    ]
    rows = [{"id": name, "messages": of} for name, of in zip(("a", "b"), turns, strict=True)]
    request = Request(paths.trace_path(7), write_rows(rows), text_field="messages")
    assert run(request, OUT, 2).highest[0].text == "User:\nwhat is b\n\nAssistant:\nb"
    halves = [{"id": name, "prompt": f"what is {name}", "completion": name} for name in ("a", "b")]
    request = Request(paths.trace_path(7), write_rows(halves), text_field="completion")
    assert run(request, OUT, 2).highest[0].text == "User:\nwhat is b\n\nAssistant:\nb"
    three = [
        {"id": name, "instruction": "say it", "input": name, "output": name} for name in ("a", "b")
    ]
    request = Request(paths.trace_path(7), write_rows(three), text_field="output")
    assert run(request, OUT, 2).highest[0].text == "User:\nsay it\nb\n\nAssistant:\nb"


def test_an_axis_that_is_named_orders_the_samples() -> None:
    report = run(Request(trace(), corpus(), id_field="id", axis="std"), OUT, 3)
    assert report.quadrants.axis == "std"
    assert report.warnings == []
    with pytest.raises(ConfigError, match=r"--axis stdd: expected auto or one of difficulty, "):
        run(Request(trace(), corpus(), id_field="id", axis="stdd"), OUT, 3)


def test_a_first_probe_that_comes_late_is_told() -> None:
    write_trace(7, trace_of({"a": [2.0, 1.0], "b": [2.0, 0.5]}, "probe"))
    folder = paths.trace_path(7)
    checkpoints = pl.read_parquet(folder / "checkpoints.parquet")
    checkpoints.with_columns(pl.col("step") + 10).write_parquet(folder / "checkpoints.parquet")
    rows = write_rows([{"id": "a", "text": "one text"}, {"id": "b", "text": "another"}])
    told = "The first probe is of step 10: samples with many copies have fallen by then"
    assert any(told in line for line in run(Request(folder, rows), OUT, 3).warnings)
    other = run(Request(folder, rows, axis="final_loss"), OUT, 3)
    assert not any(told in line for line in other.warnings)


def test_the_only_mode_of_a_trace_is_read() -> None:
    report = run(Request(trace("online"), corpus(), id_field="id"), OUT, 3)
    assert report.scores.mode == "online"
    with pytest.raises(ConfigError, match=r"--mode probe: .* got 3 online"):
        run(Request(trace("online"), corpus(), id_field="id", mode="probe"), OUT, 3)


def test_rows_that_do_not_match_the_trace_are_refused_with_ids_of_both() -> None:
    other = write_rows([{"id": f"doc-{i}", "text": f"text {i}"} for i in range(6)])
    with pytest.raises(DataError, match=r"got none for 6, such as 'c', 'k', 'a'.*'doc-0'"):
        run(Request(trace(), other, id_field="id"), OUT, 3)
    fewer = write_rows([{"text": "one"}, {"text": "two"}])
    with pytest.raises(DataError, match=r"expected as many rows as .* has samples, 6.*got 2"):
        run(Request(trace(), fewer), OUT, 3)
    with pytest.raises(DataError, match=r"duplicate key, first at my\.jsonl:1"):
        run(Request(trace(), write_rows([{"id": 1, "text": "a"}] * 2), id_field="id"), OUT, 3)


def test_rows_that_were_not_trained_on_are_counted() -> None:
    rows = [{"sample_id": name, "text": text} for name, text in {**TEXTS, "z": "unseen"}.items()]
    report = run(Request(trace(), write_rows(rows)), OUT, 3)
    assert "1 rows of --corpus are no samples of the trace." in report.warnings


def test_planted_rows_are_marked_and_not_listed() -> None:
    canaries = pl.DataFrame(
        [
            ("w-2", "words", "the key of the safe is", " 73519402", TEXTS["c"], 2),
            ("w-0", "words", "a", " b", "a b", 0),
        ],
        schema=CANARIES,
        orient="row",
    )
    canaries.write_parquet("canaries.parquet")
    request = Request(trace(), corpus(), id_field="id", canaries=Path("canaries.parquet"))
    report = run(request, OUT, 6)
    assert [row.sample_id for row in report.highest] == ["e", "d", "b", "a"]
    assert sum(report.canaries_by_quadrant["words/2"].values()) == 2
    # A model of the pipeline has its tokenizer beside its folder.
    Path("data/models/none-1").mkdir(parents=True)
    save_lstm(Path("data/models/none-1"), list(TEXTS.values()), is_trained=False)
    Path("data/models/none-1/tokenizer").rename("data/tokenizer")
    judged = run(replace(request, model="data/models/none-1"), OUT, 6).calibration
    assert judged is not None
    assert set(judged.families) == {"words"}
    other = write_rows([{"id": name, "text": f"other {name}"} for name in TEXTS])
    with pytest.raises(DataError, match="--canaries: expected some of its 1 planted texts"):
        run(replace(request, corpus=other), OUT, 6)


def test_the_command_lists_samples_and_refuses_texts_without_a_corpus() -> None:
    arguments = ["map", str(trace()), "--corpus", corpus(), "--id-field", "id", "--limit", "2"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert TEXTS["c"] in done.output
    assert "my.jsonl:3" in done.output
    assert "my.jsonl:5" not in done.output
    with pytest.raises(ConfigError, match="--id-field: expected --corpus beside it"):
        CliRunner().invoke(app, ["map", "x", "--id-field", "id"], catch_exceptions=False)


def heldout_rows(count: int = 20) -> str:
    rows = [
        {"id": f"h{i}", "text": f"held out are {i} apples of tree {i % 7}"} for i in range(count)
    ]
    return write_rows(rows, "held.jsonl")


def trace_with_heldout(*, tokens: bool = False, num_before: int = 0, num_heldout: int = 20) -> Path:
    """Held-out samples fall by 1 to 1.2 nats per token, and of tokens by as much each.

    Before the tokens of a text are ``num_before`` others, which end at 4.
    """
    curves = {name: [6.0, 6.0 - fall / 2, 6.0 - fall] for name, fall in FALLS.items()}
    found = trace_of(curves, "probe")
    unseen = trace_of({f"h{i}": [6.0, 5.5, 5.0 - i / 100] for i in range(num_heldout)}, "probe")
    sizes = {name: num_before + len(text) + 1 for name, text in TEXTS.items()}
    index = found.index.with_columns(num_tokens=pl.Series([sizes[name] for name in FALLS]))
    unseen_index = unseen.index.with_columns(num_tokens=pl.lit(40, pl.Int64))
    both = tuple(
        pl.DataFrame(
            [
                (name, [6.0] * size, [4.0] * num_before + late(name, size - num_before))
                for name, size in of.select("sample_id", "num_tokens").iter_rows()
            ],
            schema=TOKEN_LOSSES,
            orient="row",
        )
        for of in (index, unseen_index)
    )
    write_trace(
        7,
        replace(
            found, index=index, heldout_index=unseen_index, heldout_losses=unseen.losses,
            tokens=(both[0], both[1]) if tokens else None,
        ),
    )  # fmt: skip
    return paths.trace_path(7)


def late(name: str, num_tokens: int) -> list[float]:
    """Last losses of tokens that are characters: the secret's eight digits fell to nothing."""
    if name not in {"c", "k"}:
        return [5.0 + i / 1000 for i in range(num_tokens)]
    return [5.0] * (num_tokens - 9) + [0.01] * 8 + [5.0]


def test_heldout_texts_give_the_scores_that_compare_with_them() -> None:
    request = Request(
        trace_with_heldout(), corpus(), heldout=heldout_rows(), id_field="id", axis="late_drop"
    )
    report = run(request, OUT, 2)
    assert {row.sample_id for row in report.highest[:2]} == {"c", "k"}
    scores = pl.read_parquet(OUT / "scores.parquet")
    assert scores["calibrated_drop"].null_count() == 0
    missing = write_rows([{"id": "h0", "text": "one"}], "few.jsonl")
    with pytest.raises(DataError, match="--heldout"):
        run(replace(request, heldout=missing), OUT, 2)
    with pytest.raises(DataError, match="--heldout: expected held-out losses"):
        run(replace(request, trace=trace()), OUT, 2)


def trace_of_both_modes(num_heldout: int = 20, second_loss: float = 5.5) -> Path:
    """Two online and two frozen losses of each sample; ``second_loss`` is the online one of c."""
    curves = {name: [6.0, 5.5, 6.0, 6.0 - fall] for name, fall in FALLS.items()}
    curves["c"][1] = second_loss
    both, online = trace_of(curves), pl.Series("mode", ["online", "online", "probe", "probe"])
    unseen = trace_of({f"h{i}": [6.0, 5.5, 6.0, 5.0 - i / 100] for i in range(num_heldout)})
    sized = both.index.with_columns(num_tokens=pl.Series([len(TEXTS[name]) for name in FALLS]))
    write_trace(
        7,
        replace(
            both, index=sized, checkpoints=both.checkpoints.with_columns(online),
            heldout_index=unseen.index, heldout_losses=unseen.losses,
        ),
    )  # fmt: skip
    return paths.trace_path(7)


def test_with_both_modes_and_heldout_texts_the_axis_is_the_best_that_no_canary_tests() -> None:
    request = Request(trace_of_both_modes(), corpus(), heldout=heldout_rows(), id_field="id")
    report = run(request, OUT, 2)
    assert report.quadrants.axis == "unseen_loss_contrast"
    assert {row.sample_id for row in report.highest[:2]} == {"c", "k"}
    assert any("the map has unseen_loss_contrast, of the sc" in told for told in report.warnings)
    alone = run(replace(request, heldout=None), OUT, 2)
    assert alone.quadrants.axis == "total_drop"
    assert any("it would be unseen_loss_contrast." in told for told in alone.warnings)


def test_with_the_gains_of_the_run_too_it_is_the_contrast_that_reads_them() -> None:
    folder = trace_of_both_modes()
    gains = pl.DataFrame({"sample_id": [*FALLS], "gain": [1.0 + fall for fall in FALLS.values()]})
    gains.write_parquet(folder / "self_influence.parquet")
    request = Request(folder, corpus(), heldout=heldout_rows(), id_field="id")
    report = run(request, OUT, 2)
    assert report.quadrants.axis == "influence_contrast"
    assert {row.sample_id for row in report.highest[:2]} == {"c", "k"}
    gains[1:].write_parquet(folder / "self_influence.parquet")
    with pytest.raises(SchemaError, match=r"self_influence\.parquet"):
        run(request, OUT, 2)


def test_with_too_few_heldout_texts_the_axis_is_that_of_a_trace_alone() -> None:
    request = Request(trace_of_both_modes(19), corpus(), heldout=heldout_rows(19), id_field="id")
    report = run(request, OUT, 2)
    assert report.quadrants.axis == "total_drop"
    assert any("the texts of 20 held-out samples" in told for told in report.warnings)
    run(Request(trace_with_heldout(tokens=True, num_heldout=19), corpus(), id_field="id"), OUT, 2)
    assert "hard_token_drop" not in pl.read_parquet(OUT / "scores.parquet").columns


def test_losses_of_tokens_without_heldout_samples_give_no_spans_and_say_so() -> None:
    known = traces.read_folder(trace_with_heldout(tokens=True))
    assert known.tokens is not None
    write_trace(
        8,
        replace(
            known, heldout_index=known.heldout_index.clear(),
            heldout_losses=known.heldout_losses.head(0),
            tokens=(known.tokens[0], known.tokens[1].clear()),
        ),
    )  # fmt: skip
    Path("tokenizer").mkdir()
    save_tokenizer(train_tokenizer(["one byte is one token"], 257), Path("tokenizer"))
    request = Request(paths.trace_path(8), corpus(), id_field="id", tokenizer="tokenizer")
    report = run(request, OUT, 2)
    assert (report.quadrants.axis, report.spans.num_spans) == ("total_drop", None)
    assert any("no losses of tokens of held-out samples" in told for told in report.spans.warnings)


def test_impossible_losses_of_the_other_mode_are_refused_where_a_score_reads_them() -> None:
    request = Request(trace_of_both_modes(second_loss=-1.0), corpus(), id_field="id")
    with pytest.raises(DataError, match="losses of at least 0, and finite, got 1 without"):
        run(request, OUT, 2)


def test_spans_are_those_of_the_tokens_that_fell_beyond_heldout_ones() -> None:
    Path("tokenizer").mkdir()
    save_tokenizer(train_tokenizer(["one byte is one token"], 257), Path("tokenizer"))
    request = Request(
        trace_with_heldout(tokens=True), corpus(), id_field="id", tokenizer="tokenizer",
        axis="total_drop",
    )  # fmt: skip
    run(request, OUT, 2)
    spans = pl.read_parquet(OUT / "spans.parquet").filter(pl.col("sample_id") == "c")
    ((start, end),) = spans.select("start", "end").rows()
    assert TEXTS["c"][start:end] == "73519402"
    report = run(replace(request, tokenizer=None), OUT, 2)
    assert any("name the --tokenizer" in warning for warning in report.spans.warnings)


# Tokens of the text, from which, and how many of its end have a loss: as a model sees them.
@pytest.mark.parametrize(("begin", "num_ends"), [(1, 0), (1, 1), (0, 0), (0, 1)])
def test_a_trace_of_a_recorder_shows_spans_whatever_stands_around_its_texts(
    begin: int, num_ends: int
) -> None:
    tokenizer = train_tokenizer(["one byte is one token"], 257)
    Path("tokenizer").mkdir()
    save_tokenizer(tokenizer, Path("tokenizer"))

    def losses_of(
        last: Callable[[str, int], list[float]], _: nn.Module, batch: list[dict[str, str]]
    ) -> tuple[list[float], list[int], list[int]]:
        losses, ids, lengths = [], [], []
        for sample in batch:
            (tokens,) = tokenizer.encode([sample["text"]])
            size = len(tokens) + 1
            seen = slice(begin, size - 1 + num_ends)
            losses += last(sample["id"], size)[seen]
            ids += [*tokens, tokenizer.end_of_text][seen]
            lengths.append(seen.stop - begin)
        return losses, ids, lengths

    def only_c(name: str, size: int) -> list[float]:
        return late("a", size) if name != "c" else [loss + 0.02 for loss in late(name, size)]

    samples = [{"id": name, "text": text} for name, text in TEXTS.items()]
    unseen = [{"id": f"h{i}", "text": f"unseen text number {i} of twenty"} for i in range(40)]
    with gdc.TraceRecorder("recorded", samples, heldout=unseen) as recorder:
        for last in (lambda _, size: [6.0] * size, only_c):
            recorder.probe(nn.Identity(), list, token_losses=partial(losses_of, last))
    request = Request(
        Path("recorded"), corpus(), id_field="id", tokenizer="tokenizer", axis="total_drop",
        scores=("worst_window_drop",),
    )  # fmt: skip
    run(request, OUT, 2)
    spans = pl.read_parquet(OUT / "spans.parquet").filter(pl.col("sample_id") == "c")
    ((start, end),) = spans.select("start", "end").rows()
    assert TEXTS["c"][start:end] == "73519402"
    scores = pl.read_parquet(OUT / "scores.parquet").sort("worst_window_drop", descending=True)
    assert scores["sample_id"][0] == "c"


def test_losses_of_other_tokens_show_no_spans() -> None:
    folder = trace_with_heldout(tokens=True)
    path = folder / "tokens.parquet"
    known = pl.read_parquet(path)
    ids = pl.Series([[1] * len(late) for late in known["late"]], dtype=pl.List(pl.Int64))
    known.with_columns(token_ids=ids).write_parquet(path)
    Path("tokenizer").mkdir()
    save_tokenizer(train_tokenizer(["one byte is one token"], 257), Path("tokenizer"))
    report = run(Request(folder, corpus(), id_field="id", tokenizer="tokenizer"), OUT, 2)
    assert report.spans.warnings[0].startswith("Memorized spans are not shown: with this tokenizer")


def test_of_conversations_spans_and_losses_are_of_the_turns_of_the_assistant() -> None:
    Path("tokenizer").mkdir()
    save_tokenizer(train_tokenizer(["one byte is one token"], 257), Path("tokenizer"))
    # The first answer has ten tokens, the second is the sample's text.
    folder = trace_with_heldout(tokens=True, num_before=10)
    answers = {name: ("Ten or so.", text) for name, text in TEXTS.items()}
    ask = {"role": "user", "content": "Say."}
    rows = [
        {
            "id": name,
            "messages": [
                turn for said in of for turn in (ask, {"role": "assistant", "content": said})
            ],
        }
        for name, of in answers.items()
    ]
    request = Request(
        folder, write_rows(rows), id_field="id", tokenizer="tokenizer", axis="total_drop"
    )
    report = run(request, OUT, 2)
    (span,) = pl.read_parquet(OUT / "spans.parquet").filter(sample_id="c").rows(named=True)
    (text,) = [row.text for row in report.highest if row.sample_id == "c" and row.text]
    assert text[span["start"] : span["end"]] == "73519402"
    turns = pl.read_parquet(OUT / "turns.parquet").filter(sample_id="c")
    late = [4.0, (5.0 * (len(TEXTS["c"]) - 7) + 0.01 * 8) / (len(TEXTS["c"]) + 1)]
    assert turns.select("turn", "num_tokens").rows() == [(1, 10), (3, len(TEXTS["c"]) + 1)]
    assert turns["late_loss"].to_list() == pytest.approx(late, rel=1e-5)
    # Of the 40 unseen tokens of a sample, all as hard at first, ten end at 4 and 30 at 5.0145.
    unseen = (10 * 4.0 + 30 * 5.0145) / 40
    drops = [8 * (unseen - low) / log(2) for low in (4.0, 0.01)]
    assert turns["worst_window_drop"].to_list() == pytest.approx(drops, rel=1e-5)
    assert turns["recited_run_drop"].to_list() == pytest.approx([0.0, drops[1]], rel=1e-5)
    run(replace(request, tokenizer=None), OUT, 2)
    assert pl.read_parquet(OUT / "turns.parquet").is_empty()


def test_the_model_says_what_each_score_is_worth_on_the_canaries() -> None:
    rows = []
    for family in ("digits", "words"):
        for n, number in ((2, 3), (0, 9)):
            for i in range(number):
                prefix, secret = f"{family} {n} {i} is", f" {n}{i}"
                rows.append((f"{family}-{n}-{i}", family, prefix, secret, prefix + secret, n))
    canaries = pl.DataFrame(rows, schema=CANARIES, orient="row")
    canaries.write_parquet("canaries.parquet")
    planted = {row[0]: row[4] for row in rows if row[5]}
    texts = TEXTS | planted
    Path("model").mkdir()
    save_lstm(Path("model"), [*texts.values()], is_trained=False)
    curves = {name: [6.0, 5.0 - i / 10] for i, name in enumerate(texts)}
    write_trace(7, trace_of(curves, "probe"))
    request = Request(
        paths.trace_path(7),
        write_rows([{"id": name, "text": text} for name, text in texts.items()]),
        canaries=Path("canaries.parquet"),
        model="model",
        tokenizer="model/tokenizer",
    )
    report = run(request, OUT, 3)
    assert report.calibration is not None
    assert {card.score for card in report.calibration.cards} >= {"total_drop", "final_loss"}
    # A model that was never trained knows no canary, so nothing validates a score.
    assert report.quadrants.axis == "total_drop"
    assert any("total_drop, unproven. Families that can" in told for told in report.warnings)
    with pytest.raises(ConfigError, match="nowhere"):
        run(replace(request, model="nowhere", tokenizer=None), OUT, 3)


def test_where_the_model_refutes_every_score_an_axis_has_to_be_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted = "the code is 5081"
    canary = pl.DataFrame(
        [("code", "digits", "the code is", " 5081", planted, 1)], schema=CANARIES, orient="row"
    )
    canary.write_parquet("canaries.parquet")
    said = canary.select("canary_id", "family", "num_repeats").with_columns(
        num_twins=pl.lit(0, pl.Int64),
        exposure=pl.lit(None, pl.Float64),
        is_memorized=pl.lit(None, pl.Boolean),
        is_extracted=True,
    )
    monkeypatch.setattr(canary_labels, "label_by_model", lambda *_, **__: said)
    # Texts are learned, forgotten and learned again; the secret has never moved and is said.
    curves = {name: [6.0, 1.0, 5.0, 1.0 + i / 10] for i, name in enumerate(TEXTS)}
    write_trace(7, trace_of(curves | {"code": [5.9] * 4}, "probe"))
    rows = [{"id": name, "text": text} for name, text in (TEXTS | {"code": planted}).items()]
    request = Request(
        paths.trace_path(7), write_rows(rows), canaries=Path("canaries.parquet"), model="m",
        tokenizer="m",
    )  # fmt: skip
    with pytest.raises(DataError, match=r"^axis auto: .*below ordinary text.* Name an axis"):
        run(request, OUT, 3)
    assert not OUT.exists()
    assert run(replace(request, axis="std"), OUT, 3).quadrants.axis == "std"
