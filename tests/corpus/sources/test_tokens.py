"""Token ids as a source: texts by the tokenizer that made them, and what cannot be one."""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import polars as pl
import pytest
from pydantic import ValidationError

from gdc.config import Source, TokensSource
from gdc.corpus.sources import fingerprint, read_keyed, read_source
from gdc.corpus.tokenizer import TextTokenizer, save_tokenizer, train_tokenizer
from gdc.errors import ConfigError, DataError
from gdc.stages import ingest, manifest
from gdc.workspace import tables
from gdc.workspace.source_option import source_of
from tests.builders import params_with
from tests.corpus.token_bytes import write_indexed, write_stream

TEXTS = [f"row {i % 20} of amber birch cedar tells\n" for i in range(24)]
LARGE = 60_000


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer(TEXTS, 300)


def source(
    path: str = "a.bin", dtype: str | None = None, separator: int | None = None
) -> TokensSource:
    return TokensSource.model_validate(
        {"kind": "tokens", "path": path, "dtype": dtype, "separator": separator}
    )


def texts_of(of: Source, tokenizer: TextTokenizer | None) -> list[tuple[str, str]]:
    found = read_source(of, max_chars=100, seed=0, tokenizer=tokenizer)
    assert found.bad_rows.is_empty()
    return found.rows.rows()


def write(tokenizer: TextTokenizer, letter: str = "H") -> None:
    """The texts as Megatron writes them in a.bin, and as nanoGPT does in b.bin."""
    encoded = [[*ids, tokenizer.end_of_text] for ids in tokenizer.encode(TEXTS)]
    write_indexed(Path("a.bin"), [[ids] for ids in encoded], letter)
    write_stream(Path("b.bin"), [id_ for ids in encoded for id_ in ids])


def test_both_formats_give_the_texts_in_order(tokenizer: TextTokenizer) -> None:
    write(tokenizer)
    for name, dtype in (("a.bin", None), ("b.bin", "uint16")):
        expected = [(text, f"{name}:{i}") for i, text in enumerate(TEXTS, start=1)]
        assert texts_of(source(name, dtype), tokenizer) == expected
        assert texts_of(source_of(name, "text", "--source"), tokenizer) == expected


def test_a_folder_is_read_file_by_file_and_a_changed_index_changes_the_fingerprint(
    tokenizer: TextTokenizer,
) -> None:
    Path("d").mkdir()
    for name in ("y", "x"):
        write_indexed(Path(f"d/{name}.bin"), [[ids] for ids in tokenizer.encode([name, "z"])])
    assert texts_of(source("d"), tokenizer) == [
        ("x", "d/x.bin:1"), ("z", "d/x.bin:2"), ("y", "d/y.bin:1"), ("z", "d/y.bin:2"),
    ]  # fmt: skip
    before = fingerprint(source("d/x.bin"))
    assert list(before["files"]) == ["x.bin", "x.idx"]
    Path("d/x.idx").write_bytes(b"other")
    assert fingerprint(source("d/x.bin"))["digest"] != before["digest"]


def test_ids_that_do_not_come_out_again_are_a_bad_row_to_train_on_but_can_be_shown(
    tokenizer: TextTokenizer,
) -> None:
    # The letters of a word that the tokenizer knows whole.
    letters = [id_ for letter in "amber" for id_ in tokenizer.encode([letter])[0]]
    assert letters != tokenizer.encode(["amber"])[0]
    write_indexed(Path("a.bin"), [[tokenizer.encode(["birch"])[0]], [letters], [[]]])
    found = read_source(source(), max_chars=100, seed=0, tokenizer=tokenizer)
    assert found.rows.rows() == [("birch", "a.bin:1")]
    assert found.bad_rows.rows() == [
        ("a.bin:2", "the tokenizer makes other ids of its text"), ("a.bin:3", "empty text"),
    ]  # fmt: skip
    write_indexed(Path("a.bin"), [[tokenizer.encode(["birch"])[0]], [letters]])
    shown = read_keyed(source(), max_chars=100, tokenizer=tokenizer)
    assert shown.select("sample_id", "text").rows() == [("0", "birch"), ("1", "amber")]


def test_ids_beyond_the_vocabulary_and_a_missing_tokenizer_are_refused(
    tokenizer: TextTokenizer,
) -> None:
    write_indexed(Path("a.bin"), [[[5]], [[5, LARGE]]])
    size = tokenizer.vocab_size
    with pytest.raises(DataError, match=rf"a\.bin:2: expected ids below {size}.*, got 60,000\."):
        read_source(source(), max_chars=100, seed=0, tokenizer=tokenizer)
    with pytest.raises(ConfigError, match=r"ingest\.tokenizer\.name: .* made the ids of a\.bin"):
        read_source(source(), max_chars=100, seed=0)


def test_half_of_a_pair_is_refused() -> None:
    write_indexed(Path("a.bin"), [[[5]]])
    Path("a.idx").rename("b.idx")
    with pytest.raises(DataError, match=r"b\.idx: expected the file of its ids .* b\.bin"):
        fingerprint(source("b.idx"))
    with pytest.raises(DataError, match=r"a\.bin: expected a\.idx .*ingest\.source\.dtype"):
        read_source(source(), max_chars=9, seed=0, tokenizer=train_tokenizer(["a"], 257))
    with pytest.raises(ValidationError, match="separator: expected null where dtype is null"):
        source(separator=5)


def params_of(tokenizer: Mapping[str, object]) -> dict[str, object]:
    values = params_with().model_dump(mode="json")
    level = {"repeats": [2], "per_level": 2, "num_twins": 9}
    values["ingest"] |= {
        "source": source().model_dump(), "tokenizer": tokenizer, "validation_fraction": 0.3,
        "canaries": {
            "digits": {"template": "Key {key} is", "key_digits": 4, "secret_digits": 8, **level},
            "words": None, "natural": None,
        },
    }  # fmt: skip
    # One family of canaries is too few for axis auto.
    values["partition"]["axis"] = "std"
    return values


def test_the_pipeline_reads_ids_by_the_tokenizer_that_made_them(
    tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gdc.workspace.tracking.stage_run", lambda *_: nullcontext(Mock()))
    monkeypatch.setattr(manifest, "code_digests", lambda **_: {})
    write(tokenizer, "i")
    save_tokenizer(tokenizer, Path("tok"))
    named = {"kind": "pretrained", "name": "tok", "revision": None}
    Path("params.yaml").write_text(json.dumps(params_of(named)), encoding="utf-8")
    manifest.main()
    ingest.main()
    ordinary = tables.read("corpus").filter(pl.col("canary_id").is_null())
    assert sorted(ordinary["text"]) == sorted(text.strip() for text in TEXTS)
    assert {*ordinary["source"]} == {f"a.bin:{i}" for i in range(1, 25)}
    with pytest.raises(ConfigError, match=r"tokenizer\.kind: expected pretrained.*got bpe"):
        params_with(**params_of({"kind": "bpe", "vocab_size": 300}))
