"""Inputs that were right once -> inputs that people, programs, disks and merges make of them."""

import copy
from collections.abc import Iterator
from typing import Any

import polars as pl
from hypothesis import strategies as st

NASTY = (
    "", " ", "~", "*", "[1]", "../x", "/dev/zero", "$(touch x)", "`touch x`", "; touch x", "null",
    "true", "1e3", "1_000", "0x10", "nan", "\x00", "\ud800", "\u200b", "é", "日本", "a" * 300,
    "-1", "{{ x }}", "<script>",
)  # fmt: skip
Json = Any  # a value of JSON, NaN and huge numbers included
Path = tuple[str | int, ...]

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(NASTY)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def paths_in(document: Json, prefix: Path = ()) -> Iterator[Path]:
    """Every place in nested mappings and lists, below the outermost."""
    inside: tuple[tuple[str | int, Json], ...] = ()
    if isinstance(document, dict):
        inside = tuple(document.items())
    elif isinstance(document, list):
        inside = tuple(enumerate(document))
    for key, value in inside:
        yield (*prefix, key)
        yield from paths_in(value, (*prefix, key))


@st.composite
def documents(draw: st.DrawFn, right: Json) -> Json:
    """A JSON document with one to three places changed, taken away, renamed or put elsewhere."""
    document = copy.deepcopy(right)
    for _ in range(draw(st.integers(1, 3))):
        places = list(paths_in(document))
        if not places:
            break
        *above, last = draw(st.sampled_from(places))
        parent = document
        for key in above:
            parent = parent[key]
        change = draw(st.sampled_from(["replace", "replace", "remove", "rename", "wrap", "copy"]))
        if change == "replace":
            parent[last] = draw(values)
        elif change == "wrap":
            parent[last] = [parent[last]]
        elif change == "copy" and isinstance(document, dict):
            document[draw(st.text(max_size=5))] = parent[last]
        elif change == "rename" and isinstance(parent, dict):
            parent[draw(st.text(max_size=5))] = parent.pop(last)
        else:
            del parent[last]
    return document


@st.composite
def damaged(draw: st.DrawFn, right: bytes) -> bytes:
    """Bytes with a bit flipped, a piece lost, doubled or overwritten, or the end cut off."""
    content = bytearray(right)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.integers(1, 40))
        change = draw(st.sampled_from(["flip", "flip", "lose", "double", "write", "cut"]))
        if change == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif change == "lose":
            del content[at : at + length]
        elif change == "double":
            content[at:at] = content[at : at + length]
        elif change == "write":
            content[at : at + length] = draw(st.binary(max_size=40))
        else:
            del content[at:]
    return bytes(content)


_TYPES = (pl.Int8(), pl.Int64(), pl.Float32(), pl.Float64(), pl.String(), pl.Boolean(), pl.Binary())
_NUMBERS = (0, -1, 2**62, 0.0, -1.5, 1e300, float("nan"), float("inf"), -float("inf"))


@st.composite
def tables(draw: st.DrawFn, right: pl.DataFrame) -> pl.DataFrame:
    """A table with columns, types, rows or values other than it should have."""
    table = right
    for _ in range(draw(st.integers(1, 2))):
        if table.width:
            name = draw(st.sampled_from(table.columns))
            change = draw(st.sampled_from([_other_type, _other_value, _other_value, _other_shape]))
            table = change(draw, table, name)
    return table


def _other_type(draw: st.DrawFn, table: pl.DataFrame, name: str) -> pl.DataFrame:
    return table.with_columns(_cast(table[name], draw(st.sampled_from(_TYPES))))


def _other_shape(draw: st.DrawFn, table: pl.DataFrame, name: str) -> pl.DataFrame:
    changes = {
        "fewer rows": lambda: table.head(draw(st.integers(0, table.height))),
        "a row twice": lambda: pl.concat([table, table.head(1)]),
        "no such column": lambda: table.drop(name),
        "a further column": lambda: table.with_columns(further=pl.lit(1)),
        "another name": lambda: _renamed(table, name, draw(st.text("abc_ é", max_size=5))),
    }
    return changes[draw(st.sampled_from(sorted(changes)))]()


def _other_value(draw: st.DrawFn, table: pl.DataFrame, name: str) -> pl.DataFrame:
    if not table.height:
        return table
    values = table[name].to_list()
    value = draw(st.none() | st.sampled_from([*_NUMBERS, *NASTY]))
    if isinstance(value, str):
        # No table can hold a lone surrogate.
        value = value.encode("utf-8", "replace").decode()
    values[draw(st.integers(0, table.height - 1))] = value
    try:
        return table.with_columns(pl.Series(name, values, dtype=table.schema[name], strict=False))
    except (TypeError, pl.exceptions.PolarsError):  # no such value can stand there
        return table


def _cast(column: pl.Series, dtype: pl.DataType) -> pl.Series:
    try:
        return column.cast(dtype, strict=False)
    except pl.exceptions.PolarsError:
        return pl.Series(column.name, [None] * len(column), dtype=dtype)


def _renamed(table: pl.DataFrame, name: str, new: str) -> pl.DataFrame:
    return table if new in table.columns else table.rename({name: new})
