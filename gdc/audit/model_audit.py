"""A model, canaries and samples -> the two audit tables, from one pass over the texts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import nn

from gdc.audit import extraction, membership_table, predictability
from gdc.audit.attack_inputs import References, join_references, without_tokens
from gdc.audit.extraction import Secrets
from gdc.audit.predictability import Stretch
from gdc.config import EvaluateConfig
from gdc.corpus.tokenizer import TextTokenizer
from gdc.errors import DataError
from gdc.training import losses
from gdc.training.batches import TokenizedTexts
from gdc.training.token_records import TokenRecords

# Predicted tokens of a text besides its own: an end of text stands before and after it, and only
# the one after it is predicted.
_ENDS = 1
# Stretches that a model is asked for together: 5 texts each, all of whose tokens are in memory.
_STRETCHES = 1024


class TextsByRow(Protocol):
    """Texts by number: a column of a table, or texts on disk."""

    def __getitem__(self, row: int, /) -> str: ...


class Subject(NamedTuple):
    """The audited model: a causal language model that sees ``block_size`` tokens at once."""

    model: nn.Module
    tokenizer: TextTokenizer
    block_size: int


class AuditedTexts(NamedTuple):
    """What a model is asked about.

    Attributes:
        canaries: ``CANARIES`` table; may be empty.
        samples: ``sample_id``, ``text`` and ``is_member``, at least one row; of conversations
            ``unscored`` too, the spans that no number is of.
        references: Losses of the samples under reference models; without, fewer attacks are made.
        base: Losses of the samples under the pretrained model that training started from.
    """

    canaries: pl.DataFrame
    samples: pl.DataFrame
    references: References | None = None
    base: References | None = None

    def records_of_samples(self, records: TokenRecords) -> TokenRecords:
        """Those of the samples, of what ``record_texts`` returns."""
        first = 2 * self.canaries.height
        return records.select_sequences(first, first + self.samples.height)


def audit_model(
    subject: Subject, texts: AuditedTexts, config: EvaluateConfig
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Measure what a model leaks; see ``audit_in_parts``."""
    return audit_in_parts(subject, [texts], config, texts=texts.samples["text"])


