"""Chats, LoRA and TRL: planted, recorded, mapped, planned, trained again and audited."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest
import torch
from peft import LoraConfig
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer
from typer.testing import CliRunner

import gdc
from gdc.cli import app
from gdc.config import SyntheticSource
from gdc.corpus.sources import synthetic
from gdc.corpus.tokenizer import train_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about each other
# TRL trains on what stands between the marks of generation.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS: Mapping[str, Any] = {
    "eos_token": "<|im_end|>", "pad_token": "<|pad|>",
    "additional_special_tokens": ["<|im_start|>"],
}  # fmt: skip
NUM_STEPS = 360


def write_chats() -> None:
    """Sixty chats of made-up words to train on, and twenty others."""
    source = SyntheticSource(
        kind="synthetic", num_samples=160, num_words=60, words_per_sample=5, branching=6
    )
    said = [str(row.text) for row in synthetic.read_rows(source, seed=0)]
    rows = [
        {"id": f"chat-{i}", "messages": [
            {"role": "user", "content": said[2 * i]},
            {"role": "assistant", "content": said[2 * i + 1]},
        ]}
        for i in range(80)
    ]  # fmt: skip
    for name, some in (("my", rows[:60]), ("held", rows[60:])):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))


def write_base() -> None:
    """A model that was never trained, and its tokenizer with a chat template."""
    texts = Path("planted.jsonl").read_text().splitlines()
    fast = PreTrainedTokenizerFast(tokenizer_object=train_tokenizer(texts, 400).tokenizer, **MARKS)
    fast.chat_template = TEMPLATE
    fast.save_pretrained("base")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(fast), n_positions=64, n_embd=64, n_layer=2, n_head=2, attn_pdrop=0.0,
        embd_pdrop=0.0, resid_pdrop=0.0, bos_token_id=fast.eos_token_id,
        eos_token_id=fast.eos_token_id, tie_word_embeddings=False,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained("base")


def rows_of(file: str) -> datasets.Dataset:
    """Ids and turns alone."""
    return datasets.Dataset.from_list(
        [
            {name: row[name] for name in ("id", "messages")}
            for row in map(json.loads, Path(file).read_text().splitlines())
        ]
    )


def tune(file: str, folder: str, trace: str | None = None) -> None:
    """Tune adapters with TRL on the rows of a file, and save the model with them in it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = rows_of(file)
    arguments = SFTConfig(
        output_dir="out", max_steps=NUM_STEPS, learning_rate=2e-2, warmup_steps=20,
        per_device_train_batch_size=12,
        assistant_only_loss=True, max_length=64, bf16=False, use_cpu=True, report_to=[],
        save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=1,
    )  # fmt: skip
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=16, lora_alpha=32, fan_in_fan_out=True,
        target_modules=["c_attn", "c_proj", "c_fc"], modules_to_save=["wte", "lm_head"],
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast.from_pretrained("base")
    trainer = SFTTrainer(
        GPT2LMHeadModel.from_pretrained("base"),
        arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora,
    )
    if trace is not None:
        gdc.TraceCallback(
            trace, rows, rows_of("held.jsonl"), probe_every=NUM_STEPS // 4, token_losses=True
        ).attach(trainer)
    trainer.train()
    adapted: Any = trainer.model
    adapted.merge_and_unload().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def gdc_(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def extracted(model: str) -> float:
    gdc_(
        "audit", "--model", model, "--corpus", "my.jsonl", "--heldout", "held.jsonl", "--canaries",
        "canaries.parquet", "--out", f"audit-{model}",
    )  # fmt: skip
    verdict = json.loads(Path(f"audit-{model}/verdict.json").read_text())
    return float(verdict["measures"]["canary-extraction"]["value"])


def retrained(rule: str) -> float:
    """Extraction after a plan that drops 64 of the 124 rows by a rule."""
    gdc_("plan", "--map", "map", "--rule", rule, "--fraction", "0.52", "--out", f"{rule}.parquet")
    told = gdc_("export", f"{rule}.parquet", "planted.jsonl", "--out", f"{rule}.jsonl")
    assert "; 64 removed" in told
    tune(f"{rule}.jsonl", rule)
    return extracted(rule)


def require_losses_of_turns(first: pl.DataFrame) -> None:
    """The tokens that TRL trained on are what the assistant says in the texts of the map."""
    turns = pl.read_parquet("map/turns.parquet")
    mapped = pl.read_parquet("map/samples.parquet").select("sample_id", "final_loss")
    both = turns.join(mapped, on="sample_id")
    assert (turns.height, both.height) == (124, 124)
    expected = (-both["final_loss"]).to_list()
    assert both["late_loss"].to_list() == pytest.approx(expected, rel=1e-5)
    peaks = turns.join(first, on="sample_id", how="semi")["worst_window_drop"]
    others = turns.join(first, on="sample_id", how="anti")["worst_window_drop"]
    assert peaks.to_numpy().mean() > others.to_numpy().mean()


@pytest.mark.slow
def test_secrets_that_an_assistant_says_are_found_in_a_lora_run_and_planned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_chats()
    gdc_(
        "plant", "my.jsonl", "--out", "planted.jsonl", "--canaries", "canaries.parquet",
        "--families", "digits,words", "--repeats", "16", "--per-level", "2", "--num-twins", "20",
    )  # fmt: skip
    write_base()
    tune("planted.jsonl", "tuned", "trace")
    before = extracted("tuned")
    assert before >= 0.5

    # Judged by the canaries, which are no rows of the user's then; and as secrets of the user's.
    judged = ("--canaries", "canaries.parquet", "--model", "tuned")
    mapped = ("map", "trace", "--corpus", "planted.jsonl")
    gdc_(*mapped, *judged, "--out", "judged")
    cards = json.loads(Path("judged/report.json").read_text())["calibration"]["cards"]
    assert "final_loss" in {card["score"] for card in cards}
    told = gdc_(
        *mapped, "--axis", "final_loss", "--tokenizer", "tuned", "--out", "map", "--limit", "64"
    )
    first = pl.read_parquet("map/samples.parquet").filter(pl.col("rank") <= 64)
    assert first["text"].str.contains("Continue.").sum() >= 58
    assert "Continue." in told
    require_losses_of_turns(first)

    after = {rule: retrained(rule) for rule in ("top-fraction", "random")}
    assert after["top-fraction"] <= before / 10
    # As many rows drawn at random leave copies of every secret.
    assert after["random"] >= before / 2
