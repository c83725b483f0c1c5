"""What reads a file of the user's -> a function that gives it a wrong one, and judges the answer.

A target returns whether the input was accepted. It fails by a traceback of another kind than
``GdcError``, or by an assertion: the result is not what the input supports.
"""

import codecs
import gzip
import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import click
import numpy as np
import polars as pl
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner

from gdc import cli
from gdc.commands import certificate, own_files, verification
from gdc.config import JsonlSource, ParquetSource, TextSource
from gdc.corpus import sources
from gdc.errors import GdcError
from gdc.mapping.quadrants import QuadrantsSummary
from gdc.mapping.spans import SpansSummary
from gdc.report.model import CorpusSummary
from gdc.schema import CANARIES, CHECKPOINTS, PLAN, TRACE_INDEX
from gdc.workspace import dvc_files, files, paths, source_option
from tests.builders import preset_text
from tests.fuzz import model_targets, mutations, token_targets
from tests.fuzz.judged import accepts, seen
from tests.report.builders import params_of, report_of, tables_of

Target = Callable[[st.DataObject], bool]
OUT: Final = Path("out")
_TEXTS = ("one text", "another  text\twith tabs", "é 日本", "x" * 40)


# The command line that a process was at when a library aborted it.
COMMAND = Path("command.json")


def run(*arguments: str) -> str | None:
    """What a command prints; None: it refused its input."""
    COMMAND.write_text(json.dumps(arguments), encoding="utf-8")
    result = CliRunner().invoke(cli.app, list(arguments))
    error = result.exception
    if error is None or (isinstance(error, SystemExit) and error.code in (0, None)):
        return result.stdout
    if isinstance(error, GdcError | SystemExit | click.ClickException):
        assert str(error).strip(), "a refusal without a word"
        return None
    raise error


# ---- params.yaml


@cache
def right_params() -> dict[str, Any]:
    values: dict[str, Any] = YAML(typ="safe").load(preset_text("own-data"))
    return values


def write_params(data: st.DataObject) -> tuple[dict[str, Any], bool]:
    """A mutated params.yaml; the values, and whether the file holds just these."""
    values = data.draw(mutations.documents(right_params()))
    # JSON is YAML, but for numbers that are none and half characters.
    text = json.dumps(values, ensure_ascii=data.draw(st.booleans()))
    content = text.encode("utf-8", "surrogatepass")
    is_damaged = data.draw(st.booleans())
    if is_damaged:
        content = data.draw(mutations.damaged(preset_text("own-data").encode()))
    paths.PARAMS.write_bytes(content)
    return values, not is_damaged


def params(data: st.DataObject) -> bool:
    values, is_known = write_params(data)
    if not accepts(files.load_params):
        return False
    if is_known:
        dumped = files.load_params().model_dump(mode="json")
        assert same(dumped, values), f"taken as another value: {dumped} for {values}"
    return True


