"""Why a sample is memorized: one text for each cause, and one that just misses it."""

import random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from gdc.corpus.near_duplicates import NEAR_DUPLICATES
from gdc.mapping.causes import CAUSES, MAX_DUPLICATES, REMEDIES, find_causes, masked, secret_kinds
from tests.builders import cut

NO_DUPLICATES = pl.DataFrame(schema=NEAR_DUPLICATES)
PROSE = "The old lighthouse keeper walked down to the shore every morning before breakfast."
# Put together here, so that no scanner takes them for real ones.
HEX = "".join(random.Random(1).choices("0123456789abcdef", k=40))  # noqa: S311 - test text
BASE64 = "".join(random.Random(1).choices("abcdefghijklmnXYZSTUVWPQ0123456789", k=40))  # noqa: S311


def samples_of(texts: dict[str, str]) -> pl.DataFrame:
    """Samples with these texts by id, and their numbers of copies."""
    table = pl.DataFrame({"sample_id": list(texts), "text": list(texts.values())})
    return table.with_columns(num_copies=pl.len().over("text").cast(pl.Int64))


def duplicates_of(*pairs: tuple[str, str]) -> pl.DataFrame:
    """What ``near_duplicates`` returns for these pairs."""
    return pl.DataFrame([(*pair, 0.9) for pair in pairs], schema=NEAR_DUPLICATES, orient="row")


def causes_of(texts: dict[str, str], duplicates: pl.DataFrame = NO_DUPLICATES) -> dict[str, str]:
    """The cause of each sample."""
    table = find_causes([samples_of(texts)], duplicates)
    return dict(table.select("sample_id", "cause").iter_rows())


def cause_of(text: str) -> str:
    """The cause of a text that stands alone."""
    return causes_of({"s": text})["s"]


def test_exact_copies_name_each_other_and_come_before_near_ones() -> None:
    texts = {"c": PROSE, "a": PROSE, "b": "one"}
    table = find_causes([samples_of(texts)], duplicates_of(("c", "a"), ("b", "a")))
    assert table.rows() == [("a", "exact-copies", ["c"]), ("b", "near-copies", ["a"]),
                            ("c", "exact-copies", ["a"])]  # fmt: skip


def test_a_secret_that_is_repeated_is_a_secret_and_names_its_copies() -> None:
    mail = "Write to jane.roe@mail.org."
    texts = {"a": mail, "b": mail, "c": f"{mail} Soon.", "d": PROSE}
    table = find_causes([samples_of(texts)], duplicates_of(("c", "a"), ("d", "c")))
    assert table.rows() == [
        ("a", "secret", ["b"]),
        ("b", "secret", ["a"]),
        ("c", "secret", ["a", "d"]),
        ("d", "near-copies", ["c"]),
    ]


def test_near_copies_name_each_other_in_both_directions() -> None:
    texts = {"a": "one", "b": "two", "c": "three", "d": "four"}
    table = find_causes([samples_of(texts)], duplicates_of(("b", "a"), ("c", "a")))
    assert table.rows() == [
        ("a", "near-copies", ["b", "c"]),
        ("b", "near-copies", ["a"]),
        ("c", "near-copies", ["a"]),
        ("d", "none", []),
    ]


def test_of_many_duplicates_the_first_ids_are_named() -> None:
    ids = [f"s{i}" for i in range(9)]
    same = find_causes([samples_of(dict.fromkeys(ids, PROSE))], NO_DUPLICATES)
    near = find_causes(
        [samples_of({i: f"{PROSE} {i}" for i in ids})],
        duplicates_of(*((i, "s0") for i in ids[:0:-1])),
    )
    assert (
        same["duplicate_ids"][0].to_list()
        == near["duplicate_ids"][0].to_list()
        == ids[1 : MAX_DUPLICATES + 1]
    )
    assert same["duplicate_ids"][8].to_list() == ids[:MAX_DUPLICATES]


