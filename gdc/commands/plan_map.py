"""The folder of a map -> a plan for its samples by one rule, without the pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import polars as pl
from pydantic import TypeAdapter, ValidationError

from gdc.commands.map import read_mapped, table_of
from gdc.commands.own_files import naming_options
from gdc.commands.plan import PlanSummary, count_reasons
from gdc.config import (
    Arm,
    CapCopiesArm,
    DedupArm,
    GoldfishArm,
    MaskSpansArm,
    NearCopies,
    Params,
    SubstringDedupArm,
)
from gdc.corpus import near_duplicates
from gdc.corpus.tokenizer import TextTokenizer, load_pretrained_tokenizer
from gdc.curation import plans
from gdc.curation.kept_copies import with_kept_copies
from gdc.curation.listed import listed_plan, read_listed
from gdc.curation.reader import Plan
from gdc.curation.span_masks import mask_plan, shuffled_mask_plan
from gdc.curation.token_masks import token_mask_plan
from gdc.errors import ConfigError, DataError
from gdc.filesystem import table_files
from gdc.filesystem.path_checks import require_other_file
from gdc.schema import MAP, SPANS
from gdc.workspace import files, outputs, project, tables

# The options that each rule reads; those that it needs end in !.
RULES: Final[Mapping[str, tuple[str, ...]]] = {
    "none": (),
    "top-fraction": ("fraction!", "score", "weight"),
    "random": ("fraction!", "weight", "seed"),
    "quadrants": ("weight",),
    "weight-by-score": ("score",),
    "dedup": (),
    "cap-copies": ("max_copies!",),
    "mask-spans": (),
    "goldfish": ("every!", "context!", "tokenizer!", "seed"),
    "substring-dedup": ("min_tokens!", "tokenizer!"),
    "order": ("fraction!", "score"),
    "listed": ("file!",),
    "shuffled": ("of!", "tokenizer", "seed"),
}
_OF_OUR_LOOP: Final = ("live", "dp-sgd")
_ARM: Final[TypeAdapter[Arm]] = TypeAdapter(Arm)
_READ: Final = ("samples.parquet", "spans.parquet")
_MAP_AGAIN: Final = "Map it with its texts: gdc map TRACE --corpus FILE."


@dataclass(frozen=True)
class Request:
    """A rule and its numbers; None: not given."""

    rule: str
    score: str | None = None
    fraction: float | None = None
    weight: float | None = None
    max_copies: int | None = None
    of: Path | None = None
    seed: int | None = None
    every: int | None = None
    context: int | None = None
    min_tokens: int | None = None
    file: Path | None = None
    tokenizer: str | None = None


def plan_map(request: Request, folder: Path, out: Path) -> PlanSummary:
    """Plan every sample of a map, and write the plan.

    Args:
        request: The rule.
        folder: What ``gdc map`` wrote.
        out: The Parquet file of the plan: a ``PLAN`` table with ``duplicate_of``, the kept sample
            of which a dropped one is a copy (null where there is none or texts are not known).

    Raises:
        ConfigError: There is no such rule or score, an option is missing or too many, or a file of
            the map would be replaced.
        DataError: A file is damaged.
        SchemaError: A file of the map is missing.
    """
    _require_options(request)
    table = table_of(folder)
    require_other_file(out, [table, *(folder / name for name in _READ)])
    outputs.require_free_files({"--out": out})
    scored = read_mapped(table, MAP)
    params = project.params_or_preset("docs")
    texts = _MapTexts(folder, params, scored["sample_id"])
    plan = _plan(request, scored, texts, params).collect()
    # Only of dropped samples the kept copy is named.
    is_named = texts.are_there and "drop" in plan["action"]
    known = texts.near_copies if is_named else pl.DataFrame(schema=near_duplicates.NEAR_DUPLICATES)
    named = with_kept_copies(plan, known)
    outputs.claim_files(out)
    tables.write_table(out, named, named.schema)
    return count_reasons(named.lazy(), out.stem, request.rule)


@dataclass(frozen=True)
class _MapTexts:
    """The texts of a map and their near copies, each found once."""

    folder: Path
    params: Params
    sample_ids: pl.Series

    @property
    def path(self) -> Path:
        """Where they lie."""
        return self.folder / "samples.parquet"

    @cached_property
    def are_there(self) -> bool:
        """Whether the map was made with texts; a former one of other samples may have been."""
        if not self.path.exists():
            return False
        with tables.naming_file(self.path, _MAP_AGAIN):
            found = table_files.scan_parquet(self.path).select("sample_id").collect()["sample_id"]
        return found.sort().equals(self.sample_ids.sort())

    @cached_property
    def table(self) -> pl.DataFrame:
        """``sample_id`` and ``text``, the highest on the axis first.

        Raises:
            DataError: The map was made without texts.
        """
        if not self.are_there:
            raise DataError(
                f"{self.folder}: expected samples.parquet with the texts of the samples in "
                f"scores.parquet, got none. {_MAP_AGAIN}"
            )
        with tables.naming_file(self.path, _MAP_AGAIN):
            return table_files.read_parquet(self.path).select("sample_id", "text")

    @cached_property
    def near_copies(self) -> pl.DataFrame:
        """A ``NEAR_DUPLICATES`` table.

        Raises:
            DataError: The map was made without texts.
        """
        config, seed = self.params.reference, self.params.seed
        return near_duplicates.near_copies([self.table], config, seed=seed)


def _plan(request: Request, scored: pl.DataFrame, texts: _MapTexts, params: Params) -> pl.LazyFrame:
    folder = texts.folder
    seed = params.seed if request.seed is None else request.seed
    if request.of is not None:
        return _shuffled(Plan.load(request.of).table, request, scored, texts, seed)
    if request.file is not None:
        return _listed(request.file, scored, folder)
    arm = _arm(request, scored, folder, params)
    if isinstance(arm, CapCopiesArm | DedupArm):
        # Their settings are those of the parameters: see ``_arm``.
        return plans.drop_copies_plan(scored.lazy(), texts.near_copies, arm.max_copies)
    if isinstance(arm, GoldfishArm | SubstringDedupArm):
        tokenizer = _tokenizer(request)
        return token_mask_plan(arm, scored.lazy(), [texts.table], tokenizer, seed=seed)
    if isinstance(arm, MaskSpansArm):
        spans = _spans(folder)
        if spans.is_empty():
            raise DataError(
                f"{folder / 'spans.parquet'}: expected memorized spans, got none. Map a trace with "
                "losses of tokens, with --corpus and --tokenizer."
            )
        return mask_plan(scored.lazy(), spans)
    return plans.make_plan(arm, scored.lazy(), seed=seed)  # type: ignore[arg-type]  # by the rules


def _spans(folder: Path) -> pl.DataFrame:
    return tables.read_table(folder / "spans.parquet", SPANS, _MAP_AGAIN)


def _tokenizer(request: Request) -> TextTokenizer:
    """The tokenizer that is named.

    Raises:
        ConfigError: There is no such tokenizer.
    """
    assert request.tokenizer is not None  # noqa: S101 - its rules need it
    with naming_options():
        return load_pretrained_tokenizer(request.tokenizer, None)


def _listed(file: Path, scored: pl.DataFrame, folder: Path) -> pl.LazyFrame:
    listed = read_listed(file, name="--file")
    has_spans = "mask" in listed["action"]
    spans = _spans(folder) if has_spans else pl.DataFrame(schema=SPANS)
    return listed_plan(scored.lazy(), listed, spans, name=str(file))


def _shuffled(
    plan: pl.DataFrame, request: Request, scored: pl.DataFrame, texts: _MapTexts, seed: int
) -> pl.LazyFrame:
    if not plan["sample_id"].equals(scored["sample_id"]):
        raise DataError(
            "--of: expected a plan of this map, got one of other samples. Name another."
        )
    if not (plan["masked"].list.len() > 0).any():
        return plans.shuffled_plan(plan.lazy(), seed=seed)
    if request.tokenizer is None:
        raise ConfigError(
            "--tokenizer: expected one, as --of masks spans, which are dealt out by tokens, got "
            "none. Name that of your model: a folder or a Hub name."
        )
    in_order = scored.select("sample_id").join(
        texts.table, on="sample_id", how="left", maintain_order="left"
    )
    offsets = _tokenizer(request).offsets(in_order["text"].to_list())
    return shuffled_mask_plan(
        plan, [len(of) for of in offsets], lambda rows: [offsets[row] for row in rows], seed=seed
    ).lazy()


def _arm(request: Request, scored: pl.DataFrame, folder: Path, params: Params) -> Arm:
    """The rule with its numbers, as params.yaml would have it."""
    near = {name: getattr(params.reference, name) for name in NearCopies.model_fields}
    score = _score(request, scored, folder)
    weight = 0.0 if request.weight is None else request.weight
    # Checked below, as what stands in params.yaml is.
    numbers: Mapping[str, Mapping[str, Any]] = {
        "top-fraction": {
            "score": score, "tie_break": "difficulty", "fraction": request.fraction,
            "weight": weight,
        },
        "random": {"fraction": request.fraction, "weight": weight},
        "quadrants": {"hotspot_weight": weight, "drop_noisy": True, "hard_copies": 1},
        "weight-by-score": {"score": score},
        "dedup": near,
        "cap-copies": {**near, "max_copies": request.max_copies},
        "goldfish": {"every": request.every, "context": request.context},
        "substring-dedup": {"min_tokens": request.min_tokens},
        "order": {"score": score, "tie_break": "difficulty", "fraction": request.fraction},
    }  # fmt: skip
    try:
        return _ARM.validate_python({"rule": request.rule, **numbers.get(request.rule, {})})
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][-1]).replace("_", "-")
        raise ConfigError(
            f"--{option}: {first['msg']}, got {first['input']!r}. Choose another."
        ) from None


def _score(request: Request, scored: pl.DataFrame, folder: Path) -> str:
    known = [name for name, dtype in scored.schema.items() if dtype.is_float()]
    score = request.score or str(files.read_json(folder / "quadrants.json")["axis"])
    if score not in known:
        raise ConfigError(
            f"--score: expected a score of the map, {', '.join(known)}, got {score!r}. Map it with "
            f"that score: gdc map TRACE --score {score}."
        )
    return score


def _require_options(request: Request) -> None:
    if request.rule in _OF_OUR_LOOP:
        raise ConfigError(
            f"--rule {request.rule}: expected a rule that says what to do with each sample before "
            "training, got one of our own training loop, which decides while it trains. Make it an "
            "arm of params.yaml (gdc run), or take weight-by-score."
        )
    if request.rule not in RULES:
        raise ConfigError(
            f"--rule: expected one of {', '.join(RULES)}, got {request.rule!r}. Choose one."
        )
    read = RULES[request.rule]
    for name, value in vars(request).items():
        option = f"--{name.replace('_', '-')}"
        if value is None and f"{name}!" in read:
            raise ConfigError(f"{option}: rule {request.rule} needs it, got none. Give one.")
        if value is not None and name != "rule" and not {name, f"{name}!"} & set(read):
            raise ConfigError(
                f"{option}: expected none with rule {request.rule}, got {value}. Leave it out."
            )
