"""Sections of params.yaml for models: their kind, how they train, and how they are audited."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from gdc.config.curation import ArmName
from gdc.config.section import (
    MAX_LAYERS,
    MAX_WIDTH,
    BlockSize,
    Count,
    Items,
    NearCopies,
    Section,
    Seed,
    Threads,
)

# The pretrained model before any training, among the reference models.
BASE: Final = "base"
Precision = Annotated[
    Literal["float32", "bfloat16"],
    Field(description="Of the matrix products; bfloat16 pays only where the processor has it."),
]


class LstmModel(Section):
    """An LSTM language model with tied input and output embeddings."""

    kind: Literal["lstm"]
    block_size: BlockSize
    precision: Precision
    hidden_size: int = Field(ge=1, le=MAX_WIDTH, description="Width of a layer.")
    num_layers: int = Field(ge=1, le=MAX_LAYERS, description="Layers of the model.")
    dropout: float = Field(ge=0, lt=1, description="Share of activations set to 0.")


class Gpt2Model(Section):
    """A GPT-2 trained from scratch."""

    kind: Literal["gpt2"]
    block_size: BlockSize
    precision: Precision
    hidden_size: int = Field(ge=1, le=MAX_WIDTH, description="Width of a layer.")
    num_layers: int = Field(ge=1, le=MAX_LAYERS, description="Layers of the model.")
    num_heads: int = Field(ge=1, le=MAX_WIDTH, description="Attention heads of a layer.")
    dropout: float = Field(ge=0, lt=1, description="Share of activations set to 0.")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"model.hidden_size ({self.hidden_size}) must be a multiple of "
                f"model.num_heads ({self.num_heads})"
            )
        return self


class Lora(Section):
    """Adapters of low rank that are trained in place of the weights (extra ``trainers``)."""

    rank: int = Field(ge=1, le=MAX_WIDTH, description="Of each update.")
    alpha: float = Field(gt=0, description="An update is scaled by alpha / rank.")
    dropout: float = Field(ge=0, lt=1, description="Of what goes into an adapter.")
    target_modules: Items[str] | None = Field(
        description="Names of the layers that get one; null: as PEFT chooses for the architecture."
    )


class PretrainedModel(Section):
    """Any causal language model by Hub name or local path."""

    kind: Literal["pretrained"]
    block_size: BlockSize
    precision: Precision
    name: str = Field(min_length=1, description="Hub name, or a local folder.")
    revision: str | None = Field(description="Commit, tag or branch on the Hub.")
    lora: Lora | None = Field(description="Train adapters alone; null: all weights.")
    gradient_checkpointing: bool = Field(
        description="Compute activations again in the backward pass: less memory, more time."
    )


Model = Annotated[LstmModel | Gpt2Model | PretrainedModel, Field(discriminator="kind")]


class TrainingConfig(Section):
    """The training loop, the same for the tracked run and for every arm."""

    epochs: Count = Field(ge=1, description="Passes over the training split.")
    batch_tokens: Count = Field(ge=2, description="Padded tokens of a batch at most.")
    learning_rate: float = Field(gt=0, description="Largest rate of AdamW.")
    schedule: Literal["constant", "cosine"] = Field(
        description="The learning rate after the warm-up."
    )
    warmup_steps: Count = Field(ge=0, description="Steps in which the rate rises linearly.")
    weight_decay: float = Field(ge=0, description="Of AdamW.")
    clip_norm: float = Field(gt=0, description="Largest norm of the whole gradient.")
    num_threads: Threads = Field(description="Threads of a run; changes float sums.")


class TrainConfig(Section):
    """Stage `train`: the tracked run."""

    seeds: Items[Seed] = Field(
        min_length=1, description="Tracked runs; scores are averaged over them."
    )
    probes_per_epoch: Count = Field(
        ge=0, description="Frozen checkpoints per epoch at which every sample is probed; 0: none."
    )
    token_losses: bool = Field(
        description="Record the loss of every token at the first frozen look and at the end."
    )
    self_influence: bool = Field(
        description="Record how much each step lowers the losses of its own samples."
    )


class ReferenceConfig(NearCopies):
    """Stages `halves` and `reference`: models that did not see a sample say what it costs them."""

    models: Items[int | Literal["base"]] = Field(
        description="0, 1, ...: an even number of models, each pair on two halves; [] trains none. "
        "Before them base: the pretrained model that training starts from."
    )

    @property
    def halves(self) -> tuple[int, ...]:
        """The models that are trained on halves."""
        return tuple(model for model in self.models if model != BASE)

    @property
    def has_base(self) -> bool:
        """Whether the pretrained model is a reference too."""
        return BASE in self.models

    @model_validator(mode="after")
    def _models_are_pairs(self) -> Self:
        halves = self.models[1:] if self.models[:1] == (BASE,) else self.models
        if halves != tuple(range(len(halves))) or len(halves) % 2:
            raise ValueError(
                "models: expected [] or [0, 1] or [0, 1, 2, 3] and so on, with or without base "
                f"before them, got {list(self.models)}"
            )
        return self


class RetrainConfig(Section):
    """Stage `retrain`: a fresh model for every arm and seed."""

    arms: Items[ArmName] = Field(min_length=1, description="Arms of intervene.arms.")
    seeds: Items[Seed] = Field(min_length=1, description="Models of each arm; never of train.")
    match: Literal["steps", "epochs"] = Field(
        description="Same optimizer steps and schedule as the full corpus, or same epochs."
    )


class EvaluateConfig(Section):
    """Stage `evaluate`."""

    num_members: Count = Field(ge=1, description="Training samples audited at most.")
    min_k_share: float = Field(gt=0, le=1, description="Share of tokens of the Min-K attacks.")

    batch_tokens: Count = Field(ge=2, description="Padded tokens of a batch at most.")
    num_threads: Threads = Field(description="Threads of an audit; changes float sums.")
