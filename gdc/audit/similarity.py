"""Generated texts and the secrets they should be -> how near they come, character by character."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Final

import polars as pl
from rapidfuzz.distance import Levenshtein

from gdc.errors import DataError

# One row is a secret and the text generated for it; 1 is verbatim in both columns.
SIMILARITY: Final = pl.Schema(
    {
        "edit_similarity": pl.Float64,  # 1 - Levenshtein distance / length of the longer text
        "substring_share": pl.Float64,  # longest common substring / length of the secret
    }
)


def similarity(generated: Sequence[str], secrets: Sequence[str]) -> pl.DataFrame:
    """How nearly each generated text is its secret, character by character.

    Args:
        generated: Continuation of each prefix, cut to about the length of its secret: whatever
            follows the secret counts as edits.
        secrets: None of them empty.

    Returns:
        ``SIMILARITY`` table in input order.

    Raises:
        DataError: The numbers of texts differ, or a secret is empty.
    """
    if len(generated) != len(secrets):
        raise DataError(
            f"similarity: expected a generated text for every secret, got {len(generated)} for "
            f"{len(secrets)} secrets. Generate an empty one where there is nothing."
        )
    if "" in secrets:
        raise DataError(
            f"similarity: expected no empty secret, got one in row {secrets.index('')}. Drop it."
        )
    pairs = list(zip(generated, secrets, strict=True))
    return pl.DataFrame(
        {
            "edit_similarity": [Levenshtein.normalized_similarity(*pair) for pair in pairs],
            "substring_share": [
                _longest_common_substring(text, secret) / len(secret) for text, secret in pairs
            ],
        },
        schema=SIMILARITY,
    )


def _longest_common_substring(one: str, other: str) -> int:
    # Autojunk would ignore characters that are frequent in texts of 200 and more.
    return SequenceMatcher(None, one, other, autojunk=False).find_longest_match().size
