"""All tables -> what the user reads: one dictionary of numbers, and the page that shows it."""

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, geometric_mean
from typing import Any, Final, Literal

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gdc.audit.discoverability import NUM_SAMPLES
from gdc.audit.membership_table import MIN_SUFFIX_TOKENS
from gdc.comparison.arms import asked_arm, baseline_arm
from gdc.comparison.leakage import LEAKED
from gdc.comparison.paper_claims import check_claims
from gdc.comparison.pareto_front import front_of
from gdc.comparison.recommendation import recommend
from gdc.config import AUTO, Params
from gdc.corpus.sources.unread import sentence
from gdc.errors import DataError
from gdc.mapping.causes import REMEDIES, secret_kinds
from gdc.report.plots import COLOURS, POINTS, MapFrame
from gdc.schema import FLAGGED, MASKED, QUADRANTS, SPANS
from gdc.statistics.bootstrap import ENOUGH_SEEDS
from gdc.statistics.exposure import null_exposure

# The sections of params.yaml that the report reads.
SECTIONS: Final = ("intervene", "partition", "report", "retrain", "score", "spans")
ACTIONS: Final = ("keep", "weight", "copy", "mask", "drop")
# What a card says, in a sentence.
VERDICTS: Final[Mapping[str, str]] = {
    "predicts memorization here": "predicts memorization here",
    "does not": "does not predict memorization here",
    "not shown": "is not shown to predict memorization here",
}


@dataclass(frozen=True)
class ReportTables:
    """Everything a report is made of."""

    corpus: pl.DataFrame
    canaries: pl.DataFrame
    scores: pl.DataFrame
    quadrants: pl.DataFrame
    plans: Mapping[str, pl.DataFrame]  # of every retrained arm and of the curated arm
    metrics: Mapping[tuple[str, int], dict[str, Any]]  # of every retrained arm and seed
    scores_summary: dict[str, Any]
    quadrants_summary: dict[str, Any]
    num_quarantined: int
    spans: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SPANS))
    spans_summary: Mapping[str, Any] = field(default_factory=lambda: {"warnings": []})
    num_left_out: int = 0  # rows beyond ``ingest.max_samples``
    unread: Mapping[str, Any] = field(default_factory=dict)  # files, of ``unread.summarize``
    evidence: Mapping[str, Any] = field(default_factory=dict)  # of ``comparison.compare_arms``
    groups: Mapping[str, Any] = field(default_factory=dict)  # of ``leakage.by_group``
    attacks: Mapping[str, Any] = field(default_factory=dict)  # of ``leakage.of_attacks``
    onion: Mapping[str, Any] = field(default_factory=dict)  # of ``onion.compare_layers``
    calibration: Mapping[str, Any] = field(default_factory=dict)  # of ``calibration.calibrate``
    leaked: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LEAKED))


