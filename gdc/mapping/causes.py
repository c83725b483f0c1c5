"""Training texts and their near duplicates -> why each may be memorized, and the remedy.

A cause depends on the text and its copies alone: neither losses nor canary labels are read.
"""

import re
from array import array
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from hashlib import blake2b
from ipaddress import ip_address
from itertools import islice, pairwise
from math import log2
from typing import Final

import numpy as np
import polars as pl

from gdc.schema import Chunks

# One row is a training sample.
CAUSES: Final = pl.Schema(
    {
        "sample_id": pl.String(),
        "cause": pl.String(),
        # At most ``MAX_DUPLICATES`` exact copies in order, or near ones where there are none.
        "duplicate_ids": pl.List(pl.String),
    }
)
# In order of precedence: the first that holds is the cause. A secret comes first, because keeping
# one copy or a few texts of a template keeps their secrets; then copies, because text seen often is
# learned first.
REMEDIES: Final[Mapping[str, str]] = {
    "secret": "Remove the sample and its copies, or mask the span that looks like a secret.",
    "exact-copies": "Deduplicate: keep one copy, and look again at what it holds.",
    "near-copies": "Near-deduplicate: keep one of the duplicates, and look again at what it holds.",
    "template": "Keep few samples of the pattern.",
    "none": "Down-weight it, or keep it: its text and copies show no cause.",
}
MAX_DUPLICATES: Final = 5
MIN_ALIKE: Final = 5  # texts of a template, lines or numbers of a pattern inside a text
MIN_WORDS: Final = 2  # words left when a template is masked

_WORD: Final = re.compile(r"\w+(?:\.\w+)*")
_NUMBER: Final = re.compile(r"(?<![0-9])([0-9]{1,9})(?![0-9])")


def find_causes(samples: Chunks, duplicates: pl.DataFrame) -> pl.DataFrame:
    """Find one cause for every sample: the first of ``REMEDIES`` that holds.

    ``secret``: a span has the format of a key, an address or a long number, or looks random.
    ``exact-copies``: the text has copies. ``near-copies``: another text is similar to it.
    ``template``: ``MIN_ALIKE`` texts are the same but for numbers and identifiers, or most of the
    text counts or repeats one line in this way.

    Memory holds the returned table, some ids of each text that has copies, and 8 bytes for each
    distinct text; never all texts. The chunks are read twice.

    Args:
        samples: Unique ``sample_id``, ``num_copies`` (rows with the same text, this one included)
            and ``text``, rows in any order.
        duplicates: ``NEAR_DUPLICATES`` table of these samples.

    Returns:
        ``CAUSES`` table sorted by ``sample_id``.
    """
    near = _near_copies(duplicates)
    copies, templates = _copies_and_templates(samples)
    tables = [pl.DataFrame(schema=CAUSES)]
    for chunk in samples:
        rows = []
        for sample_id, num_copies, text in _rows(chunk):
            same = copies[_digest(text)] if num_copies > 1 else []
            others = [i for i in same if i != sample_id]
            duplicate_ids = others or sorted(near.get(sample_id, ()))
            cause = _cause(text, bool(others), bool(duplicate_ids), templates)
            rows.append((sample_id, cause, duplicate_ids[:MAX_DUPLICATES]))
        tables.append(pl.DataFrame(rows, schema=CAUSES, orient="row"))
    return pl.concat(tables).sort("sample_id")


def secret_kinds(text: str) -> list[str]:
    """Kinds of secret that a text seems to hold; known published examples do not count."""
    return [kind for kind, holds in _SECRETS.items() if holds(text)]


def masked(text: str) -> str:
    """A text with ``#`` for each number and identifier, and one blank for each white space.

    An identifier holds a digit, an underscore, an inner dot or an inner capital.
    """
    return " ".join(_WORD.sub(lambda word: _mask(word[0]), text).split())


def is_pattern(text: str) -> bool:
    """Whether at least half of a text is an enumeration, or lines that are the same when masked."""
    return _counts_on(text) or _repeats_a_line(text)


def entropy(token: str) -> float:
    """Bits per character of the characters' frequencies."""
    shares = [num / len(token) for num in Counter(token).values()]
    return -sum(share * log2(share) for share in shares)


def _rows(chunk: pl.DataFrame) -> Iterator[tuple[str, int, str]]:
    return chunk.select("sample_id", "num_copies", "text").iter_rows()


