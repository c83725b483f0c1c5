"""A tiny GPT-2 of your own, its texts and planted secrets -> an audit by `gdc audit`.

Run: python examples/audit_a_model.py FOLDER. Takes less than a minute on a processor.
"""

import json
import random
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

COLOURS = ("red", "blue", "grey", "white")
NUM_TWINS = 9
SECRET = {"prefix": "the code of ann is", "secret": " 48151623"}


def text_of(i: int) -> str:
    """Four colours that follow from nothing but the number before them."""
    one, two, three, four = (COLOURS[i * 7919 // 4**k % 4] for k in range(4))
    return f"note {i}: a {one} box, a {two} chair, a {three} door, a {four} lamp"


def canaries() -> list[dict[str, object]]:
    """One secret that is planted 8 times, and twins that never are."""
    planted = {"canary_id": "ann", "family": "codes", **SECRET, "num_repeats": 8}
    twins = [
        {
            "canary_id": f"twin-{i}",
            "family": "codes",
            "prefix": f"the code of {i} is",
            "secret": f" {i * 7919 + 11:08d}",
            "num_repeats": 0,
        }
        for i in range(NUM_TWINS)
    ]
    return [planted, *twins]


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE with an end of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")  # noqa: S106  # a token of text


def train_model(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """Train a GPT-2 of one layer until it knows its texts by heart."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=64, n_layer=1, n_head=4,
        bos_token_id=end, eos_token_id=end, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    rows = [[end, *tokenizer(text)["input_ids"], end] for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [end] * (longest - len(row)) for row in rows])
    is_text = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    labels = ids.masked_fill(is_text == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = model(input_ids=ids, attention_mask=is_text, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Train on half of the texts and on the secret; audit the model."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    texts = [text_of(i) for i in range(64)]
    random.Random(0).shuffle(texts)  # noqa: S311  # members are drawn at random, no secret
    trained_on = [*texts[::2], *[SECRET["prefix"] + SECRET["secret"]] * 8]
    tokenizer = train_tokenizer(trained_on)
    model = train_model(trained_on, tokenizer)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    write_lines(folder / "trained-on.jsonl", [{"text": text} for text in texts[::2]])
    write_lines(folder / "not-trained-on.jsonl", [{"text": text} for text in texts[1::2]])
    write_lines(folder / "canaries.jsonl", canaries())
    command = [sys.executable, "-m", "gdc", "audit"]
    options = {
        "--model": "model", "--corpus": "trained-on.jsonl", "--heldout": "not-trained-on.jsonl",
        "--canaries": "canaries.jsonl", "--out": "audit",
    }  # fmt: skip
    for name, file in options.items():
        command += [name, str(folder / file)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