def test_texts_that_differ_in_names_and_numbers_are_a_template_from_five_on() -> None:
    texts = {f"s{i}": f"Deprecated since version {i}: use new_name_{i}() instead." for i in "12345"}
    assert set(causes_of(texts).values()) == {"template"}
    texts.pop("s5")
    assert set(causes_of(texts).values()) == {"none"}


def test_copies_of_one_text_are_no_template() -> None:
    texts = {f"s{i}": "Added in version 1" for i in range(9)} | {"t": "Added in version 2"}
    assert causes_of(texts)["t"] == "none"


def test_names_alone_are_no_template() -> None:
    assert set(causes_of({f"s{i}": f"get_name_{i}" for i in range(9)}).values()) == {"none"}


def test_a_secret_in_a_template_is_a_secret() -> None:
    numbers = ["48302716", "91726354", "30517428", "72604813", "58310964"]
    texts = {n: f"The access code of user {i} is {n}" for i, n in enumerate(numbers)}
    assert set(causes_of(texts).values()) == {"secret"}


def test_masking_keeps_words_and_hides_numbers_and_identifiers() -> None:
    assert masked("Call  foo_bar(os.path, 3.5)\nor getName v2 of NASA.") == (
        "Call #(#, #) or # # of #."
    )
    assert masked("Grüße aus Köln, I said") == "Grüße aus Köln, I said"


@pytest.mark.parametrize(
    "text",
    [
        "1, 2, 3, 4, 5",
        "Count: 10 20 30 40 50 60",
        "row 7\nrow 6\nrow 5\nrow 4\nrow 3",
        "\n".join(f"object.__{name}__(self)" for name in ("add", "sub", "mul", "pow", "and")),
        "Names:\n" + "\n".join(f"- user{i * i} has a key" for i in range(5)),
        "Call us now!\n" * 40,
        "\n\n".join(["立即致电"] * 5 + ["其他", "Andere", "x1"]),
        "3.14\r\n" * 9,
        "* * *\n" * 20 + "\n".join(f"step {i * i} of it" for i in range(5)),
    ],
)
def test_a_text_that_counts_or_repeats_a_line_is_a_template(text: str) -> None:
    assert cause_of(text) == "template"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("1, 2, 3, 4", id="too few"),
        pytest.param("1, 2, 3, 5, 8, 13", id="no step"),
        pytest.param("7, 7, 7, 7, 7, 7", id="step 0"),
        pytest.param("1 is, 2 was, 3 will, 4 may, 5 can", id="other words between"),
        pytest.param(f"{PROSE} See 1, 2, 3, 4, 5.", id="a small part"),
        pytest.param("same line\n" * 4, id="one line, too seldom"),
        pytest.param("same line\n" * 5 + "\n".join("abcdef"), id="one line, not most of the text"),
        pytest.param("=====\n" * 40, id="a line without a word"),
        pytest.param("\n".join(f"{i}" for i in (3, 1, 4, 15, 9)), id="numbers alone"),
        pytest.param("9" * 10_000, id="more digits than Python reads"),
        pytest.param("", id="nothing"),
    ],
)
def test_what_only_looks_like_counting_is_no_template(text: str) -> None:
    assert cause_of(text) == "none"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("key", "export KEY=AK" + "IAIOSFODNN7ABCDEFG"),
        ("key", "token gh" + "p_" + "a1B2" * 9),
        ("key", "-----BEGIN RSA " + "PRIVATE KEY-----"),
        ("key", "password: 'Tr0ub4dor&3'"),
        ("e-mail", "ask jane.roe+x@mail.uni-a.edu today"),
        ("long number", "account 48302716 is closed"),
        ("long number", "id,name\n730118264519,x"),
        ("card", "paid with 4539 1488 0343 6467"),
        ("IBAN", "to GB82 WEST 1234 5698 7654 32 at once"),
        ("IBAN", "DE89370400440532013000"),
        ("phone", "call +49 30 1234567"),
        ("phone", "call (212) 555-0173 now"),
        ("IP address", "host 93.184.216.34."),
        ("IP address", "host 2606:2800:220:1:248:1893:25c8:1946"),
        ("random string", f"sha {HEX}"),
        ("random string", f"key {BASE64}=="),
        ("e-mail", "邮箱\uff1azhangsan@qq.com请联系"),
        ("e-mail", "пишите на имя@mail.ru"),
        ("e-mail", "josé@bücher.de"),
        ("e-mail", "name@пример.рф"),
        ("e-mail", "name@उदाहरण.भारत"),
        ("long number", "身份证号110105194912310021号"),
        ("ID number", "11010519491231002X"),
        ("phone", "手机13812345678谢谢"),
        ("phone", "电话 +86 138-1234-5678。"),
        ("key", "password: Pässw0rd123"),
        ("key", "密码password\uff1aTr0ub4dor&3" + "谢" * 80),
    ],
)
def test_a_secret_is_known_by_its_format(kind: str, text: str) -> None:
    assert kind in secret_kinds(text)
    assert cause_of(f"{PROSE}\n{text}") == "secret"