def _copies_and_templates(
    samples: Chunks,
) -> tuple[Mapping[bytes, Sequence[str]], frozenset[int]]:
    """Copies and templates, which only all texts together show.

    Returns:
        The first ids by the digest of each text that has copies, one more than are listed, as a
        sample leaves out itself; and the forms of ``_form`` that ``MIN_ALIKE`` distinct texts have.
    """
    copies: defaultdict[bytes, list[str]] = defaultdict(list)
    forms = array("Q")
    for chunk in samples:
        for sample_id, num_copies, text in _rows(chunk):
            same = copies[_digest(text)] if num_copies > 1 else []
            if not same and (form := _form(text)) is not None:
                forms.append(form)
            insort(same, sample_id)
            del same[MAX_DUPLICATES + 1 :]
    values, nums = np.unique(np.asarray(forms), return_counts=True)
    return copies, frozenset(values[nums >= MIN_ALIKE].tolist())


def _digest(text: str) -> bytes:
    """BLAKE2b of a text, 16 bytes: collisions do not occur in practice."""
    return blake2b(text.encode(), digest_size=16).digest()


def _near_copies(duplicates: pl.DataFrame) -> Mapping[str, set[str]]:
    near: defaultdict[str, set[str]] = defaultdict(set)
    for one, other in duplicates.select("sample_id", "duplicate_of").iter_rows():
        near[one].add(other)
        near[other].add(one)
    return near


def _cause(text: str, has_copies: bool, has_near_copies: bool, templates: frozenset[int]) -> str:
    if secret_kinds(text):
        return "secret"
    if has_copies:
        return "exact-copies"
    if has_near_copies:
        return "near-copies"
    if _form(text) in templates or is_pattern(text):
        return "template"
    return "none"


# ---- templates


def _form(text: str) -> int | None:
    """A hash of the masked text; None when it has too few words to be a template.

    It has 64 bits, as memory holds one for every distinct text. The chance that two of 100 million
    forms collide is 3 in 10,000, and only ``MIN_ALIKE`` texts make a template.
    """
    form = masked(text)
    if not _has_words(form):
        return None
    return int.from_bytes(blake2b(form.encode(), digest_size=8).digest(), "big")


def _has_words(form: str) -> bool:
    words = (word for word in form.split() if any(c.isalpha() for c in word))
    return len(list(islice(words, MIN_WORDS))) == MIN_WORDS


def _mask(word: str) -> str:
    rest = word[1:]
    return word if word.isalpha() and rest == rest.lower() else "#"


def _counts_on(text: str) -> bool:
    """Whether numbers rise by one step, with the same words between, through half of the text."""
    numbers = list(_NUMBER.finditer(text))
    steps = [
        (int(after[0]) - int(before[0]), text[before.end() : after.start()])
        for before, after in pairwise(numbers)
    ]
    start = 0
    for i, step in enumerate(steps):
        if step != steps[start]:
            start = i
        covered = numbers[i + 1].end() - numbers[start].start()
        if step[0] and i - start + 2 >= MIN_ALIKE and 2 * covered >= len(text):
            return True
    return False


def _repeats_a_line(text: str) -> bool:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    same = Counter(lines)
    # A line that is repeated exactly counts once.
    alike = Counter(masked(line) for line in same)
    return _has_most(same, str.isalnum) or _has_most(alike, str.isalpha)


def _has_most(lines: Counter[str], is_word: Callable[[str], bool]) -> bool:
    """Whether one line with a word in it is ``MIN_ALIKE`` of all, and at least half of them."""
    return any(
        num >= MIN_ALIKE and 2 * num >= lines.total() and any(map(is_word, line))
        for line, num in lines.items()
    )


# ---- secrets. Repeats in the patterns are bounded or cannot overlap, so that time is linear.
# With ``re.ASCII`` a word ends at any other letter, which in scripts without blanks may follow a
# secret directly.

