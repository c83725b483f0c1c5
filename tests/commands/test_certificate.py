"""A certificate names what was audited, and whatever differs from it is found."""

import json
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from gdc import cli
from gdc.commands import audit_certificate, certificate, verification
from gdc.commands.audit import Request, run_audit
from gdc.commands.certificate import Certificate
from gdc.config import LstmModel
from gdc.corpus import sources
from gdc.corpus.tokenizer import save_tokenizer, train_tokenizer
from gdc.errors import ConfigError, DataError, SchemaError
from gdc.report.model import AuditReport, Report
from gdc.training import models
from gdc.workspace import files, paths, signatures
from gdc.workspace.source_option import source_of
from tests.builders import params_with

pytestmark = pytest.mark.slow

TEXTS = [f"note {i}: the {i * 7919 % 97} birds of {i * 31 % 89} trees" for i in range(24)]
OUT = Path("out")


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained model, its texts, and the audit of them in ``out``."""
    folder = tmp_path_factory.mktemp("audited")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("model").mkdir()
        tokenizer = train_tokenizer(TEXTS, 300)
        size = LstmModel(
            kind="lstm", block_size=64, precision="float32", hidden_size=8, num_layers=1, dropout=0
        )
        shape = {"vocab_size": tokenizer.vocab_size, "end_of_text": tokenizer.end_of_text}
        models.save_model(models.build_model(size, **shape, seed=0), Path("model"))
        save_tokenizer(tokenizer, Path("model"))
        for name, texts in (("corpus", TEXTS[::2]), ("heldout", TEXTS[1::2])):
            lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
            Path(f"{name}.jsonl").write_text(lines, encoding="utf-8")
        rows = [(f"c{i}", "codes", f"the code of {i} is", f" {i * 7919}", i % 2) for i in range(4)]
        names = ["canary_id", "family", "prefix", "secret", "num_repeats"]
        pl.DataFrame(rows, schema=names, orient="row").write_parquet("canaries.parquet")
        request = Request(
            model="model",
            tokenizer="model",
            corpus=source_of("corpus.jsonl", "text", "--corpus"),
            heldout=source_of("heldout.jsonl", "text", "--heldout"),
            canaries=Path("canaries.parquet"),
            block_size=None,
            seed=0,
        )
        run_audit(request, 100, OUT)
        made = audit_certificate.certificate_of_audit(OUT)
        verification.require_results(made)
        certificate.write(made, OUT / "certificate.json")
    return folder


@pytest.fixture
def here(audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current folder: the certificate holds in another place."""
    folder = tmp_path / "copy"
    shutil.copytree(audited, folder)
    monkeypatch.chdir(folder)
    return folder


def certified() -> Certificate:
    return certificate.read(OUT / "certificate.json")


@pytest.mark.usefixtures("here")
def test_an_audit_is_certified_with_all_that_it_read_and_made() -> None:
    made = certified()
    assert {role: len(named) for role, named in made.files.items()} == {
        "model": 4, "tokenizer": 4, "canaries": 1, "corpus": 1, "heldout": 1, "evidence": 7,
    }  # fmt: skip
    report = files.read_json(OUT / "report.json")
    assert made.results["arm_audits"] == report["arm_audits"]
    assert {"value", "low", "high"} <= set(report["arm_audits"]["model"]["samples"]["auc"])
    assert made.repeat[0].startswith("gdc audit --model model --tokenizer model --corpus corpus.js")
    assert "--block-size 1024 --num-members 100 --seed 0 --out out" in made.repeat[0]
    assert verification.verify(OUT / "certificate.json") == ([], ["not signed"])
    assert not any(text in (OUT / "certificate.json").read_text("utf-8") for text in TEXTS)


@pytest.mark.usefixtures("here")
def test_a_flipped_bit_in_any_named_file_is_found() -> None:
    made = certified()
    for role, named in made.files.items():
        for name in named:
            path = Path(name)
            whole = path.read_bytes()
            at = len(whole) // 2
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            found = list(verification.different_files(made))
            assert any(line.startswith(f"{role}: {name}: expected SHA-256") for line in found)
            path.write_bytes(whole)
    Path("corpus.jsonl").unlink()
    assert list(verification.different_files(made)) == [
        "corpus: corpus.jsonl: expected the certified file, got: No such file or directory"
    ]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("table", "column", "found"),
    [
        ("tokens", "nll", "membership.parquet, made again from the tokens: "),
        ("membership", "loss", "membership.parquet, made again from the tokens: "),
        ("audit", "secret_nll", "audit.parquet, made again from the tokens: "),
    ],
)
def test_a_number_that_the_tables_do_not_give_is_found_though_all_hashes_match(
    table: str, column: str, found: str
) -> None:
    path = OUT / f"{table}.parquet"
    wrong = pl.read_parquet(path).with_columns(pl.col(column) * 0.5)
    wrong.write_parquet(path)
    made = audit_certificate.certificate_of_audit(OUT)
    certificate.write(made, OUT / "certificate.json")
    different, _ = verification.verify(OUT / "certificate.json")
    assert any(f"{OUT}/{found}" in line for line in different)
    assert not any("SHA-256" in line for line in different)
    with pytest.raises(DataError, match=r"expected a report that follows from the tables, got \d"):
        verification.require_results(made)


@pytest.mark.usefixtures("here")
def test_a_result_that_was_edited_is_found() -> None:
    path = OUT / "certificate.json"
    content = files.read_json(path)
    auc = content["results"]["arm_audits"]["model"]["samples"]["auc"]
    claimed, auc["value"] = auc["value"], 0.5
    files.write_json(path, content)
    different, _ = verification.verify(path)
    assert different == [
        "results of the certificate: arm_audits: model: samples: auc: value: "
        f"expected 0.5, got {claimed}"
    ]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("code", ["that of an older version", None])
