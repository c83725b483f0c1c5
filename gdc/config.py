"""The typed form of params.yaml: one class per section, no default values.

Values live only in params.yaml, because DVC tracks that file and not the defaults in code.
"""

from collections.abc import Mapping
from reprlib import Repr
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gdc.errors import ConfigError

# The memorization axis that the calibration chooses.
AUTO: Final = "auto"
# A canary beats all its twins by chance in one of (twins + 1) cases; with fewer twins than this in
# more than a tenth of them, too often to call it memorized.
MIN_TWINS: Final = 9


# Above it the numbers of polars and torch overflow.
MAX_COUNT: Final = 2**31 - 1
MAX_SEED: Final = 2**63 - 1
# More than any machine, model or text has; a library that is asked for more aborts.
MAX_THREADS: Final = 1024
MAX_WIDTH: Final = 2**16
MAX_LAYERS: Final = 1000
MAX_BLOCK_SIZE: Final = 2**20
MAX_VOCAB_SIZE: Final = 2**20
MAX_COPIES: Final = 1000
MAX_WORDS: Final = 1000
# Files and DVC stages carry an arm's name beside others; a file name has 255 bytes.
MAX_NAME: Final = 64

# Not for a field with an upper bound of its own, which pydantic would ignore.
Count = Annotated[int, Field(le=MAX_COUNT)]
Threads = Annotated[int, Field(ge=1, le=MAX_THREADS)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
BlockSize = Annotated[
    int,
    Field(ge=2, le=MAX_BLOCK_SIZE, description="Tokens of a window; longer texts are split."),
]
_Item = TypeVar("_Item")
# YAML has lists. What stands in them is as strict as elsewhere.
Items = Annotated[tuple[_Item, ...], Field(strict=False)]


class Section(BaseModel):
    """A stage's parameters: immutable, and a misspelt key or a value of another type is an error.

    Strict, as DVC writes a value into commands and file names as it stands in the file: ``true``
    and ``1.0`` are no seed 1 there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


# ---- ingest: where the text comes from


class PythonDocsSource(Section):
    """CPython's own documentation topics (paragraphs) and standard-library docstrings."""

    kind: Literal["python-docs"]


class JsonlSource(Section):
    """One JSON object per line, in one file or in all JSON lines of a folder."""

    kind: Literal["jsonl"]
    path: str = Field(min_length=1)
    text_field: str = Field(min_length=1)
    key_field: str | None = Field(description="A field that names each row; must be unique.")


class ParquetSource(Section):
    """One row per sample, in one file or in all Parquet files of a folder."""

    kind: Literal["parquet"]
    path: str = Field(min_length=1)
    text_field: str = Field(min_length=1)
    key_field: str | None = Field(description="A column that names each row; must be unique.")


class TextSource(Section):
    """Plain UTF-8 text: one file, or all text files of a folder."""

    kind: Literal["text"]
    path: str = Field(min_length=1)
    unit: Literal["file", "paragraph", "line"] = Field(description="What one sample is.")


class HuggingFaceSource(Section):
    """A data set by Hub name or local path (extra ``huggingface``)."""

    kind: Literal["huggingface"]
    path: str = Field(min_length=1, description="Hub name, or a local folder.")
    name: str | None = Field(description="Configuration of the data set.")
    split: str = Field(min_length=1)
    revision: str | None = Field(description="Commit, tag or branch on the Hub.")
    text_field: str = Field(min_length=1)


class SyntheticSource(Section):
    """Sentences of a seeded Markov chain over made-up words, for the LSTM experiment."""

    kind: Literal["synthetic"]
    num_samples: Count = Field(ge=2)
    num_words: Count = Field(ge=2, description="Size of the made-up vocabulary.")
    words_per_sample: Count = Field(ge=2)
    branching: Count = Field(ge=1, description="Possible successors of each word.")


Source = Annotated[
    PythonDocsSource
    | JsonlSource
    | ParquetSource
    | TextSource
    | HuggingFaceSource
    | SyntheticSource,
    Field(discriminator="kind"),
]


class BpeTokenizer(Section):
    """A byte-level BPE trained on the corpus's training split."""

    kind: Literal["bpe"]
    vocab_size: int = Field(
        ge=257, le=MAX_VOCAB_SIZE, description="Entries, the 256 bytes and end of text included."
    )


class PretrainedTokenizer(Section):
    """The tokenizer of a pretrained model, by Hub name or local path."""

    kind: Literal["pretrained"]
    name: str = Field(min_length=1)
    revision: str | None


Tokenizer = Annotated[BpeTokenizer | PretrainedTokenizer, Field(discriminator="kind")]


class CanaryFamily(Section):
    """How many canaries of one family are planted, and how many twins are not."""

    repeats: Items[Annotated[Count, Field(ge=1)]] = Field(
        min_length=1, description="Times a canary is planted, one level each."
    )
    per_level: Count = Field(ge=1, description="Canaries of each level.")
    num_twins: Count = Field(ge=0, description="Canaries of the same kind that are never planted.")

    @model_validator(mode="after")
    def _levels_differ(self) -> Self:
        if len(set(self.repeats)) != len(self.repeats):
            raise ValueError(f"repeats: expected distinct levels, got {list(self.repeats)}")
        return self


class DigitCanaries(CanaryFamily):
    """A template with random digits: prefix ``template`` with its key filled in, secret digits."""

    template: str = Field(pattern=r"\{key\}", description="The prefix; {key} becomes digits.")
    key_digits: int = Field(ge=1, le=18)
    secret_digits: int = Field(ge=1, le=18)


class WordCanaries(CanaryFamily):
    """Random words of the corpus's own vocabulary."""

    prefix_words: int = Field(ge=1, le=MAX_WORDS)
    secret_words: int = Field(ge=1, le=MAX_WORDS)


class NaturalCanaries(CanaryFamily):
    """Held-out texts of the corpus itself, cut in two halves."""

    min_words: Count = Field(ge=2, description="Shorter texts are not used.")
    max_words: Count = Field(ge=2, description="Longer texts are not used.")

    @model_validator(mode="after")
    def _some_length_is_left(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words ({self.min_words}) exceeds max_words ({self.max_words})")
        return self


class CanariesConfig(Section):
    """Canary families to plant; null plants none."""

    digits: DigitCanaries | None
    words: WordCanaries | None
    natural: NaturalCanaries | None


class IngestConfig(Section):
    """Stage `ingest`."""

    source: Source
    max_samples: Count | None = Field(
        ge=2, description="Keep this many rows, chosen by content hash; null keeps all."
    )
    max_chars: Count = Field(ge=1, description="A longer row is a bad row.")
    on_bad_row: Literal["fail", "quarantine"]
    validation_fraction: float = Field(gt=0, lt=1, description="Share of contents held out.")
    tokenizer: Tokenizer
    canaries: CanariesConfig


# ---- model and training, shared by every stage that trains


class LstmModel(Section):
    """An LSTM language model with tied input and output embeddings."""

    kind: Literal["lstm"]
    block_size: BlockSize
    precision: Literal["float32", "bfloat16"]
    hidden_size: int = Field(ge=1, le=MAX_WIDTH)
    num_layers: int = Field(ge=1, le=MAX_LAYERS)
    dropout: float = Field(ge=0, lt=1)


class Gpt2Model(Section):
    """A GPT-2 trained from scratch."""

    kind: Literal["gpt2"]
    block_size: BlockSize
    precision: Literal["float32", "bfloat16"]
    hidden_size: int = Field(ge=1, le=MAX_WIDTH)
    num_layers: int = Field(ge=1, le=MAX_LAYERS)
    num_heads: int = Field(ge=1, le=MAX_WIDTH)
    dropout: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"model.hidden_size ({self.hidden_size}) must be a multiple of "
                f"model.num_heads ({self.num_heads})"
            )
        return self


class PretrainedModel(Section):
    """Any causal language model by Hub name or local path."""

    kind: Literal["pretrained"]
    block_size: BlockSize
    precision: Literal["float32", "bfloat16"]
    name: str = Field(min_length=1)
    revision: str | None


Model = Annotated[LstmModel | Gpt2Model | PretrainedModel, Field(discriminator="kind")]


class TrainingConfig(Section):
    """The training loop, the same for the tracked run and for every arm."""

    epochs: Count = Field(ge=1, description="Passes over the training split.")
    batch_tokens: Count = Field(ge=2, description="Padded tokens of a batch at most.")
    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "cosine"]
    warmup_steps: Count = Field(ge=0)
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(gt=0, description="Largest norm of the whole gradient.")
    num_threads: Threads = Field(description="Threads of a run; changes float sums.")


