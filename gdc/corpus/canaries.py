"""Corpus samples -> canaries: text to plant, and twins of the same kind that are never planted."""

import math
import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import polars as pl

from gdc.config import (
    CanariesConfig,
    CanaryFamily,
    DigitCanaries,
    NaturalCanaries,
    WordCanaries,
)
from gdc.errors import DataError
from gdc.schema import CANARIES, Chunks
from gdc.statistics.hashing import hash_order

# A canary before it gets its id: (prefix, secret).
CanaryText = tuple[str, str]
_MORE_TEXTS: Final = (
    "widen min_words and max_words (characters where words have no blanks between them), or add "
    "texts that occur once"
)
_WORD: Final = re.compile(r"\b[a-z]{3,12}\b")
# Thai to Burmese, Khmer, kana and Han: their texts put no blanks between words.
_BLANKLESS: Final = (
    "[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
# For polars, whose patterns support classes of letters and marks.
_CHARACTER: Final = rf"[\p{{L}}&&{_BLANKLESS}]"
# A word of any script: two characters of a script without blanks, each with its marks, or the
# letters between blanks and punctuation.
_ANY_WORD: Final = (
    rf"(?:{_CHARACTER}\p{{M}}*){{2}}"
    rf"|\b[[\p{{L}}\p{{M}}]--{_BLANKLESS}]{{2,12}}\b"
)


def make_canaries(config: CanariesConfig, samples: Chunks, *, seed: int) -> pl.DataFrame:
    """Make the canaries and twins of every configured family.

    Args:
        config: Families; a family that is null gets no canary.
        samples: ``content_id``, ``num_copies`` and ``text``, the normalised corpus.
        seed: Seed of all random choices.

    Returns:
        ``CANARIES`` table. Texts and prefixes are distinct. A secret starts with the white space
        before it; scripts without blanks between words have none.
        Texts of ``digits`` and ``words`` occur nowhere in the corpus; those of ``natural`` are
        corpus texts that occur once.

    Raises:
        DataError: A family has fewer possible canaries than it needs (with both numbers), or one
            of its texts occurs in the corpus.

    Source:
        Canaries and their exposure: Carlini et al. 2019, arXiv:1802.08232.
    """
    families: Mapping[str, CanaryFamily | None] = dict(config)
    tables = [
        _family_table(name, family, _FAMILIES[name](family, samples, seed))
        for name, family in families.items()
        if family is not None
    ]
    canaries = pl.concat([pl.DataFrame(schema=CANARIES), *tables])
    _check_absent(canaries.filter(pl.col("family") != "natural"), samples)
    return canaries


def num_canaries(family: CanaryFamily) -> int:
    """Canaries of all repeat levels and twins."""
    return len(family.repeats) * family.per_level + family.num_twins


def check_tokens(
    canaries: pl.DataFrame,
    prefix_ids: Sequence[Sequence[int]],
    text_ids: Sequence[Sequence[int]],
    *,
    block_size: int,
) -> None:
    """Refuse canaries whose secret's loss cannot be measured in one window.

    Args:
        canaries: ``CANARIES`` table.
        prefix_ids: Token ids of each prefix.
        text_ids: Token ids of each text.
        block_size: Tokens that a model predicts at once, the end of text included.

    Raises:
        DataError: A text is longer than ``block_size`` - 1 tokens, or a secret adds no token to
            its prefix.
    """
    families = canaries["family"].to_list()
    for family in dict.fromkeys(families):
        pairs = [
            (list(prefix), list(text))
            for name, prefix, text in zip(families, prefix_ids, text_ids, strict=True)
            if name == family
        ]
        longest = max(len(text) for _, text in pairs)
        if longest > block_size - 1:
            raise DataError(
                f"ingest.canaries.{family}: expected at most {block_size - 1} tokens "
                f"(model.block_size {block_size}, less the end of text), got one of {longest}. "
                "Make the canaries shorter, or model.block_size larger, or plant none: set "
                f"ingest.canaries.{family} to null."
            )
        num_empty = sum(prefix[: len(text)] == text for prefix, text in pairs)
        if num_empty:
            raise DataError(
                f"ingest.canaries.{family}: expected a token of its own for every secret, got "
                f"{num_empty} of {len(pairs)} that add none to their prefix. Make the secrets "
                "longer, or choose another ingest.tokenizer."
            )


def _family_table(name: str, family: CanaryFamily, texts: Sequence[CanaryText]) -> pl.DataFrame:
    levels = [level for level in family.repeats for _ in range(family.per_level)]
    levels += [0] * family.num_twins
    ordinals = [i % family.per_level for i in range(len(levels) - family.num_twins)]
    ordinals += list(range(family.num_twins))
    rows = [
        (f"{name}-{level}-{ordinal:02d}", name, prefix, secret, prefix + secret, level)
        for level, ordinal, (prefix, secret) in zip(levels, ordinals, texts, strict=True)
    ]
    return pl.DataFrame(rows, schema=CANARIES, orient="row")


def _digit_canaries(family: DigitCanaries, samples: Chunks, seed: int) -> list[CanaryText]:
    del samples  # A template needs no corpus.
    needed = num_canaries(family)
    keys, secrets = 10**family.key_digits, 10**family.secret_digits
    _check_enough("digits", needed, min(keys, secrets), "raise key_digits or secret_digits")
    rng = random.Random(f"{seed}:digits")  # noqa: S311 - reproducible, guards no secret
    return [
        (
            family.template.replace("{key}", f"{key:0{family.key_digits}d}"),
            f" {secret:0{family.secret_digits}d}",
        )
        for key, secret in zip(
            rng.sample(range(keys), needed), rng.sample(range(secrets), needed), strict=True
        )
    ]


def _word_canaries(family: WordCanaries, samples: Chunks, seed: int) -> list[CanaryText]:
    needed = num_canaries(family)
    vocabulary = _lower_case_words(samples) if _is_mostly_ascii(samples) else []
    if math.perm(len(vocabulary), family.prefix_words) < needed:
        vocabulary = _words_of_any_script(samples)
    possible = math.perm(len(vocabulary), family.prefix_words)
    _check_enough("words", needed, possible, _more_words(family, len(vocabulary)))
    rng = random.Random(f"{seed}:words")  # noqa: S311 - reproducible, guards no secret
    drawn = _distinct_prefixes(enumerate(_word_sequences(family, vocabulary, rng)))
    return [canary for _, canary in islice(drawn, needed)]


def _is_mostly_ascii(samples: Chunks) -> bool:
    """Whether at least half of all letters are those of ASCII."""
    num_ascii = num_letters = 0
    for table in samples:
        num_ascii += int(table["text"].str.count_matches("[A-Za-z]").sum())
        num_letters += int(table["text"].str.count_matches(r"\p{L}").sum())
    return 2 * num_ascii >= num_letters


def _lower_case_words(samples: Chunks) -> list[str]:
    words = {word for table in samples for text in table["text"] for word in _WORD.findall(text)}
    return sorted(words)


def _words_of_any_script(samples: Chunks) -> list[str]:
    words: set[str] = set()
    for table in samples:
        found = table["text"].str.extract_all(_ANY_WORD).explode().drop_nulls()
        words.update(found)
    return sorted(words)


def _more_words(family: WordCanaries, num_words: int) -> str:
    """What to do when the vocabulary has too few words."""
    if num_words < family.prefix_words:
        return (
            f"use a corpus of more words (this one has {num_words} of 2 to 12 letters), "
            "or lower prefix_words"
        )
    return f"use a corpus of more words (this one has {num_words}), or raise prefix_words"


def _word_sequences(
    family: WordCanaries, vocabulary: Sequence[str], rng: random.Random
) -> Iterator[CanaryText]:
    while True:
        prefix = rng.sample(vocabulary, family.prefix_words)
        secret = rng.choices(vocabulary, k=family.secret_words)
        yield " ".join(prefix), " " + " ".join(secret)


def _natural_canaries(family: NaturalCanaries, samples: Chunks, seed: int) -> list[CanaryText]:
    needed = num_canaries(family)
    first: list[tuple[int, CanaryText]] = []
    for table in samples:
        # A text that is not among the first of its chunk is not among the first of all.
        drawn = sorted([*first, *_drawn_texts(family, table, seed)])
        first = list(islice(_distinct_prefixes(drawn), needed))
    _check_enough("natural", needed, len(first), _MORE_TEXTS)
    return [canary for _, canary in first]


def _drawn_texts(
    family: NaturalCanaries, samples: pl.DataFrame, seed: int
) -> Iterator[tuple[int, CanaryText]]:
    """The draw and the prefix and secret of every text that can be a canary."""
    # Without blanks every character is a word.
    num_words = pl.max_horizontal(
        pl.col("text").str.count_matches(r"\S+"), pl.col("text").str.count_matches(_CHARACTER)
    )
    # A text that has copies would stay in the corpus beside the canary made of it.
    usable = samples.filter(
        num_words.is_between(family.min_words, family.max_words), pl.col("num_copies") == 1
    )
    draws = hash_order(usable["content_id"].to_list(), seed=seed, purpose="natural")
    return zip(draws, map(_split_in_half, usable["text"]), strict=True)


def _split_in_half(text: str) -> CanaryText:
    words = [word.end() for word in re.finditer(r"\S+", text)]
    characters = [c.end() for c in re.finditer(_BLANKLESS, text) if c[0].isalpha()]
    ends = max(words, characters, key=len)
    cut = ends[len(ends) // 2 - 1]
    while unicodedata.category(text[cut]).startswith("M"):
        cut += 1
    return text[:cut], text[cut:]


def _distinct_prefixes(texts: Iterable[tuple[int, CanaryText]]) -> Iterator[tuple[int, CanaryText]]:
    # Two secrets behind one prefix could not both be extracted greedily.
    seen: set[str] = set()
    for draw, (prefix, secret) in texts:
        if prefix not in seen:
            seen.add(prefix)
            yield draw, (prefix, secret)


def _check_enough(family: str, needed: int, possible: int, what_to_do: str) -> None:
    if possible < needed:
        raise DataError(
            f"ingest.canaries.{family}: expected {needed} distinct canaries and twins, "
            f"but only {possible} are possible. Ask for fewer, or {what_to_do}, or plant none: set "
            f"ingest.canaries.{family} to null."
        )


def _check_absent(canaries: pl.DataFrame, samples: Chunks) -> None:
    if canaries.is_empty():
        return
    texts = canaries["text"].to_list()
    # One automaton over the corpus instead of one pass for every canary.
    found = {
        text
        for table in samples
        for text in table["text"].str.extract_many(texts).explode().drop_nulls()
    }
    if found:
        raise DataError(
            f"ingest.canaries: {len(found)} of {canaries.height} canaries occur in the corpus, so "
            "their leakage could not be told from it. Change the template or the seed."
        )


# Each takes the settings of its family, of a type of its own.
_FAMILIES: Final[Mapping[str, Callable[[Any, Chunks, int], list[CanaryText]]]] = {
    "digits": _digit_canaries,
    "words": _word_canaries,
    "natural": _natural_canaries,
}
