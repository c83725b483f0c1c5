"""The form of a section of params.yaml, and the types and limits that sections share."""

import math
from typing import Annotated, Final, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Above it the numbers of polars and torch overflow.
MAX_COUNT: Final = 2**31 - 1
MAX_SEED: Final = 2**63 - 1
# More than any machine, model or text has; a library that is asked for more aborts.
MAX_THREADS: Final = 1024
MAX_WIDTH: Final = 2**16
MAX_LAYERS: Final = 1000
MAX_BLOCK_SIZE: Final = 2**20
MAX_VOCAB_SIZE: Final = 2**20
MAX_COPIES: Final = 1000
MAX_WORDS: Final = 1000
# Files and DVC stages carry an arm's name beside others; a file name has 255 bytes.
MAX_NAME: Final = 64
# Not for a field with an upper bound of its own, which pydantic would ignore.
Count = Annotated[int, Field(le=MAX_COUNT)]
Threads = Annotated[int, Field(ge=1, le=MAX_THREADS)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
BlockSize = Annotated[
    int,
    Field(ge=2, le=MAX_BLOCK_SIZE, description="Tokens of a window; longer texts are split."),
]
_Item = TypeVar("_Item")
# YAML has lists. What stands in them is as strict as elsewhere.
Items = Annotated[tuple[_Item, ...], Field(strict=False)]


class Section(BaseModel):
    """A stage's parameters: immutable, and a misspelt key or a value of another type is an error.

    Strict, as DVC writes a value into commands and file names as it stands in the file: ``true``
    and ``1.0`` are no seed 1 there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    @field_validator("*")
    @classmethod
    def _text_can_name_a_file(cls, value: object) -> object:
        # The system takes no path with one, and says so in an error of Python's.
        if isinstance(value, str) and "\0" in value:
            raise ValueError("expected text without NUL characters")
        return value


class NearCopies(Section):
    """Which texts are near copies of each other."""

    threshold: float = Field(gt=0, le=1, description="Jaccard similarity; 1 is exact copies.")
    num_perm: int = Field(ge=16, le=MAX_WIDTH, description="Hash functions of a MinHash.")
    shingle_chars: Count = Field(ge=1, description="Characters of a shingle.")

    @model_validator(mode="after")
    def _hashes_tell_copies_from_other_texts(self) -> Self:
        least = least_num_perm(self.threshold)
        if self.num_perm < least:
            raise ValueError(
                f"num_perm: expected at least {least} for threshold {self.threshold}, got "
                f"{self.num_perm}: with fewer, unrelated texts are compared too, in a time that "
                f"grows with the square of their number. Set num_perm: {max(128, least)}, or raise "
                "threshold."
            )
        return self


def least_num_perm(threshold: float) -> int:
    """Hash values that tell near copies from texts a quarter as similar as the threshold.

    The number that two texts share is binomial with their similarity. With so many, what all near
    copies share but 1e-9 (6 standard deviations) is shared by few other pairs: by 1 in 1,000 in the
    normal approximation (3.09), which is off for high thresholds, by at most 8 in 100. The texts of
    such a pair are held in memory and compared.
    """
    other = threshold / 4
    spread = 6 * math.sqrt(threshold * (1 - threshold)) + 3.09 * math.sqrt(other * (1 - other))
    return math.ceil((spread / (threshold - other)) ** 2)
