"""What stage `reference` keeps of every token: the same losses, of unseen samples alone."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import polars as pl
import pytest
from ruamel.yaml import YAML

from gdc.config import Gpt2Model, LstmModel, ReferenceConfig
from gdc.corpus.tokenizer import save_tokenizer, train_tokenizer
from gdc.schema import CORPUS, HALVES, TURNS
from gdc.stages import evaluate, fitting, reference
from gdc.stages.reference import TokenEvaluation, token_table
from gdc.training.batches import TokenizedTexts
from gdc.training.distributed import SINGLE_PROCESS
from gdc.training.losses import sample_losses, token_losses
from gdc.training.models import build_model, load_model, save_model
from gdc.workspace import paths, tables
from tests.builders import preset_text


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


def test_token_losses_of_all_samples_are_kept_as_lists() -> None:
    samples = pl.DataFrame({"sample_id": ["a", "b", "c"], "num_tokens": [1, 2, 3]})
    found = token_table(samples, np.arange(6, dtype=np.float32))
    assert found.rows() == [("a", [0.0]), ("b", [1.0, 2.0]), ("c", [3.0, 4.0, 5.0])]


def test_the_pretrained_model_says_what_it_would_and_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = ["a first text", "another of them", "held out"]
    splits = ["train", "train", "validation"]
    tokenizer = train_tokenizer(texts, 300)
    num_tokens = [num + 1 for num in tokenizer.num_ids(pl.Series(texts))]
    write_workspace([*zip(texts, num_tokens, splits, strict=True)], Path("base"))
    save_tokenizer(tokenizer, paths.TOKENIZER)
    model = build_model(
        Gpt2Model(
            kind="gpt2", block_size=32, precision="float32",
            hidden_size=8, num_layers=1, num_heads=2, dropout=0.0,
        ),
        vocab_size=tokenizer.vocab_size,
        end_of_text=tokenizer.end_of_text,
        seed=0,
    )  # fmt: skip
    save_model(model, Path("base"))
    monkeypatch.setattr(fitting, "stage_run", lambda *_: nullcontext(Mock()))
    monkeypatch.setattr(sys, "argv", ["reference", "--model", "base"])
    reference.main()
    samples = pl.DataFrame({"sample_id": ["s2", "s0"]})
    config = ReferenceConfig(models=("base",), threshold=0.7, num_perm=64, shingle_chars=5)
    halves, base = evaluate._references(samples, config)
    assert halves is None
    assert base is not None
    ids = TokenizedTexts.from_ids(tokenizer.encode([texts[2], texts[0]]), tokenizer.end_of_text)
    expected = token_losses(load_model(Path("base")), ids, block_size=32, batch_tokens=64)
    assert base.token_loss == pytest.approx(expected, rel=1e-5)
    assert base.loss[:, 0] == pytest.approx(
        [part.mean() for part in np.split(expected, ids.num_tokens.cumsum()[:-1])], rel=1e-5
    )
    assert not base.seen.any()


def write_workspace(texts: list[tuple[str, int, str]], base: Path) -> None:
    """What stage `reference` reads, with a small pretrained model that is to be saved."""
    values = YAML(typ="safe").load(preset_text("own-data"))
    pretrained = {"kind": "pretrained", "name": str(base), "revision": None}
    values["model"] = {
        **pretrained, "block_size": 32, "precision": "float32", "lora": None,
        "gradient_checkpointing": False,
    }  # fmt: skip
    values["ingest"]["tokenizer"] = pretrained
    values["reference"]["models"] = ["base"]
    values["score"]["enabled"].remove("reference_gap")
    Path("params.yaml").write_text(json.dumps(values))
    rows = [
        (f"s{i}", f"c{i}", 1, text, len(text), num_tokens, f"f:{i}", split, None)
        for i, (text, num_tokens, split) in enumerate(texts)
    ]
    tables.write("corpus", pl.DataFrame(rows, schema=CORPUS, orient="row"))
    tables.write("turns", pl.DataFrame(schema=TURNS))
    # Without models of halves no sample has an entry.
    tables.write(
        "halves", pl.DataFrame([(row[0], []) for row in rows], schema=HALVES, orient="row")
    )
    paths.PRETRAINED.write_text("{}")
    for folder in (base, paths.TOKENIZER):
        folder.mkdir(parents=True)
