"""Canaries and a trained model -> which of them the model has memorized."""

import polars as pl

from gdc.audit.model_audit import record_secrets
from gdc.commands import audit
from gdc.commands.own_files import naming_options
from gdc.corpus.chat import ChatFormat, say_canaries
from gdc.corpus.tokenizer import load_pretrained_tokenizer
from gdc.mapping.calibration import label_canaries


def label_by_model(
    canaries: pl.DataFrame, model: str, tokenizer: str, *, is_said: bool
) -> pl.DataFrame:
    """The ``CANARY_MEMORIZATION`` table of planted canaries under one model.

    Args:
        canaries: ``CANARIES`` table with twins.
        model: Folder or Hub name of the model that was trained on the planted ones.
        tokenizer: Folder or Hub name.
        is_said: Whether the assistant of a conversation says the canaries, by the template of the
            tokenizer.

    Raises:
        ConfigError: The model or its tokenizer cannot be used.
        DataError: A canary is longer than the model sees at once.
    """
    with naming_options():
        texts = load_pretrained_tokenizer(tokenizer, None)
    if is_said:
        chat = ChatFormat.of(texts, "tokenizer")
        texts, canaries = chat.tokenizer(texts), say_canaries(canaries, chat)[0]
    subject = audit.open_subject(model, texts, None)
    secrets = record_secrets(subject, canaries, batch_tokens=audit.BATCH_TOKENS)
    return label_canaries(canaries, [secrets.nll / secrets.num_tokens], [secrets.is_extracted])
