"""Canaries: counts, distinctness, twins, and refusals."""

import unicodedata
from itertools import pairwise

import polars as pl
import pytest
from pydantic import ValidationError

from gdc.config import CanariesConfig, DigitCanaries, NaturalCanaries, WordCanaries
from gdc.corpus.canaries import check_tokens, make_canaries
from gdc.corpus.samples import samples_from
from gdc.errors import DataError
from tests.builders import rows_of

WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "sigma",
]
TEXTS = [f"{a} {b} and {b} {a} of number {i}" for i, (a, b) in enumerate(pairwise(WORDS))]
SAMPLES = samples_from(rows_of([*TEXTS, *(f"{t} again" for t in TEXTS)]), max_samples=None, seed=0)


def digits(**changes: object) -> DigitCanaries:
    values = {
        "template": "Code {key} is",
        "key_digits": 3,
        "secret_digits": 4,
        "repeats": (1, 2, 8),
        "per_level": 2,
        "num_twins": 3,
    }
    return DigitCanaries.model_validate({**values, **changes})


def words(**changes: object) -> WordCanaries:
    values = {"prefix_words": 2, "secret_words": 3, "repeats": (4,), "per_level": 5, "num_twins": 5}
    return WordCanaries.model_validate({**values, **changes})


def natural(**changes: object) -> NaturalCanaries:
    values = {"min_words": 4, "max_words": 20, "repeats": (1, 4), "per_level": 3, "num_twins": 4}
    return NaturalCanaries.model_validate({**values, **changes})


def config(**families: object) -> CanariesConfig:
    return CanariesConfig.model_validate(
        {"digits": None, "words": None, "natural": None, **families}
    )


ALL = config(digits=digits(), words=words(), natural=natural())


def test_every_level_has_its_number_and_twins_are_never_planted() -> None:
    canaries = make_canaries(ALL, [SAMPLES], seed=0)
    counts = canaries.group_by("family", "num_repeats").len().sort("family", "num_repeats").rows()
    assert counts == [
        ("digits", 0, 3), ("digits", 1, 2), ("digits", 2, 2), ("digits", 8, 2),
        ("natural", 0, 4), ("natural", 1, 3), ("natural", 4, 3),
        ("words", 0, 5), ("words", 4, 5),
    ]  # fmt: skip
    assert canaries["canary_id"].is_unique().all()
    assert canaries["canary_id"][0] == "digits-1-00"


def test_texts_and_prefixes_are_distinct_and_end_with_the_secret() -> None:
    canaries = make_canaries(ALL, [SAMPLES], seed=0)
    assert canaries["text"].is_unique().all()
    assert canaries["prefix"].is_unique().all()
    assert (canaries["prefix"] + canaries["secret"] == canaries["text"]).all()
    assert canaries["secret"].str.contains(r"^\s\S").all()


def test_planted_secrets_occur_nowhere_and_natural_ones_once() -> None:
    canaries = make_canaries(ALL, [SAMPLES], seed=0)
    for family, text in canaries.select("family", "text").iter_rows():
        found = int((SAMPLES["text"] == text).sum())
        assert found == (1 if family == "natural" else 0)
        assert family == "natural" or not any(text in sample for sample in SAMPLES["text"])


def test_a_digit_canary_fills_its_template() -> None:
    canaries = make_canaries(config(digits=digits()), [SAMPLES], seed=0)
    assert canaries["prefix"].str.contains(r"^Code \d{3} is$").all()
    assert canaries["secret"].str.contains(r"^ \d{4}$").all()


def test_a_natural_canary_is_cut_between_its_middle_words() -> None:
    canaries = make_canaries(config(natural=natural()), [SAMPLES], seed=0)
    num_prefix = canaries["prefix"].str.count_matches(r"\S+")
    num_words = canaries["text"].str.count_matches(r"\S+")
    assert (num_prefix == num_words // 2).all()


def test_the_same_seed_gives_the_same_canaries_in_any_row_order() -> None:
    first = make_canaries(ALL, [SAMPLES], seed=0)
    assert first.equals(make_canaries(ALL, [SAMPLES.reverse()], seed=0))
    assert set(first["text"]).isdisjoint(
        make_canaries(config(digits=digits()), [SAMPLES], seed=1)["text"]
    )


def test_no_family_makes_no_canary() -> None:
    assert make_canaries(config(), [SAMPLES], seed=0).is_empty()


def test_too_few_digits_are_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match=r"digits: expected 15 distinct .* only 10 are possible"):
        make_canaries(config(digits=digits(secret_digits=1, per_level=4)), [SAMPLES], seed=0)


def test_too_few_texts_are_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match=r"natural: expected 1004 .* but only \d+ are possible"):
        make_canaries(config(natural=natural(per_level=500)), [SAMPLES], seed=0)


