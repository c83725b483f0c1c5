"""What no message may tell."""

import pytest

from gdc.corpus.sources import unread
from gdc.errors import ConfigError, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pw@host:1/x is away", "http://***@host:1/x is away"),
        ("postgresql+psycopg://u:p@ss@db/x", "postgresql+psycopg://***@db/x"),
        ("'s3://b/k?X-Amz-Signature=abc&part=1'", "'s3://b/k?X-Amz-Signature=***&part=1'"),
        ("https://h/a?access_token=t%20t", "https://h/a?access_token=***"),
        ("postgresql://u:pa/ss@db:5432/x", "postgresql://***@db:5432/x"),
        ("s3://AKIA:a/b+c@bucket/k is away", "s3://***@bucket/k is away"),
        (
            "http://h:5000/v@2 and http://h:80 of a@b.c",
            "http://h:5000/v@2 and http://h:80 of a@b.c",
        ),
        ("https://h/a?author=Eco&auth=abc", "https://h/a?author=Eco&auth=***"),
        ("write to a@b.c about http://h/@x", "write to a@b.c about http://h/@x"),
    ],
)
def test_secrets_of_urls_are_left_out_of_every_message(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert str(ConfigError(text)) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b]0;title\x07\x1b[2J", r"a\x1b]0;title\x07\x1b[2J"),
        ("one\rother\x9b2J", r"one\rother\x9b2J"),
        ("txt.\u202egpj", r"txt.\u202egpj"),
        (
            "two\nlines,\tmy \N{ZERO WIDTH NON-JOINER}日本é",
            "two\nlines,\tmy \N{ZERO WIDTH NON-JOINER}日本é",
        ),
    ],
)
def test_no_message_has_what_a_terminal_would_obey(text: str, shown: str) -> None:
    assert str(ConfigError(text)) == shown
    told = unread.sentence({"hidden": {"num_files": 1, "first": [text]}})
    assert told == f"Not read: 1 file of the source: 1 hidden ({shown})."
