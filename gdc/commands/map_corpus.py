"""A trace folder and the texts it is of -> scores, causes, quadrants, spans and the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from gdc import scores
from gdc.commands import map_tokens
from gdc.commands.map import (
    AXES,
    OF_TEXTS,
    UNTESTED_AXIS,
    WRITTEN_OF_ALL,
    choose_mode,
    drop_former,
    require_axis,
    require_scores,
)
from gdc.commands.own_files import (
    OwnRows,
    naming_options,
    planted_texts,
    read_canaries,
    read_rows,
    tokenizer_of,
)
from gdc.config import AUTO, Params, ScoreConfig
from gdc.corpus import near_duplicates
from gdc.corpus.chat import ChatFormat
from gdc.corpus.samples import content_id, normalize
from gdc.corpus.sources.folders import kinds_at
from gdc.corpus.tokenizer import load_pretrained_tokenizer
from gdc.errors import ConfigError, DataError
from gdc.mapping import calibration, causes, quadrants
from gdc.mapping.score_cards import Calibration
from gdc.recording.trace import Trace
from gdc.report import map_report
from gdc.report.map_report import MapReport
from gdc.report.tables import ReportTables
from gdc.schema import FLAGGED, SCORES, SCORES_BY_RUN, SPANS, TURN_LOSSES
from gdc.scores.calibrated import MIN_HELDOUT
from gdc.workspace import files, outputs, project, tables, trace_checks, traces

WRITTEN: Final = (*WRITTEN_OF_ALL, *OF_TEXTS)
_ALWAYS: Final = (
    "total_drop", "std", "iqr", "final_loss", "initial_loss", "mean_loss", "min_loss", "zlib",
    "num_copies", "random",
)  # fmt: skip
_WITH_HELDOUT: Final = ("late_drop",)
_WITH_HELDOUT_TEXTS: Final = ("calibrated_drop",)
_WITH_TOKENS: Final = ("hard_token_drop",)
_WITH_BOTH_MODES: Final = ("online_probe_gap", "online_late_contrast")
# Of ordinary text the first says most (docs/results/corpora.md), then the second, but few traces
# have all that they need.
_BEST_UNTESTED: Final = ("influence_contrast", "unseen_loss_contrast")
_CLOSEST: Final = "of the scores that this trace allows the closest to the truth elsewhere"
_WHY_UNTESTED: Final = {
    **dict.fromkeys(_BEST_UNTESTED, _CLOSEST),
    UNTESTED_AXIS: "which finds repeated texts and says nothing of others. With the texts of "
    f"{MIN_HELDOUT} held-out samples (--heldout) and losses of every sample in both modes it would "
    f"be {_BEST_UNTESTED[1]}",
}


@dataclass(frozen=True)
class Request:
    """What to map.

    Attributes:
        trace: Its folder.
        corpus: The texts that the run was trained on: a file, a folder or a saved data set.
        heldout: The texts of the held-out samples of the trace; None: they are not needed.
        canaries: What was planted into the corpus; None: nothing.
        text_field: The field that holds the text.
        id_field: The field that holds the ids of the trace; None: ``sample_id`` or ``id`` where
            there is one, else they are row numbers, from 0.
        axis: A score, or ``auto``.
        mode: Checkpoints read; None: as the parameters say, or the others where there are none.
        scores: Further scores.
        model: The trained model, which says which canaries are memorized; folder or Hub name.
        tokenizer: For spans; folder or Hub name; None: that of the model.
    """

    trace: Path
    corpus: str
    heldout: str | None = None
    canaries: Path | None = None
    text_field: str = "text"
    id_field: str | None = None
    axis: str = AUTO
    mode: str | None = None
    scores: tuple[str, ...] = ()
    model: str | None = None
    tokenizer: str | None = None

    @property
    def tokenizer_in_use(self) -> str | None:
        """The tokenizer, or the model's own; None where neither is named.

        Raises:
            ConfigError: There is no such model, or it has none.
        """
        if self.tokenizer is None and self.model is not None:
            return tokenizer_of(self.model)
        return self.tokenizer


@dataclass(frozen=True)
class _Samples:
    """A ``CORPUS`` table, the texts of the held-out samples, and the ``CANARIES`` table."""

    corpus: pl.DataFrame
    heldout: pl.DataFrame
    canaries: pl.DataFrame
    num_others: int  # rows that are no samples of the trace
    chat: ChatFormat | None  # of conversations; None: they are none


def run(request: Request, out: Path, limit: int, ray: str | None = None) -> MapReport:
    """``map_corpus`` by params.yaml or, where there is none, preset docs.

    Args:
        request: As there.
        out: As there.
        limit: Samples to list at least.
        ray: None, as texts are read here.

    Raises:
        GdcError: As there; ``ray`` is no None.
    """
    if ray is not None:
        raise ConfigError("--ray: expected no --corpus beside it, got one. Leave one of them out.")
    params = project.params_or_preset("docs")
    listed = params.report.model_copy(
        update={"num_hotspots": max(limit, params.report.num_hotspots)}
    )
    return map_corpus(request, out, params.model_copy(update={"report": listed}))


def map_corpus(request: Request, out: Path, params: Params) -> MapReport:
    """Map a trace with its texts, and write all tables and the page.

    Args:
        request: The trace and what it is of.
        out: Folder of what ``WRITTEN`` names. ``samples.parquet`` has a row for each sample, the
            highest on the axis first.
        params: Its rules of scores, thresholds, near copies, spans and report.

    Returns:
        The content of ``report.json``.

    Raises:
        ConfigError: A score or the axis cannot be computed, or ``out`` holds other files.
        DataError: Ids do not match, a file is damaged, or a number cannot be.
        SchemaError: A file of the trace is missing or has other columns or rows.
    """
    inputs = {"--corpus": Path(request.corpus), "--canaries": request.canaries}
    outputs.require_free(out, WRITTEN, {"the trace": request.trace, **inputs})
    with tables.naming_damage(request.trace, remedy=traces.ANEW):
        trace = traces.read_folder(request.trace)
        rules = _rules(request, trace, params)
        _require_sound(request.trace, rules.score)
        found = _read_samples(request, trace)
        report_tables, turns, rules = _measure(request, trace, found, rules)
    judged = report_tables.calibration
    axis = rules.partition.axis
    warnings = [*_warnings(request, found, judged, axis), *_late_start(trace, rules)]
    ranked = map_report.rank_samples(report_tables)
    report = map_report.build_map_report(report_tables, ranked, rules, warnings)
    page = map_report.render_map(report, ranked, trace)
    _write(report_tables, turns, out)
    tables.write_table(out / "samples.parquet", ranked, ranked.schema)
    files.write_json(out / "report.json", report.model_dump(mode="json"))
    files.write_text(out / "report.html", page)
    return report


def _measure(
    request: Request, trace: Trace, found: _Samples, rules: Params
) -> tuple[ReportTables, pl.DataFrame, Params]:
    """All tables of the map, ``TURN_LOSSES``, and the rules with the axis that was chosen."""
    texts = pl.concat([found.corpus, found.heldout], how="diagonal")
    scored = scores.score_samples([trace], [texts], rules.score, seed=rules.seed)
    table = scored.samples.join(
        _causes(found.corpus, rules), on="sample_id", how="left", maintain_order="left"
    )
    untested = _untested_axis(table)
    judged = _judge(request, found, table, rules, untested)
    rules = _with_axis(rules, untested if judged is None else judged.auto.axis)
    runs = pl.DataFrame(schema=SCORES_BY_RUN)
    mapped, summary = quadrants.partition(table, runs, rules.partition, trace.name)
    flagged = mapped.filter(pl.col("quadrant").is_in(FLAGGED))["sample_id"]
    how = (request.tokenizer_in_use, found.chat)
    of_tokens = map_tokens.find(trace.tokens, found.corpus, flagged, how, rules.spans)
    measured = ReportTables(
        corpus=found.corpus,
        canaries=found.canaries,
        scores=table,
        quadrants=mapped,
        plans={},
        metrics={},
        scores_summary=scored.summary,
        quadrants_summary=summary,
        num_quarantined=0,
        spans=of_tokens.spans,
        spans_summary=of_tokens.summary,
        calibration=judged,
    )
    return measured, of_tokens.turns, rules


def _write(found: ReportTables, turns: pl.DataFrame, out: Path) -> None:
    outputs.claim(out, WRITTEN)
    mapped = found.scores.with_columns(found.quadrants["quadrant"])
    tables.write_table(out / "scores.parquet", mapped, SCORES)
    drop_former(out, WRITTEN)
    tables.write_table(out / "spans.parquet", found.spans, SPANS)
    tables.write_table(out / "turns.parquet", turns, TURN_LOSSES)
    files.write_json(out / "scores.json", found.scores_summary.to_json())
    files.write_json(out / "quadrants.json", found.quadrants_summary.to_json())


def _rules(request: Request, trace: Trace, params: Params) -> Params:
    """The parameters with the scores that can be had here, and the axis that is asked for."""
    require_axis(request.axis, (*AXES, *scores.REGISTRY))
    require_scores(request.scores, (*scores.FORGETTING, *scores.REGISTRY))
    enabled = [*_ALWAYS]
    has_texts = request.heldout is not None and trace.heldout_index.height >= MIN_HELDOUT
    if trace.heldout_index.height:
        enabled += [*_WITH_HELDOUT, *(_WITH_HELDOUT_TEXTS if has_texts else ())]
    if trace.tokens is not None and trace.tokens[1].height >= MIN_HELDOUT:
        enabled += _WITH_TOKENS
    if len(trace.columns("online")) > 1 and trace.columns("probe"):
        # The first needs the gains of the run too.
        best = _BEST_UNTESTED if trace.gains is not None else _BEST_UNTESTED[1:]
        enabled += [*_WITH_BOTH_MODES, *(best if has_texts else ())]
    # Those of every table of the pipeline are in this one anyway.
    further = [name for name in request.scores if name not in scores.FORGETTING]
    enabled += [*further, *([request.axis] if request.axis in scores.REGISTRY else [])]
    score = params.score.model_copy(
        update={
            "enabled": tuple(dict.fromkeys(enabled)),
            "mode": choose_mode(trace, request.mode, params.score.mode),
        }
    )
    if request.axis == AUTO and params.partition.memorization.kind != "quantile":
        raise ConfigError(
            "--axis auto: expected partition.memorization of kind quantile in params.yaml, got "
            f"{params.partition.memorization.kind}, which is of one score. Name the score: --axis."
        )
    partition = params.partition.model_copy(update={"axis": request.axis})
    return params.model_copy(update={"score": score, "partition": partition})


def _require_sound(folder: Path, score: ScoreConfig) -> None:
    trace_checks.require_samples(folder)
    reads_both = "both_modes" in scores.reads_of(score.enabled)
    for mode in ("online", "probe") if reads_both else (score.mode,):
        scan = traces.scan(folder, mode)
        for shard in traces.shard_folders(folder):
            trace_checks.require_losses(shard, scan, mode)


def _read_samples(request: Request, trace: Trace) -> _Samples:
    canaries = read_canaries(request.canaries)
    own = _own_rows(request, trace, request.corpus, "--corpus")
    num_others = own.rows.height - trace.index.height
    rows = _matched(request, own, trace.index, "--corpus")
    planted = canaries.filter(pl.col("num_repeats") > 0)
    ids = [_content(text) for text in planted_texts(planted, own.chat)]
    planted = planted.select("canary_id", content_id=pl.Series(ids, dtype=pl.String))
    corpus = rows.with_columns(split=pl.lit("train")).join(
        planted, on="content_id", how="left", maintain_order="left"
    )
    if planted.height and not corpus["canary_id"].count():
        raise DataError(
            f"--canaries: expected some of its {planted.height} planted texts in --corpus, got "
            "none. Give the training file that they were planted into."
        )
    return _Samples(corpus, _read_heldout(request, trace), canaries, num_others, own.chat)


def _own_rows(request: Request, trace: Trace, path: str, option: str) -> OwnRows:
    named = request.tokenizer_in_use
    tokenizer = None
    # Of conversations the trace may be of another template than the tokenizer's; losses of tokens
    # are shown by this one or not at all.
    is_read_by_it = trace.tokens is not None or set(kinds_at(Path(path))) == {"tokens"}
    if named is not None and is_read_by_it:
        with naming_options():
            tokenizer = load_pretrained_tokenizer(named, None)
    return read_rows(path, request.text_field, request.id_field, option, tokenizer)


def _read_heldout(request: Request, trace: Trace) -> pl.DataFrame:
    """The texts of the held-out samples; none where they are not given."""
    if request.heldout is None:
        return pl.DataFrame()
    if trace.heldout_index.is_empty():
        raise DataError(
            f"--heldout: expected held-out losses in {request.trace / 'heldout'}, got none. Leave "
            "--heldout out, or record them."
        )
    shared = trace.heldout_index.join(trace.index, on="sample_id", how="semi")["sample_id"]
    if len(shared):
        raise DataError(
            f"--heldout: expected ids that no training sample has, got {len(shared):,} that are "
            f"both, such as {shared[0]!r}. Leave --heldout out, or record other ids."
        )
    own = _own_rows(request, trace, request.heldout, "--heldout")
    return _matched(request, own, trace.heldout_index, "--heldout")


def _matched(request: Request, own: OwnRows, index: pl.DataFrame, option: str) -> pl.DataFrame:
    """The rows of the samples of an index, in its order, with the columns of a corpus."""
    found = own.of(index["sample_id"], names=(str(request.trace), option))
    contents = [_content(text) for text in found["text"]]
    return found.with_columns(
        num_tokens=index["num_tokens"], content_id=pl.Series(contents, dtype=pl.String)
    ).with_columns(num_copies=pl.len().over("content_id").cast(pl.Int64))


def _content(text: str) -> str:
    return content_id(normalize(text))


def _causes(corpus: pl.DataFrame, params: Params) -> pl.DataFrame:
    # Copies are linked by their exact text.
    samples = [
        corpus.select(
            "sample_id", "num_copies", text=pl.col("text").map_elements(normalize, pl.String)
        )
    ]
    duplicates = near_duplicates.near_copies(samples, params.reference, seed=params.seed)
    return causes.find_causes(samples, duplicates)


def _untested_axis(table: pl.DataFrame) -> str:
    """The axis where no canary can say which score is right."""
    is_known = table.select(
        pl.col(name).is_finite().fill_null(value=False).all()
        for name in _BEST_UNTESTED
        if name in table.columns
    )
    return next((name for name in is_known.columns if is_known[name].item()), UNTESTED_AXIS)


def _judge(
    request: Request, found: _Samples, table: pl.DataFrame, params: Params, untested: str
) -> Calibration | None:
    """What each score is worth here; None without canaries or without their model."""
    tokenizer = request.tokenizer_in_use
    if found.canaries.is_empty() or request.model is None or tokenizer is None:
        return None
    from gdc.commands.canary_labels import label_by_model  # noqa: PLC0415 - it imports torch

    labelled = label_by_model(
        found.canaries, request.model, tokenizer, is_said=found.chat is not None
    )
    planted = found.corpus.drop_nulls("canary_id").select("sample_id", "canary_id")
    present = labelled.join(planted, on="canary_id", how="semi", maintain_order="left")
    return calibration.calibrate(
        table, planted, present, params.partition, seed=params.seed, fallback=untested
    )


def _with_axis(params: Params, axis: str | None) -> Params:
    if params.partition.axis != AUTO:
        return params
    return params.model_copy(
        update={"partition": params.partition.model_copy(update={"axis": axis})}
    )


def _late_start(trace: Trace, params: Params) -> Sequence[str]:
    """A warning where what falls in the first epoch is not seen to fall."""
    of_mode = trace.checkpoints.filter(pl.col("mode") == params.score.mode)
    first = min(of_mode["step"], default=0)
    if params.score.mode != "probe" or params.partition.axis != UNTESTED_AXIS or not first:
        return []
    return [
        f"The first probe is of step {first}: samples with many copies have fallen by then, "
        f"and {UNTESTED_AXIS} misses them. Probe before training too, or take --axis final_loss."
    ]


def _warnings(
    request: Request, found: _Samples, judged: Calibration | None, axis: str
) -> Sequence[str]:
    warnings = []
    if found.num_others:
        warnings.append(f"{found.num_others:,} rows of --corpus are no samples of the trace.")
    if request.axis == AUTO and (found.canaries.is_empty() or request.model is None):
        warnings.append(
            f"No canaries judge the scores here, so the map has {axis}, {_WHY_UNTESTED[axis]}. "
            "Plant canaries (gdc plant) and give --canaries and --model to test the scores on this "
            "run."
        )
    elif request.axis == AUTO and judged is not None and not judged.auto.is_validated:
        warnings.append(judged.auto.reason)
    return warnings