def same(one: object, other: object) -> bool:
    """Whether two values of JSON are equal, and none was made into one of another kind."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other


def source_of_params(data: st.DataObject) -> bool:
    """What ``gdc run --source`` does to a params.yaml: one block changes, or nothing."""
    write_params(data)
    before = paths.PARAMS.read_bytes()
    source = {"kind": "jsonl", "path": "my.jsonl", "text_field": "body", "key_field": None}
    if not accepts(lambda: source_option.write_source(source)):
        assert paths.PARAMS.read_bytes() == before
        return False
    old = YAML(typ="safe").load(before.decode())
    new = YAML(typ="safe").load(paths.PARAMS.read_text(encoding="utf-8"))
    old["ingest"]["source"] = source
    assert same(old, new)
    return True


# ---- rows of sources


def jsonl_rows(data: st.DataObject) -> bool:
    right = st.builds(lambda text: json.dumps({"text": text}).encode(), st.text(max_size=12))
    odd = st.builds(lambda value: json.dumps(value).encode(), mutations.values)
    half = st.builds(lambda value: json.dumps({"text": value}).encode(), mutations.values)
    lines = data.draw(st.lists(right | half | odd | st.binary(max_size=20), max_size=6))
    content = plain = b"\n".join(line.replace(b"\n", b"") for line in lines)
    path = Path("in.jsonl")
    path.write_bytes(content)
    if data.draw(st.integers(0, 5)) == 0:
        path = Path("in.jsonl.gz")
        packed = gzip.compress(content)
        path.write_bytes(data.draw(st.just(packed) | mutations.damaged(packed)))
        content = packed if path.read_bytes() == packed else b""
    source = JsonlSource(kind="jsonl", path=str(path), text_field="text", key_field=None)
    if not accepts(lambda: sources.read_source(source, max_chars=100, seed=0)):
        return False
    rows = sources.read_source(source, max_chars=100, seed=0)
    # A file may be a bad row as a whole, such as one that looks like objects over several lines.
    is_whole = rows.bad_rows["source"].to_list() == [path.name]
    if content and not is_whole:
        texts = [text for text in map(text_of_line, lines) if text is not None]
        assert rows.rows["text"].to_list() == texts
        # A byte order mark before the first line is none of its text.
        all_lines = plain.removeprefix(codecs.BOM_UTF8).split(b"\n")
        num_lines = sum(bool(line.strip()) for line in all_lines)
        assert rows.rows.height + rows.bad_rows.height == num_lines
    return True


def text_of_line(line: bytes) -> str | None:
    """A second reader: the text of a line of JSON, or None where it has no usable one."""
    try:
        value = json.loads(line.replace(b"\n", b"").decode("utf-8-sig"))
        text = value["text"]
        text.encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return text if len(text) <= 100 and seen(text) else None


def text_rows(data: st.DataObject) -> bool:
    units: tuple[Literal["file", "paragraph", "line"], ...] = ("file", "paragraph", "line")
    unit = data.draw(st.sampled_from(units))
    text = data.draw(st.text(max_size=60) | st.text("ab \n\r\t", max_size=60))
    content = text.encode("utf-8", "surrogatepass")
    if data.draw(st.integers(0, 3)) == 0:
        content = data.draw(mutations.damaged(content))
    Path("in.txt").write_bytes(content)
    source = TextSource(kind="text", path="in.txt", unit=unit)
    if not accepts(lambda: sources.read_source(source, max_chars=100, seed=0)):
        return False
    rows = sources.read_source(source, max_chars=100, seed=0)
    if rows.bad_rows.is_empty():
        found = "".join(map(seen, rows.rows["text"]))
        assert found == seen(content.decode()), "characters are missing"
    return True


def parquet_rows(data: st.DataObject) -> bool:
    right = pl.DataFrame({"text": _TEXTS, "key": range(4)})
    table = data.draw(mutations.tables(right))
    path = Path("in.parquet")
    table.write_parquet(path)
    is_damaged = data.draw(st.booleans())
    if is_damaged:
        path.write_bytes(data.draw(mutations.damaged(path.read_bytes())))
    key = data.draw(st.sampled_from([None, "key"]))
    source = ParquetSource(kind="parquet", path=str(path), text_field="text", key_field=key)
    if not accepts(lambda: sources.read_source(source, max_chars=100, seed=0)):
        return False
    rows = sources.read_source(source, max_chars=100, seed=0)
    if not is_damaged:
        assert rows.rows.height + rows.bad_rows.height == table.height
        texts = iter(table["text"].to_list())
        assert all(text in texts for text in rows.rows["text"]), "a text that is not there"
    return True


# ---- traces, canaries, plans


def write_trace(folder: Path) -> None:
    rng = np.random.default_rng(0)
    (folder / "train").mkdir(parents=True)
    ids = [f"s{i:02d}" for i in range(20)]
    index = pl.DataFrame({"sample_id": ids, "num_tokens": [5] * 20}, schema=TRACE_INDEX)
    index.write_parquet(folder / "train/index.parquet")
    rows = [(t, 10 * t, float(t), "online", 0.1) for t in range(4)]
    checkpoints = pl.DataFrame(rows, schema=CHECKPOINTS, orient="row")
    checkpoints.write_parquet(folder / "checkpoints.parquet")
    for t in range(4):
        losses = rng.gamma(2, 1, 20).astype(np.float32)
        pl.DataFrame({f"loss_{t:03d}": losses}).write_parquet(
            folder / f"train/loss_{t:03d}.parquet"
        )


def traces(data: st.DataObject) -> bool:
    folder = Path("trace")
    for old in (folder, OUT):
        shutil.rmtree(old, ignore_errors=True)
    write_trace(folder)
    path = data.draw(st.sampled_from(sorted(folder.rglob("*.parquet"))))
    change = data.draw(st.sampled_from(["table", "table", "table", "bytes", "remove", "copy"]))
    if change == "table":
        data.draw(mutations.tables(pl.read_parquet(path))).write_parquet(path)
    elif change == "bytes":
        path.write_bytes(data.draw(mutations.damaged(path.read_bytes())))
    elif change == "remove":
        path.unlink()
    else:
        name = data.draw(st.sampled_from(["loss_004.parquet", "shard_00001", "x.parquet"]))
        shutil.copy(path, path.with_name(name))
    printed = run("map", str(folder), "--out", str(OUT), "--score", "memorization", "--json")
    if printed is None:
        return False
    counts = json.loads(printed)["counts"]
    scores = pl.read_parquet(OUT / "scores.parquet")
    num_samples = pl.read_parquet(folder / "train/index.parquet").height
    assert sum(counts.values()) == scores.height == num_samples
    assert scores["sample_id"].n_unique() == num_samples
    assert scores["difficulty"].is_finite().all()
    assert scores["memorization"].is_between(0, 1).all()
    if change != "bytes":
        assert_difficulty(folder, scores)
    return True


def assert_difficulty(folder: Path, scores: pl.DataFrame) -> None:
    """A second computation: the mean of the early losses that were seen."""
    summary = files.read_json(OUT / "scores.json")
    early = pl.read_parquet(folder / "checkpoints.parquet")["checkpoint"][: summary["num_early"]]
    columns = [
        pl.read_parquet(folder / f"train/loss_{t:03d}.parquet").to_series().to_numpy()
        for t in early
    ]
    expected = np.nanmean(np.array(columns, dtype=np.float64), axis=0)
    assert np.allclose(scores["difficulty"].to_numpy(), expected, rtol=1e-5)


def canaries(data: st.DataObject) -> bool:
    rows = [(f"c{i}", "codes", f"the code of {i} is", f" {i}", i % 2) for i in range(4)]
    names = ["canary_id", "family", "prefix", "secret", "num_repeats"]
    right = pl.DataFrame(rows, schema=names, orient="row")
    ending = data.draw(st.sampled_from(["parquet", "jsonl"]))
    path = Path(f"canaries.{ending}")
    is_table = data.draw(st.booleans())
    table = data.draw(mutations.tables(right)) if is_table else right
    try:
        table.write_parquet(path) if ending == "parquet" else table.write_ndjson(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):  # JSON has no bytes
        return False
    if not is_table:
        path.write_bytes(data.draw(mutations.damaged(path.read_bytes())))
    if not accepts(lambda: own_files.read_canaries(path)):
        return False
    read = own_files.read_canaries(path)
    assert read.schema == CANARIES
    assert not read["canary_id"].is_duplicated().any()
    assert (read["num_repeats"] >= 0).all()
    assert not (read["secret"] == "").any()
    if is_table:
        assert read["secret"].to_list() == [str(secret) for secret in table["secret"]]
        assert read["num_repeats"].to_list() == [float(n) for n in table["num_repeats"].to_list()]
    return True


def plans(data: st.DataObject) -> bool:
    paths.PARAMS.write_text(preset_text("own-data"), encoding="utf-8")
    arm = next(iter(right_params()["intervene"]["arms"]))
    rows: list[tuple[object, ...]] = [
        (f"s{i}", ("keep", "drop")[i % 2], 1.0, 1, f"rank {i}", []) for i in range(6)
    ]
    table = data.draw(mutations.tables(pl.DataFrame(rows, schema=PLAN, orient="row")))
    path = paths.plan_path(arm)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(path)
    is_damaged = data.draw(st.booleans())
    if is_damaged:
        path.write_bytes(data.draw(mutations.damaged(path.read_bytes())))
    printed = run("plan", arm, "--json")
    if printed is None:
        return False
    if not is_damaged:
        summary = json.loads(printed)
        assert summary["num_samples"] == table.height == sum(summary["actions"].values())
        assert set(summary["actions"]) == set(table["action"].to_list())
    return True


# ---- what we wrote ourselves, in this version or an older one


@cache
def right_report() -> dict[str, Any]:
    return report_of(tables_of(), params_of())


def reports(data: st.DataObject) -> bool:
    paths.REPORT.parent.mkdir(exist_ok=True)
    changed = data.draw(mutations.documents(right_report()))
    content = json.dumps(changed).encode()
    if data.draw(st.integers(0, 2)) == 0:
        content = data.draw(mutations.damaged(json.dumps(right_report()).encode()))
    paths.REPORT.write_bytes(content)
    command = data.draw(
        st.sampled_from(
            [
                ("show",),
                ("show", "--json", "--limit", "2"),
                ("show", "--markdown"),
                ("plan", "--max-extraction", "0.5", "--max-perplexity", "5", "--json"),
            ]
        )
    )
    printed = run(*command)
    if printed is not None and "--json" in command:
        value = json.loads(printed, parse_constant=refuse_constant)
        assert len(value.get("hotspots", ())) <= 2
    return printed is not None


def refuse_constant(name: str) -> object:
    raise AssertionError(f"{name} is no JSON")


def summaries(data: st.DataObject) -> bool:
    """The JSON files that one stage writes and another reads."""
    known: list[tuple[Any, dict[str, Any]]] = [
        (CorpusSummary, {"num_left_out": 0, "unread": {"hidden": {"num_files": 1, "first": []}}}),
        (QuadrantsSummary, right_report()["quadrants"]),
        (SpansSummary, right_report()["spans"]),
    ]
    form, right = data.draw(st.sampled_from(known))
    content = json.dumps(data.draw(mutations.documents(right))).encode()
    if data.draw(st.booleans()):
        content = data.draw(mutations.damaged(json.dumps(right).encode()))
    path = Path("summary.json")
    path.write_bytes(content)
    return accepts(lambda: files.read_as(form, path))


def certificates(data: st.DataObject) -> bool:
    Path("named").write_text("x")
    right = certificate.Certificate(
        kind="run",
        folder=".",
        made_with={"gdc": "0"},
        commit=None,
        files={"corpus": certificate.hash_files([Path("named")])},
        digests={},
        results={"arms": [1.5]},
        repeat=["gdc run"],
    ).model_dump(mode="json")
    content = json.dumps(data.draw(mutations.documents(right))).encode()
    if data.draw(st.booleans()):
        content = data.draw(mutations.damaged(json.dumps(right).encode()))
    path = Path("c.json")
    path.write_bytes(content)
    if not accepts(lambda: certificate.read(path)):
        return False
    made = certificate.read(path)
    named = [name for of_role in made.files.values() for name in of_role]
    found = list(verification.different_files(made))
    assert len(found) >= sum(name != "named" for name in named), "a missing file is not missed"
    return True


_LOCK = b"""schema: '2.0'
stages:
  manifest:
    cmd: python -m gdc.stages.manifest
    outs:
    - path: data/code.json
      hash: md5
      md5: 9e107d9d372bb6826bd81d3542a419d6
      size: 10