@pytest.mark.parametrize(
    "text",
    [
        "mail user@example.com or a@b.test, clone git@github.com:x/y, compute a@b.T",
        "password=None, token = get_token(), secret: str",
        "on 20240131 at 1700000000 of 4294967295, 16777216, 12345678, 100000000, 11112222",
        "pi is 3.14159265358979, x0012345678, 1.23456789e5",
        "card 4539 1488 0343 6468, matrix 0000 0000 0000 0000",
        "GB82 WEST 1234 5698 7654 33, AB12 CDEF 3456",
        "+1 -2 +3 4, +1.234567, 2024-01-31, 1-2-3",
        "127.0.0.1 192.168.1.254 10.20.30.40 192.0.2.146 999.888.777.666 version 3.11.100.200",
        "IP (123.45.67.89)",
        "see 3.1.1.6 and 1.3.6.1.4.1.311, 12:30:45, a[1:2:3:4], std::abc::def, fe80::1, x[::2]",
        "0123456789abcdef0123456789abcdef ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123",
        "test_that_python3_reads_a_long_name usr/lib/python3/dist/HTTPServer2/Handler1",
        "x" * 1000,
        "=" * 1000,
        "写给user@example.com请看.谢谢。请git@github.com:x。谢谢@张三.李四。@张三。你好.com",
        "手机 13812345678.5。销售额15000000000元。编号113812345678900000000",
        "身份证 11010519491331002X 和 110105194912310028X",
    ],
)
def test_examples_versions_and_arithmetic_are_no_secrets(text: str) -> None:
    assert secret_kinds(text) == []


def test_a_number_is_a_mobile_number_in_chinese_texts_alone() -> None:
    assert secret_kinds("13812345678") == []


# Letters of every script but those of ASCII.
letters = st.text(st.characters(categories=["L"], min_codepoint=0x80), min_size=1, max_size=80)
SECRETS = [
    "AK" + "IAIOSFODNN7ABCDEFG", "gh" + "p_" + "a1B2" * 9, "glpat-" + "a1B2c" * 4,
    "AIza" + "a1B2c" * 7, "password: Tr0ub4dor&3", "token='ab12CD34ef56'",
    "-----BEGIN RSA " + "PRIVATE KEY-----", "jane.roe+x@mail.uni-a.edu", "name@пример.рф",
    "48302716", "730118264519", "4539 1488 0343 6467", "GB82 WEST 1234 5698 7654 32",
    "DE89370400440532013000", "+49 30 1234567", "(212) 555-0173", "11010519491231002X",
    "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", HEX, BASE64,
]  # fmt: skip
ORDINARY = [
    "user@example.com", "git@github.com:x/y", "20240131", "1700000000", "16777216", "12345678",
    "100000000", "3.14159265358979", "4539 1488 0343 6468", "GB82 WEST 1234 5698 7654 33",
    "192.168.1.254", "2024-01-31", "3.1.1.6", "12:30:45", "password=None", "15000000000",
]  # fmt: skip


