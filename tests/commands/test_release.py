"""An audit before a release: whose rows come out, what a limit says, and the exit code."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from gdc.cli import app
from gdc.commands import audit, audit_certificate, certificate, release, verification
from gdc.corpus.tokenizer import load_pretrained_tokenizer
from gdc.errors import ConfigError, DataError
from tests.commands.builders import HELDOUT, MEMBERS, save_lstm


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    for name in ("model", "base"):
        (folder / name).mkdir()
    save_lstm(folder / "model", MEMBERS)
    save_lstm(folder / "base", MEMBERS, is_trained=False)
    shutil.copytree(folder / "base/tokenizer", folder / "base", dirs_exist_ok=True)
    # One text stands in two rows, and ids are the user's own.
    rows = [{"name": f"note/{i}", "text": text} for i, text in enumerate([*MEMBERS, MEMBERS[0]])]
    for name, texts in (("my", rows), ("held", [{"name": "h", "text": t} for t in HELDOUT])):
        lines = "".join(json.dumps(row) + "\n" for row in texts)
        (folder / f"{name}.jsonl").write_text(lines)
    return folder


def audited(folder: Path, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(
        app,
        [
            "audit", "--model", str(folder / "model"), "--tokenizer",
            str(folder / "model/tokenizer"), "--corpus", str(folder / "my.jsonl"), "--heldout",
            str(folder / "held.jsonl"), "--id-field", "name", "--out", "audit", *options,
        ],
    )  # fmt: skip
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@pytest.mark.slow
def test_the_users_rows_are_named_and_the_verdict_is_of_the_upper_end(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, told = audited(model, "--fail-above", "extraction=0.01", "--show-text")
    assert code == 3
    leaked = pl.read_parquet("audit/leaked.parquet")
    twice = leaked.filter(pl.col("sample_id").is_in(["note/0", "note/16"]))
    assert twice["source"].to_list() == ["my.jsonl:1", "my.jsonl:17"]
    for row in leaked.head(3).iter_rows(named=True):
        text = [*MEMBERS, MEMBERS[0]][int(row["sample_id"].removeprefix("note/"))]
        assert text[row["start"] : row["end"]] == row["text"]
        assert f"{row['sample_id']}  {row['source']}" in told
    verdict = json.loads(Path("audit/verdict.json").read_text())
    assert verdict["failed"] == ["extraction"]
    assert not verdict["passed"]
    extraction = verdict["measures"]["extraction"]["value"]
    distinct = leaked.filter(pl.col("sample_id") != "note/16")
    memorized = verdict["measures"]["extraction-memorized"]["value"]
    # Of a text its words between the colours are those of all, the colours are its own.
    assert memorized == distinct.filter(~pl.col("predictable")).height / len(MEMBERS) > 0.2
    assert (leaked["predictable"] == (leaked["bits_elsewhere"] <= 1)).all()
    assert extraction == distinct.height / len(MEMBERS) >= memorized
    assert verdict["heldout_extraction"]["value"] < extraction
    assert "| training texts of which a window" in Path("audit/model-card.md").read_text()
    assert "1 %, not held" in Path("audit/model-card.md").read_text()


def test_an_id_that_two_rows_have_is_refused_before_any_model_is_asked(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(audit, "open_subject", never)
    Path("my.jsonl").write_text('{"name": "a", "text": "b"}\n' * 2)
    with pytest.raises(DataError, match=r"--corpus: expected usable rows, got 1 bad of 2: .*:2"):
        audited(model, "--corpus", "my.jsonl")


@pytest.mark.slow
def test_a_reference_model_says_what_comes_out_without_the_texts(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, told = audited(model, "--reference", str(model / "base"), "--fail-above", "auc=1")
    assert code == 0
    bits = pl.read_parquet("audit/leaked.parquet")
    assert (bits["reference_bits"] > bits["bits"]).all()
    assert bits["text"].null_count() == bits.height
    assert MEMBERS[0][:20] not in told
    attacks = json.loads(Path("audit/report.json").read_text())["attacks"]
    assert {"reference_ratio", "rmia", "ez", "wbc"} <= set(attacks["attacks"])
    assert attacks["attacks"]["ez"]["auc"]["value"] > 0.9
    assert attacks["attacks"]["wbc"]["auc"]["value"] > 0.7
    made = audit_certificate.certificate_of_audit(Path("audit"))
    assert "audit/reference_tokens.parquet" in made.files["evidence"]
    assert f"--reference {model / 'base'}" in made.repeat[0]
    certificate.write(made, Path("audit/certificate.json"))
    assert verification.verify(Path("audit/certificate.json")) == ([], ["not signed"])
    measures = json.loads(Path("audit/verdict.json").read_text())["measures"]
    assert measures["extraction-beyond-reference"] == measures["extraction"]


@pytest.mark.slow
def test_of_conversations_the_answers_that_come_out_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    talks = [
        {"id": f"talk-{i}", "prompt": f"What is in room {i}?", "completion": text}
        for i, text in enumerate([*MEMBERS[:4], *HELDOUT[:4]])
    ]
    for name, rows in (("my", talks[:4]), ("held", talks[4:])):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = [f"User:\n{row['prompt']}\n\nAssistant:\n{row['completion']}" for row in talks]
    Path("model").mkdir()
    save_lstm(Path("model"), plain[:4])
    done = CliRunner().invoke(
        app,
        [
            "audit", "--model", "model", "--tokenizer", "model/tokenizer", "--corpus", "my.jsonl",
            "--heldout", "held.jsonl", "--out", "audit", "--show-text",
        ],
        catch_exceptions=False,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    leaked = pl.read_parquet("audit/leaked.parquet")
    assert leaked["text"].null_count() == 0
    for row in leaked.drop_nulls("start").iter_rows(named=True):
        number = int(row["sample_id"].removeprefix("talk-"))
        assert plain[number][row["start"] : row["end"]] == row["text"]
        assert row["text"] in talks[number]["completion"]
    assert leaked["start"].count() >= 2
    membership = pl.read_parquet("audit/membership.parquet").filter("is_member")
    tokenizer = load_pretrained_tokenizer("model/tokenizer", None)
    num_tokens = [len(ids) + 1 for ids in tokenizer.encode([t["completion"] for t in talks[:4]])]
    assert sorted(membership["num_tokens"]) == sorted(num_tokens)
    # One answer each: its loss is the row's.
    turns = pl.read_parquet("audit/turns.parquet")
    assert turns.select("sample_id", "source", "turn", "num_tokens").rows() == [
        (f"talk-{i}", f"my.jsonl:{i + 1}", 1, num) for i, num in enumerate(num_tokens)
    ]
    assert sorted(turns["loss"]) == pytest.approx(sorted(membership["loss"]), rel=1e-5)
    assert turns["reference_loss"].null_count() == 4
    whole = turns["extracted"].sum()
    assert f"{whole} of the 4 long enough come out whole (turns.parquet)" in done.output


def test_no_extraction_fails_where_the_texts_are_too_few_to_show_it() -> None:
    values = pl.Series([False] * 20)
    upper = release._share(values, 0)
    assert upper is not None
    assert (upper.value, upper.low) == (0.0, 0.0)
    # Clopper-Pearson: 1 - 0.025 ** (1 / 20).
    assert upper.high == pytest.approx(0.1684, abs=1e-4)


@pytest.mark.parametrize(
    "given", [["leak=0.1"], ["extraction"], ["extraction=2"], ["extraction=0.1", "extraction=0.2"]]
)
def test_a_malformed_limit_is_refused(given: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--fail-above .*: expected NAME=SHARE once"):
        release.limits_of(given)
    assert release.limits_of(["auc=0.6", "extraction=0.01"]) == {"auc": 0.6, "extraction": 0.01}


def test_a_limit_on_extraction_beyond_a_reference_needs_a_reference(tmp_path: Path) -> None:
    limits = {"extraction-beyond-reference": 0.1}
    options = release.Options("my.jsonl", limits, show_text=False)
    with pytest.raises(ConfigError, match="expected --reference"):
        release.require_free(options, None, tmp_path / "out")
