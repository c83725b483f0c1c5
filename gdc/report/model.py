"""report.json -> its model: what the report holds, how it is written and how it is read back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict

from gdc.comparison.results import (
    AllAttacks,
    ArmAudits,
    ArmResult,
    CheckedClaim,
    CuratedChoice,
    FrontPoint,
    LeakageByGroup,
    ModelLeakage,
    NextLayer,
    Recommendation,
)
from gdc.config import (
    InterveneConfig,
    Params,
    PartitionConfig,
    ReportConfig,
    RetrainConfig,
    ScoreConfig,
    Source,
    SpansConfig,
)
from gdc.errors import DataError
from gdc.filesystem.json_values import JsonObject
from gdc.mapping.quadrants import QuadrantsSummary
from gdc.mapping.score_cards import Calibration
from gdc.mapping.spans import SpansSummary
from gdc.schema import QUADRANTS
from gdc.scores.summary import ScoresSummary
from gdc.statistics.bootstrap import Estimate
from gdc.workspace import files, paths

SCHEMA_VERSION: Final = 1

_Value = TypeVar("_Value")


def _with_every_quadrant(values: dict[str, _Value]) -> dict[str, _Value]:
    missing = [quadrant for quadrant in QUADRANTS if quadrant not in values]
    if missing:
        raise ValueError(f"expected a value for every quadrant, got none for {missing}")
    return values


ByQuadrant = Annotated[dict[str, _Value], AfterValidator(_with_every_quadrant)]


class Record(BaseModel):
    """A part of the report: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---- what other stages measured


def _check_counts(quadrants: QuadrantsSummary) -> QuadrantsSummary:
    _with_every_quadrant(quadrants.counts)
    return quadrants


class ArmMetrics(BaseModel):
    """What the report reads of the metrics of one arm and seed."""

    model_config = ConfigDict(frozen=True)

    perplexity: float
    num_masked_tokens: int
    extraction_rate: float | None
    extraction: dict[str, dict[str, float]]  # by family and times planted
    privacy_epsilon: float | None = None  # of an arm of rule dp-sgd
    # Samples whose weight a run of rule live changed in some pass; None: of another rule.
    num_reweighted: int | None = None


@dataclass(frozen=True)
class CalibrationInUse(Calibration):
    """The calibration, what it says of the axis in use, and why that axis is in use."""

    verdict: str
    is_validated: bool
    why: str


# ---- samples


class UnreadFiles(Record):
    """Files of the source that are not read for one reason: their number and the first names."""

    num_files: int
    first: list[str]


class CorpusSummary(BaseModel):
    """What the report reads of data/corpus.json."""

    model_config = ConfigDict(frozen=True)

    num_left_out: int  # rows beyond ``ingest.max_samples``
    unread: dict[str, UnreadFiles]  # by reason


class CorpusCounts(Record):
    """Rows of the corpus, planted canaries in ``num_canary_rows`` alone."""

    num_samples: int
    num_train: int
    num_validation: int
    num_reserved: int
    num_exact_copies: int
    num_canary_rows: int
    num_quarantined: int
    num_left_out: int
    unread: dict[str, UnreadFiles]


class TextSpan(Record):
    """A memorized span, in characters of its text."""

    start: int
    end: int


class Hotspot(Record):
    """An ordinary sample above the threshold; ``score`` is on the axis in use."""

    sample_id: str
    source: str
    difficulty: float
    score: float
    quadrant: str
    stability: float | None
    num_copies: int
    cause: str
    duplicate_ids: list[str]
    spans: list[TextSpan]
    text: str | None


class GapCheck(Record):
    """How many listed texts half-models confirm, by the gap of their losses on each text.

    The gap is the mean loss under the models that did not see the text minus that under those that
    did. A text is confirmed where its gap is in the top decile of all ordinary training texts.
    """

    num_models: int
    num_texts: int
    num_confirmed: int
    precision: Estimate


class MemorizedTexts(Record):
    """Distinct ordinary training texts above the memorization threshold.

    Attributes:
        num_texts: Their number.
        num_samples: Their rows, copies included.
        num_planted_rows: Rows of planted canaries above it; None: an earlier version did not count
            them.
        num_canaries: How many canaries these are.
        causes: Distinct texts by cause, in the order of precedence.
        gap_check: None without half-models, or where the axis itself reads them.
    """

    num_texts: int
    num_samples: int
    causes: dict[str, int]
    gap_check: GapCheck | None
    num_planted_rows: int | None = None
    num_canaries: int | None = None


class CauseCount(Record):
    """How many ordinary samples have a cause, in all and above the threshold."""

    cause: str
    num_samples: int
    num_hotspots: int
    remedy: str


class ListedText(Record):
    """A text by the first of its copies, and how many copies lie in each quadrant."""

    sample_id: str
    source: str
    num_copies: int
    spans: list[TextSpan]
    text: str | None
    kinds: list[str]
    quadrants: dict[str, int]


class ListedTexts(Record):
    """The number of distinct texts, and those that are listed."""

    num_texts: int
    listed: list[ListedText]


@dataclass(frozen=True)
class ActionCounts:
    """Samples by what a plan does to them."""

    keep: int
    weight: int
    copy: int
    mask: int
    drop: int