_KEY: Final = re.compile(
    r"\bAKIA[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{36}\b"
    r"|\bglpat-[\w-]{20}\b"
    r"|\bxox[abprs]-[0-9]{8,}-[\w-]{10,}"
    r"|\bAIza[\w-]{35}\b"
    r"|\bsk-(?:[a-z0-9]{2,8}-){0,2}[A-Za-z0-9_]{20,}"
    r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\."
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----",
    re.ASCII,
)
# First a value of ASCII characters, which a script without blanks may follow directly.
_ASSIGNED: Final = re.compile(
    r"(?a:\b(?:password|passwd|secret|token|api_?key|access_?key)\b)"
    r"['\"]?\s{0,3}[:=\uff1a]\s{0,3}['\"]?"
    r"([^\s'\"(),;._<>\[\]\x80-\U0010ffff]{8,64}(?![^\s'\",;\x80-\U0010ffff])"
    r"|[^\s'\"(),;._<>\[\]]{8,64}(?![^\s'\",;]))",
    re.IGNORECASE,
)
# Letters and marks of other scripts: what is neither ASCII nor a blank nor common punctuation.
_OTHER: Final = r"[^\x00-\x7f\s\xa0-\xbf\u2000-\u206f\u3000-\u303f\uff00-\uff20]"
# A domain may end in another script only if the user name ends in ASCII: in a script without blanks
# an @ may mention somebody.
_EMAIL: Final = re.compile(
    r"(?<=[\w.+-])@((?:[A-Za-z0-9_-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9_@(-])"
    r"|(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9_@(-])"
    rf"|(?<=[A-Za-z0-9]@)(?:(?:[A-Za-z0-9_-]|{_OTHER}){{1,63}}\.){{1,8}}{_OTHER}{{2}})"
)
_USER: Final = re.compile(r"[\w.+-]*$", re.ASCII)
_EXAMPLE: Final = re.compile(
    r"(?:^|\.)(?:example(?:\.\w+)?|test|invalid|localhost)$", re.IGNORECASE
)
_DIGITS: Final = re.compile(r"(?<![\w.])[0-9]{8,20}(?!\w|\.[0-9])", re.ASCII)
_CARD: Final = re.compile(
    r"(?<![\w.-])[2-6][0-9]{3}[ -]?[0-9]{4,6}[ -]?[0-9]{4,5}(?:[ -]?[0-9]{1,4})?(?![\w-])",
    re.ASCII,
)
_IBAN: Final = re.compile(
    r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", re.ASCII
)
_PHONE: Final = re.compile(
    r"(?<![\w+])\+[1-9][0-9]{0,2}(?:[ -]\(?[0-9]{1,8}\)?){2,6}(?![\w-])"
    r"|(?<![\w(.-])(?:\([2-9][0-9]{2}\) |[2-9][0-9]{2}-)[0-9]{3}-[0-9]{4}(?![\w-])",
    re.ASCII,
)
# A Chinese mobile number is told from other long numbers only in a Chinese text.
_HAN: Final = re.compile(r"[\u4e00-\u9fff]")
_MOBILE: Final = re.compile(
    r"(?<![\w.+-])(?:\+?86[ -]?)?(1[3-9][0-9](?:[ -]?[0-9]{4}){2})(?!\w|[.-][0-9])", re.ASCII
)
_CHINESE_ID: Final = re.compile(r"(?<![\w.])[1-9][0-9]{16}[0-9Xx](?!\w|\.[0-9])", re.ASCII)
_IPV4: Final = re.compile(
    r"(?<![\w.])(?<!version )(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\w|\.[0-9])", re.ASCII
)
_IPV6: Final = re.compile(
    r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}::?){3,7}[0-9a-fA-F]{1,4}(?![\w:])", re.ASCII
)
_TOKEN: Final = re.compile(r"[A-Za-z0-9+/_-]{24,}")
_HEX: Final = re.compile(r"(?:0x)?(?:[0-9a-f]{32,}|[0-9A-F]{32,})")
# In a random string at most 1 in 16 characters is followed by the next letter or digit.
_MAX_RISING: Final = 0.3
# Random Base64 changes between capitals, small letters and digits at 0.6 of its positions.
_MIN_CHANGES: Final = 0.4


def _has_key(text: str) -> bool:
    return _KEY.search(text) is not None or any(
        _is_mixed(value) and entropy(value) >= 2.5 for value in _ASSIGNED.findall(text)
    )


def _has_email(text: str) -> bool:
    return any(
        _is_user(text, at.start()) and not _EXAMPLE.search(at[1]) for at in _EMAIL.finditer(text)
    )


