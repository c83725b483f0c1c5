"""The target of ``targets.py`` that reads files of token ids, of Megatron and of nanoGPT."""

import struct
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from gdc.config import TokensSource
from gdc.corpus import sources
from gdc.corpus.token_files import Dtype
from gdc.corpus.tokenizer import TextTokenizer, train_tokenizer
from tests.corpus.token_bytes import write_indexed, write_stream
from tests.fuzz import mutations
from tests.fuzz.judged import accepts, seen

MAX_CHARS = 100
IDS = Path("ids.bin")
INDEX = IDS.with_suffix(".idx")
# Type of the ids by its code in an index.
LETTERS = {1: "B", 2: "b", 3: "h", 4: "i", 5: "q", 8: "H"}


@cache
def tokenizer() -> TextTokenizer:
    """A token for each byte, and some for two."""
    return train_tokenizer(["some text, some more text"], 264)


def token_files(data: st.DataObject) -> bool:
    INDEX.unlink(missing_ok=True)
    texts = data.draw(st.lists(st.text(max_size=8) | st.text("some tx", max_size=30), max_size=4))
    documents: list[list[int]] = [[*ids, tokenizer().end_of_text] for ids in _encoded(texts)]
    dtypes: tuple[Dtype | None, ...] = (None, "uint16", "uint32")
    dtype = data.draw(st.sampled_from(dtypes))
    if dtype is None:
        write_indexed(IDS, [[ids] for ids in documents], data.draw(st.sampled_from("Hi")))
    else:
        write_stream(IDS, [i for ids in documents for i in ids], data.draw(st.sampled_from("HHI")))
    _change(data)
    source = TokensSource(kind="tokens", path=str(IDS), dtype=dtype, separator=None)
    if not accepts(lambda: _read(source)):
        return False
    rows = _read(source)
    found = list(_documents(dtype))
    assert rows.rows.height + rows.bad_rows.height == len(found)
    assert rows.rows["text"].to_list() == list(_usable(found))
    return True


def _encoded(texts: Sequence[str]) -> list[list[int]]:
    return tokenizer().encode([text.encode("utf-8", "replace").decode() for text in texts])


def _change(data: st.DataObject) -> None:
    """Damage a file, take it away, or leave both as they are."""
    path = data.draw(st.sampled_from([path for path in (IDS, INDEX) if path.exists()]))
    change = data.draw(st.sampled_from(["nothing", "damage", "damage", "damage", "remove"]))
    if change == "damage":
        path.write_bytes(data.draw(mutations.damaged(path.read_bytes())))
    elif change == "remove":
        path.unlink()


def _read(source: TokensSource) -> Any:  # noqa: ANN401 - rows and bad rows
    return sources.read_source(source, max_chars=MAX_CHARS, seed=0, tokenizer=tokenizer())


# ---- a second reader


def _documents(dtype: str | None) -> Iterator[list[int]]:
    if dtype is not None:
        yield from _parted(_unpacked("H" if dtype == "uint16" else "I"))
        return
    index = INDEX.read_bytes()
    code, num, num_bounds = struct.unpack_from("<BQQ", index, 17)
    lengths = struct.unpack_from(f"<{num}i", index, 34)
    bounds = struct.unpack_from(f"<{num_bounds}q", index, 34 + 12 * num)
    ids, ends = _unpacked(LETTERS[code]), [0]
    for length in lengths:
        ends.append(ends[-1] + length)
    for first, last in pairwise(bounds):
        yield ids[ends[first] : ends[last]]


def _unpacked(letter: str) -> list[int]:
    content = IDS.read_bytes()
    return list(struct.unpack(f"<{len(content) // struct.calcsize(f'<{letter}')}{letter}", content))


def _parted(ids: Sequence[int]) -> Iterator[list[int]]:
    """Documents that end in the end of text or, if the first begins with it, begin so."""
    end, is_before = tokenizer().end_of_text, ids[0] == tokenizer().end_of_text
    document: list[int] = []
    for token in ids:
        if is_before and token == end and document:
            yield document
            document = []
        document.append(token)
        if not is_before and token == end:
            yield document
            document = []
    if document:
        yield document


def _usable(documents: Sequence[Sequence[int]]) -> Iterator[str]:
    """The texts of which the tokenizer makes the ids between the marks at both ends."""
    end = tokenizer().end_of_text
    for document in documents:
        inner = [*document]
        while inner and inner[0] == end:
            inner.pop(0)
        while inner and inner[-1] == end:
            inner.pop()
        text = tokenizer().decode(inner)
        if tokenizer().encode([text])[0] == inner and seen(text) and len(text) <= MAX_CHARS:
            yield text