def audit_in_parts(
    subject: Subject, parts: Iterable[AuditedTexts], config: EvaluateConfig, *, texts: TextsByRow
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Measure what a model leaks of canaries, their twins, members and held-out texts.

    Args:
        subject: The model, on the device it is to run on.
        parts: What it is asked about, at least one part, all canaries in the first: memory holds
            the texts and tokens of one part at a time.
        config: Batch size and the share of Min-K.
        texts: Those of the samples of all parts; they may lie on disk.

    Returns:
        What ``audit_records`` returns; the samples also have ``membership_table.ELSEWHERE``.

    Raises:
        DataError: A canary is longer than the model sees at once.
    """
    found = [_audit_part(subject, part, config) for part in parts]
    alone = pl.concat([part.alone for part in found])
    firsts = np.cumsum([0, *(part.alone.height for part in found)])
    stretches = [
        stretch._replace(text=stretch.text + int(first))
        for part, first in zip(found, firsts, strict=False)
        for stretch in part.stretches
    ]
    membership = membership_table.compare_samples(
        alone,
        join_references([part.references for part in found]),
        join_references([part.base for part in found]),
    )
    is_member = alone["is_member"].to_numpy()
    bits = ask_elsewhere(subject, texts, is_member, stretches, batch_tokens=config.batch_tokens)
    return found[0].canaries, membership_table.with_bits_elsewhere(membership, stretches, bits)


class _AuditedPart(NamedTuple):
    """What was measured of one part, and what is needed of it at the end."""

    canaries: pl.DataFrame
    alone: pl.DataFrame
    references: References | None
    base: References | None
    stretches: Sequence[Stretch]


def _audit_part(subject: Subject, texts: AuditedTexts, config: EvaluateConfig) -> _AuditedPart:
    records = record_texts(subject, texts, batch_tokens=config.batch_tokens)
    of_samples = texts.records_of_samples(records)
    alone = membership_table.audit_alone(
        texts.samples,
        of_samples,
        block_size=subject.block_size,
        min_k_share=config.min_k_share,
        references=texts.references,
        base=texts.base,
    )
    return _AuditedPart(
        _audit_canaries(records, texts, subject.tokenizer),
        alone,
        without_tokens(texts.references),
        without_tokens(texts.base),
        membership_table.suffix_stretches(alone, of_samples, subject.block_size),
    )


def ask_elsewhere(
    subject: Subject,
    texts: TextsByRow,
    is_member: NDArray[np.bool_],
    stretches: Sequence[Stretch],
    *,
    batch_tokens: int,
) -> NDArray[np.float64]:
    """Bits per token of stretches of the samples after the ends of other samples.

    Args:
        subject: The model, on the device it is to run on.
        texts: Of the samples. Held-out ones serve as prefixes; without any, members do.
        is_member: Of each sample.
        stretches: Those asked for; the text is the number of the sample.
        batch_tokens: Padded tokens of a batch at most.

    Returns:
        As ``predictability.bits_per_token``; NaN where there is no other text.
    """
    pool = np.flatnonzero(~is_member)
    if len(pool) < 2:
        pool = np.arange(len(is_member))
    ids = _IdsOfTexts(subject.tokenizer, texts)
    bits = [np.zeros(0)]
    for first in range(0, len(stretches), _STRETCHES):
        some = stretches[first : first + _STRETCHES]
        asked, starts = predictability.elsewhere(
            ids, some, pool, block_size=subject.block_size, first=first
        )
        bits.append(
            predictability.bits_per_token(_token_records(subject, asked, batch_tokens), starts)
            if asked
            else np.full(len(some), np.nan)
        )
    return np.concatenate(bits)


@dataclass(frozen=True)
class _IdsOfTexts:
    """Ids of texts, made for those that are asked for."""

    tokenizer: TextTokenizer
    texts: TextsByRow

    def __getitem__(self, text: int) -> Sequence[int]:
        return self.tokenizer.encode([self.texts[text]])[0]


def record_texts(subject: Subject, texts: AuditedTexts, *, batch_tokens: int) -> TokenRecords:
    """One pass of the model: the canaries, the canaries behind another text, then the samples.

    Args:
        subject: The model, on the device it is to run on.
        texts: Its texts.
        batch_tokens: Padded tokens of a batch at most.

    Raises:
        DataError: A canary is longer than the model sees at once.
    """
    ids = subject.tokenizer.encode(texts.canaries["text"].to_list())
    _require_that_canaries_fit(ids, subject.block_size)
    sample_ids = subject.tokenizer.encode(texts.samples["text"].to_list())
    shifted_ids = [[*_filler(text, sample_ids[-1], subject), *text] for text in ids]
    planted = [*ids, *shifted_ids]
    has_loss = None
    if "unscored" in texts.samples.columns:
        of_samples = subject.tokenizer.has_loss(
            texts.samples["text"].to_list(), texts.samples["unscored"].to_list()
        )
        has_loss = [*(np.ones(len(text), dtype=bool) for text in planted), *of_samples]
    return _token_records(subject, [*planted, *sample_ids], batch_tokens, has_loss)


def audit_records(
    records: TokenRecords,
    texts: AuditedTexts,
    tokenizer: TextTokenizer,
    *,
    block_size: int,
    min_k_share: float,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Turn the token records of one model into its audit tables; no model is needed.

    Args:
        records: As ``record_texts`` returns them.
        texts: The texts that they are of.
        tokenizer: Of the model.
        block_size: Tokens that the model saw at once.
        min_k_share: Share of the tokens that the Min-K attacks read.

    Returns:
        The ``AUDIT`` table of the canaries and the ``MEMBERSHIP`` table of the samples, both in
        their row order.

    Raises:
        DataError: The records are of other texts.
    """
    return (
        _audit_canaries(records, texts, tokenizer),
        membership_table.audit_samples(
            texts.samples,
            texts.records_of_samples(records),
            block_size=block_size,
            min_k_share=min_k_share,
            references=texts.references,
            base=texts.base,
        ),
    )


def _audit_canaries(
    records: TokenRecords, texts: AuditedTexts, tokenizer: TextTokenizer
) -> pl.DataFrame:
    size, height = texts.canaries.height, texts.samples.height
    ids, starts = _encode(tokenizer, texts.canaries)
    ends = _lengths(ids)
    num_tokens = _num_tokens(records, 2 * size + height, ends)
    shifts = num_tokens[size : 2 * size] - num_tokens[:size]
    secrets = Secrets(records.select_sequences(0, size), starts, ends)
    shifted = Secrets(records.select_sequences(size, 2 * size), starts + shifts, ends + shifts)
    greedy = [tokenizer.decode(text) for text in secrets.greedy_ids()]
    return extraction.audit_canaries(texts.canaries, secrets, shifted, greedy)


def _num_tokens(
    records: TokenRecords, num_texts: int, lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Predicted tokens of every text; each has some."""
    found = np.bincount(records.sequence, minlength=num_texts)
    size = len(lengths)
    fits = len(found) == num_texts and (found > 0).all()
    if not (fits and (found[:size] == lengths + _ENDS).all()):
        raise DataError(
            f"token records: expected those of {size} canaries, twice, and of "
            f"{num_texts - 2 * size} texts, got those of others. Audit again."
        )
    return found


def record_secrets(subject: Subject, canaries: pl.DataFrame, *, batch_tokens: int) -> Secrets:
    """The secrets of canaries and twins under a model, in their row order.

    Args:
        subject: The model, on the device it is to run on.
        canaries: ``CANARIES`` table; may be empty.
        batch_tokens: Padded tokens of a batch at most.

    Raises:
        DataError: A canary is longer than the model sees at once.
    """
    ids, starts = _encode(subject.tokenizer, canaries)
    _require_that_canaries_fit(ids, subject.block_size)
    return Secrets(_token_records(subject, ids, batch_tokens), starts, _lengths(ids))


def _encode(
    tokenizer: TextTokenizer, canaries: pl.DataFrame
) -> tuple[list[list[int]], NDArray[np.int64]]:
    """The ids of each canary, and the position at which its secret begins."""
    ids = tokenizer.encode(canaries["text"].to_list())
    return ids, extraction.secret_starts(tokenizer.encode(canaries["prefix"].to_list()), ids)


def _token_records(
    subject: Subject,
    ids: Sequence[Sequence[int]],
    batch_tokens: int,
    has_loss: Sequence[NDArray[np.bool_]] | None = None,
) -> TokenRecords:
    return losses.token_records(
        subject.model,
        TokenizedTexts.from_ids(ids, subject.tokenizer.end_of_text, has_loss),
        block_size=subject.block_size,
        batch_tokens=batch_tokens,
    )


def _filler(text: Sequence[int], other: Sequence[int], subject: Subject) -> list[int]:
    """As much of the end of another text as fits into the window before the canary."""
    room = subject.block_size - len(text) - _ENDS - 1
    return [*other[-room:], subject.tokenizer.end_of_text] if room > 0 else []


def _require_that_canaries_fit(ids: Sequence[Sequence[int]], block_size: int) -> None:
    longest = max((len(text) for text in ids), default=0)
    if longest + _ENDS > block_size:
        raise DataError(
            f"canaries: expected at most {block_size - _ENDS} tokens, what the model sees at once "
            f"(block_size {block_size}), got one of {longest}. Use shorter ones."
        )


def _lengths(texts: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.array([len(text) for text in texts], dtype=np.int64)
