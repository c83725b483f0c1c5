"""Commands for models that are trained elsewhere: from losses to a plan and the data by it."""
# `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gdc.cli.application import Json, TextField, app, print_json
from gdc.errors import ConfigError
from gdc.workspace import project

if TYPE_CHECKING:
    from gdc.commands.plan import PlanSummary
    from gdc.mapping.quadrants import QuadrantsSummary
    from gdc.report.map_report import MapReport

MAP: Final = Path("reports/map")
PROFILE: Final = Path("reports/profile")

Corpus = Annotated[
    str | None, typer.Option(help="The texts that it trained on; with them, a page is made.")
]
Heldout = Annotated[str | None, typer.Option(help="The texts of the held-out losses in the trace.")]
Planted = Annotated[Path | None, typer.Option(help="What `gdc plant` put into the training file.")]
TraceIds = Annotated[
    str | None,
    typer.Option(help="The field with the ids of the trace; else id or row numbers."),
]
TrainedModel = Annotated[
    str | None, typer.Option(help="The trained model: it says which canaries are memorized.")
]
SpanTokenizer = Annotated[str | None, typer.Option(help="Folder or Hub name, for memorized spans.")]
Axis = Annotated[
    str | None, typer.Option(help="Score of the memorization axis; auto: as canaries say.")
]
FurtherScores = Annotated[
    list[str] | None, typer.Option(help="A further score of the losses; may be repeated.")
]
RayAddress = Annotated[
    str | None, typer.Option(help="Map shards on a Ray cluster: its address, auto or local.")
]
Arm = Annotated[str | None, typer.Argument(help="An arm; else the one that made the curated data.")]
MaxExtraction = Annotated[
    float | None,
    typer.Option(help="Share of the planted secrets that may be extracted, 0 to 1."),
]
MaxPerplexity = Annotated[
    float | None,
    typer.Option(help="Percent that perplexity may rise over the arm that keeps all."),
]
MapFolder = Annotated[
    Path | None, typer.Option("--map", help="What `gdc map` wrote: plan it by --rule.")
]
Rule = Annotated[
    str | None,
    typer.Option(
        help="top-fraction, random, quadrants, weight-by-score, dedup, cap-copies, mask-spans, "
        "goldfish, substring-dedup, order, listed, shuffled or none."
    ),
]
OrderingScore = Annotated[
    str | None, typer.Option(help="The score that orders samples; else the axis of the map.")
]
Weight = Annotated[
    float | None, typer.Option(help="Of the samples that are changed; 0, unless given, drops.")
]
ShuffledPlan = Annotated[
    Path | None, typer.Option(help="The plan whose actions `shuffled` gives to others.")
]
Fraction = Annotated[float | None, typer.Option(help="Share of the samples that are changed.")]
MaxCopies = Annotated[int | None, typer.Option(help="Kept of a group of near copies.")]
PlanSeed = Annotated[int | None, typer.Option(min=0, help="Of random, shuffled and goldfish.")]
Every = Annotated[int | None, typer.Option(help="Of goldfish: one token of so many has no loss.")]
Context = Annotated[int | None, typer.Option(help="Of goldfish: tokens before it that are hashed.")]
MinTokens = Annotated[
    int | None, typer.Option(help="Of substring-dedup: tokens of a stretch at least.")
]
Listed = Annotated[
    Path | None,
    typer.Option(help="Of rule listed: JSON lines with sample_id and action (keep, drop or mask)."),
]
PlanTokenizer = Annotated[
    str | None, typer.Option(help="Folder or Hub name, for rules that mask tokens.")
]
PlanFile = Annotated[
    Path | None, typer.Option(help="File of the plan; else plan.parquet in the map's folder.")
]


@app.command("import")
def import_trace(  # noqa: PLR0913, PLR0917 - one argument for each option
    source: Annotated[
        Path, typer.Argument(help="Folder with dynamics_epoch_*.jsonl, or a table: id, step, loss.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the trace, not there yet.")],
    id_column: Annotated[str | None, typer.Option(help="Of a table; else a usual name.")] = None,
    step_column: Annotated[str | None, typer.Option(help="Of a table; else a usual name.")] = None,
    loss_column: Annotated[str | None, typer.Option(help="Of a table; else a usual name.")] = None,
    mode: Annotated[str, typer.Option(help="How they were computed: online or probe.")] = "online",
) -> None:
    """Turn losses that another tool has recorded into a trace for `gdc map`."""
    from gdc.commands import import_trace

    if mode not in {"online", "probe"}:
        raise ConfigError(f"--mode: expected online or probe, got {mode!r}. Name one of them.")
    columns = import_trace.Columns(id_column, step_column, loss_column)
    num_samples, num_checkpoints = import_trace.import_trace(
        source, out, columns, "online" if mode == "online" else "probe"
    )
    typer.echo(f"{num_samples:,} samples, {num_checkpoints:,} checkpoints")
    typer.echo(f"trace         {out.resolve()}")


