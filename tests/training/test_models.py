"""Models: files, seeds, logits against transformers, padding, pretrained folders, refusals."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaForCausalLM,
    RobertaForMaskedLM,
)

from gdc.config import Gpt2Model, LstmModel, Model, PretrainedModel
from gdc.corpus.tokenizer import load_pretrained_tokenizer
from gdc.errors import ConfigError, SchemaError, TransientError
from gdc.training.models import (
    LstmLanguageModel,
    build_model,
    load_model,
    model_settings,
    open_model,
    save_model,
    target_states,
)

VOCAB_SIZE, END_OF_TEXT, BLOCK_SIZE = 40, 39, 8
LSTM = LstmModel(
    kind="lstm",
    block_size=BLOCK_SIZE,
    precision="float32",
    hidden_size=8,
    num_layers=2,
    dropout=0.1,
)
GPT2 = Gpt2Model(
    kind="gpt2",
    block_size=BLOCK_SIZE,
    precision="float32",
    hidden_size=8,
    num_layers=2,
    num_heads=2,
    dropout=0.1,
)
IDS_BT = torch.tensor([[39, 1, 2, 3, 4], [39, 7, 8, 0, 0]])
IS_REAL_BT = torch.tensor([[True] * 5, [True, True, True, False, False]])

both_kinds = pytest.mark.parametrize("config", [LSTM, GPT2], ids=["lstm", "gpt2"])


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def built(config: Model, seed: int = 0) -> nn.Module:
    model = build_model(config, vocab_size=VOCAB_SIZE, end_of_text=END_OF_TEXT, seed=seed)
    return model.eval()


def logits_of(model: nn.Module, ids: Tensor = IDS_BT, is_real: Tensor = IS_REAL_BT) -> Tensor:
    with torch.inference_mode():
        states = target_states(model, ids, is_real)
        return states.logits()


def pretrained(name: str | Path, block_size: int = BLOCK_SIZE) -> nn.Module:
    config = PretrainedModel(
        kind="pretrained",
        block_size=block_size,
        precision="float32",
        name=str(name),
        revision=None,
        lora=None,
        gradient_checkpointing=False,
    )
    return built(config)


def saved(model: nn.Module, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    save_model(model, folder)
    return folder


@both_kinds
def test_a_saved_model_comes_back_bit_by_bit(config: Model, tmp_path: Path) -> None:
    model = built(config)
    loaded = load_model(saved(model, tmp_path))
    assert type(loaded) is type(model)
    assert torch.equal(logits_of(loaded), logits_of(model))
    assert not loaded.training


@both_kinds
def test_saving_twice_gives_equal_bytes(config: Model, tmp_path: Path) -> None:
    a, b = (saved(built(config), tmp_path / name) for name in "ab")
    names = sorted(file.name for file in a.iterdir())
    assert {"config.json", "model.safetensors"} <= set(names)
    assert names == sorted(file.name for file in b.iterdir())
    assert all((a / name).read_bytes() == (b / name).read_bytes() for name in names)


@both_kinds
def test_the_seed_decides_the_first_weights(config: Model) -> None:
    a, b, other = built(config, seed=3), built(config, seed=3), built(config, seed=4)
    assert torch.equal(logits_of(a), logits_of(b))
    assert not torch.equal(logits_of(a), logits_of(other))


@both_kinds
def test_logits_have_a_row_for_every_chosen_position(config: Model) -> None:
    assert logits_of(built(config)).shape == (8, VOCAB_SIZE)


def test_gpt2_logits_are_those_of_transformers(tmp_path: Path) -> None:
    model = built(GPT2)
    theirs = AutoModelForCausalLM.from_pretrained(saved(model, tmp_path)).eval()
    with torch.inference_mode():
        expected = theirs(IDS_BT).logits
    assert isinstance(theirs, GPT2LMHeadModel)
    torch.testing.assert_close(logits_of(model), expected[IS_REAL_BT])


def test_lstm_logits_are_those_of_a_loop_over_time() -> None:
    model = built(LSTM)
    assert isinstance(model, LstmLanguageModel)
    state, rows = None, []
    with torch.inference_mode():
        for token in IDS_BT[0]:
            output, state = model.lstm(model.embedding(token)[None], state)
            rows.append(output[0] @ model.embedding.weight.T + model.bias)
    torch.testing.assert_close(logits_of(model)[:5], torch.stack(rows))


@both_kinds
def test_padding_on_the_right_changes_no_real_logit(config: Model) -> None:
    model = built(config)
    alone = logits_of(model, IDS_BT[1:, :3], IS_REAL_BT[1:, :3])
    torch.testing.assert_close(logits_of(model)[5:], alone)
    other_padding = IDS_BT.masked_fill(~IS_REAL_BT, 17)
    assert torch.equal(logits_of(model, other_padding), logits_of(model))


@both_kinds
def test_a_position_does_not_see_what_follows(config: Model) -> None:
    model = built(config)
    changed = IDS_BT.clone()
    changed[0, 3] = 11
    before, after = logits_of(model), logits_of(model, changed)
    torch.testing.assert_close(after[:3], before[:3])
    assert not torch.allclose(after[3:5], before[3:5])


def test_input_and_output_embeddings_are_tied() -> None:
    lstm, gpt2 = built(LSTM), built(GPT2)
    assert isinstance(lstm, LstmLanguageModel)
    assert isinstance(gpt2, GPT2LMHeadModel)
    assert sum(p.numel() for p in lstm.parameters()) == 40 * 8 + 2 * (4 * 8 * (8 + 8 + 2)) + 40
    assert gpt2.lm_head.weight is gpt2.transformer.wte.weight
    assert gpt2.config.n_positions == BLOCK_SIZE


def test_settings_tell_models_of_equal_weights_apart() -> None:
    settings = [
        model_settings(built(config.model_copy(update=change)))
        for config in (LSTM, GPT2)
        for change in ({}, {"dropout": 0.2})
    ]
    settings.append(model_settings(built(GPT2.model_copy(update={"num_heads": 4}))))
    assert len(set(settings)) == 5


def test_a_pretrained_local_folder_is_loaded(tmp_path: Path) -> None:
    model = built(GPT2)
    loaded = pretrained(saved(model, tmp_path))
    assert torch.equal(logits_of(loaded), logits_of(model))


def test_pretrained_half_precision_is_loaded_as_float32(tmp_path: Path) -> None:
    loaded = pretrained(saved(built(GPT2).half(), tmp_path))
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_another_architecture_is_loaded_and_called_whole(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=BLOCK_SIZE,
    )
    llama = LlamaForCausalLM(config).eval()
    loaded = pretrained(saved(llama, tmp_path))
    with torch.inference_mode():
        expected = llama(IDS_BT).logits
    assert torch.equal(logits_of(loaded), expected[IS_REAL_BT])
    assert torch.equal(logits_of(load_model(saved(loaded, tmp_path))), logits_of(loaded))


def test_a_block_beyond_the_positions_is_refused(tmp_path: Path) -> None:
    folder = saved(built(GPT2), tmp_path)
    with pytest.raises(ConfigError, match=r"model.block_size: expected at most the 8 .* got 9"):
        pretrained(folder, block_size=9)


def test_too_small_a_vocabulary_is_refused(tmp_path: Path) -> None:
    small = build_model(GPT2, vocab_size=VOCAB_SIZE - 1, end_of_text=0, seed=0)
    with pytest.raises(ConfigError, match="knows 39 ids, but its tokenizer has 40"):
        pretrained(saved(small, tmp_path))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    model = built(GPT2)
    (saved(model, tmp_path) / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="expected a causal language model with safetensors"):
        pretrained(tmp_path)


def test_code_in_the_model_folder_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "mine.py").write_text("raise SystemExit('executed')\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"model.name: .*: not a causal language model"):
        pretrained(tmp_path)


def test_a_model_that_is_no_language_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"model.name: .*: not a causal language model"):
        pretrained(tmp_path)


def test_broken_weights_are_refused(tmp_path: Path) -> None:
    (saved(built(GPT2), tmp_path) / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ConfigError, match="not valid safetensors weights"):
        pretrained(tmp_path)


def test_an_unknown_name_is_a_mistake_offline_and_transient_online(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match=r"model.name: 'no-such-user/no-such-model': expected"):
        pretrained("no-such-user/no-such-model")
    monkeypatch.setattr("gdc.training.transformer_models.is_offline_mode", lambda: False)
    with pytest.raises(TransientError, match="the Hub did not answer"):
        pretrained("no-such-user/no-such-model")
    with pytest.raises(ConfigError, match="expected a causal language model"):
        pretrained("./connect")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"expected a model folder with config.json, got none"):
        load_model(tmp_path)


# ---- whose weights are whole, and which sees no later token

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}


def llama(**settings: bool) -> LlamaConfig:
    return LlamaConfig(**{**SIZES, "num_key_value_heads": 1, "pad_token_id": 0, **settings})


def masked_lms() -> list[PreTrainedModel]:
    return [
        RobertaForMaskedLM(RobertaConfig(**SIZES)),
        BertForMaskedLM(BertConfig(**SIZES)),
        ElectraForMaskedLM(ElectraConfig(**SIZES)),
    ]


@pytest.mark.parametrize(
    ("model", "shard"),
    [
        pytest.param(LlamaForCausalLM(llama(tie_word_embeddings=True)), "1GB", id="tied"),
        pytest.param(LlamaForCausalLM(llama()), "1KB", id="in shards"),
        pytest.param(LlamaForCausalLM(llama()).bfloat16(), "1GB", id="bfloat16"),
        pytest.param(GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)), "1GB", id="GPT-NeoX"),
        pytest.param(
            RobertaForCausalLM(RobertaConfig(**SIZES, is_decoder=True)), "1GB", id="a decoder"
        ),
    ],
)
def test_a_causal_model_with_all_weights_is_opened(
    model: PreTrainedModel, shard: str, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path, max_shard_size=shard)
    opened, positions = open_model(str(tmp_path), vocab_size=VOCAB_SIZE)
    assert positions == 16
    expected = logits_of(model.float().eval())
    torch.testing.assert_close(logits_of(opened), expected)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param(LlamaModel(llama()), "got none for lm_head.weight", id="no head"),
        pytest.param(
            LlamaForSequenceClassification(llama(tie_word_embeddings=True)),
            "its weights are those of LlamaForSequenceClassification",
            id="a classifier that lacks no weight",
        ),
        pytest.param(
            BartForConditionalGeneration(
                BartConfig(
                    vocab_size=VOCAB_SIZE,
                    d_model=8,
                    encoder_layers=1,
                    decoder_layers=1,
                    encoder_attention_heads=2,
                    decoder_attention_heads=2,
                )
            ),
            "bart has an encoder too",
            id="encoder and decoder",
        ),
        *(
            pytest.param(model, f"its weights are those of {type(model).__name__}")
            for model in masked_lms()
        ),
    ],
)
def test_what_is_not_a_whole_causal_model_is_refused(
    model: PreTrainedModel, message: str, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"--model '.*: not a causal language model: .*{message}"):
        open_model(str(tmp_path), vocab_size=VOCAB_SIZE)
    with pytest.raises(SchemaError, match=f"(?s){tmp_path}: .*{message}.*gdc run"):
        load_model(tmp_path)


@pytest.mark.parametrize("model", masked_lms(), ids=lambda model: type(model).__name__)
def test_attention_in_both_directions_is_refused_under_any_name(
    model: PreTrainedModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    edit_config(tmp_path, {"architectures": None})
    with pytest.raises(ConfigError, match="change with the tokens after it"):
        open_model(str(tmp_path), vocab_size=VOCAB_SIZE)


def edit_config(folder: Path, change: Mapping[str, object]) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), **change}
    path.write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 3}, r"got none for model\.layers\.2\..* and 6 more"),
        (
            {"num_hidden_layers": 10**9},
            r"at most a layer for each of its \d+ weights, got 1,000,000,000",
        ),
        ({"num_hidden_layers": 0}, r"a parameter .* got none for model\.layers\.0\..* and 15 more"),
        ({"num_hidden_layers": 1}, r"a parameter .* got none for model\.layers\.1\..* and 6 more"),
        ({"attention_bias": True}, r"got none for model\.layers\.0\.self_attn\.k_proj\.bias"),
        ({"hidden_size": 10**9}, "RuntimeError"),
        ({"hidden_size": -8}, "RuntimeError"),
        ({"hidden_size": "x"}, "StrictDataclass"),
        ({"vocab_size": None}, "StrictDataclass"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"hidden_act": "junk"}, "KeyError"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "Import"),
    ],
)
def test_a_config_that_is_not_that_of_the_weights_is_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    LlamaForCausalLM(llama()).save_pretrained(tmp_path)
    edit_config(tmp_path, change)
    with pytest.raises(ConfigError, match=f"--model '.*: .*{message}"):
        open_model(str(tmp_path), vocab_size=VOCAB_SIZE)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "extra"])
def test_a_pipe_in_the_folder_of_a_model_is_refused_and_not_waited_for(
    tmp_path: Path, name: str
) -> None:
    LlamaForCausalLM(llama()).save_pretrained(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    for opened in (lambda: open_model(str(tmp_path), vocab_size=VOCAB_SIZE),
                   lambda: load_pretrained_tokenizer(str(tmp_path), None)):  # fmt: skip
        with pytest.raises(ConfigError, match=f"expected regular files, got a named pipe, {name}"):
            opened()


def test_weights_outside_of_the_folder_of_a_model_are_refused(tmp_path: Path) -> None:
    folder, other = tmp_path / "model", tmp_path / "other.safetensors"
    LlamaForCausalLM(llama()).save_pretrained(folder)
    (folder / "model.safetensors").rename(other)
    names = dict.fromkeys(load_file(other), "../other.safetensors")
    index = json.dumps({"metadata": {}, "weight_map": names})
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ConfigError, match=r"files of the folder, got '\.\./other\.safetensors' in"):
        open_model(str(folder), vocab_size=VOCAB_SIZE)


def test_another_head_that_changes_no_logit_is_allowed(tmp_path: Path) -> None:
    """As a value head of reinforcement learning."""
    model = LlamaForCausalLM(llama()).eval()
    weights = {**model.state_dict(), "v_head.summary.weight": torch.ones(1, 8)}
    model.save_pretrained(tmp_path, state_dict=weights)
    opened, _ = open_model(str(tmp_path), vocab_size=VOCAB_SIZE)
    assert torch.equal(logits_of(opened), logits_of(model))


DAMAGED: Mapping[str, bytes] = {
    "not UTF-8": b"\xff\xfe{}",
    "no JSON": b"gdc_lstm",
    "cut off": b'{"model_type": "gdc_ls',
    "an empty object": b"{}",
    "a list": b"[]",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@both_kinds
def test_a_damaged_config_is_one_message(config: Model, content: bytes, tmp_path: Path) -> None:
    (saved(built(config), tmp_path) / "config.json").write_bytes(content)
    with pytest.raises(SchemaError, match=r"(?s)expected .* again"):
        load_model(tmp_path)
    with pytest.raises(ConfigError, match=r"--model '.*: "):
        open_model(str(tmp_path), vocab_size=VOCAB_SIZE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": "8"}, r"config\.json: hidden_size: Input should be .*, got '8'"),
        ({"vocab_size": None}, r"config\.json: vocab_size: .*, got None"),
        ({"dropout": 1.5}, r"config\.json: dropout: .*, got 1\.5"),
        ({"heads": 2}, r"config\.json: heads: Extra inputs .*, got 2"),
        (
            {"hidden_size": 10**9},
            r"model\.safetensors: expected the weights .*\(40, 1000000000, 2\)",
        ),
        (
            {"num_layers": 10**9},
            r"model\.safetensors: expected the weights .*\(40, 8, 1000000000\)",
        ),
    ],
)
def test_an_lstm_whose_config_is_edited_is_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    edit_config(saved(built(LSTM), tmp_path), change)
    for load in (load_model, lambda folder: open_model(str(folder), vocab_size=VOCAB_SIZE)):
        with pytest.raises(SchemaError, match=message):
            load(tmp_path)