class CuratedCounts(Record):
    """What the curated arm does to ordinary training samples, and to planted rows.

    ``planted`` is None where an earlier version did not count them.
    """

    arm: str
    num_samples: int
    actions: ActionCounts
    by_quadrant: ByQuadrant[ActionCounts]
    planted: ActionCounts | None = None


class LeakedSample(Record):
    """A training sample whose second half comes out verbatim; no quadrant in an audit."""

    sample_id: str
    num_suffix_tokens: int
    num_models: int
    source: str
    quadrant: str | None = None


# ---- the report


class ReportSettings(Record):
    """The sections of params.yaml that the report reads."""

    intervene: InterveneConfig
    partition: PartitionConfig
    report: ReportConfig
    retrain: RetrainConfig
    score: ScoreConfig
    spans: SpansConfig

    @classmethod
    def from_params(cls, params: Params) -> Self:
        """Take the sections out of the parameters."""
        return cls(**{name: getattr(params, name) for name in cls.model_fields})


class MemorizationOverTime(Record):
    """By how much training on some samples lowers their own loss, nats per token.

    Attributes:
        samples: ``all``, or a quadrant.
        num_texts: That were first trained on between two frozen looks.
        before: The same just before, near 0 where the rest can be trusted.
        instantaneous: At the first frozen look after it.
        residual: At the last look.
    """

    samples: str
    num_texts: int
    before: Estimate | None
    instantaneous: Estimate | None
    residual: Estimate | None


class Report(Record):
    """The report of a run.

    Attributes:
        schema_version: Of this model.
        definitions: Of each quadrant, in words.
        causes: By precedence.
        calibration: None where no score was judged.
        secrets: Distinct ordinary training texts that may hold a secret.
        copies: Distinct ordinary training texts that have exact copies.
        choice: The arm that makes the curated data, and whether it is shown to work.
        canaries_by_quadrant: Planted rows by family/times planted and quadrant.
        baseline: The first retrained arm that keeps everything, or None.
        queried: The arm whose models are queried about single samples.
        arms: In the order of ``retrain.arms``.
        arm_audits: By arm; empty where nothing was audited.
        next_layer: None where no arm keeps everything or none removes samples.
        profiles: Of the first tracked run, by quadrant; empty where it has too few frozen looks.
        recommendation: None where ``intervene.recommend`` is null.
        comparison: How arms are compared, in a sentence or two.
        summary: Sentences.
        warnings: Sentences.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    corpus: CorpusCounts
    scores: ScoresSummary
    quadrants: Annotated[QuadrantsSummary, AfterValidator(_check_counts)]
    definitions: ByQuadrant[str]
    memorized: MemorizedTexts
    hotspots: list[Hotspot]
    causes: list[CauseCount]
    calibration: CalibrationInUse | None
    secrets: ListedTexts
    copies: ListedTexts
    spans: SpansSummary
    canaries_by_quadrant: dict[str, dict[str, int]]
    choice: CuratedChoice
    curated: CuratedCounts
    baseline: str | None
    queried: str
    arms: list[ArmResult]
    arm_audits: dict[str, ArmAudits]
    groups: LeakageByGroup | None
    attacks: AllAttacks | None
    next_layer: NextLayer | None
    profiles: list[MemorizationOverTime]
    num_leaked: int
    leaked_samples: list[LeakedSample]
    paper_claims: list[CheckedClaim]
    pareto_front: list[FrontPoint]
    recommendation: Recommendation | None
    comparison: str
    summary: list[str]
    warnings: list[str]
    settings: ReportSettings

    def arm(self, name: str) -> ArmResult:
        """The result of a retrained arm."""
        return next(arm for arm in self.arms if arm.arm == name)


class AuditSettings(Record):
    """The options of an audit."""

    model: str
    tokenizer: str
    corpus: Source
    heldout: Source | None
    canaries: Path | None
    block_size: int
    seed: int
    reference: str | None = None
    chat_template: Path | None = None
    num_members: int


class AuditReport(Record):
    """The report of `gdc audit` on one model; ``arm_audits`` has one entry, named ``queried``."""

    schema_version: Literal[1] = SCHEMA_VERSION
    model: str
    queried: str
    arm_audits: dict[str, ModelLeakage]
    attacks: AllAttacks
    num_leaked: int
    leaked_samples: list[LeakedSample]
    summary: list[str]
    warnings: list[str]
    settings: AuditSettings


def to_json(report: Report | AuditReport) -> JsonObject:
    """The report as JSON values."""
    return report.model_dump(mode="json")


def read_report(path: Path = paths.REPORT) -> Report:
    """Read the report of the last run back.

    Raises:
        SchemaError: There is none.
        DataError: It is of another version, or damaged.
    """
    content = files.read_json(path)
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        got = "one of an older version" if version is None else f"version {str(version)[:20]}"
        raise DataError(
            f"{path}: expected a report of version {SCHEMA_VERSION}, got {got}. "
            "Make it again: gdc run."
        )
    return files.parse_json(Report, content, path)


def report_schema() -> JsonObject:
    """The JSON schema of report.json."""
    return Report.model_json_schema(mode="serialization")
