"""The folder of a map -> a plan for its samples by one rule, without the pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import polars as pl
from pydantic import TypeAdapter, ValidationError

from gdc.commands.plan import PlanSummary, count_reasons
from gdc.config import Arm, CapCopiesArm, DedupArm, MaskSpansArm, NearCopies, Params
from gdc.corpus import near_duplicates
from gdc.curation import plans
from gdc.curation.kept_copies import with_kept_copies
from gdc.curation.reader import Plan
from gdc.errors import ConfigError, DataError
from gdc.filesystem import table_files
from gdc.filesystem.path_checks import require_other_file
from gdc.schema import QUADRANT_TABLE, SCORES, SPANS
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
    "shuffled": ("of!", "seed"),
}
_ARM: Final[TypeAdapter[Arm]] = TypeAdapter(Arm)
_READ: Final = ("scores.parquet", "quadrants.parquet", "samples.parquet", "spans.parquet")
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
    require_other_file(out, [folder / name for name in _READ])
    outputs.require_free_files({"--out": out})
    scores = tables.read_table(folder / "scores.parquet", SCORES, "Make it: gdc map.")
    quadrants = tables.read_table(folder / "quadrants.parquet", QUADRANT_TABLE, "Make it: gdc map.")
    scored = scores.join(quadrants, on="sample_id", how="left", maintain_order="left")
    params = project.params_or_preset("docs")
    copies = _NearCopies(folder, params)
    plan = _plan(request, scored, copies, params).collect()
    # Only of dropped samples the kept copy is named.
    is_named = copies.has_texts and "drop" in plan["action"]
    known = copies.table if is_named else pl.DataFrame(schema=near_duplicates.NEAR_DUPLICATES)
    named = with_kept_copies(plan, known)
    outputs.claim_files(out)
    tables.write_table(out, named, named.schema)
    return count_reasons(named.lazy(), out.stem, request.rule)


@dataclass(frozen=True)
class _NearCopies:
    """Near copies of the texts of a map, found once."""

    folder: Path
    params: Params

    @property
    def has_texts(self) -> bool:
        """Whether the map was made with texts."""
        return (self.folder / "samples.parquet").exists()

    @cached_property
    def table(self) -> pl.DataFrame:
        """A ``NEAR_DUPLICATES`` table.

        Raises:
            DataError: The map was made without texts.
        """
        if not self.has_texts:
            raise DataError(
                f"{self.folder}: expected samples.parquet with texts, got none. {_MAP_AGAIN}"
            )
        path = self.folder / "samples.parquet"
        schema = pl.Schema({"sample_id": pl.String, "text": pl.String})
        with tables.naming_file(path, _MAP_AGAIN):
            texts = table_files.read_parquet(path).select(schema.names())
        return near_duplicates.near_copies([texts], self.params.reference, seed=self.params.seed)


def _plan(
    request: Request, scored: pl.DataFrame, copies: _NearCopies, params: Params
) -> pl.LazyFrame:
    folder = copies.folder
    seed = params.seed if request.seed is None else request.seed
    if request.of is not None:
        return _shuffled(Plan.load(request.of).table, scored, seed)
    arm = _arm(request, scored, folder, params)
    if isinstance(arm, CapCopiesArm | DedupArm):
        # Their settings are those of the parameters: see ``_arm``.
        return plans.drop_copies_plan(scored.lazy(), copies.table, arm.max_copies)
    if isinstance(arm, MaskSpansArm):
        spans = tables.read_table(folder / "spans.parquet", SPANS, _MAP_AGAIN)
        if spans.is_empty():
            raise DataError(
                f"{folder / 'spans.parquet'}: expected memorized spans, got none. Map a trace with "
                "losses of tokens, with --corpus and --tokenizer."
            )
        return plans.mask_plan(scored.lazy(), spans)
    return plans.make_plan(arm, scored.lazy(), seed=seed)  # type: ignore[arg-type]  # by the rules


def _shuffled(plan: pl.DataFrame, scored: pl.DataFrame, seed: int) -> pl.LazyFrame:
    if not plan["sample_id"].equals(scored["sample_id"]):
        raise DataError(
            "--of: expected a plan of this map, got one of other samples. Name another."
        )
    if (plan["masked"].list.len() > 0).any():
        raise ConfigError(
            "--of: expected a plan that masks nothing, got masked spans. Name another."
        )
    return plans.shuffled_plan(plan.lazy(), seed=seed)


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
    known = [name for name in known if name != "stability"]
    score = request.score or str(files.read_json(folder / "quadrants.json")["axis"])
    if score not in known:
        raise ConfigError(
            f"--score: expected a score of the map, {', '.join(known)}, got {score!r}. Map it with "
            f"--score {score}."
        )
    return score


def _require_options(request: Request) -> None:
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
