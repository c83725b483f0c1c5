"""Tokenizers: round trips, files, foreign readers, refusals."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import ByteLevel
from transformers import AutoTokenizer

from gdc.corpus.tokenizer import (
    END_OF_TEXT,
    load_pretrained_tokenizer,
    load_tokenizer,
    masked_tokens,
    save_tokenizer,
    train_tokenizer,
)
from gdc.errors import ConfigError, SchemaError, TransientError

TEXTS = [
    "the cat sat on the mat and the dog sat on the log",
    "def cat(path):\n    return open(path).read()\n",
    "na\u00efve caf\u00e9 \u2603 \U0001f40d",
    f"a text may spell {END_OF_TEXT} itself",
]
TOKENIZER = train_tokenizer(TEXTS, 300)


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    (ids,) = TOKENIZER.encode([text])
    assert TOKENIZER.decode(ids) == text
    assert all(0 <= token < TOKENIZER.vocab_size for token in ids)


def test_a_text_that_spells_the_end_of_text_does_not_end() -> None:
    (ids,) = TOKENIZER.encode([f"a{END_OF_TEXT}b"])
    assert TOKENIZER.end_of_text not in ids
    assert TOKENIZER.decode(ids) == f"a{END_OF_TEXT}b"
    assert TOKENIZER.decode([TOKENIZER.end_of_text]) == END_OF_TEXT


@given(st.text("ab \u00e9\u2603\U0001f40d\n", max_size=20))
def test_every_token_has_a_place_and_every_character_is_in_one(text: str) -> None:
    (ids,), (offsets,) = TOKENIZER.encode([text]), TOKENIZER.offsets([text])
    assert len(offsets) == len(ids)
    assert all(start < end for start, end in offsets)
    assert sorted({i for start, end in offsets for i in range(start, end)}) == list(
        range(len(text))
    )
    for token, (start, end) in zip(ids, offsets, strict=True):
        piece = TOKENIZER.decode([token])
        assert "\N{REPLACEMENT CHARACTER}" in piece or text[start:end] == piece


def test_a_pretrained_tokenizer_that_cuts_blanks_off_gives_the_same_places(tmp_path: Path) -> None:
    text = f"na\u00efve  caf\u00e9 \u2603\n {END_OF_TEXT} sat"
    save_tokenizer(TOKENIZER, tmp_path)
    loaded = load_pretrained_tokenizer(str(tmp_path), None)
    loaded.tokenizer.post_processor = ByteLevel(trim_offsets=True)  # as GPT-2's
    cut = loaded.tokenizer.encode(text, add_special_tokens=False).offsets
    assert loaded.offsets([text]) == TOKENIZER.offsets([text]) != [cut]
    assert loaded.encode([text]) == TOKENIZER.encode([text])
    both = (loaded.encode([text]), loaded.offsets([text]))
    assert loaded.encode_with_offsets([text]) == both


def test_a_token_is_masked_when_it_shares_a_character_with_a_span() -> None:
    offsets = [(0, 2), (1, 3), (3, 5), (5, 6)]
    spans = [{"start": 2, "end": 3}, {"start": 5, "end": 9}]
    assert masked_tokens(offsets, spans).tolist() == [False, True, False, True]
    assert masked_tokens(offsets, []).tolist() == [False] * 4
    assert masked_tokens([], spans).tolist() == []


pieces = st.tuples(st.integers(0, 20), st.integers(0, 6)).map(lambda piece: (piece[0], sum(piece)))


@given(offsets=st.lists(pieces, max_size=8), spans=st.lists(pieces, max_size=5))
def test_masked_tokens_match_a_plain_loop_in_any_order_and_overlap(
    offsets: list[tuple[int, int]], spans: list[tuple[int, int]]
) -> None:
    expected = [any(start < e and s < end for s, e in spans) for start, end in offsets]
    masked = [{"start": start, "end": end} for start, end in spans]
    assert masked_tokens(offsets, masked).tolist() == expected


def test_without_merges_a_token_is_a_byte() -> None:
    tokenizer = train_tokenizer(TEXTS, 257)
    assert tokenizer.vocab_size == 257
    texts = ["", "abc", "\u00e9", "\u2603"]
    assert [len(ids) for ids in tokenizer.encode(texts)] == [0, 3, 2, 3]


def test_frequent_pairs_are_merged() -> None:
    assert TOKENIZER.vocab_size == 300
    assert TOKENIZER.encode(["the the"]) == [
        [TOKENIZER.tokenizer.token_to_id(token) for token in ("the", "\u0120the")]
    ]


def test_fewer_texts_than_the_vocabulary_asks_for_give_a_smaller_one() -> None:
    assert train_tokenizer(["ab"], 300).vocab_size == 258


@given(st.permutations([*TEXTS, *("abcd" * i for i in range(3))]))
def test_the_order_of_the_texts_does_not_matter(texts: list[str]) -> None:
    expected = train_tokenizer(sorted(texts), 290).tokenizer.to_str()
    assert train_tokenizer(texts, 290).tokenizer.to_str() == expected


def test_ids_do_not_depend_on_the_other_texts_of_the_call() -> None:
    assert TOKENIZER.encode(TEXTS) == [TOKENIZER.encode([text])[0] for text in TEXTS]


def test_saved_and_loaded_it_gives_equal_ids(tmp_path: Path) -> None:
    save_tokenizer(TOKENIZER, tmp_path / "made/on/the/way")
    loaded = load_tokenizer(tmp_path / "made/on/the/way")
    assert loaded.encode(TEXTS) == TOKENIZER.encode(TEXTS)
    assert (loaded.end_of_text, loaded.vocab_size) == (TOKENIZER.end_of_text, TOKENIZER.vocab_size)


def test_saving_twice_gives_equal_bytes(tmp_path: Path) -> None:
    save_tokenizer(TOKENIZER, tmp_path / "a")
    save_tokenizer(load_tokenizer(tmp_path / "a"), tmp_path / "b")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_transformers_reads_the_same_ids(tmp_path: Path) -> None:
    save_tokenizer(TOKENIZER, tmp_path)
    foreign = AutoTokenizer.from_pretrained(tmp_path)
    plain = TEXTS[:3]
    assert foreign(plain, add_special_tokens=False)["input_ids"] == TOKENIZER.encode(plain)
    assert foreign.eos_token_id == TOKENIZER.end_of_text
    assert len(foreign) == TOKENIZER.vocab_size
    assert foreign.decode(TOKENIZER.encode(plain)[0]) == plain[0]


def test_a_local_folder_is_a_pretrained_tokenizer(tmp_path: Path) -> None:
    save_tokenizer(TOKENIZER, tmp_path)
    pretrained = load_pretrained_tokenizer(str(tmp_path), None)
    assert pretrained.encode(TEXTS) == TOKENIZER.encode(TEXTS)
    assert pretrained.end_of_text == TOKENIZER.end_of_text
    assert pretrained.vocab_size == TOKENIZER.vocab_size


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"tokenizer_config.json: not found. Re-run: gdc stage"):
        load_tokenizer(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["no-such-user/no-such-model", "no/such/folder", "./connect"])
def test_offline_an_unknown_name_is_a_mistake_of_the_user(name: str) -> None:
    with pytest.raises(ConfigError, match=f"ingest.tokenizer.name: '{name}': expected a local"):
        load_pretrained_tokenizer(name, None)


def test_online_a_hub_that_does_not_answer_may_answer_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    with pytest.raises(TransientError, match="the Hub did not answer"):
        load_pretrained_tokenizer("no-such-user/no-such-model", None)
    with pytest.raises(ConfigError, match="expected a local folder"):
        load_pretrained_tokenizer("./connect", None)


def test_a_tokenizer_without_an_end_of_text_is_refused(tmp_path: Path) -> None:
    save_tokenizer(TOKENIZER, tmp_path)
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ConfigError, match="expected a fast tokenizer with an end-of-text token"):
        load_pretrained_tokenizer(str(tmp_path), None)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ingest\.tokenizer\.name"):
        load_pretrained_tokenizer(str(tmp_path), None)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "content",
    [b"junk", b"\xff\xfe", b"", b"{}", b"[]", b'{"eos_token": 3}', b'{"eos_token": "xyz"}'],
)
def test_a_damaged_tokenizer_is_one_message(name: str, content: bytes, tmp_path: Path) -> None:
    save_tokenizer(TOKENIZER, tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SchemaError, match=rf"(?s){name}: expected .* again: gdc stage ingest"):
        load_tokenizer(tmp_path)


def test_a_damaged_tokenizer_of_others_is_one_message(tmp_path: Path) -> None:
    save_tokenizer(TOKENIZER, tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff junk")
    with pytest.raises(
        ConfigError, match=r"tokenizer.name: .*: not a tokenizer that can be loaded"
    ):
        load_pretrained_tokenizer(str(tmp_path), None)