"""


def locks(data: st.DataObject) -> bool:
    content = data.draw(mutations.damaged(_LOCK))
    dvc_files.LOCK.write_bytes(content)
    for old in Path().glob("dvc.lock.damaged-*"):
        old.unlink()
    if dvc_files.repair() is None:
        assert dvc_files.LOCK.read_bytes() == content
        return True
    assert Path("dvc.lock.damaged-1").read_bytes() == content
    assert not dvc_files.LOCK.exists()
    return False


# ---- the command line


_COMMANDS = (
    "show", "plan", "map", "verify", "certify", "stage", "init", "audit", "run", "nothing",
)  # fmt: skip
_OPTIONS = (
    "--json", "--limit", "--markdown", "--out", "--mode", "--score", "--verify", "--signer",
    "--key",
    "--max-extraction", "--max-perplexity", "--force", "--model", "--corpus", "--seed", "--source",
    "--block-size", "--version", "-h",
)  # fmt: skip


def arguments(data: st.DataObject) -> bool:
    """In an empty folder, in which nothing but help can be had."""
    for path in Path().iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    word = st.sampled_from(_OPTIONS) | st.text(max_size=6) | st.sampled_from(mutations.NASTY)
    command = data.draw(st.sampled_from(_COMMANDS))
    words = [w.encode("utf-8", "replace").decode() for w in data.draw(st.lists(word, max_size=5))]
    printed = run(command, *words)
    assert printed is None or "-h" in words or command == "init", f"{command} {words}: {printed}"
    return printed is not None


TARGETS: Final[Mapping[str, tuple[Target, int]]] = {
    "params.yaml": (params, 2000),
    "params.yaml under --source": (source_of_params, 500),
    "rows of JSON lines": (jsonl_rows, 3000),
    "rows of text": (text_rows, 3000),
    "rows of Parquet": (parquet_rows, 600),
    "files of token ids": (token_targets.token_files, 3000),
    "trace folders": (traces, 300),
    "canary tables": (canaries, 500),
    "plans": (plans, 200),
    "reports": (reports, 500),
    "summaries of stages": (summaries, 800),
    "certificates": (certificates, 100),
    "dvc.lock": (locks, 50),
    "model folders": (model_targets.model_folders, 100),
    "tokenizers": (model_targets.tokenizers, 100),
    "training checkpoints": (model_targets.checkpoints, 150),
    "command lines": (arguments, 200),
}
"""Each target and the number of inputs of a whole campaign."""