def _is_user(text: str, at: int) -> bool:
    """Whether a user name may stand before this @; its start is known only in ASCII."""
    user = _USER.search(text, max(0, at - 65), at)
    return user is not None and user[0] != "git" and len(user[0]) <= 64


def _has_long_number(text: str) -> bool:
    return any(_is_arbitrary(digits) for digits in _DIGITS.findall(text))


def _is_arbitrary(digits: str) -> bool:
    """Not a date, a Unix time, a round number, a power of two or an ascending sequence."""
    is_time = digits[0] == "1" and len(digits) in {10, 13}
    return not (is_time or _is_round(digits) or _is_date(digits) or _rises(digits))


def _is_round(digits: str) -> bool:
    number = int(digits)
    is_power = any(n & (n - 1) == 0 for n in (number - 1, number, number + 1))
    return is_power or digits.endswith("0000") or len(set(digits)) < 4


def _is_date(digits: str) -> bool:
    if len(digits) not in {8, 12, 14} or digits[:2] not in {"19", "20"}:
        return False
    try:
        date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return False
    return True


def _has_card(text: str) -> bool:
    return any(_passes_luhn(re.sub(r"[ -]", "", number)) for number in _CARD.findall(text))


def _passes_luhn(digits: str) -> bool:
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return len(digits) >= 13 and (sum(doubled) + sum(map(int, digits[::-2]))) % 10 == 0


def _has_iban(text: str) -> bool:
    found = [number.replace(" ", "") for number in _IBAN.findall(text)]
    return any(
        15 <= len(number) <= 34
        and int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 == 1
        for number in found
    )


def _has_phone(text: str) -> bool:
    mobiles = _MOBILE.findall(text) if _HAN.search(text) else []
    return any(9 <= sum(map(str.isdigit, number)) <= 15 for number in _PHONE.findall(text)) or any(
        not _is_round(re.sub(r"[ -]", "", number)) for number in mobiles
    )


def _has_chinese_id(text: str) -> bool:
    return any(_is_chinese_id(number.upper()) for number in _CHINESE_ID.findall(text))


def _is_chinese_id(number: str) -> bool:
    """A date of birth, and the check digit of ISO 7064, MOD 11-2."""
    total = sum(int(digit) * 2 ** (17 - i) for i, digit in enumerate(number[:17]))
    return _is_date(number[6:14]) and number[17] == "10X98765432"[total % 11]


def _has_address(text: str) -> bool:
    """Whether a text has a public IP address; private and reserved ones identify nobody."""
    # A shorter IPv4 address is more often a version or the number of a section.
    found = [address for address in _IPV4.findall(text) if len(address) >= 10]
    return any(_is_public(address) for address in [*found, *_IPV6.findall(text)])


def _is_public(address: str) -> bool:
    # One that counts, such as 123.45.67.89, is an example.
    if address.replace(".", "") in "12345678901234567890":
        return False
    try:
        return ip_address(address).is_global
    except ValueError:
        return False


def _has_random_string(text: str) -> bool:
    return any(_is_random(token) for token in _TOKEN.findall(text))


def _is_random(token: str) -> bool:
    if not _is_mixed(token) or _rises(token):
        return False
    if _HEX.fullmatch(token):
        return entropy(token) >= 3
    # Without the symbols, which stand between the words of a path or a name.
    kinds = [_kind(c) for c in token if c.isalnum()]
    changes = sum(one != other for one, other in pairwise(kinds)) / len(kinds)
    return len(set(kinds)) == 3 and changes >= _MIN_CHANGES and entropy(token) >= 4


def _is_mixed(token: str) -> bool:
    return any(c.isdigit() for c in token) and any(c.isalpha() for c in token)


def _rises(token: str) -> bool:
    rising = sum(ord(other) - ord(one) == 1 for one, other in pairwise(token))
    return rising / (len(token) - 1) > _MAX_RISING


def _kind(character: str) -> str:
    if character.isdigit():
        return "digit"
    return "capital" if character.isupper() else "small"


_SECRETS: Final[Mapping[str, Callable[[str], bool]]] = {
    "key": _has_key,
    "e-mail": _has_email,
    "long number": _has_long_number,
    "card": _has_card,
    "IBAN": _has_iban,
    "phone": _has_phone,
    "ID number": _has_chinese_id,
    "IP address": _has_address,
    "random string": _has_random_string,
}
