"""Made-up sentences: seed, words and successors."""

from itertools import pairwise

import pytest

from gdc.corpus.sources import (
    read_source,
)
from gdc.errors import ConfigError
from tests.corpus.sources.builders import SYNTHETIC, read


def test_synthetic_rows_depend_on_the_seed_alone() -> None:
    first, again, other = (
        read_source(SYNTHETIC, max_chars=1000, seed=seed).rows for seed in (1, 1, 2)
    )
    assert first.equals(again)
    assert not first.equals(other)
    assert first["source"].to_list() == [f"synthetic:{n}" for n in range(1, 51)]


def test_synthetic_sentences_have_the_words_and_successors_asked_for() -> None:
    sentences = [t.split() for t in read(SYNTHETIC, max_chars=1000).rows["text"]]
    assert {len(words) for words in sentences} == {7}
    assert len({word for words in sentences for word in words}) <= 30
    successors: dict[str, set[str]] = {}
    for words in sentences:
        for word, successor in pairwise(words):
            successors.setdefault(word, set()).add(successor)
    assert max(map(len, successors.values())) == 3


def test_one_successor_makes_one_sentence_per_first_word() -> None:
    chain = SYNTHETIC.model_copy(update={"branching": 1})
    sentences = [t.split() for t in read(chain, max_chars=1000).rows["text"]]
    assert len({tuple(words) for words in sentences}) == len({words[0] for words in sentences})


def test_more_successors_than_words_are_refused() -> None:
    crowded = SYNTHETIC.model_copy(update={"branching": 31})
    with pytest.raises(ConfigError, match=r"branching: expected at most num_words \(30\), got 31"):
        read(crowded)