class TrainConfig(Section):
    """Stage `train`: the tracked run."""

    seeds: Items[Seed] = Field(min_length=1)
    probes_per_epoch: Count = Field(
        ge=0, description="Frozen checkpoints per epoch at which every sample is probed; 0: none."
    )
    token_losses: bool = Field(
        description="Record the loss of every token at the first frozen look and at the end."
    )
    self_influence: bool = Field(
        description="Record how much each step lowers the losses of its own samples."
    )


class NearCopies(Section):
    """Which texts are near copies of each other."""

    threshold: float = Field(gt=0, le=1, description="Jaccard similarity; 1 is exact copies.")
    num_perm: int = Field(ge=16, le=MAX_WIDTH, description="Hash functions of a MinHash.")
    shingle_chars: Count = Field(ge=1, description="Characters of a shingle.")


class ReferenceConfig(NearCopies):
    """Stages `halves` and `reference`: models that did not see a sample say what it costs them."""

    models: Items[int] = Field(
        description="0, 1, ...: an even number of models, each pair on two halves; [] trains none."
    )

    @model_validator(mode="after")
    def _models_are_pairs(self) -> Self:
        if self.models != tuple(range(len(self.models))) or len(self.models) % 2:
            raise ValueError(
                f"models: expected [] or [0, 1] or [0, 1, 2, 3] and so on, got {list(self.models)}"
            )
        return self


