"""Source rows -> samples: normalised text, stable ids, linked copies and a split by content."""

import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import polars as pl

from gdc.errors import DataError
from gdc.schema import CORPUS
from gdc.statistics.hashing import hash_order

CANARY_SOURCE: Final = "canary"
# Characters; long enough that texts which share them by chance are few.
_BEGINNING: Final = 24

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


def contents_of(rows: pl.DataFrame) -> pl.DataFrame:
    """``content_id``, normalised ``text`` and ``source`` of each row of ``SOURCE_ROWS``.

    The text of a conversation, whose row has ``turns``, stays as its template made it.
    """
    is_chat = "turns" in rows.columns
    texts = [text if is_chat else normalize(text) for text in rows["text"]]
    ids = [content_id(text) for text in texts]
    return pl.DataFrame(
        {"content_id": ids, "text": texts, "source": rows["source"]},
        schema={"content_id": pl.String, "text": pl.String, "source": pl.String},
    )


def beginning(text: pl.Expr) -> pl.Expr:
    """The first characters of a text: alike in copies, near copies, licences and templates."""
    # `head` alone keeps the whole text in memory.
    return pl.concat_str(text.str.head(_BEGINNING), pl.lit(""))


def samples_from(rows: pl.DataFrame, *, max_samples: int | None, seed: int) -> pl.DataFrame:
    """Normalise the texts of a source and link their exact copies.

    Args:
        rows: ``SOURCE_ROWS`` table.
        max_samples: As in ``choose_contents``.
        seed: As there.

    Returns:
        ``SAMPLES`` table sorted by ``content_id``, then in source order.

    Raises:
        DataError: As there.
    """
    contents = contents_of(rows)
    return samples_of(
        contents, choose_contents(contents["content_id"], max_samples=max_samples, seed=seed)
    )


def choose_contents(
    ids: pl.Series, *, max_samples: int | None, seed: int, beginnings: pl.Series | None = None
) -> pl.Series | None:
    """Choose the contents that a corpus is made of.

    Args:
        ids: ``content_id`` of every row.
        max_samples: Rows to keep at most. Contents are taken in the order of their hash, each with
            all of its copies, so the choice depends on no row order; one that no longer fits is
            passed over. None keeps all.
        seed: Seed of that hash.
        beginnings: ``beginning`` of every row: contents that begin alike follow each other, so that
            nearly all are kept together or left out together. None: contents in the order of their
            own hash.

    Returns:
        Their ids; None: all.

    Raises:
        DataError: Fewer than two distinct texts are left, too few to hold one out.
    """
    drawn = ids if beginnings is None else beginnings
    kept = None if max_samples is None else _first_contents(ids, drawn, max_samples, seed)
    num_distinct = ids.n_unique() if kept is None else len(kept)
    if num_distinct < 2:
        raise DataError(
            f"ingest.source: expected at least 2 distinct texts, got {num_distinct} in {len(ids)} "
            "rows. Add text, or raise ingest.max_samples."
        )
    return kept


def samples_of(contents: pl.DataFrame, kept: pl.Series | None) -> pl.DataFrame:
    """Link the exact copies of the contents that are kept.

    Args:
        contents: Of ``contents_of``, all copies of a content together.
        kept: Ids of those to keep; None: all.

    Returns:
        ``SAMPLES`` table sorted by ``content_id``, copies in the order of ``contents``.
    """
    if kept is not None:
        contents = contents.filter(pl.col("content_id").is_in(kept.implode()))
    return (
        contents.with_columns(num_copies=pl.len().over("content_id").cast(pl.Int64))
        .select(SAMPLES.names())
        .sort("content_id", maintain_order=True)
    )


def build_corpus(
    samples: pl.DataFrame, canaries: pl.DataFrame, *, validation_fraction: float, seed: int
) -> pl.DataFrame:
    """Split the samples, plant the canaries and give every row its id.

    Args:
        samples: ``SAMPLES`` table.
        canaries: ``CANARIES`` table; each is planted ``num_repeats`` times in the training split.
        validation_fraction: Expected share of contents held out, in (0, 1).
        seed: Seed of the split.

    Returns:
        ``CORPUS`` table as ``corpus_rows`` makes it.

    Raises:
        DataError: The training or the held-out split has no text but planted one.
    """
    corpus = corpus_rows(
        samples,
        planted_rows(canaries),
        [content_id(text) for text in canaries["text"]],
        validation_fraction=validation_fraction,
        seed=seed,
    )
    ordinary = corpus.filter(pl.col("canary_id").is_null())["split"]
    check_splits(Counter(ordinary), validation_fraction)
    return corpus


