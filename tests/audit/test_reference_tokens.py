"""What stage `reference` keeps of every token: the same losses, of unseen samples alone."""

import numpy as np
import polars as pl

from gdc.config import LstmModel
from gdc.stages.reference import TokenEvaluation, unseen_tokens
from gdc.training.batches import TokenizedTexts
from gdc.training.distributed import SINGLE_PROCESS
from gdc.training.losses import sample_losses
from gdc.training.models import build_model


def test_recording_the_tokens_changes_no_bit_of_the_losses() -> None:
    model = build_model(
        LstmModel(
            kind="lstm", block_size=4, precision="float32",
            hidden_size=8, num_layers=1, dropout=0.0,
        ),
        vocab_size=9,
        end_of_text=0,
        seed=0,
    )  # fmt: skip
    texts = TokenizedTexts.from_ids([[1, 2, 3], [4], [5, 6, 7, 8, 1, 2]], 0)
    evaluate = TokenEvaluation()
    found = evaluate(model, texts, block_size=4, batch_tokens=8, group=SINGLE_PROCESS)
    assert found.tobytes() == sample_losses(model, texts, block_size=4, batch_tokens=8).tobytes()
    assert len(evaluate.nll) == texts.num_tokens.sum()


def test_only_samples_outside_the_half_are_kept() -> None:
    samples = pl.DataFrame(
        {
            "sample_id": ["a", "b", "c"],
            "num_tokens": [1, 2, 3],
            "seen": [[True, False], [False, True], [True, False]],
        }
    )
    nll = np.arange(6, dtype=np.float32)
    assert unseen_tokens(samples, nll, 0).rows() == [("b", [1.0, 2.0])]
    assert unseen_tokens(samples, nll, 1).rows() == [("a", [0.0]), ("c", [3.0, 4.0, 5.0])]
