"""Parameters -> made-up rows: sentences of a seeded Markov chain over made-up words."""

from collections.abc import Iterator
from itertools import product
from typing import Final

import numpy as np

from gdc.config import SyntheticSource
from gdc.corpus.sources.rows import Row
from gdc.errors import ConfigError

_SYLLABLES: Final = tuple("".join(pair) for pair in product("bdfghjklmnprstvz", "aeiou"))


def read_rows(source: SyntheticSource, *, seed: int) -> Iterator[Row]:
    """Sentences of ``words_per_sample`` words; each word has ``branching`` possible successors.

    Raises:
        ConfigError: A word cannot have that many successors.
    """
    if source.branching > source.num_words:
        raise ConfigError(
            f"ingest.source.branching: expected at most num_words ({source.num_words}), "
            f"got {source.branching}. Lower it, or raise num_words."
        )
    rng = np.random.default_rng(seed)
    words = _words(source.num_words, rng)
    for number, walk in enumerate(_walks(source, rng), start=1):
        yield Row(f"synthetic:{number}", " ".join(words[word] for word in walk))


def _words(num_words: int, rng: np.random.Generator) -> list[str]:
    num_syllables = 2
    while len(_SYLLABLES) ** num_syllables < num_words:
        num_syllables += 1
    numbers = rng.choice(len(_SYLLABLES) ** num_syllables, size=num_words, replace=False)
    return [_word(int(number), num_syllables) for number in numbers]


def _word(number: int, num_syllables: int) -> str:
    """The number, with syllables for digits: other numbers are other words."""
    word = ""
    for _ in range(num_syllables):
        number, digit = divmod(number, len(_SYLLABLES))
        word = _SYLLABLES[digit] + word
    return word


def _walks(source: SyntheticSource, rng: np.random.Generator) -> list[list[int]]:
    """Samples x words: the numbers of the words."""
    successors = np.stack(
        [
            rng.choice(source.num_words, size=source.branching, replace=False)
            for _ in range(source.num_words)
        ]
    )
    chances = rng.dirichlet(np.ones(source.branching), size=source.num_words)
    # Its last column would be 1 but for rounding; without it every draw falls on a successor.
    bounds = chances.cumsum(axis=1)[:, :-1]
    walks = np.empty((source.num_samples, source.words_per_sample), dtype=np.int64)
    walks[:, 0] = rng.integers(source.num_words, size=source.num_samples)
    for step in range(1, source.words_per_sample):
        word = walks[:, step - 1]
        draws = rng.random(source.num_samples)
        chosen = (draws[:, None] >= bounds[word]).sum(axis=1)
        walks[:, step] = successors[word, chosen]
    return walks.tolist()