# ---- map and act


class Threshold(Section):
    """A cut on a number: its quantile (linear interpolation), or its value."""

    kind: Literal["quantile", "absolute"]
    value: float

    @model_validator(mode="after")
    def _quantile_is_a_share(self) -> Self:
        if self.kind == "quantile" and not 0 <= self.value <= 1:
            raise ValueError(f"a quantile must be in [0, 1], got {self.value}")
        return self


class ConformalThreshold(Section):
    """A cut that Benjamini-Hochberg chooses from the conformal p-values of one tracked run."""

    kind: Literal["conformal"]
    value: float = Field(gt=0, lt=1, description="Share of false finds among the high, expected.")


class ScoreConfig(Section):
    """Stage `score`."""

    mode: Literal["online", "probe"] = Field(description="Which checkpoints are read.")
    num_early: Count = Field(ge=1, description="First checkpoints averaged into difficulty (T_e).")
    epsilon: Threshold = Field(description="Nats/token; learned below it. Quantile: of all losses.")
    hysteresis: float = Field(
        ge=0, description="Nats/token beside epsilon in which forget_hysteresis decides nothing."
    )
    enabled: Items[str] = Field(description="Scores of the registry to write.")


class PartitionConfig(Section):
    """Stage `partition`: a sample above a threshold (strictly) is high."""

    axis: str = Field(
        min_length=1,
        description="The score on the memorization axis; auto: the best that stage calibrate shows "
        "to predict memorization, else memorization.",
    )
    difficulty: Threshold
    memorization: Annotated[Threshold | ConformalThreshold, Field(discriminator="kind")]

    @model_validator(mode="after")
    def _conformal_cut_has_its_p_values(self) -> Self:
        if self.memorization.kind == "conformal" and self.axis != "calibrated_drop_log_p":
            raise ValueError(
                "a conformal cut needs p-values: expected axis: calibrated_drop_log_p (in "
                f"score.enabled too), got {self.axis!r}"
            )
        return self

    @model_validator(mode="after")
    def _auto_axis_has_a_relative_cut(self) -> Self:
        if self.axis == AUTO and self.memorization.kind == "absolute":
            raise ValueError(
                "memorization: a value is in the units of one score, and axis: auto may take any; "
                f"expected kind: quantile, got {self.memorization.value} of kind: absolute"
            )
        return self


class SpansConfig(Section):
    """Stage `spans`: which tokens of a flagged sample are memorized."""

    p_value: float = Field(
        gt=0, lt=1, description="Share of like held-out tokens that may fall as low."
    )
    min_tokens: Count = Field(ge=1, description="Memorized tokens of a span at least.")


