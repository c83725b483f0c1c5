"""Source rows -> samples: normalised text, stable ids, linked copies and a split by content."""

import unicodedata
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final
from zlib import compress

import polars as pl

from gdc.errors import DataError
from gdc.schema import CORPUS

CANARY_SOURCE: Final = "canary"

# What `samples_from` yields: CORPUS without the columns that planting and tokenizing add.
SAMPLES: Final = pl.Schema(
    {name: CORPUS[name] for name in ("content_id", "num_copies", "text", "source")}
)


def normalize(text: str) -> str:
    r"""One form of a text: Unicode NFC, line ends ``\n``, no blanks at line ends or at the ends.

    Idempotent. Indentation and inner blank lines stay: in code they carry meaning.
    """
    composed = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    return "\n".join(line.rstrip() for line in composed.split("\n")).strip()


def content_id(text: str) -> str:
    """Hash of a normalised text: 32 hex digits of BLAKE2b, equal exactly for equal texts."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def hash_order(ids: Sequence[str], *, seed: int, purpose: str) -> list[int]:
    """A pseudo-random 64-bit number for every id; it depends on nothing but its arguments."""
    key = blake2b(f"{seed}:{purpose}".encode(), digest_size=16).digest()
    return [
        int.from_bytes(blake2b(i.encode(), key=key, digest_size=8).digest(), "big") for i in ids
    ]


def contents_of(rows: pl.DataFrame) -> pl.DataFrame:
    """``content_id``, normalised ``text`` and ``source`` of each row of ``SOURCE_ROWS``."""
    texts = [normalize(text) for text in rows["text"]]
    ids = [content_id(text) for text in texts]
    return pl.DataFrame(
        {"content_id": ids, "text": texts, "source": rows["source"]},
        schema={"content_id": pl.String, "text": pl.String, "source": pl.String},
    )


def zlib_size(text: str) -> int:
    """Bytes of a text's UTF-8 form, compressed by zlib."""
    return len(compress(text.encode()))


def samples_from(rows: pl.DataFrame, *, max_samples: int | None, seed: int) -> pl.DataFrame:
    """Normalise the texts of a source and link their exact copies.

    Args:
        rows: ``SOURCE_ROWS`` table.
        max_samples: Rows to keep at most. Contents are taken in the order of their hash, each with
            all of its copies, so the choice depends on no row order; one that no longer fits is
            passed over.
        seed: Seed of that hash.

    Returns:
        ``SAMPLES`` table sorted by ``content_id``, then in source order.

    Raises:
        DataError: Fewer than two distinct texts are left, too few to hold one out.
    """
    num_copies = pl.len().over("content_id").cast(pl.Int64)
    samples = contents_of(rows).with_columns(num_copies=num_copies)
    if max_samples is not None:
        samples = _first_contents(samples, max_samples, seed)
    if samples["content_id"].n_unique() < 2:
        raise DataError(
            f"ingest.source: expected at least 2 distinct texts, got "
            f"{samples['content_id'].n_unique()} in {rows.height} rows. Add text, "
            "or raise ingest.max_samples."
        )
    return samples.select(SAMPLES.names()).sort("content_id", maintain_order=True)


def build_corpus(
    samples: pl.DataFrame, canaries: pl.DataFrame, *, validation_fraction: float, seed: int
) -> pl.DataFrame:
    """Split the samples, plant the canaries and give every row its id.

    Texts that canaries or twins are made of are ``reserved``: neither trained on nor held out.
    The others are split by content id, so no copy of a training text is held out.

    Args:
        samples: ``SAMPLES`` table.
        canaries: ``CANARIES`` table; each is planted ``num_repeats`` times in the training split.
        validation_fraction: Expected share of contents held out, in (0, 1).
        seed: Seed of the split.

    Returns:
        ``CORPUS`` table sorted by ``sample_id``, with ``num_tokens`` 0 until it is tokenized.

    Raises:
        DataError: The training or the held-out split has no text but planted one.
    """
    reserved = [content_id(text) for text in canaries["text"]]
    draws = hash_order(samples["content_id"].to_list(), seed=seed, purpose="split")
    ordinary = samples.with_columns(
        split=pl.when(pl.col("content_id").is_in(reserved))
        .then(pl.lit("reserved"))
        .when(pl.Series(draws, dtype=pl.UInt64) < int(validation_fraction * 2**64))
        .then(pl.lit("validation"))
        .otherwise(pl.lit("train")),
        canary_id=pl.lit(None, pl.String),
    )
    for split in ("train", "validation"):
        if ordinary.filter(pl.col("split") == split).is_empty():
            raise DataError(
                f"ingest.validation_fraction: the {split} split is empty with "
                f"{samples.height} rows and a share of {validation_fraction}. "
                "Add text or change the share."
            )
    corpus = pl.concat([ordinary, _planted(canaries).select(ordinary.columns)])
    ordinal = pl.int_range(pl.len()).over("content_id").cast(pl.String)
    return (
        corpus.with_columns(
            sample_id=pl.col("content_id") + "-" + ordinal,
            num_copies=pl.len().over("content_id", "split").cast(pl.Int64),
            num_chars=pl.col("text").str.len_chars().cast(pl.Int64),
            num_tokens=pl.lit(0, pl.Int64),
        )
        .select(CORPUS.names())
        .sort("sample_id")
    )


def with_num_tokens(corpus: pl.DataFrame, num_tokens: Sequence[int]) -> pl.DataFrame:
    """Fill in the number of predicted tokens of each row."""
    return corpus.with_columns(num_tokens=pl.Series(num_tokens, dtype=pl.Int64))


def _first_contents(samples: pl.DataFrame, max_samples: int, seed: int) -> pl.DataFrame:
    contents = samples.select("content_id", "num_copies").unique()
    draws = hash_order(contents["content_id"].to_list(), seed=seed, purpose="max_samples")
    drawn = contents.with_columns(draw=pl.Series(draws, dtype=pl.UInt64)).sort("draw", "content_id")
    kept, room = [], max_samples
    for content, num_copies in drawn.select("content_id", "num_copies").iter_rows():
        if num_copies <= room:
            kept.append(content)
            room -= num_copies
    return samples.filter(pl.col("content_id").is_in(kept))


def _planted(canaries: pl.DataFrame) -> pl.DataFrame:
    planted = canaries.filter(pl.col("num_repeats") > 0)
    repeated = planted.select(pl.col("canary_id", "text").repeat_by("num_repeats").explode())
    return repeated.with_columns(
        content_id=pl.Series([content_id(text) for text in repeated["text"]], dtype=pl.String),
        num_copies=pl.lit(0, pl.Int64),
        source=pl.lit(CANARY_SOURCE),
        split=pl.lit("train"),
    )