def build_report(tables: ReportTables, params: Params) -> dict[str, Any]:
    """Gather every number and sentence of the report, ready for JSON.

    Args:
        tables: The tables of one workspace.
        params: Its parameters; only the sections ``SECTIONS`` are read.

    Returns:
        ``corpus``, ``scores``, ``quadrants``, ``definitions``, ``hotspots``, ``causes`` (how many
        ordinary samples have each, and its remedy), ``secrets`` and ``copies`` (distinct ordinary
        training texts that may hold a secret, and those with most copies, whatever their
        quadrant), ``spans`` (of ``spans.json``), ``canaries_by_quadrant``, ``curated`` (the
        arm that makes the curated data set), ``baseline`` (the first retrained arm that keeps
        everything, or None), ``asked`` (the arm whose models are asked about single samples),
        ``calibration`` as it came and two sentences on the axis in use, ``verdict`` and ``why``,
        ``arms`` in their order in ``retrain.arms``, ``evidence``, ``groups``, ``attacks`` and
        ``onion`` as they came, ``claims`` of the paper, ``leaked_samples``, ``front``,
        ``recommendation`` (None where none is asked for), ``comparison`` (how), ``summary`` and
        ``warnings`` (sentences), ``settings``.
        Ratios and differences are paired by seed, then averaged.

    Raises:
        DataError: The tables hold different samples.
    """
    samples = _scored_samples(tables)
    baseline = baseline_arm(params)
    report: dict[str, Any] = {
        "corpus": _corpus(tables),
        "scores": tables.scores_summary,
        "quadrants": tables.quadrants_summary,
        "definitions": _definitions(tables.quadrants_summary),
        "hotspots": _hotspots(samples, params),
        "causes": _causes(samples),
        "calibration": _calibration(tables, params),
        "secrets": _secrets(samples, params),
        "copies": _copies(samples, params),
        "spans": tables.spans_summary,
        "canaries_by_quadrant": _canaries_by_quadrant(samples),
        "curated": _curated(samples, tables.plans, params.intervene.curated_arm),
        "baseline": baseline,
        "asked": asked_arm(params),
        "arms": _arms(tables, params, baseline),
        "evidence": tables.evidence,
        "groups": tables.groups,
        "attacks": tables.attacks,
        "onion": tables.onion,
        "num_leaked": tables.leaked.height,
        "claims": check_claims(tables.evidence, params, baseline) if tables.evidence else [],
        "leaked_samples": tables.leaked.join(
            tables.quadrants.select("sample_id", "quadrant"), on="sample_id", maintain_order="left"
        )
        .join(tables.corpus.select("sample_id", "source"), on="sample_id", maintain_order="left")
        .head(params.report.num_hotspots)
        .to_dicts(),
        "settings": settings(params),
    }
    front, target = front_of(report), params.intervene.recommend
    return report | {
        "front": front,
        "recommendation": None if target is None else recommend(front, target),
        "comparison": _comparison(report),
        "summary": _summary(report),
        "warnings": _warnings(report, tables),
    }


def settings(params: Params) -> dict[str, Any]:
    """The sections of ``params.yaml`` that the report reads, as plain values."""
    return params.model_dump(mode="json", include=set(SECTIONS))


def map_points(tables: ReportTables, *, show_text: bool) -> pl.DataFrame:
    """The ``POINTS`` of the data map: every scored sample, planted canaries included."""
    text = pl.col("text") if show_text else pl.lit(None, pl.String)
    return _scored_samples(tables).with_columns(text=text).select(POINTS.names())


def map_frame(report: Mapping[str, Any]) -> MapFrame:
    """The axes and thresholds of the data map."""
    quadrants = report["quadrants"]
    return MapFrame(
        axis=quadrants["axis"],
        num_early=report["scores"]["num_early"],
        difficulty_threshold=quadrants["difficulty_threshold"],
        memorization_threshold=quadrants["memorization_threshold"],
        max_points=report["settings"]["report"]["max_points"],
    )


@dataclass(frozen=True)
class Pictures:
    """What is drawn: the HTML of ``plots.interactive_map``, and PNG files or None."""

    map_html: str
    roc: bytes | None = None
    groups: bytes | None = None
    front: bytes | None = None


def render_html(report: Mapping[str, Any], pictures: Pictures) -> str:
    """The report as one page that loads nothing.

    Args:
        report: What ``build_report`` returns.
        pictures: Inserted as they are.
    """
    return _render(
        "report.html",
        report,
        pictures,
        map_html=pictures.map_html,
        quadrants=QUADRANTS,
        actions=ACTIONS,
        canary_rows=sorted(report["canaries_by_quadrant"].items(), key=_by_family_and_repeats),
    )


def render_audit(report: Mapping[str, Any], roc: bytes | None) -> str:
    """The audit of one model outside the pipeline as one page that loads nothing.

    Args:
        report: ``evidence`` with one entry, ``asked`` (its name), ``model``, ``leaked_samples``,
            ``summary``, ``warnings`` and ``settings``.
        roc: PNG, or None where no held-out text was given.
    """
    return _render("audit.html", report, Pictures("", roc))


