"""TRL's SFTTrainer with packing -> a trace of the losses of its samples.

Run in an empty folder: python examples/record_with_trl.py. The code is that of
docs/guides/trl.md.
"""

from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

import gdc

words = {"[end]": 0, "[unknown]": 1, **{f"w{i}": i + 2 for i in range(30)}}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="[unknown]"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
rows = [{"id": f"row-{i}", "prompt": f"w{i}", "completion": f" w{i} w{29 - i}"} for i in range(30)]
dataset = Dataset.from_list(rows)
config = GPT2Config(vocab_size=len(words), n_positions=32, n_embd=16, n_layer=1, n_head=2)
trainer = SFTTrainer(
    GPT2LMHeadModel(config),
    SFTConfig("model", packing=True, max_length=16, num_train_epochs=2, bf16=False, use_cpu=True),
    train_dataset=dataset,
    processing_class=PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="[end]"),
)
gdc.TraceCallback("trl-trace", dataset).attach(trainer)
trainer.train()
