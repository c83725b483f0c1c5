"""report.json -> tables on the terminal."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gdc.schema import QUADRANTS

TEXT_CHARS: Final = 120
# They tie two letters or emoji to each other, or apart, and move nothing else.
_JOINERS: Final = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}\N{SOFT HYPHEN}")
PLANNED: Final = {"drop": "dropped", "weight": "weighted", "copy": "copied"}


def arms_table(report: Mapping[str, Any]) -> Table:
    """One row per arm: what its plan changed and what its models do, on average and per seed."""
    table = Table(title="Arms", caption=report["comparison"], box=SIMPLE_HEAD)
    table.add_column("arm", no_wrap=True)
    table.add_column("plan")
    for name in ("perplexity", "ratio", "extraction", "change"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm in report["arms"]:
        table.add_row(
            arm["arm"],
            _listed({action: arm[f"num_{done}"] for action, done in PLANNED.items()}),
            _with_seeds(arm["perplexity"], _number),
            _ratio(arm, report["baseline"]),
            _with_seeds(arm["extraction_rate"], _percent),
            _change(arm, report["baseline"]),
        )
    return table


def markdown(report: Mapping[str, Any]) -> str:
    """Arms, repeats and claims as Markdown tables, every number with its 95 % interval."""
    arms = [
        "| arm | extraction | twins | change, points | against random, points | exposure, bits | "
        f"AUC of {next(iter(report['evidence'].values()))['samples']['attack']} | "
        "perplexity ratio | against random | of the rare tenth |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in [arm["arm"] for arm in report["arms"]]:  # JSON has them by name
        arm = report["evidence"][name]
        canaries = arm["canaries"]
        cells = [
            _ranged(canaries["planted"]["extracted"], _percent),
            _ranged(canaries["twins"]["extracted"], _percent),
            _ranged(arm["extraction_change"], _points),
            _ranged(arm["extraction_against_random"], _points),
            _ranged(canaries["planted"]["exposure"], _number),
            _ranged(arm["samples"]["auc"], _number),
            _ranged(arm["perplexity_ratio"], _number),
            _ranged(arm["perplexity_against_random"], _number),
            _ranged(arm["rare_perplexity_ratio"], _number),
        ]
        arms.append(f"| {name} | {' | '.join(cells)} |")
    claims = [
        "",
        "| the paper says | arm | at most | measured | verdict |",
        "|---|---|---|---|---|",
    ]
    claims += [
        f"| {c['claim']} | {c['arm']} | {_number(c['paper'])} | {_ranged(c['measured'], _number)} "
        f"| {c['verdict']} |"
        for c in report["claims"]
    ]
    return "\n".join([*arms, *_by_repeats(report), *(claims if report["claims"] else [])])


def _by_repeats(report: Mapping[str, Any]) -> list[str]:
    """What each arm's models give away of canaries planted so many times; [] where none are."""
    levels = {arm["arm"]: _planted_levels(report, arm["arm"]) for arm in report["arms"]}
    names = list(dict.fromkeys(name for of_arm in levels.values() for name in of_arm))
    if not names:
        return []
    rows = [
        f"| {arm} | {' | '.join(_ranged(of_arm.get(name), _percent) for name in names)} |"
        for arm, of_arm in levels.items()
    ]
    heading = f"| extraction of canaries planted | {' | '.join(names)} |"
    return ["", heading, f"|---|{'---|' * len(names)}", *rows]


def _planted_levels(report: Mapping[str, Any], arm: str) -> dict[str, Mapping[str, float]]:
    return {
        f"{level['family']}, {level['num_repeats']}": level["extracted"]
        for level in report["evidence"][arm]["canaries"]["levels"]
        if level["num_repeats"]
    }


def findings(report: Mapping[str, Any]) -> list[str]:
    """The plan that reaches the target, and which arms expose a next layer, where it is known."""
    advice, layers = report["recommendation"], report["onion"].get("arms", [])
    answers = ", ".join(f"{arm['arm']} {arm['answer']}" for arm in layers)
    return [
        *([advice["sentence"]] if advice else []),
        *([f"After the removal: {answers}."] if answers else []),
    ]