@app.command("map")
def map_trace(  # noqa: PLR0913, PLR0917 - one argument for each option
    trace: Annotated[Path, typer.Argument(help="A trace folder: losses of a run of yours.")],
    out: Annotated[Path, typer.Option(help="Folder of the tables.")] = MAP,
    corpus: Corpus = None,
    heldout: Heldout = None,
    canaries: Planted = None,
    text_field: TextField = "text",
    id_field: TraceIds = None,
    model: TrainedModel = None,
    tokenizer: SpanTokenizer = None,
    axis: Axis = None,
    limit: Annotated[int, typer.Option(min=1, help="Samples listed.")] = 30,
    mode: Annotated[str | None, typer.Option(help="Checkpoints read: online or probe.")] = None,
    score: FurtherScores = None,
    verify: Annotated[bool, typer.Option(help="Compare its files with their checksums.")] = False,
    ray: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Score and map a trace, without the pipeline, by the rules of params.yaml.

    With --corpus: which samples are memorized, with texts, causes and a page. Without, the trace
    may be of any size.
    """
    from gdc.commands import map
    from gdc.workspace import traces

    if verify:
        told = f"{traces.verify(trace)} files are as they were written"
        typer.echo(told, err=as_json)
    scores = tuple(score or ())
    if corpus is None:
        given = {"--heldout": heldout, "--canaries": canaries, "--id-field": id_field}
        map.require_none({**given, "--model": model, "--tokenizer": tokenizer})
        _show_map(map.run(map.Request(trace, out, axis, mode, scores), ray), out, as_json=as_json)
        return
    from gdc.commands import map_corpus

    request = map_corpus.Request(
        trace=trace, corpus=corpus, heldout=heldout, canaries=canaries, text_field=text_field,
        id_field=id_field, axis=axis or "auto", mode=mode, scores=scores, model=model,
        tokenizer=tokenizer,
    )  # fmt: skip
    _show_corpus_map(map_corpus.run(request, out, limit, ray), out, limit, as_json=as_json)


@app.command()
def profile(
    trace: Annotated[
        Path | None, typer.Argument(help="A trace folder; else that of the run in this folder.")
    ] = None,
    map_folder: Annotated[
        Path | None, typer.Option("--map", help="What `gdc map` wrote of it; else that of the run.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the numbers and the picture.")] = PROFILE,
    as_json: Json = False,
) -> None:
    """Memorization over time: how far training on a sample lowered its own loss, and how long.

    Compares samples with those not yet trained on, so one pass over the data is enough.
    """
    from gdc.commands import map, profile
    from gdc.workspace import files, paths, tables

    quadrants = None if map_folder is None else map.table_of(map_folder)
    if trace is None:
        trace = paths.trace_path(files.load_params().train.seeds[0])
        usual = tables.TABLES["quadrants"][0]
        quadrants = quadrants or (usual if usual.exists() else None)
    found = profile.run(trace, quadrants, out)
    if as_json:
        print_json(profile.to_json(found))
        return
    for line in [*profile.told(found), f"picture       {(out / 'profile.png').resolve()}"]:
        typer.echo(line)


def _show_map(summary: "QuadrantsSummary", out: Path, *, as_json: bool) -> None:
    from gdc.commands.map import table_of

    if as_json:
        print_json(summary.to_json())
        return
    for name, num_samples in summary.counts.items():
        typer.echo(f"{name:<18} {num_samples:,}")
    for warning in summary.warnings:
        typer.echo(warning)
    typer.echo(f"scores        {table_of(out).resolve()}")


def _show_corpus_map(report: "MapReport", out: Path, limit: int, *, as_json: bool) -> None:
    from gdc.report import console

    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    for sentence in [*report.summary, *report.warnings]:
        typer.echo(sentence)
    console.render(console.highest_table(report, limit))
    typer.echo(f"report        {(out / 'report.html').resolve()}")
    typer.echo(f"samples       {(out / 'samples.parquet').resolve()}")
    folder = shlex.quote(str(out))
    typer.echo(f"next          gdc plan --map {folder} --rule top-fraction --fraction 0.05")


@app.command()
def plan(  # noqa: PLR0913, PLR0917 - one argument for each option
    arm: Arm = None,
    max_extraction: MaxExtraction = None,
    max_perplexity: MaxPerplexity = None,
    map_folder: MapFolder = None,
    rule: Rule = None,
    score: OrderingScore = None,
    fraction: Fraction = None,
    weight: Weight = None,
    max_copies: MaxCopies = None,
    of: ShuffledPlan = None,
    seed: PlanSeed = None,
    every: Every = None,
    context: Context = None,
    min_tokens: MinTokens = None,
    file: Listed = None,
    tokenizer: PlanTokenizer = None,
    out: PlanFile = None,
    as_json: Json = False,
) -> None:
    """Plan what to do with each sample of a map; or print what an arm of the last run does.

    With --max-extraction and --max-perplexity: the plan of the last run that reaches both with the
    fewest samples changed.
    """
    if map_folder is not None:
        from gdc.commands import plan_map

        asked = plan_map.Request(
            rule or "", score, fraction, weight, max_copies, of, seed, every, context, min_tokens,
            file, tokenizer,
        )  # fmt: skip
        path = out or map_folder / "plan.parquet"
        _show_summary(plan_map.plan_map(asked, map_folder, path), path, as_json=as_json)
        return
    if rule is not None or out is not None:
        raise ConfigError("gdc plan: --rule and --out are of a map: name its folder with --map.")
    if max_extraction is None and max_perplexity is None:
        _show_plan(arm, as_json=as_json)
        return
    if arm is not None or max_extraction is None or max_perplexity is None:
        raise ConfigError(
            "gdc plan: expected an arm, or both --max-extraction and --max-perplexity, got other "
            "arguments. Give one or the other."
        )
    _recommend(max_extraction, max_perplexity, as_json=as_json)


def _show_summary(summary: "PlanSummary", path: Path | None, *, as_json: bool) -> None:
    from gdc.commands import plan
    from gdc.report import console

    if as_json:
        print_json(asdict(summary))
        return
    console.render(plan.plan_table(summary))
    if path is not None:
        typer.echo(f"plan          {path.resolve()}")


def _show_plan(arm: str | None, *, as_json: bool) -> None:
    from gdc.commands import plan

    _show_summary(plan.summarize_plan(project.load_params(), arm), None, as_json=as_json)


def _recommend(max_extraction: float, max_perplexity: float, *, as_json: bool) -> None:
    from gdc.comparison import recommendation
    from gdc.report.model import read_report

    target = recommendation.target_of(max_extraction, max_perplexity)
    found = recommendation.recommend(read_report().pareto_front, target)
    if as_json:
        print_json(asdict(found) | {"target": target.model_dump()})
    else:
        typer.echo(found.sentence)


@app.command()
def plant(  # noqa: PLR0913, PLR0917 - one argument for each option
    corpus: Annotated[Path, typer.Argument(help="Your training file: JSON lines.")],
    out: Annotated[Path, typer.Option(help="The training file with canaries.")],
    canaries: Annotated[
        Path, typer.Option(help="The Parquet file of the canaries and their twins.")
    ],
    families: Annotated[str, typer.Option(help="Of digits,words.")] = "digits,words",
    repeats: Annotated[str, typer.Option(help="Times that a canary is planted.")] = "1,4,16",
    per_level: Annotated[int, typer.Option(min=1, help="Canaries of each level and family.")] = 5,
    num_twins: Annotated[int, typer.Option(min=0, help="Of each family, never planted.")] = 100,
    text_field: TextField = "text",
    id_field: Annotated[
        str | None, typer.Option(help="The field with the ids; else sample_id or id.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all choices.")] = 0,
    as_json: Json = False,
) -> None:
    """Put canaries into a training file, for a model that is trained elsewhere.

    The lines of the file stay as they are; the canaries follow them. Afterwards `gdc audit
    --canaries` says which the model knows, and `gdc map --canaries` which score finds them.
    """
    from gdc.commands import plant as planting

    done = planting.plant(
        planting.Request(
            corpus, out, canaries, planting.names_of(families, "--families"),
            planting.numbers_of(repeats, "--repeats"), per_level, num_twins, text_field, id_field,
            seed,
        )
    )  # fmt: skip
    if as_json:
        print_json(planting.as_plain(done))
        return
    for sentence in planting.sentences(done):
        typer.echo(sentence)


@app.command()
def export(  # noqa: PLR0913, PLR0917 - one argument for each option
    plan: Annotated[Path, typer.Argument(help="What `gdc plan` wrote.")],
    corpus: Annotated[Path, typer.Argument(help="The mapped file: JSON lines, Parquet or .bin.")],
    out: Annotated[Path, typer.Option(help="The file to train on.")],
    removed: Annotated[
        Path | None, typer.Option(help="The file of what is left out; else beside --out.")
    ] = None,
    canaries: Annotated[
        Path | None, typer.Option(help="What `gdc plant` put into the file: left out.")
    ] = None,
    text_field: TextField = "text",
    id_field: Annotated[
        str | None, typer.Option(help="The field with the ids; else sample_id, id or row numbers.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Of the names of the fields that are added.")] = "",
    repeat: Annotated[
        bool, typer.Option("--repeat", help="Write a row as often as it is to be trained on.")
    ] = False,
    separator: Annotated[
        int | None, typer.Option(help="The id that parts documents in nanoGPT's .bin.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write your own rows by a plan: with all their fields, and what to do with each.

    Added are weight, copies, masked (spans of characters) and reason. What is removed goes to a
    file of its own, with the kept row that it repeats.
    """
    from gdc.commands import export as exporting

    done = exporting.export(
        exporting.Request(
            plan, corpus, out, removed, canaries, text_field, id_field, prefix, repeat, separator
        )
    )
    if as_json:
        print_json(exporting.as_plain(done))
        return
    for sentence in exporting.sentences(done):
        typer.echo(sentence)
