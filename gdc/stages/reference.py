"""Stage `reference`: corpus and a half -> every sample's loss under a model of that half.

The model ``base`` is the pretrained one as it is, which saw no sample.
"""

import argparse

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import nn

from gdc.config import BASE
from gdc.recording.trace import token_lists
from gdc.schema import REFERENCE_TOKENS
from gdc.stages import fitting
from gdc.stages.runner import run
from gdc.training import distributed, losses
from gdc.training.batches import TokenizedTexts
from gdc.training.distributed import Group
from gdc.workspace import files, reference_tables, tables

# Reference models are independent draws: no tracked or retrained run has such a seed.
SEEDS_FROM = 1_000_000


class TokenEvaluation:
    """``losses.sample_losses`` by way of the losses of all tokens, which it keeps.

    Attributes:
        nll: Float32, nats, one text after the other.
    """

    nll: NDArray[np.float32]

    def __call__(
        self,
        model: nn.Module,
        texts: TokenizedTexts,
        *,
        block_size: int,
        batch_tokens: int,
        group: Group,
    ) -> NDArray[np.float64]:
        """Mean nats per token of every text; see ``losses.sample_losses``."""
        self.nll = losses.token_losses(
            model, texts, block_size=block_size, batch_tokens=batch_tokens, group=group
        )
        return losses.sample_losses_from_tokens(self.nll, texts, block_size=block_size)


def token_table(samples: pl.DataFrame, nll: NDArray[np.float32]) -> pl.DataFrame:
    """``REFERENCE_TOKENS`` of the samples.

    Args:
        samples: ``sample_id`` and ``num_tokens``.
        nll: Losses of the tokens of all samples, nats, one sample after the other.
    """
    lists = token_lists(samples["num_tokens"], nll)
    return pl.DataFrame([samples["sample_id"], lists], schema=REFERENCE_TOKENS)


def main() -> None:
    """Evaluate a reference model on all training and held-out samples; one of a half is trained."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    name = parser.parse_args().model
    params = files.load_params()
    sections = params.model_dump(mode="json", include={"model", "training", "reference"})
    recorder = TokenEvaluation() if params.train.token_losses else None
    evaluate = recorder or losses.sample_losses
    group = distributed.init_group()
    with fitting.stage_run(group, "reference", sections, name) as stage:
        samples = _samples(name)
        number = 0 if name == BASE else int(name)
        is_trained = (samples["split"] == "train") & samples["seen"].list.get(number)
        if name == BASE:
            loss = fitting.evaluate_base(params, samples, group=group, evaluate=evaluate)
            curve = []
        else:
            loss, recording = fitting.fit_half(
                params,
                samples,
                is_trained,
                fitting.recipe_from(params, SEEDS_FROM + number),
                group=group,
                name=f"reference@{name}",
                evaluate=evaluate,
            )
            curve = recording.curve
        if stage is not None:
            table = samples.select("sample_id", loss=pl.Series(loss, dtype=pl.Float32))
            reference_tables.write_reference(name, table)
            reference_tables.write_reference_tokens(name, _tokens(samples, recorder))
            stage.log_curve("train_loss", curve)
            stage.log_metrics({"num_trained": int(is_trained.sum())})


def _samples(name: str) -> pl.DataFrame:
    """Training and held-out samples, and which models see them; the pretrained one sees none."""
    corpus = tables.scan("corpus").select("sample_id", "split", "num_tokens").collect()
    samples = corpus.join(tables.read("halves"), on="sample_id", maintain_order="left")
    if name == BASE:
        return samples.with_columns(seen=pl.lit([False], pl.List(pl.Boolean)))
    return samples


def _tokens(samples: pl.DataFrame, recorder: TokenEvaluation | None) -> pl.DataFrame:
    if recorder is None:
        return pl.DataFrame(schema=REFERENCE_TOKENS)
    return token_table(samples, recorder.nll)


if __name__ == "__main__":
    run(main, is_training=True)