class NoneArm(Section):
    """Keep everything."""

    rule: Literal["none"]


class QuadrantsArm(Section):
    """The paper's rule."""

    rule: Literal["quadrants"]
    hotspot_weight: float = Field(ge=0, le=1, description="alpha; 0 drops the hotspots.")
    drop_noisy: bool
    hard_copies: int = Field(
        ge=1, le=MAX_COPIES, description="gamma; 1 leaves Ambiguous-Hard as it is."
    )


class TopFractionArm(Section):
    """Drop (weight 0) or down-weight the samples with the highest score."""

    rule: Literal["top-fraction"]
    score: str = Field(min_length=1)
    tie_break: str = Field(min_length=1, description="The score that orders equal scores.")
    fraction: float = Field(ge=0, lt=1)
    weight: float = Field(ge=0, le=1, description="0 drops.")


class RandomArm(Section):
    """Drop (weight 0) or down-weight a random share: the control of top-fraction."""

    rule: Literal["random"]
    fraction: float = Field(ge=0, lt=1)
    weight: float = Field(ge=0, le=1, description="0 drops.")


class WeightByScoreArm(Section):
    """Weight 1 / (1 + s), s being the score where above 0: one unit of it halves the weight."""

    rule: Literal["weight-by-score"]
    score: str = Field(min_length=1)


class CapCopiesArm(NearCopies):
    """Keep at most ``max_copies`` of every group of near copies."""

    rule: Literal["cap-copies"]
    max_copies: Count = Field(ge=1)


class DedupArm(NearCopies):
    """Keep one of every group of near copies, which needs no model: the control of all scores."""

    rule: Literal["dedup"]
    max_copies: ClassVar[int] = 1


class MaskSpansArm(Section):
    """Keep every sample and leave the memorized spans of the flagged ones out of the loss."""

    rule: Literal["mask-spans"]


class OracleArm(Section):
    """Drop the planted rows: the only rule that is told which they are, the best any could do."""

    rule: Literal["oracle"]


class ShuffledArm(Section):
    """Another arm's plan dealt out to other samples by chance: its control, equal in size.

    Masked spans move to random places, as many and as long in tokens.
    """

    rule: Literal["shuffled"]
    of: str = Field(min_length=1, description="The arm whose plan is dealt out.")


ScoreArm = NoneArm | QuadrantsArm | TopFractionArm | WeightByScoreArm | RandomArm
Arm = Annotated[
    ScoreArm | CapCopiesArm | DedupArm | MaskSpansArm | OracleArm | ShuffledArm,
    Field(discriminator="rule"),
]
# An arm names files, DVC stages and MLflow runs.
ArmName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=MAX_NAME)]


class Target(Section):
    """What a plan must reach to be recommended."""

    max_extraction: float = Field(ge=0, le=1, description="Share of the planted secrets.")
    max_perplexity_increase: float = Field(ge=0, description="Percent over the baseline arm.")


class InterveneConfig(Section):
    """Stage `intervene`: every arm gets a plan; one of them makes the curated data set."""

    curated_arm: ArmName
    recommend: Target | None = Field(
        description="Name the arm that reaches this with the fewest samples changed; null: none."
    )
    arms: dict[ArmName, Arm] = Field(min_length=1)

    @model_validator(mode="after")
    def _curated_arm_is_defined(self) -> Self:
        if "tracked" in self.arms:
            raise ValueError("intervene.arms: 'tracked' names the models of stage train")
        if self.curated_arm not in self.arms:
            raise ValueError(
                f"intervene.curated_arm: expected one of {sorted(self.arms)}, "
                f"got {self.curated_arm!r}"
            )
        return self

    @model_validator(mode="after")
    def _shuffled_arms_have_a_plan_to_deal(self) -> Self:
        plans = sorted(name for name, arm in self.arms.items() if not isinstance(arm, ShuffledArm))
        for name, arm in self.arms.items():
            if isinstance(arm, ShuffledArm) and arm.of not in plans:
                raise ValueError(
                    f"intervene.arms.{name}.of: expected one of {plans}, got {arm.of!r}"
                )
        return self


# ---- retrain, evaluate, report