def _render(template: str, report: Mapping[str, Any], pictures: Pictures, **more: object) -> str:
    environment = Environment(
        loader=PackageLoader("gdc.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "percent": percent, "number": number, "interval": interval, "underlined": underlined
    }  # fmt: skip
    return environment.get_template(template).render(
        report=report,
        pictures={
            "roc": _data_uri(pictures.roc),
            "groups": _data_uri(pictures.groups),
            "front": _data_uri(pictures.front),
        },
        colours=COLOURS,
        level_rows=_level_rows(report["evidence"]),
        sample_counts=[str(n) for n in NUM_SAMPLES],
        attack=attack_of(report),
        nulls=_null_exposures(report["evidence"]),
        min_suffix_tokens=MIN_SUFFIX_TOKENS,
        **more,
    )


def percent(share: float | None) -> str:
    """A share in [0, 1] in percent, or a dash."""
    return "-" if share is None else f"{100 * share:.3g} %"


def number(value: float | None) -> str:
    """Four significant digits, or a dash."""
    return "-" if value is None else f"{value:.4g}"


def points(difference: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * difference:+.1f}"


def interval(
    value: Mapping[str, Any] | None, form: Literal["percent", "number", "points"]
) -> Markup:
    """A value and, in small print below it, the ends of its interval; or a dash."""
    if value is None:
        return Markup("-")
    shown = {"percent": percent, "number": number, "points": points}[form]
    ends = f"[{shown(value['low'])}, {shown(value['high'])}]"
    return Markup('{} <span class="soft">{}</span>').format(shown(value["value"]), ends)


def underlined(text: str, spans: Sequence[Mapping[str, int]], end: int) -> Markup:
    """The first ``end`` characters of a text, escaped, with its spans underlined."""
    shown, place = Markup(), 0
    for span in spans:
        if span["start"] < end:
            start, stop = span["start"], min(span["end"], end)
            shown += text[place:start] + Markup("<u>{}</u>").format(text[start:stop])
            place = stop
    return shown + text[place:end]


def _scored_samples(tables: ReportTables) -> pl.DataFrame:
    """One row per scored sample, in the order of the scores: ``POINTS``, source, cause, spans."""
    axis = tables.quadrants_summary["axis"]
    label = pl.col("family") + "/" + pl.col("num_repeats").cast(pl.String)
    samples = (
        tables.scores.select("sample_id", "difficulty", "cause", "duplicate_ids", score=axis)
        .join(tables.quadrants, on="sample_id", maintain_order="left")
        .join(
            tables.corpus.select(
                "sample_id", "content_id", "source", "text", "num_copies", "canary_id"
            ),
            on="sample_id",
            maintain_order="left",
        )
        .join(
            tables.spans.group_by("sample_id", maintain_order=True).agg(
                spans=pl.struct("start", "end")
            ),
            on="sample_id",
            how="left",
            maintain_order="left",
        )
        .with_columns(pl.col("spans").fill_null(pl.lit([], MASKED)))
        .join(
            tables.canaries.select("canary_id", canary=label),
            on="canary_id",
            how="left",
            maintain_order="left",
        )
    )
    if not samples.height == tables.scores.height == tables.quadrants.height:
        raise DataError(
            "report: expected the same samples in data/scores.parquet, data/quadrants.parquet and "
            f"data/corpus.parquet, got {tables.scores.height} scored, {tables.quadrants.height} "
            f"with a quadrant and {samples.height} in all three. Re-run: gdc run."
        )
    unknown = samples.filter(pl.col("canary_id").is_not_null() & pl.col("canary").is_null())
    if unknown.height:
        raise DataError(
            f"report: expected every planted canary in data/canaries.parquet, got {unknown.height} "
            f"that are not, first {unknown['canary_id'][0]}. Re-run: gdc run."
        )
    return samples


def _corpus(tables: ReportTables) -> dict[str, Any]:
    """Counts of rows, planted canaries apart and nowhere else, and of files that are not read."""
    planted = pl.col("canary_id").is_not_null()
    ordinary = tables.corpus.filter(~planted)
    split = ordinary["split"]
    return {
        "num_samples": ordinary.height,
        "num_train": int((split == "train").sum()),
        "num_validation": int((split == "validation").sum()),
        "num_reserved": int((split == "reserved").sum()),
        "num_exact_copies": ordinary.height - ordinary["content_id"].n_unique(),
        "num_canary_rows": tables.corpus.height - ordinary.height,
        "num_quarantined": tables.num_quarantined,
        "num_left_out": tables.num_left_out,
        "unread": tables.unread,
    }


def _definitions(quadrants_summary: Mapping[str, Any]) -> dict[str, str]:
    axis, cut = quadrants_summary["axis"], number(quadrants_summary["memorization_threshold"])
    hard = number(quadrants_summary["difficulty_threshold"])
    low, high = f"{axis} at most {cut}", f"{axis} above {cut}"
    return {
        "stable-easy": f"difficulty at most {hard}, {low}",
        "ambiguous-hard": f"difficulty above {hard}, {low}",
        "hotspot-memorized": f"difficulty at most {hard}, {high}",
        "noisy-outlier": f"difficulty above {hard}, {high}",
    }


def _hotspots(samples: pl.DataFrame, params: Params) -> list[dict[str, Any]]:
    """Ordinary samples above the memorization threshold, the quadrant of hotspots first."""
    columns = (
        "sample_id", "source", "difficulty", "score", "quadrant", "stability", "num_copies",
        "cause", "duplicate_ids", "spans", "text",
    )  # fmt: skip
    hotspot = pl.col("quadrant") == "hotspot-memorized"
    return (
        samples.filter(pl.col("canary").is_null() & _is_hot())
        .sort(hotspot, "score", "difficulty", "sample_id", descending=[True, True, False, False])
        .head(params.report.num_hotspots)
        .with_columns(text=_text(params))
        .select(columns)
        .to_dicts()
    )


def _text(params: Params) -> pl.Expr:
    """The text where the report may show it, else null."""
    return pl.col("text") if params.report.show_text else pl.lit(None, pl.String)


def _secrets(samples: pl.DataFrame, params: Params) -> dict[str, Any]:
    """Ordinary texts that may hold a secret, each once: most copies first, then by score."""
    secret = samples.filter(pl.col("canary").is_null(), pl.col("cause") == "secret")
    return _listed_once(
        secret.sort("num_copies", "score", "sample_id", descending=[True, True, False]), params
    )


def _copies(samples: pl.DataFrame, params: Params) -> dict[str, Any]:
    """Ordinary texts with exact copies, each once: most copies first."""
    copied = samples.filter(pl.col("canary").is_null(), pl.col("num_copies") > 1)
    return _listed_once(copied.sort("num_copies", "sample_id", descending=[True, False]), params)


def _listed_once(samples: pl.DataFrame, params: Params) -> dict[str, Any]:
    """The first sample of each text, and in which quadrants its copies lie."""
    texts = samples.unique("content_id", keep="first", maintain_order=True)
    listed = texts.head(params.report.num_hotspots)
    kinds = [secret_kinds(text) for text in listed["text"]]
    quadrants = [
        Counter(samples.filter(pl.col("content_id") == content)["quadrant"])
        for content in listed["content_id"]
    ]
    columns = ("sample_id", "source", "num_copies", "spans", "text")
    rows = listed.with_columns(text=_text(params)).select(columns).to_dicts()
    return {
        "num_texts": texts.height,
        "listed": [
            row | {"kinds": of_text, "quadrants": dict(lies)}
            for row, of_text, lies in zip(rows, kinds, quadrants, strict=True)
        ],
    }


def _is_hot() -> pl.Expr:
    """Whether a sample is above the memorization threshold."""
    return pl.col("quadrant").is_in(FLAGGED)


def _causes(samples: pl.DataFrame) -> list[dict[str, Any]]:
    """By precedence: ordinary samples with each cause, in all and above the threshold."""
    ordinary = samples.filter(pl.col("canary").is_null())
    num_samples = Counter(ordinary["cause"])
    num_hotspots = Counter(ordinary.filter(_is_hot())["cause"])
    return [
        {
            "cause": cause,
            "num_samples": num_samples[cause],
            "num_hotspots": num_hotspots[cause],
            "remedy": remedy,
        }
        for cause, remedy in REMEDIES.items()
    ]


def _calibration(tables: ReportTables, params: Params) -> dict[str, Any]:
    """The cards, what they say of the axis in use, and why it is in use."""
    calibration, axis = tables.calibration, tables.quadrants_summary["axis"]
    if not calibration:
        return {}
    card = next(card for card in calibration["cards"] if card["score"] == axis)
    auto = calibration["auto"]
    why = f"partition.axis names {axis}."
    if params.partition.axis == AUTO:
        why = f"partition.axis is auto. {auto['reason']}"
    elif auto["is_validated"]:
        why += f" auto would take {auto['axis']}."
    return {
        **calibration,
        "verdict": f"Axis {axis} {VERDICTS[card['verdict']]}: {_card_sentence(card, calibration)}",
        "is_validated": card["verdict"] == "predicts memorization here",
        "why": why,
    }


def _card_sentence(card: Mapping[str, Any], calibration: Mapping[str, Any]) -> str:
    auroc = card["auroc_report"]
    if auroc is None:
        return str(card["why"])
    return (
        f"AUROC {auroc['value']:.2f} [{auroc['low']:.2f}, {auroc['high']:.2f}] of "
        f"{calibration['num_memorized']:,} memorized against "
        f"{calibration['num_unmemorized']:,} other canaries."
    )


def _canaries_by_quadrant(samples: pl.DataFrame) -> dict[str, dict[str, int]]:
    planted = samples.drop_nulls("canary")
    counts = Counter(planted.select("canary", "quadrant").iter_rows())
    return {
        canary: {quadrant: counts[canary, quadrant] for quadrant in QUADRANTS}
        for canary in sorted(set(planted["canary"]))
    }


def _curated(samples: pl.DataFrame, plans: Mapping[str, pl.DataFrame], arm: str) -> dict[str, Any]:
    """What the curated arm does to ordinary training text: in all, and in each quadrant."""
    planned = samples.filter(pl.col("canary").is_null()).join(plans[arm], on="sample_id")
    counts = Counter(planned.select("quadrant", "action").iter_rows())
    return {
        "arm": arm,
        "num_samples": planned.height,
        "actions": {action: sum(counts[q, action] for q in QUADRANTS) for action in ACTIONS},
        "by_quadrant": {
            quadrant: {action: counts[quadrant, action] for action in ACTIONS}
            for quadrant in QUADRANTS
        },
    }


def _arms(tables: ReportTables, params: Params, baseline: str | None) -> list[dict[str, Any]]:
    arms = [_arm(arm, tables, params.retrain.seeds) for arm in params.retrain.arms]
    base = next((arm for arm in arms if arm["arm"] == baseline), None)
    compared = [arm | _compared(arm, base) for arm in arms]
    return [arm | {"summary": _arm_sentence(arm, base)} for arm in compared]


def _arm(arm: str, tables: ReportTables, seeds: Sequence[int]) -> dict[str, Any]:
    action = tables.plans[arm]["action"]
    runs = {seed: tables.metrics[arm, seed] for seed in seeds}
    return {
        "arm": arm,
        "num_dropped": int((action == "drop").sum()),
        "num_weighted": int((action == "weight").sum()),
        "num_copied": int((action == "copy").sum()),
        "num_changed": int((action != "keep").sum()),
        "num_masked": int((action == "mask").sum()),
        "num_masked_tokens": runs[seeds[0]]["num_masked_tokens"],
        "num_rows": int(tables.plans[arm]["copies"].sum()),
        # The intervals beside it are of the mean loss, so the mean is that of the logarithms.
        "perplexity": _over_seeds(runs, "perplexity", geometric_mean),
        "extraction_rate": _over_seeds(runs, "extraction_rate"),
        "extraction": _mean_extraction([run["extraction"] for run in runs.values()]),
    }


def _over_seeds(
    runs: Mapping[int, Mapping[str, Any]],
    metric: str,
    mean: Callable[[Sequence[float]], float] = fmean,
) -> dict[str, Any]:
    per_seed = {str(seed): run[metric] for seed, run in runs.items()}
    known = [value for value in per_seed.values() if value is not None]
    return {"mean": mean(known) if len(known) == len(per_seed) else None, "per_seed": per_seed}


def _mean_extraction(rates: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    return {
        family: {level: fmean(rate[family][level] for rate in rates) for level in levels}
        for family, levels in rates[0].items()
    }


def _compared(arm: Mapping[str, Any], base: Mapping[str, Any] | None) -> dict[str, Any]:
    """Ratio of perplexity and difference of extraction, paired by seed, then averaged."""
    if base is None:
        return {"perplexity_ratio": None, "extraction_difference": None}
    perplexity = _pairs(arm["perplexity"], base["perplexity"])
    ratio = geometric_mean(mine / other for mine, other in perplexity)
    if None in (arm["extraction_rate"]["mean"], base["extraction_rate"]["mean"]):
        return {"perplexity_ratio": ratio, "extraction_difference": None}
    extraction = _pairs(arm["extraction_rate"], base["extraction_rate"])
    difference = fmean(mine - other for mine, other in extraction)
    return {"perplexity_ratio": ratio, "extraction_difference": difference}


def _pairs(mine: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[float, float]]:
    return [(value, other["per_seed"][seed]) for seed, value in mine["per_seed"].items()]


def _arm_sentence(arm: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    name, rate = arm["arm"], arm["extraction_rate"]["mean"]
    seeds = f"mean of {_counted(len(arm['perplexity']['per_seed']), 'seed')}"
    if base is None or name == base["arm"]:
        extraction = "not measured" if rate is None else percent(rate)
        return (
            f"{name}: extraction {extraction}, perplexity {number(arm['perplexity']['mean'])} "
            f"({seeds})"
        )
    ratio = f"perplexity x{arm['perplexity_ratio']:.2f}"
    if rate is None:
        return f"{name}: extraction not measured, {ratio} (against {base['arm']}, {seeds})"
    return (
        f"{name}: extraction {percent(base['extraction_rate']['mean'])} -> {percent(rate)} "
        f"({base['arm']} -> {name}, {seeds}), {ratio}"
    )


def _counted(num: int, noun: str) -> str:
    return f"{num:,} {noun}" if num == 1 else f"{num:,} {noun}s"


def _summary(report: Mapping[str, Any]) -> list[str]:
    corpus, scores, quadrants = report["corpus"], report["scores"], report["quadrants"]
    curated = report["curated"]
    actions = curated["actions"]
    return [
        f"{_counted(corpus['num_samples'], 'sample')}: {corpus['num_train']:,} to train on, "
        f"{corpus['num_validation']:,} held out, {corpus['num_reserved']:,} reserved for canaries; "
        f"{corpus['num_exact_copies']:,} of them repeat another one exactly, "
        f"{corpus['num_left_out']:,} of the source are left out (ingest.max_samples). "
        f"{_counted(corpus['num_canary_rows'], 'canary row')} planted in the training split.",
        *filter(None, [sentence(corpus["unread"])]),
        f"Scored on {_counted(scores['num_seeds'], 'tracked run')} with "
        f"{scores['num_checkpoints']} {scores['mode']} checkpoints; "
        f"learned below {number(scores['epsilon'])} nats per token. "
        f"Hard: difficulty above {number(quadrants['difficulty_threshold'])} nats per token. "
        f"High: {quadrants['axis']} above {number(quadrants['memorization_threshold'])}."
        + _unstable(report),
        f"Arm {curated['arm']} makes the curated data set: of "
        f"{_counted(curated['num_samples'], 'ordinary training sample')} it removes "
        f"{actions['drop']:,}, down-weights {actions['weight']:,}, repeats {actions['copy']:,}, "
        f"masks spans of {actions['mask']:,} and leaves {actions['keep']:,} as they are.",
    ]


def _unstable(report: Mapping[str, Any]) -> str:
    """How many samples lie elsewhere on the map of a single run; nothing where there is one."""
    num_unstable, scores = report["quadrants"]["num_unstable"], report["scores"]
    if num_unstable is None:
        return ""
    return (
        f" {num_unstable:,} of {scores['num_samples']:,} samples lie in another quadrant in at "
        f"least one of the {scores['num_seeds']} runs."
    )


def _comparison(report: Mapping[str, Any]) -> str:
    """How the arms are compared, in one or two sentences."""
    num_seeds = len(report["arms"][0]["perplexity"]["per_seed"])
    against = (
        "No retrained arm keeps everything, so there is nothing to compare with."
        if report["baseline"] is None
        else f"Ratio and change: against arm {report['baseline']}, same seed, then averaged."
    )
    few = f" {_counted(num_seeds, 'seed')}: too few to say much about other seeds."
    return against + (few if num_seeds < ENOUGH_SEEDS else "")


def _warnings(report: Mapping[str, Any], tables: ReportTables) -> list[str]:
    return list(
        dict.fromkeys(
            [
                *tables.scores_summary["warnings"],
                *tables.quadrants_summary["warnings"],
                *tables.spans_summary["warnings"],
                *_data_warnings(report),
                *_arm_warnings(report),
                *audit_warnings(report),
            ]
        )
    )


def _data_warnings(report: Mapping[str, Any]) -> list[str]:
    warnings = [
        f"Quadrant {quadrant} is empty."
        for quadrant in QUADRANTS
        if not report["quadrants"]["counts"][quadrant]
    ]
    # With axis: auto and none validated, stage partition has said so.
    calibration, asked = report["calibration"], report["settings"]["partition"]["axis"]
    if calibration and not calibration["is_validated"] and asked != AUTO:
        warnings.append(calibration["verdict"])
    if num := report["corpus"]["num_quarantined"]:
        warnings.append(f"{_counted(num, 'bad row')} left out: data/quarantine.parquet says why.")
    if not report["corpus"]["num_canary_rows"]:
        warnings.append("No canary is planted, so extraction is not measured.")
    return warnings


def _arm_warnings(report: Mapping[str, Any]) -> list[str]:
    arms = report["arms"]
    num_seeds = len(arms[0]["perplexity"]["per_seed"])
    warnings = []
    if num_seeds < ENOUGH_SEEDS:
        warnings.append(f"{_counted(num_seeds, 'seed')}: too few to say much about other seeds.")
    if report["baseline"] is None:
        warnings.append("No retrained arm keeps everything, so there is nothing to compare with.")
    for arm in arms:
        if arm["arm"] != report["baseline"] and not arm["num_changed"]:
            warnings.append(f"Arm {arm['arm']} changes no sample: its differences are noise.")
        if floor := max((levels.get("0", 0.0) for levels in arm["extraction"].values()), default=0):
            warnings.append(
                f"Arm {arm['arm']}: up to {percent(floor)} of never-planted twins of a family are "
                "extracted, so that much is guessed and not remembered."
            )
    return warnings


def audit_warnings(report: Mapping[str, Any]) -> list[str]:
    """What makes the audits in ``report["evidence"]`` doubtful."""
    blind = [
        f"{name} alone tells members from held-out texts: membership attacks may see how the texts "
        "differ and not what a model remembers."
        for name in report["attacks"].get("blind_leaks", [])
    ]
    beyond = {
        arm: num
        for arm, values in report["evidence"].items()
        if (num := values["canaries"]["num_fits_beyond"])
    }
    if not beyond:
        return blind
    counts = ", ".join(f"{arm} {num}" for arm, num in beyond.items())
    return [
        *blind,
        f"Fitted exposures more than 15 bits beyond what the twins resolve ({counts}) count as 15: "
        "a fit says no more there.",
    ]


def _by_family_and_repeats(entry: tuple[str, Any]) -> tuple[str, int]:
    family, _, repeats = entry[0].rpartition("/")
    return family, int(repeats)


def _level_rows(evidence: Mapping[str, Any]) -> list[tuple[str, int, list[Mapping[str, Any]]]]:
    """Family, times planted, and what every arm measured there."""
    levels = [arm["canaries"]["levels"] for arm in evidence.values()]
    return [
        (first["family"], first["num_repeats"], [arm[place] for arm in levels])
        for place, first in enumerate(levels[0] if levels else [])
    ]


def _null_exposures(evidence: Mapping[str, Any]) -> dict[str, float]:
    """Mean exposure by family that a model which saw no canary would have."""
    first = next(iter(evidence.values()), None)
    levels = first["canaries"]["levels"] if first else []
    return {
        level["family"]: null_exposure(level["num_canaries"])
        for level in levels
        if level["num_repeats"] == 0
    }


def attack_of(report: Mapping[str, Any]) -> str:
    """The membership attack that all arms are judged by, or nothing without audits."""
    return str(_first_samples(report).get("attack", ""))


def _first_samples(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was measured on ordinary samples of the first arm: attack and blind scores are alike."""
    return next((arm["samples"] for arm in report["evidence"].values()), {})


def _data_uri(png: bytes | None) -> str | None:
    return None if png is None else f"data:image/png;base64,{b64encode(png).decode()}"
