"""The content of params.yaml -> its typed form, or what is wrong in it, line by line."""

from collections.abc import Mapping
from reprlib import Repr
from typing import Final, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from gdc.config.curation import (
    InterveneConfig,
    LiveArm,
    MaskSpansArm,
    OrderArm,
    TopFractionArm,
    WeightByScoreArm,
)
from gdc.config.ingest import CanaryFamily, IngestConfig
from gdc.config.mapping import AUTO, AXIS, PartitionConfig, ScoreConfig, SpansConfig
from gdc.config.section import Count, Section, Seed
from gdc.config.training import (
    EvaluateConfig,
    Model,
    ReferenceConfig,
    RetrainConfig,
    TrainConfig,
    TrainingConfig,
)
from gdc.errors import ConfigError
from gdc.filesystem.json_values import JsonObject

# A canary beats all its twins by chance in one of (twins + 1) cases; with fewer twins than this in
# more than a tenth of them, too often to call it memorized.
MIN_TWINS: Final = 9
# The contrast of a run with itself has a middle and an end from the second pass on.
MIN_LIVE_EPOCHS: Final = 3
# Scores that compare online losses with those at frozen checkpoints.
_OF_BOTH_MODES: Final = (
    "online_probe_gap", "online_late_contrast", "unseen_loss_contrast", "influence_contrast",
)  # fmt: skip

# Scores that read losses under reference models, and the models of halves that each needs.
_NUM_HALVES: Final[Mapping[str, int]] = {
    "reference_gap": 2,
    "reference_gap_calibrated": 2,
    "in_out_gap": 2,
    "distilled_gap": 4,
    "distilled_window_gap": 4,
}


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

    @property
    def num_models(self) -> int:
        """Models that a run trains: tracked ones, reference models, and one an arm and seed."""
        retrained = len(self.retrain.arms) * len(self.retrain.seeds)
        return len(self.train.seeds) + len(self.reference.halves) + retrained

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
            if isinstance(arm, TopFractionArm | WeightByScoreArm | OrderArm) and arm.score != AXIS:
                used[f"intervene.arms.{name}.score"] = arm.score
            if isinstance(arm, TopFractionArm | OrderArm):
                used[f"intervene.arms.{name}.tie_break"] = arm.tie_break
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
        tokens = ("token_losses", self.train.token_losses)
        recorded = {
            "hard_token_drop": tokens,
            "worst_window_drop": tokens,
            "recited_run_drop": tokens,
            "window_votes_drop": tokens,
            "error_balance_drop": tokens,
            "distilled_window_gap": tokens,
            "self_influence": ("self_influence", self.train.self_influence),
            "influence_contrast": ("self_influence", self.train.self_influence),
        }
        if "base_gap" in self.score.enabled and self.model.kind != "pretrained":
            raise ValueError(
                f"score.enabled: base_gap needs model.kind: pretrained, got {self.model.kind}"
            )
        if self.reference.has_base and self.model.kind != "pretrained":
            raise ValueError(
                f"reference.models: base needs model.kind: pretrained, got {self.model.kind}"
            )
        for score in self.score.enabled:
            switch, is_on = recorded.get(score, ("", True))
            if not is_on:
                raise ValueError(f"score.enabled: {score} needs train.{switch}: true, got false")
        epochs, probes = self.training.epochs, self.train.probes_per_epoch
        of_both = [score for score in _OF_BOTH_MODES if score in self.score.enabled]
        if of_both and (epochs < 2 or not probes):
            raise ValueError(
                f"score.enabled: {', '.join(of_both)}: expected training.epochs of at least 2 and "
                f"train.probes_per_epoch of at least 1, got {epochs} and {probes}. Raise them, or "
                "take these scores out"
            )
        return self

    @model_validator(mode="after")
    def _scores_have_their_reference_models(self) -> Self:
        for score in self.score.enabled:
            expected = _NUM_HALVES.get(score, 0)
            if len(self.reference.halves) < expected:
                raise ValueError(
                    f"score.enabled: {score} needs {expected} or more reference models of halves, "
                    f"got reference.models: {list(self.reference.models)}"
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
    def _weights_can_be_revised(self) -> Self:
        for name, arm in self.intervene.arms.items():
            if isinstance(arm, LiveArm) and self.training.epochs < MIN_LIVE_EPOCHS:
                raise ValueError(
                    f"intervene.arms.{name}: live revises weights from the end of the second pass "
                    f"on, so that it needs training.epochs of at least {MIN_LIVE_EPOCHS}, got "
                    f"{self.training.epochs}"
                )
        return self

    @model_validator(mode="after")
    def _some_arm_makes_the_curated_data(self) -> Self:
        retrained = self.retrain.arms
        if self.intervene.curated_arm == AUTO and not any(
            map(self.intervene.makes_data, retrained)
        ):
            raise ValueError(
                f"retrain.arms: {list(retrained)} change how a model is trained, which no data set "
                "shows; expected an arm of another rule for data/curated, such as none"
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
                f"{self.score.mode} checkpoints ({num_checkpoints}); lower it, or record more"
            )
        return self


# Keys of an older version, and what they are called now; both with their sections.
FORMER_NAMES: Final[Mapping[str, str]] = {}
# Keys that an older version did not have, and the value under which results stay what they were.
ADDED_KEYS: Final[Mapping[str, str]] = {
    "ingest.choose_by": "text",
    "model.pretrained.lora": "null",
    "model.pretrained.gradient_checkpointing": "false",
}
# Enough to find it; a YAML file of 400 bytes can stand for gigabytes.
_SHOWN: Final = Repr()
_SHOWN.maxstring = _SHOWN.maxother = 100
_SHOWN.maxlevel = 2


def parse_params(values: JsonObject, *, name: str) -> Params:
    """Validate the raw content of ``name``.

    Raises:
        ConfigError: One line for every wrong key: where, what was expected, what stands there.
    """
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        lines = [f"  {_wrong_value(e)}" for e in _causes(error)]
        raise ConfigError(f"{name}: {len(lines)} wrong value(s):\n" + "\n".join(lines)) from None


def _causes(error: ValidationError) -> list[ErrorDetails]:
    """The errors that are not the consequence of another one.

    A list is too short where its wrong items do not count; a key is missing where it stands under
    its former name.
    """
    errors = error.errors()
    inside = {other["loc"][:-1] for other in errors}
    renamed = {FORMER_NAMES[where] for e in errors if (where := _where(e)) in FORMER_NAMES}
    return [
        e
        for e in errors
        if not (e["type"] == "too_short" and e["loc"] in inside)
        and not (e["type"] == "missing" and _where(e) in renamed)
    ]


def _wrong_value(error: ErrorDetails) -> str:
    where = _where(error)
    if error["type"] == "extra_forbidden" and where in FORMER_NAMES:
        return f"{where}: is called {FORMER_NAMES[where]} now. Rename it."
    if error["type"] == "missing" and where in ADDED_KEYS:
        return f"{where}: is new. Add it; {ADDED_KEYS[where]} keeps results as they were."
    ours = error["type"] in {"missing", "value_error"}  # says itself what it got
    got = "" if ours else f", got {_SHOWN.repr(error['input'])}"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}{got}"


def _where(error: ErrorDetails) -> str:
    return ".".join(map(str, error["loc"])) or "params"
