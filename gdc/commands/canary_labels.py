"""Canaries and a trained model -> which of them the model has memorized."""

import polars as pl

from gdc.audit.model_audit import Subject, record_secrets
from gdc.commands.own_files import naming_options
from gdc.corpus.tokenizer import load_pretrained_tokenizer
from gdc.mapping.calibration import label_canaries
from gdc.training import models

_BATCH_TOKENS = 8192
_MAX_BLOCK_SIZE = 1024


def label_by_model(canaries: pl.DataFrame, model: str, tokenizer: str | None) -> pl.DataFrame:
    """The ``CANARY_MEMORIZATION`` table of planted canaries under one model.

    Args:
        canaries: ``CANARIES`` table with twins.
        model: Folder or Hub name of the model that was trained on the planted ones.
        tokenizer: Folder or Hub name; None: the model's own.

    Raises:
        ConfigError: The model or its tokenizer cannot be used.
        DataError: A canary is longer than the model sees at once.
    """
    with naming_options():
        texts = load_pretrained_tokenizer(tokenizer or model, None)
        opened, positions = models.open_model(model, vocab_size=texts.vocab_size)
    block_size = min(positions or _MAX_BLOCK_SIZE, _MAX_BLOCK_SIZE)
    subject = Subject(models.on_device(opened), texts, block_size)
    secrets = record_secrets(subject, canaries, batch_tokens=_BATCH_TOKENS)
    return label_canaries(canaries, [secrets.nll / secrets.num_tokens], [secrets.is_extracted])
