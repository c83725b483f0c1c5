"""An audit outside the pipeline: its files, its nulls, an over-trained model, refusals."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import gdc
from gdc.commands.audit import Request, open_tokenizer, read_inputs, run_audit
from gdc.commands.audit_certificate import certificate_of_audit
from gdc.commands.own_files import read_chat_template, tokenizer_of
from gdc.config import ChatSource, JsonlSource
from gdc.errors import ConfigError, DataError, SchemaError
from gdc.report.model import to_json
from gdc.schema import AUDIT, MEMBERSHIP
from gdc.workspace import outputs
from gdc.workspace.source_option import source_of
from tests.builders import MadeOnce
from tests.commands.builders import HELDOUT, MEMBERS, jsonl, save_lstm

pytestmark = pytest.mark.slow


def make_audited(folder: Path) -> None:
    """The first half of the texts was trained on, sixteen copies of a canary among them."""
    planted = ["the code of ann is 48151623"] * 16
    save_lstm(folder, [*MEMBERS, *planted])
    rows = [("c16", "codes", "the code of ann is", " 48151623", 16)]
    rows += [(f"t{i}", "codes", f"the code of {i} is", f" {i * 7919:08d}", 0) for i in range(9)]
    fields = ["canary_id", "family", "prefix", "secret", "num_repeats"]
    pl.DataFrame(rows, schema=fields, orient="row").write_parquet(folder / "canaries.parquet")
    jsonl(folder / "corpus.jsonl", MEMBERS)
    jsonl(folder / "heldout.jsonl", [*HELDOUT, MEMBERS[0]])


@pytest.fixture
def request_of_lstm(made_once: MadeOnce) -> Request:
    folder = made_once("audited-lstm", make_audited)
    corpus, heldout = (
        JsonlSource(kind="jsonl", path=str(folder / name), text_field="text", key_field=None)
        for name in ("corpus.jsonl", "heldout.jsonl")
    )
    return Request(
        model=str(folder),
        tokenizer=str(folder / "tokenizer"),
        corpus=corpus,
        heldout=heldout,
        canaries=folder / "canaries.parquet",
        block_size=None,
        seed=0,
    )


def test_an_over_trained_model_gives_everything_away(
    request_of_lstm: Request, tmp_path: Path
) -> None:
    built = to_json(run_audit(request_of_lstm, 100, tmp_path).measured.report)
    audits = built["arm_audits"]["model"]
    assert audits["canaries"]["planted"]["extracted"]["value"] == 1.0
    assert audits["canaries"]["twins"]["extracted"]["value"] == 0.0
    # Its cap: as likely as none of the nine twins.
    assert audits["canaries"]["planted"]["exposure"]["value"] == pytest.approx(np.log2(9))
    assert audits["samples"]["auc"]["value"] > 0.9
    assert "1 held-out texts stand in the corpus too and were left out." in built["warnings"]
    names = ["audit.parquet", "membership.parquet", "report.html", "report.json", "roc.png"]
    written = {*names, "elsewhere.parquet", "tokens.parquet", outputs.RESULTS}
    assert {path.name for path in tmp_path.iterdir()} == written
    audit, members = (pl.read_parquet(tmp_path / name) for name in names[:2])
    assert (audit.schema, audit.height) == (AUDIT, 10)
    assert members.columns[: len(MEMBERSHIP)] == MEMBERSHIP.names()
    assert members["is_member"].to_list() == [True] * 16 + [False] * 16
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "16 distinct training texts and 16 held-out ones, 1 planted canaries" in page
    assert "note 3" not in page + (tmp_path / "report.json").read_text(encoding="utf-8")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run_audit(request_of_lstm, 100, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_reference_with_another_tokenizer_is_refused(
    request_of_lstm: Request, tmp_path: Path
) -> None:
    reference = tmp_path / "reference"
    reference.mkdir()
    save_lstm(reference, HELDOUT, is_trained=False)
    shutil.copytree(reference / "tokenizer", reference, dirs_exist_ok=True)
    asked = replace(request_of_lstm, reference=str(reference))
    with pytest.raises(ConfigError, match=r"--reference .*/reference: expected a model with the "):
        run_audit(asked, 100, tmp_path / "out")


def test_python_is_given_the_tables_and_findings_of_an_audit(
    request_of_lstm: Request, tmp_path: Path
) -> None:
    folder = Path(request_of_lstm.model)
    found = gdc.audit_model(
        folder,
        folder / "corpus.jsonl",
        tmp_path,
        heldout=folder / "heldout.jsonl",
        tokenizer=folder / "tokenizer",
        canaries=request_of_lstm.canaries,
        num_members=100,
    )
    planted = found.canaries.filter(pl.col("num_repeats") > 0)
    assert planted["canary_id"].to_list() == ["c16"]
    assert planted["extracted"].to_list() == [True]
    assert planted["exposure"][0] == pytest.approx(np.log2(9))
    assert found.samples["is_member"].to_list() == [True] * 16 + [False] * 16
    assert found.findings[0].startswith("planted secrets extracted: 100 %")
    assert any("held-out texts stand in the corpus too" in warning for warning in found.warnings)
    assert found.report == tmp_path / "report.html"
    assert found.report.read_text(encoding="utf-8").startswith("<!")


def test_without_heldout_text_membership_is_not_measured(
    request_of_lstm: Request, tmp_path: Path
) -> None:
    alone = replace(request_of_lstm, heldout=None, canaries=None)
    built = to_json(run_audit(alone, 100, tmp_path).measured.report)
    samples = built["arm_audits"]["model"]["samples"]
    assert (samples["auc"], samples["epsilon_bound"], built["attacks"]["blind"]) == (None, None, {})
    leaked = built["leaked_samples"]
    assert samples["members"]["extracted"]["value"] == pytest.approx(len(leaked) / len(MEMBERS))
    assert leaked
    assert all("corpus.jsonl:" in row["source"] for row in leaked)
    assert any("No held-out text was given" in warning for warning in built["warnings"])
    assert not (tmp_path / "roc.png").exists()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No canary is planted, so extraction of secrets is not measured." in page


def test_an_audit_reads_folders_as_runs_do_and_names_what_is_not_read(
    request_of_lstm: Request, tmp_path: Path
) -> None:
    for folder, texts in (("corpus", MEMBERS), ("heldout", HELDOUT)):
        (tmp_path / folder).mkdir()
        jsonl(tmp_path / folder / "a.JSONL", texts[:8])
        jsonl(tmp_path / folder / "b.ndjson", texts[8:])
    jsonl(tmp_path / "corpus/.a.jsonl", HELDOUT)
    (tmp_path / "corpus/README.md").write_text("x", encoding="utf-8")
    request = replace(
        request_of_lstm,
        corpus=source_of(str(tmp_path / "corpus"), "text", "--corpus"),
        heldout=source_of(str(tmp_path / "heldout"), "text", "--heldout"),
        canaries=None,
    )
    built = to_json(run_audit(request, 100, tmp_path / "out").measured.report)
    assert built["summary"][0].startswith("16 distinct training texts and 16 held-out ones")
    assert built["summary"][1:] == [
        "--corpus: Not read: 2 files of the source: 1 hidden or temporary (corpus/.a.jsonl); "
        "1 of kind text (corpus/README.md)."
    ]
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "1 of kind text (corpus/README.md)" in page


@pytest.mark.parametrize("name", ["c.ndjson", "c.JSONL"])
def test_canaries_may_have_any_ending_of_json_lines(
    request_of_lstm: Request, tmp_path: Path, name: str
) -> None:
    assert request_of_lstm.canaries is not None
    pl.read_parquet(request_of_lstm.canaries).write_ndjson(tmp_path / name)
    asked = replace(request_of_lstm, canaries=tmp_path / name)
    built = to_json(run_audit(asked, 100, tmp_path / "out").measured.report)
    assert built["arm_audits"]["model"]["canaries"]["planted"]["extracted"]["value"] == 1.0
    assert "1 planted canaries and 9 twins" in built["summary"][0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "--corpus: expected a file or folder, got 'a.jsonl' (not found). Mend "
                     "the path.", id="missing"),
        pytest.param("", "--corpus: expected at least one usable row, got an empty source. Add "
                     "text, or mend it.", id="empty"),
        pytest.param('{"text": null}', "--corpus: expected usable rows, got 1 bad of 1: a.jsonl:1 "
                     "(text is null). Mend them.", id="a bad row"),
        pytest.param('{"body": "x"}', "--text-field: expected field 'text' in a.jsonl, got fields "
                     "['body']. Set --text-field to one of them.", id="another field"),
    ],
)  # fmt: skip
def test_an_audit_names_its_options_and_no_keys_of_params(
    request_of_lstm: Request,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str | None,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("a.jsonl").write_text(content, encoding="utf-8")
    source = JsonlSource(kind="jsonl", path="a.jsonl", text_field="text", key_field=None)
    with pytest.raises(DataError) as refused:
        run_audit(replace(request_of_lstm, corpus=source), 100, tmp_path / "out")
    assert str(refused.value) == message


def test_a_folder_without_a_tokenizer_is_refused_by_the_name_of_its_option(
    request_of_lstm: Request, tmp_path: Path
) -> None:
    asked = replace(request_of_lstm, tokenizer=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"^--tokenizer: '.*none': expected a local folder"):
        run_audit(asked, 100, tmp_path / "out")


def test_any_causal_model_of_transformers_is_audited(
    request_of_lstm: Request, tmp_path: Path
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415 - slow, only here

    folder = tmp_path / "gpt2"
    config = GPT2Config(
        vocab_size=300,
        n_positions=48,
        n_embd=8,
        n_layer=1,
        n_head=1,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    foreign = replace(request_of_lstm, model=str(folder), canaries=None)
    built = to_json(run_audit(foreign, 100, tmp_path / "out").measured.report)
    assert "in windows of 48 tokens" in built["summary"][0]
    # It has learned nothing: each of its 300 tokens is as likely as any other.
    losses = pl.read_parquet(tmp_path / "out/membership.parquet")["loss"].to_list()
    assert losses == pytest.approx([np.log(300)] * 32, rel=0.02)
    with pytest.raises(DataError, match="at most the 48 positions"):
        run_audit(replace(foreign, block_size=64), 100, tmp_path / "out")


def test_heldout_texts_that_are_all_members_are_refused(
    request_of_lstm: Request, tmp_path: Path
) -> None:
    same = replace(request_of_lstm, heldout=request_of_lstm.corpus)
    with pytest.raises(DataError, match="every text of it stands in the corpus"):
        run_audit(same, 100, tmp_path)


def test_a_damaged_model_is_named(request_of_lstm: Request, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config = (Path(request_of_lstm.model) / "config.json").read_bytes()
    (folder / "config.json").write_bytes(config)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(SchemaError, match=r"model\.safetensors: expected the weights"):
        run_audit(replace(request_of_lstm, model=str(folder)), 100, tmp_path / "out")


def test_a_file_in_place_of_a_model_is_refused_by_its_option(tmp_path: Path) -> None:
    (tmp_path / "my.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"^--model .*my\.jsonl: .* or a Hub name, got a file"):
        tokenizer_of(str(tmp_path / "my.jsonl"))


def test_a_model_without_a_tokenizer_wants_one_named(
    request_of_lstm: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = tmp_path / "data/models/none-1"
    ours.mkdir(parents=True)
    (tmp_path / "data/tokenizer").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    assert tokenizer_of("models/none-1") == str(tmp_path / "data/tokenizer")
    assert tokenizer_of("owner/name") == "owner/name"
    assert tokenizer_of(str(Path(request_of_lstm.tokenizer))) == request_of_lstm.tokenizer
    for missing in ("./nope", str(tmp_path / "nope"), "data/models/nope"):
        with pytest.raises(
            ConfigError, match="expected a folder or a Hub name, got no such folder"
        ):
            tokenizer_of(missing)
    Path("foreign").mkdir()
    with pytest.raises(ConfigError, match=r"--model foreign: .* --tokenizer"):
        tokenizer_of("foreign")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("not json", "expected Parquet or JSON lines with the fields", id="no JSON"),
        pytest.param(
            '{"canary_id": "a", "family": "f", "prefix": "p", "secret": "s", "num_repeats": "KEY"}',
            "got [A-Za-z]+Error. Write it so",
            id="the secret is not quoted",
        ),
        pytest.param(
            '{"canary_id": "a", "family": "f", "prefix": "p", "secret": "s", "num_repeats": -1}',
            "num_repeats >= 0",
            id="negative repeats",
        ),
        pytest.param(
            '{"canary_id": "a", "family": "f", "prefix": "p", "secret": "", "num_repeats": 1}',
            "no empty prefix or secret",
            id="empty secret",
        ),
        pytest.param('{"canary_id": "a"}', "expected Parquet or JSON lines", id="missing fields"),
    ],
)
def test_canaries_that_cannot_be_read_are_refused(
    request_of_lstm: Request, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "canaries.jsonl"
    path.write_text(content + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        run_audit(replace(request_of_lstm, canaries=path), 100, tmp_path)


# A tokenizer of the pipeline has no template of its own.
BRACKETS = """{% for m in messages %}[{{ m.role }}] {{ m.content }};
{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"""


def test_conversations_are_audited_by_a_template_of_a_file(
    request_of_lstm: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    talks = [(f"What is in room {i}?", text) for i, text in enumerate(MEMBERS[:4])]
    rows = [json.dumps({"prompt": asked, "completion": said}) for asked, said in talks]
    Path("my.jsonl").write_text("\n".join(rows))
    template = Path("brackets.jinja")
    template.write_text(BRACKETS)
    request = replace(
        request_of_lstm, corpus=source_of("my.jsonl", "text", "--corpus"), heldout=None,
        canaries=None, chat_template=template,
    )  # fmt: skip
    tokenizer = open_tokenizer(request)
    samples = read_inputs(request, 10, tokenizer).texts.samples
    assert sorted(samples["text"]) == sorted(
        f"[user] {asked};\n[assistant] {said};" for asked, said in talks
    )
    run_audit(request, 10, Path("out"))
    # The loss is on the answer and the mark of its end, and on the end of text.
    expected = [len(ids) + 1 for ids in tokenizer.encode([f"{said};" for _, said in talks])]
    found = pl.read_parquet("out/membership.parquet")["num_tokens"]
    assert sorted(found) == sorted(expected)
    made = certificate_of_audit(Path("out"))
    assert "brackets.jinja" in made.files["tokenizer"]
    assert "--chat-template brackets.jinja" in made.repeat[0]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        pytest.param(
            None, "expected a file with a Jinja template, got FileNotFoundError. Name one",
            id="no such file",
        ),
        pytest.param(
            "{% for m in messages %}\n{{ m.content }",
            "got one with an error in line 2: unexpected",
            id="no template",
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_no_template_is_refused(
    template: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "chat.jinja"
    if template is not None:
        path.write_text(template)
    chats = ChatSource.model_validate(
        {"kind": "chat", "path": "my.jsonl", "turns": None, "prompt": None, "completion": None,
         "chat_template": "tokenizer", "key_field": None}
    )  # fmt: skip
    with pytest.raises(ConfigError, match=re.escape(f"--chat-template {path}: ")) as refused:
        read_chat_template(path, chats)
    assert message in str(refused.value)


def test_texts_have_no_chat_template(request_of_lstm: Request, tmp_path: Path) -> None:
    asked = replace(request_of_lstm, chat_template=tmp_path / "chat.jinja")
    with pytest.raises(ConfigError, match="expected conversations in --corpus, got texts"):
        open_tokenizer(asked)
