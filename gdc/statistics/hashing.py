"""Text -> a pseudo-random number or its compressed size, which depend on the arguments alone."""

from collections.abc import Sequence
from hashlib import blake2b
from zlib import compress


def hash_order(ids: Sequence[str], *, seed: int, purpose: str) -> list[int]:
    """A pseudo-random 64-bit number for every id, the same on every machine and in every order."""
    key = blake2b(f"{seed}:{purpose}".encode(), digest_size=16).digest()
    return [
        int.from_bytes(blake2b(i.encode(), key=key, digest_size=8).digest(), "big") for i in ids
    ]


def zlib_size(text: str) -> int:
    """Size in bytes of a text's UTF-8 form, compressed by zlib."""
    return len(compress(text.encode()))