def corpus_rows(
    samples: pl.DataFrame,
    planted: pl.DataFrame,
    reserved: Collection[str],
    *,
    validation_fraction: float,
    seed: int,
) -> pl.DataFrame:
    """Split samples, add planted rows and give every row its id.

    A row depends on its own content alone, so parts of the samples give parts of the corpus. The
    split is by content id, so no copy of a training text is held out.

    Args:
        samples: ``SAMPLES`` table with all copies of its contents.
        planted: Rows of ``planted_rows``; of each content of the samples all of its planted rows.
        reserved: Ids of contents that canaries or twins are made of: neither trained on nor held
            out.
        validation_fraction: Expected share of contents held out, in (0, 1).
        seed: Seed of the split.

    Returns:
        ``CORPUS`` table sorted by ``sample_id``, with ``num_tokens`` 0 until it is tokenized.
    """
    draws = hash_order(samples["content_id"].to_list(), seed=seed, purpose="split")
    ordinary = samples.with_columns(
        split=pl.when(pl.col("content_id").is_in(reserved))
        .then(pl.lit("reserved"))
        .when(pl.Series(draws, dtype=pl.UInt64) < int(validation_fraction * 2**64))
        .then(pl.lit("validation"))
        .otherwise(pl.lit("train")),
        canary_id=pl.lit(None, pl.String),
    )
    corpus = pl.concat([ordinary, planted.select(ordinary.columns)])
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


def check_splits(num_ordinary: Mapping[str, int], validation_fraction: float) -> None:
    """Refuse a split without a text of its own.

    Args:
        num_ordinary: Rows of each split that are not planted.
        validation_fraction: Configured share of contents held out.

    Raises:
        DataError: The training or the held-out split has no text but planted one.
    """
    for split in ("train", "validation"):
        if not num_ordinary.get(split):
            raise DataError(
                f"ingest.validation_fraction: the {split} split is empty with "
                f"{sum(num_ordinary.values())} rows and a share of {validation_fraction}. "
                "Add text or change the share."
            )


def with_num_tokens(corpus: pl.DataFrame, num_tokens: Sequence[int]) -> pl.DataFrame:
    """Fill in the number of predicted tokens of each row."""
    return corpus.with_columns(num_tokens=pl.Series(num_tokens, dtype=pl.Int64))


def planted_rows(canaries: pl.DataFrame) -> pl.DataFrame:
    """The rows that canaries take in the corpus, each as often as it is planted."""
    planted = canaries.filter(pl.col("num_repeats") > 0)
    repeated = planted.select(pl.col("canary_id", "text").repeat_by("num_repeats").explode())
    return repeated.with_columns(
        content_id=pl.Series([content_id(text) for text in repeated["text"]], dtype=pl.String),
        num_copies=pl.lit(0, pl.Int64),
        source=pl.lit(CANARY_SOURCE),
        split=pl.lit("train"),
    )


def _first_contents(ids: pl.Series, drawn_by: pl.Series, max_samples: int, seed: int) -> pl.Series:
    contents = (
        pl.DataFrame({"content_id": ids, "drawn_by": drawn_by})
        .group_by("content_id")
        .agg(num_copies=pl.len(), drawn_by=pl.col("drawn_by").first())
    )
    draws = hash_order(contents["drawn_by"].to_list(), seed=seed, purpose="max_samples")
    drawn = contents.with_columns(draw=pl.Series(draws, dtype=pl.UInt64)).sort("draw", "content_id")
    kept, room = [], max_samples
    for content, num_copies in drawn.select("content_id", "num_copies").iter_rows():
        if num_copies <= room:
            kept.append(content)
            room -= num_copies
    return pl.Series(kept, dtype=pl.String)