class RetrainConfig(Section):
    """Stage `retrain`: a fresh model for every arm and seed."""

    arms: Items[ArmName] = Field(min_length=1)
    seeds: Items[Seed] = Field(min_length=1)
    match: Literal["steps", "epochs"] = Field(
        description="Same optimizer steps and schedule as the full corpus, or same epochs."
    )


class EvaluateConfig(Section):
    """Stage `evaluate`."""

    num_members: Count = Field(ge=1, description="Training samples audited at most.")
    min_k_share: float = Field(gt=0, le=1, description="Share of tokens of the Min-K attacks.")

    batch_tokens: Count = Field(ge=2, description="Padded tokens of a batch at most.")
    num_threads: Threads


class ReportConfig(Section):
    """Stage `report`."""

    num_hotspots: Count = Field(ge=1, description="Rows of the hotspot list.")
    show_text: bool = Field(description="Whether sample text may stand in the report.")
    max_points: Count = Field(ge=1, description="Samples drawn on the map; more are sampled.")


class Params(Section):
    """All of params.yaml."""

    seed: Seed = Field(description="Seed of the split, the canaries and the random arm.")
    ingest: IngestConfig
    model: Model
    training: TrainingConfig
    train: TrainConfig
    reference: ReferenceConfig
    score: ScoreConfig
    partition: PartitionConfig
    spans: SpansConfig
    intervene: InterveneConfig
    retrain: RetrainConfig
    evaluate: EvaluateConfig
    report: ReportConfig

    @model_validator(mode="after")
    def _nothing_is_listed_twice(self) -> Self:
        lists: dict[str, tuple[object, ...]] = {
            "train.seeds": self.train.seeds,
            "retrain.seeds": self.retrain.seeds,
            "retrain.arms": self.retrain.arms,
            "score.enabled": self.score.enabled,
        }
        for name, values in lists.items():
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: expected distinct entries, got {list(values)}")
        return self

    @model_validator(mode="after")
    def _scores_that_are_used_are_written(self) -> Self:
        written = {"difficulty", "memorization", "first_learned", *self.score.enabled}
        axis = self.partition.axis
        used = {} if axis == AUTO else {"partition.axis": axis}
        for name, arm in self.intervene.arms.items():
            if isinstance(arm, TopFractionArm | WeightByScoreArm):
                used[f"intervene.arms.{name}.score"] = arm.score
            if isinstance(arm, TopFractionArm):
                used[f"intervene.arms.{name}.tie_break"] = arm.tie_break
        if not self.reference.models:
            gaps = sorted(name for name in self.score.enabled if name.startswith("reference_"))
            if gaps:
                raise ValueError(
                    f"score.enabled: {gaps} need reference models, got reference.models: []"
                )
        for where, score in used.items():
            if score not in written:
                raise ValueError(
                    f"{where}: expected one of {sorted(written)}, got {score!r}; "
                    "other scores must stand in score.enabled"
                )
        return self

    @model_validator(mode="after")
    def _auto_axis_has_a_family_to_choose_and_one_to_report(self) -> Self:
        families: dict[str, CanaryFamily | None] = dict(self.ingest.canaries)
        usable = [n for n, family in families.items() if family and family.num_twins >= MIN_TWINS]
        if self.partition.axis == AUTO and len(usable) < 2:
            raise ValueError(
                "partition.axis: auto chooses by one family of canaries and reports by another, "
                f"expected at least 2 in ingest.canaries with num_twins of at least {MIN_TWINS}, "
                f"got {usable}. Plant a second family, or name a score"
            )
        return self

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        undefined = sorted(set(self.retrain.arms) - set(self.intervene.arms))
        if undefined:
            raise ValueError(
                f"retrain.arms: {undefined} not defined; expected names of intervene.arms: "
                f"{sorted(self.intervene.arms)}"
            )
        shared = sorted(set(self.retrain.seeds) & set(self.train.seeds))
        if shared:
            raise ValueError(
                f"retrain.seeds: {shared} also in train.seeds; a plan is never judged on the run "
                "that produced its scores, choose other seeds"
            )
        if self.score.mode == "probe" and self.train.probes_per_epoch == 0:
            raise ValueError("score.mode is 'probe' but train.probes_per_epoch is 0")
        return self

    @model_validator(mode="after")
    def _what_scores_read_is_recorded(self) -> Self:
        recorded = {
            "hard_token_drop": ("token_losses", self.train.token_losses),
            "self_influence": ("self_influence", self.train.self_influence),
        }
        for score in self.score.enabled:
            switch, is_on = recorded.get(score, ("", True))
            if not is_on:
                raise ValueError(f"score.enabled: {score} needs train.{switch}: true, got false")
        epochs, probes = self.training.epochs, self.train.probes_per_epoch
        if "online_probe_gap" in self.score.enabled and (epochs < 2 or not probes):
            raise ValueError(
                "score.enabled: online_probe_gap needs training.epochs of at least 2 and "
                f"train.probes_per_epoch of at least 1, got {epochs} and {probes}"
            )
        return self

    @model_validator(mode="after")
    def _masks_have_spans(self) -> Self:
        for name, arm in self.intervene.arms.items():
            if isinstance(arm, MaskSpansArm) and not self.train.token_losses:
                raise ValueError(
                    f"intervene.arms.{name}: mask-spans needs train.token_losses: true, got false"
                )
        return self

    @model_validator(mode="after")
    def _conformal_cut_is_valid(self) -> Self:
        if self.partition.memorization.kind != "conformal":
            return self
        if len(self.train.seeds) > 1:
            raise ValueError(
                "partition.memorization: a conformal cut needs one tracked run, as a mean of log "
                f"p-values is none; expected one of train.seeds, got {list(self.train.seeds)}"
            )
        if self.score.mode != "probe":
            raise ValueError(
                "partition.memorization: a conformal cut compares with held-out samples, which are "
                "asked later than an online loss is taken; expected score.mode: probe, got "
                f"{self.score.mode!r}"
            )
        return self

    @model_validator(mode="after")
    def _pretrained_model_brings_its_tokenizer(self) -> Self:
        model, tokenizer = self.model, self.ingest.tokenizer
        if model.kind != "pretrained":
            return self
        if tokenizer.kind != "pretrained" or tokenizer.name != model.name:
            raise ValueError(
                "ingest.tokenizer: a pretrained model needs its own tokenizer, expected "
                f"{{kind: pretrained, name: {model.name}}}"
            )
        if tokenizer.revision != model.revision:
            raise ValueError(
                f"ingest.tokenizer.revision: expected {model.revision!r} as in model.revision, "
                f"got {tokenizer.revision!r}"
            )
        return self

    @model_validator(mode="after")
    def _checkpoints_suffice(self) -> Self:
        epochs, probes = self.training.epochs, self.train.probes_per_epoch
        num_checkpoints = epochs if self.score.mode == "online" else epochs * probes
        if num_checkpoints < 2:
            raise ValueError(f"training.epochs: scores need 2 checkpoints, got {num_checkpoints}")
        if self.score.num_early > num_checkpoints:
            raise ValueError(
                f"score.num_early ({self.score.num_early}) exceeds the number of "
                f"{self.score.mode} checkpoints ({num_checkpoints})"
            )
        return self


# Enough to find it; a YAML file of 400 bytes can stand for gigabytes.
_SHOWN: Final = Repr()
_SHOWN.maxstring = _SHOWN.maxother = 100
_SHOWN.maxlevel = 2


def parse_params(values: Mapping[str, Any], *, name: str) -> Params:
    """Validate the raw content of ``name``.

    Raises:
        ConfigError: One line for every wrong key: where, what was expected, what stands there.
    """
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        lines = [f"  {_wrong_value(e)}" for e in _causes(error)]
        raise ConfigError(f"{name}: {len(lines)} wrong value(s):\n" + "\n".join(lines)) from None


def _causes(error: ValidationError) -> list[Mapping[str, Any]]:
    """Without the lists that are too short only as their wrong items do not count."""
    errors = error.errors()
    inside = {other["loc"][:-1] for other in errors}
    return [dict(e) for e in errors if e["type"] != "too_short" or e["loc"] not in inside]


def _wrong_value(error: Mapping[str, Any]) -> str:
    where = ".".join(map(str, error["loc"])) or "params"
    ours = error["type"] in {"missing", "value_error"}  # says itself what it got
    got = "" if ours else f", got {_SHOWN.repr(error['input'])}"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}{got}"