CHINESE = ["今天天气很好我们去公园散步", "他昨天在图书馆读了一本新书", "春天来了花园里开满了鲜花"]
THAI = ["สวัสดีครับผมชื่อสมชายมาจากกรุงเทพ", "วันนี้อากาศดีมากเราไปเที่ยวกัน"]
BLANKLESS = samples_from(
    rows_of([*("".join(CHINESE)[i : i + 20] for i in range(9)), *THAI]), max_samples=None, seed=0
)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param(CHINESE, {"今天", "天气", "公园", "鲜花"}, id="Chinese"),
        pytest.param(THAI, {"สวั", "สดี", "ครั"}, id="Thai, marks with their letters"),
        pytest.param(["Привет мир", "Это наш мир"], {"мир", "Привет", "наш"}, id="Russian"),
        pytest.param(["مرحبا بالعالم", "هذا نص عربي"], {"بالعالم", "نص"}, id="Arabic"),
        pytest.param(["यह एक परीक्षण है", "हम घर में"], {"परीक्षण", "में"}, id="Hindi"),
        pytest.param(["안녕하세요 여러분", "반갑습니다 오늘"], {"여러분", "오늘"}, id="Korean"),
        pytest.param(["THE QUICK BROWN", "FOX JUMPS"], {"QUICK", "FOX"}, id="capitals alone"),
    ],
)
def test_words_are_those_of_the_corpus_in_any_script(texts: list[str], expected: set[str]) -> None:
    samples = samples_from(rows_of(texts), max_samples=None, seed=0)
    canaries = make_canaries(config(words=words()), [samples], seed=0)
    assert canaries.height == 10
    used = set(" ".join(canaries["text"]).split())
    assert used & expected
    assert all(any(word in text for text in texts) for word in used)
    assert not any(unicodedata.category(word[0]).startswith("M") for word in used)


def test_foreign_words_in_a_text_of_ascii_are_not_used() -> None:
    mixed = samples_from(rows_of([*TEXTS, "привет мир", *CHINESE]), max_samples=None, seed=0)
    canaries = make_canaries(config(words=words()), [mixed], seed=0)
    assert set(" ".join(canaries["text"]).split()) <= {*WORDS, "and", "number"}


def test_a_natural_canary_of_a_text_without_blanks_is_cut_between_its_middle_characters() -> None:
    chosen = natural(min_words=15, max_words=40, repeats=(2,), per_level=6, num_twins=5)
    canaries = make_canaries(config(natural=chosen), [BLANKLESS], seed=0)
    assert set(canaries["text"]) == set(BLANKLESS["text"])
    for prefix, secret in canaries.select("prefix", "secret").iter_rows():
        assert sum(map(str.isalpha, prefix)) == sum(map(str.isalpha, prefix + secret)) // 2
        assert secret[0].isalpha()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["12 34", "56 78"], r"only 0 .*more words \(this one has 0 of 2 to 12 letters\)"),
        (["уже", "дом 1"], r"only 2 are possible.*this one has 2\), or raise prefix_words"),
    ],
)
def test_too_few_words_name_what_helps(texts: list[str], message: str) -> None:
    samples = samples_from(rows_of(texts), max_samples=None, seed=0)
    with pytest.raises(DataError, match=f"words: expected 10 .*{message}.*set ingest"):
        make_canaries(config(words=words()), [samples], seed=0)


def test_a_canary_that_the_corpus_already_holds_is_refused() -> None:
    small = digits(key_digits=1, secret_digits=1, per_level=1, num_twins=7)
    planted = make_canaries(config(digits=small), [SAMPLES], seed=0)
    rows = rows_of([*planted["text"], "other"])
    samples = samples_from(rows, max_samples=None, seed=0)
    with pytest.raises(DataError, match="10 of 10 canaries occur in the corpus"):
        make_canaries(config(digits=small), [samples], seed=0)


def test_a_canary_fits_one_window_with_its_end_of_text_or_is_refused() -> None:
    canaries = make_canaries(ALL, [SAMPLES], seed=0)
    prefix_ids, text_ids = ([[*text.encode()] for text in canaries[c]] for c in ("prefix", "text"))
    longest = max(map(len, text_ids))
    check_tokens(canaries, prefix_ids, text_ids, block_size=longest + 1)
    words = canaries.filter(pl.col("family") == "words")
    texts = [[7] * n for n in range(1, words.height + 1)]
    with pytest.raises(
        DataError, match=r"words: expected at most 8 tokens \(model.block_size 9.*got one of 10\."
    ):
        check_tokens(words, [[] for _ in texts], texts, block_size=9)


def test_a_secret_without_a_token_of_its_own_is_refused() -> None:
    two = make_canaries(config(digits=digits()), [SAMPLES], seed=0).head(2)
    check_tokens(two, [[1, 2], [3]], [[1, 5], [3, 4]], block_size=8)
    with pytest.raises(DataError, match=r"digits: expected a token of its own .* got 1 of 2 that"):
        check_tokens(two, [[1, 2], [3]], [[1, 2], [3, 4]], block_size=8)
    with pytest.raises(DataError, match=r"digits: .* got 1 of 2 that add none to their prefix"):
        check_tokens(two, [[1, 2], [3]], [[1], [3, 4]], block_size=8)


@pytest.mark.parametrize("key", ["key_digits", "secret_digits"])
def test_more_digits_than_an_index_holds_are_refused(key: str) -> None:
    canaries = make_canaries(config(digits=digits(**{key: 18})), [SAMPLES], seed=0)
    assert canaries["text"].str.contains(r"\d{18}").all()
    with pytest.raises(ValidationError, match="less than or equal to 18"):
        digits(**{key: 19})


def test_natural_canaries_are_never_made_of_texts_that_have_copies() -> None:
    samples = samples_from(rows_of(TEXTS * 2), max_samples=None, seed=0)
    with pytest.raises(DataError, match="only 0 are possible"):
        make_canaries(config(natural=natural()), [samples], seed=0)
