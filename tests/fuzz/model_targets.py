"""Targets of ``targets.py`` that read models, tokenizers and training checkpoints."""

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from gdc.config import LstmModel
from gdc.corpus.tokenizer import (
    load_pretrained_tokenizer,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)
from gdc.training import models
from gdc.training.checkpoints import CheckpointFile
from gdc.training.distributed import SINGLE_PROCESS
from tests.fuzz import mutations
from tests.fuzz.judged import accepts


@cache
def right_models() -> Mapping[str, Mapping[str, bytes]]:
    """The files of a tiny model of transformers, of one of ours, and of a tokenizer."""
    torch.manual_seed(0)
    place = Path("made")
    tokenizer = train_tokenizer(["some text"], 260)
    size = GPT2Config(vocab_size=260, n_positions=16, n_embd=8, n_layer=1, n_head=1)
    GPT2LMHeadModel(size).save_pretrained(place / "gpt2")
    ours = LstmModel(
        kind="lstm", block_size=16, precision="float32", hidden_size=8, num_layers=1, dropout=0.0
    )
    (place / "lstm").mkdir(parents=True)
    models.save_model(
        models.build_model(ours, vocab_size=260, end_of_text=0, seed=0), place / "lstm"
    )
    save_tokenizer(tokenizer, place / "tokenizer")
    return {
        folder.name: {file.name: file.read_bytes() for file in folder.iterdir()}
        for folder in place.iterdir()
    }


def write_model(data: st.DataObject, name: str) -> Path:
    """A copy of its folder with one file changed."""
    folder = Path(name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    contents = dict(right_models()[name])
    file = data.draw(st.sampled_from(sorted(contents)))
    if file.endswith(".json") and data.draw(st.booleans()):
        document = data.draw(mutations.documents(json.loads(contents[file])))
        contents[file] = json.dumps(document).encode("utf-8", "replace")
    else:
        contents[file] = data.draw(mutations.damaged(contents[file]))
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return folder


def model_folders(data: st.DataObject) -> bool:
    folder = write_model(data, data.draw(st.sampled_from(["gpt2", "lstm"])))
    return accepts(lambda: models.open_model(str(folder), vocab_size=260))


def tokenizers(data: st.DataObject) -> bool:
    folder = write_model(data, "tokenizer")
    if data.draw(st.booleans()):
        return accepts(lambda: load_tokenizer(folder).encode(["a text"]))
    return accepts(lambda: load_pretrained_tokenizer(str(folder), None).encode(["a text"]))


def checkpoints(data: st.DataObject) -> bool:
    right = {"step": 3, "weights": torch.arange(6.0)}
    path = Path("work/run.pt")
    path.parent.mkdir(exist_ok=True)
    torch.save(right, path)
    path.write_bytes(data.draw(mutations.damaged(path.read_bytes())))
    state = CheckpointFile(path, SINGLE_PROCESS).load(torch.device("cpu"))
    if state is None:
        assert not path.exists()
        return False
    assert state["step"] == 3
    assert torch.equal(state["weights"], right["weights"])  # type: ignore[arg-type]  # a tensor
    return True