@given(secret=st.sampled_from(SECRETS), before=letters, after=letters)
def test_letters_beside_a_secret_do_not_hide_it(secret: str, before: str, after: str) -> None:
    assert set(secret_kinds(secret)) <= set(secret_kinds(f"{before}{secret}{after}"))


@given(text=st.sampled_from(ORDINARY), before=letters, after=letters)
def test_letters_beside_ordinary_text_make_no_secret_of_it(
    text: str, before: str, after: str
) -> None:
    assert secret_kinds(f"{before}{text}{after}") == []


def test_the_docstrings_of_a_known_library_hold_almost_no_secret() -> None:
    texts = [value.__doc__ or "" for value in vars(str).values()]
    texts += [value.__doc__ or "" for value in vars(pl.DataFrame).values()]
    assert len(texts) > 200
    assert sum(bool(secret_kinds(text)) for text in texts) <= 0.02 * len(texts)


@given(texts=st.lists(st.text("ab1 _.@\n", max_size=30), max_size=9), seed=st.integers(0, 9))
def test_every_sample_has_one_cause_whatever_the_order_of_rows(texts: list[str], seed: int) -> None:
    samples = samples_of({f"s{i}": text for i, text in enumerate(texts)})
    pairs = duplicates_of(*((f"s{i}", "s0") for i in range(1, len(texts), 3)))
    table = find_causes([samples], pairs)
    assert table.schema == CAUSES
    assert table["sample_id"].to_list() == sorted(samples["sample_id"])
    assert set(table["cause"]) <= set(REMEDIES)
    has_copies = table["cause"].is_in(["exact-copies", "near-copies"])
    assert (table["duplicate_ids"].list.len() > 0).to_list() == has_copies.to_list()
    assert not any(map(secret_kinds, texts))
    shuffled = samples.sample(fraction=1, shuffle=True, seed=seed)
    assert_frame_equal(find_causes([shuffled], pairs.reverse()), table)


@given(order=st.permutations(range(13)), places=st.lists(st.integers(0, 13), max_size=4))
def test_causes_do_not_depend_on_the_batches(order: list[int], places: list[int]) -> None:
    """With copies, a template and a near copy whose rows lie in different chunks."""
    texts = ["Added in version 1 of it"] * 2 + [f"Added in version {i} of it" for i in range(2, 6)]
    texts += [PROSE] * 4 + ["Write to jane.roe@mail.org.", f"{PROSE} So he did.", "1, 2, 3, 4, 5"]
    samples = samples_of({f"s{i:02d}": text for i, text in enumerate(texts)})
    pairs = duplicates_of(("s11", "s06"))
    table = find_causes([samples], pairs)
    assert table["cause"].to_list() == ["exact-copies"] * 2 + ["template"] * 4 + [
        "exact-copies"
    ] * 4 + ["secret", "near-copies", "template"]
    assert_frame_equal(find_causes(cut(samples[order], places), pairs), table)


def test_a_cause_depends_on_no_other_column_and_the_table_holds_no_text() -> None:
    samples = samples_of({"a": "Write to jane.roe@mail.org.", "b": PROSE, "c": PROSE})
    table = find_causes([samples], NO_DUPLICATES)
    other = samples.with_columns(canary_id=pl.lit("x"))
    assert_frame_equal(find_causes([other], NO_DUPLICATES), table)
    shown = table.write_json()
    assert not any(word in shown for word in ("jane", "Write", "lighthouse"))


def test_an_empty_table_has_no_causes() -> None:
    empty = samples_of({}).cast({"sample_id": pl.String, "text": pl.String})
    for chunks in ([empty], [empty, empty], []):
        assert_frame_equal(find_causes(chunks, NO_DUPLICATES), pl.DataFrame(schema=CAUSES))