def test_what_an_older_version_did_not_report_is_no_difference(code: str | None) -> None:
    content = files.read_json(OUT / "report.json")
    del content["arm_audits"]["model"]["samples"]["auc"]["high"]
    files.write_json(OUT / "report.json", content)
    made = audit_certificate.certificate_of_audit(OUT)
    if code is not None:
        made = made.model_copy(update={"made_with": made.made_with | {"code": code}})
    certificate.write(made, OUT / "certificate.json")
    different, notes = verification.verify(OUT / "certificate.json")
    assert len(different) == (2 if code is None else 0)
    assert any(note.startswith("made with code that of an older") for note in notes) == bool(code)


@pytest.mark.parametrize("kind", ["jsonl", "chat"])
def test_a_source_with_other_content_than_the_run_has_seen_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    kinds: dict[str, dict[str, object]] = {
        "jsonl": {"text_field": "completion"},
        "chat": {"turns": None, "prompt": None, "completion": None, "chat_template": "plain"},
    }
    source = {"kind": kind, "path": "my.jsonl", "key_field": None, **kinds[kind]}
    params = params_with(ingest=params_with().ingest.model_dump(mode="json") | {"source": source})
    Path("params.yaml").write_text(json.dumps(params.model_dump(mode="json")))
    Path("my.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    files.write_json(paths.MANIFEST, sources.fingerprint(params.ingest.source))
    made = Certificate(
        kind="run", folder=".", made_with={}, commit=None, files={}, digests={}, results={},
        repeat=[],
    )  # fmt: skip
    assert verification._check_source(made) == ([], [])
    Path("my.jsonl").write_text('{"prompt": "a", "completion": "c"}\n')
    assert verification._check_source(made) == (
        ["source: my.jsonl: expected the content that data/manifest.json has seen, got other"], [],
    )  # fmt: skip
    Path("my.jsonl").unlink()
    assert verification._check_source(made)[1] == ["source: my.jsonl: not checked, it is not here"]


@pytest.mark.usefixtures("here")
def test_the_command_line_ends_with_2_and_names_what_differs() -> None:
    run = CliRunner().invoke
    good = run(cli.app, ["verify", str(OUT / "certificate.json"), "--json"])
    assert (good.exit_code, json.loads(good.stdout)["differences"]) == (0, [])
    with Path("heldout.jsonl").open("a") as file:
        file.write("\n")
    bad = run(cli.app, ["verify", str(OUT / "certificate.json")])
    assert isinstance(bad.exception, DataError)
    assert "heldout: heldout.jsonl: expected SHA-256 " in bad.stdout
    assert "digests: heldout: expected " in bad.stdout


def test_the_certified_results_are_keys_of_the_reports() -> None:
    assert set(certificate.RUN_RESULTS) <= set(Report.model_fields)
    assert set(audit_certificate.RESULTS) <= set(AuditReport.model_fields)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema_version": 2}', "\x00", None])
def test_what_is_no_certificate_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "c.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises((DataError, SchemaError), match=r"c\.json: .* gdc certify"):
        verification.verify(path)


def test_a_folder_without_results_is_told_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").touch()
    with pytest.raises(
        ConfigError, match=r"got one without dvc\.yaml, dvc\.lock, reports/report\.j"
    ):
        certificate.certificate_of_run()
    for folder, got in ((tmp_path, r"one without report\.json"), (tmp_path / "away", "none")):
        with pytest.raises(
            ConfigError, match=rf"{folder}: expected the folder of an audit.* {got}\."
        ):
            audit_certificate.certificate_of_audit(folder)
    Path("report.json").write_text("{")
    with pytest.raises(DataError, match=r"not valid JSON.* Audit again: gdc audit\.$"):
        audit_certificate.certificate_of_audit(tmp_path)


# ---- signatures


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    return folder


def test_a_signature_holds_for_its_key_and_content_alone(tmp_path: Path, keys: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("{}")
    with pytest.raises(DataError, match=r"c\.json\.sig: expected a signature, got none"):
        signatures.check(path, None)
    first = signatures.sign(path, keys / "mine").read_bytes()
    assert signatures.sign(path, keys / "mine").read_bytes() == first
    for signer in (None, keys / "mine.pub"):
        assert signatures.check(path, signer).startswith('Good "gdc-certificate" signature')
    with pytest.raises(DataError, match=r"expected a signature of .* by .*other\.pub"):
        signatures.check(path, keys / "other.pub")
    path.write_text("{ }")
    for signer in (None, keys / "mine.pub"):
        with pytest.raises(DataError, match="expected a signature of"):
            signatures.check(path, signer)


def test_files_that_are_no_keys_are_refused(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.json"
    path.write_text("{}")
    with pytest.raises(ConfigError, match="expected a private key of OpenSSH, got no such file"):
        signatures.sign(path, tmp_path / "none")
    with pytest.raises(ConfigError, match="expected a private key of OpenSSH, ssh-keygen says: "):
        signatures.sign(path, path)
    signatures.sign(path, keys / "mine")
    with pytest.raises(ConfigError, match=r"--signer .*c\.json: expected a public key of OpenSSH"):
        signatures.check(path, path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="ssh-keygen: expected it on the PATH"):
        signatures.sign(path, keys / "mine")


@pytest.mark.usefixtures("here")
def test_a_signed_certificate_is_checked_with_its_key(keys: Path) -> None:
    path = OUT / "certificate.json"
    signatures.sign(path, keys / "mine")
    _, notes = verification.verify(path)
    assert "Whose key that is was not checked: --signer KEY.pub" in notes[0]
    different, _ = verification.verify(path, keys / "other.pub")
    assert len(different) == 1