def quadrants_table(report: Mapping[str, Any]) -> Table:
    """One row per quadrant: its definition, its samples, what the curated arm does to them."""
    curated = report["curated"]
    table = Table(
        title="Quadrants",
        caption=f"Samples count planted canaries too; those of arm {curated['arm']} do not.",
        box=SIMPLE_HEAD,
    )
    table.add_column("quadrant", no_wrap=True)
    table.add_column("definition")
    table.add_column("samples", justify="right", no_wrap=True)
    table.add_column(f"arm {curated['arm']}")
    for quadrant in QUADRANTS:
        table.add_row(
            quadrant,
            report["definitions"][quadrant],
            f"{report['quadrants']['counts'][quadrant]:,}",
            _listed(curated["by_quadrant"][quadrant]),
        )
    return table


def hotspots_table(report: Mapping[str, Any], limit: int) -> Table:
    """The first ``limit`` hotspots: numbers, cause, id, text or source, duplicates, remedies."""
    hotspots: Sequence[Mapping[str, Any]] = report["hotspots"][:limit]
    title = f"Hotspots ({len(hotspots)} of {len(report['hotspots'])} listed)"
    table = Table(title=title, caption=_remedies(report), box=SIMPLE_HEAD, caption_justify="left")
    table.add_column("quadrant, cause", no_wrap=True)
    for name in ("difficulty", report["quadrants"]["axis"], "copies"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("sample", overflow="fold")
    for row in hotspots:
        shown = row["source"] if row["text"] is None else row["text"]
        table.add_row(
            f"{row['quadrant']}\n{row['cause']}",
            _number(row["difficulty"]),
            _number(row["score"]),
            f"{row['num_copies']:,}",
            Text.assemble(
                (row["sample_id"], "bold"), "\n", plain(shown), _duplicates(row["duplicate_ids"])
            ),
        )
    return table


def render(table: Table) -> None:
    """Print a table on standard output."""
    Console().print(table)


def plain(text: str) -> str:
    """The start of a text on one line, without control characters, which a terminal would obey."""
    line = " ".join(text.split())
    # One more at either end than is shown, as a joiner is known by its neighbours.
    start = f" {line[: TEXT_CHARS + 1]} "
    shown = "".join(
        c if c.isprintable() or _joins(before, c, after) else "\N{REPLACEMENT CHARACTER}"
        for before, c, after in zip(start, start[1:], start[2:], strict=False)
    )
    return shown if len(shown) <= TEXT_CHARS else shown[: TEXT_CHARS - 1] + "…"


def _joins(before: str, character: str, after: str) -> bool:
    """Whether a control character is one that letters, their marks or emoji are written with."""
    return character in _JOINERS and all(
        unicodedata.category(c)[0] in "LMS" for c in before + after
    )


def _remedies(report: Mapping[str, Any]) -> str:
    return "\n".join(
        f"{row['cause']} ({row['num_hotspots']:,}): {row['remedy']}" for row in report["causes"]
    )


def _duplicates(duplicate_ids: Sequence[str]) -> str:
    return "".join(f"\nduplicate {sample_id}" for sample_id in duplicate_ids)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {num:,}" for name, num in counts.items() if num) or "-"


def _with_seeds(metric: Mapping[str, Any], form: Callable[[float | None], str]) -> str:
    """The mean, and below it the seeds when there is more than one."""
    seeds = [form(value) for value in metric["per_seed"].values()]
    mean = form(metric["mean"])
    return mean if metric["mean"] is None or len(seeds) == 1 else "\n".join([mean, *seeds])


def _ratio(arm: Mapping[str, Any], baseline: str | None) -> str:
    ratio = arm["perplexity_ratio"]
    return "-" if ratio is None or arm["arm"] == baseline else f"x{ratio:.3f}"


def _change(arm: Mapping[str, Any], baseline: str | None) -> str:
    change = arm["extraction_difference"]
    return "-" if change is None or arm["arm"] == baseline else f"{100 * change:+.1f} pt"


def _ranged(value: Mapping[str, float] | None, form: Callable[[float | None], str]) -> str:
    """A value and its interval on one line."""
    if value is None:
        return "-"
    return f"{form(value['value'])} [{form(value['low'])}, {form(value['high'])}]"


def _points(difference: float | None) -> str:
    return "-" if difference is None else f"{100 * difference:+.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"
