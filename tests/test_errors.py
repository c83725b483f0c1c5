"""What no message may tell."""

import pytest

from gdc.errors import ConfigError, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pw@host:1/x is away", "http://***@host:1/x is away"),
        ("postgresql+psycopg://u:p@ss@db/x", "postgresql+psycopg://***@db/x"),
        ("'s3://b/k?X-Amz-Signature=abc&part=1'", "'s3://b/k?X-Amz-Signature=***&part=1'"),
        ("https://h/a?access_token=t%20t", "https://h/a?access_token=***"),
        ("write to a@b.c about http://h/@x", "write to a@b.c about http://h/@x"),
    ],
)
def test_secrets_of_urls_are_left_out_of_every_message(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert str(ConfigError(text)) == shown
