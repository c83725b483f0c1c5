"""The report -> tables on the terminal."""

import unicodedata
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gdc.comparison.results import ArmAudits, ArmResult, OverSeeds
from gdc.report.map_report import MapReport
from gdc.report.model import AuditReport, Report
from gdc.report.page import attack_of
from gdc.schema import QUADRANTS
from gdc.statistics import markdown as markdown_tables
from gdc.statistics.bootstrap import Measured
from gdc.statistics.wording import NOTHING, Form, interval, number, percent, points

TEXT_CHARS: Final = 120
# They tie two letters or emoji to each other, or apart, and move nothing else.
_JOINERS: Final = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}\N{SOFT HYPHEN}")


def arms_table(report: Report) -> Table:
    """One row per arm: what its plan changed and what its models do, on average and per seed."""
    table = Table(title="Arms", caption=report.comparison, box=SIMPLE_HEAD)
    table.add_column("arm", no_wrap=True)
    table.add_column("plan")
    for name in ("perplexity", "ratio", "extraction", "change"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm in report.arms:
        plan = {"drop": arm.num_dropped, "weight": arm.num_weighted, "copy": arm.num_copied}
        table.add_row(
            arm.arm,
            _listed(plan),
            _with_seeds(arm.perplexity, number),
            _ratio(arm, report.baseline),
            _with_seeds(arm.extraction_rate, percent),
            _change(arm, report.baseline),
        )
    return table


def markdown(report: Report) -> str:
    """Arms, repeats and claims as Markdown tables, every number with its 95 % interval."""
    tables = [_arms_markdown(report), _repeats_markdown(report), _claims_markdown(report)]
    return "\n".join(table for table in tables if table).rstrip("\n")


def _arms_markdown(report: Report) -> str:
    heading = [
        "arm", "extraction", "twins", "change, points", "against random, points",
        "exposure, bits", f"AUC of {attack_of(report)}", "perplexity ratio", "against random",
        "of the rare tenth",
    ]  # fmt: skip
    return markdown_tables.table(
        heading,
        [[_name(report, name), *_arm_cells(audits)] for name, audits in _audited(report)],
    )


def _audited(report: Report) -> list[tuple[str, ArmAudits]]:
    """The audits in the order of the arms; JSON has them by name."""
    names = [arm.arm for arm in report.arms if arm.arm in report.arm_audits]
    return [(name, report.arm_audits[name]) for name in names]


def _name(report: Report, name: str) -> str:
    """The arm, with the epsilon that its training gives."""
    epsilon = next(arm.privacy_epsilon for arm in report.arms if arm.arm == name)
    return name if epsilon is None else f"{name}, epsilon {number(epsilon)}"


def _arm_cells(arm: ArmAudits) -> list[str]:
    planted, twins = arm.canaries.planted, arm.canaries.twins
    return [
        interval(planted.extracted, percent),
        interval(twins.extracted, percent),
        interval(arm.extraction_change, points),
        interval(arm.extraction_against_random, points),
        interval(planted.exposure, number),
        interval(arm.samples.auc, number),
        interval(arm.perplexity_ratio, number),
        interval(arm.perplexity_against_random, number),
        interval(arm.rare_perplexity_ratio, number),
    ]


def _repeats_markdown(report: Report) -> str:
    """Extraction by arm and by times planted; empty where no canary is planted."""
    levels = {name: _planted_levels(audits) for name, audits in _audited(report)}
    names = list(dict.fromkeys(name for by_level in levels.values() for name in by_level))
    if not names:
        return ""
    rows = [
        [arm, *(interval(by_level.get(name), percent) for name in names)]
        for arm, by_level in levels.items()
    ]
    return markdown_tables.table(["extraction of canaries planted", *names], rows)


def _planted_levels(arm: ArmAudits) -> dict[str, Measured | None]:
    return {
        f"{level.family}, {level.num_repeats}": level.extracted
        for level in arm.canaries.levels
        if level.num_repeats
    }


def _claims_markdown(report: Report) -> str:
    """What the paper says beside what is measured; empty where no arm is one of the paper's."""
    if not report.paper_claims:
        return ""
    rows = [
        [c.claim, c.arm, number(c.paper), interval(c.measured, number), c.verdict]
        for c in report.paper_claims
    ]
    return markdown_tables.table(["the paper says", "arm", "at most", "measured", "verdict"], rows)


def audit_findings(report: AuditReport) -> list[str]:
    """What an audit found, one sentence for each kind of leak that was measured."""
    audits = report.arm_audits[report.queried]
    samples, planted = audits.samples, audits.canaries.planted
    found = (
        ("planted secrets extracted", planted.extracted, percent),
        (
            "second halves of training texts extracted",
            samples.members.extracted,
            percent,
        ),
        (
            "second halves of held-out texts extracted",
            samples.heldout.extracted,
            percent,
        ),
        (f"AUC of membership attack {samples.attack}", samples.auc, number),
    )
    return [f"{name}: {interval(value, form)}" for name, value, form in found if value is not None]


def findings(report: Report) -> list[str]:
    """The plan that reaches the target, and which arms expose a next layer, where it is known."""
    advice = report.recommendation
    layers = report.next_layer.arms if report.next_layer else []
    answers = ", ".join(f"{arm.arm} {arm.answer}" for arm in layers)
    return [
        *([advice.sentence] if advice else []),
        *([f"After the removal: {answers}."] if answers else []),
    ]


def quadrants_table(report: Report) -> Table:
    """One row per quadrant: its definition, its samples, what the curated arm does to them."""
    curated = report.curated
    table = Table(
        title="Quadrants",
        caption=f"Samples count planted canaries too; those of arm {curated.arm} do not.",
        box=SIMPLE_HEAD,
    )
    table.add_column("quadrant", no_wrap=True)
    table.add_column("definition")
    table.add_column("samples", justify="right", no_wrap=True)
    table.add_column(f"arm {curated.arm}")
    for quadrant in QUADRANTS:
        table.add_row(
            quadrant,
            report.definitions[quadrant],
            f"{report.quadrants.counts[quadrant]:,}",
            _listed(asdict(curated.by_quadrant[quadrant])),
        )
    return table


def hotspots_table(report: Report, limit: int) -> Table:
    """The first ``limit`` hotspots: numbers, cause, id, text or source, duplicates, remedies."""
    hotspots = report.hotspots[:limit]
    title = f"Hotspots ({len(hotspots)} of {len(report.hotspots)} listed)"
    table = Table(title=title, caption=_remedies(report), box=SIMPLE_HEAD, caption_justify="left")
    table.add_column("quadrant, cause", no_wrap=True)
    for name in ("difficulty", report.quadrants.axis, "copies"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("sample", overflow="fold")
    for row in hotspots:
        shown = row.source if row.text is None else row.text
        duplicates = "".join(f"\nduplicate {sample_id}" for sample_id in row.duplicate_ids)
        table.add_row(
            f"{row.quadrant}\n{row.cause}",
            number(row.difficulty),
            number(row.score),
            f"{row.num_copies:,}",
            Text.assemble((row.sample_id, "bold"), "\n", plain(shown), duplicates),
        )
    return table


def highest_table(report: MapReport, limit: int) -> Table:
    """The samples that are highest on the axis of a map: rank, id, file and line, and text."""
    rows = report.highest[:limit]
    title = f"Highest on {report.quadrants.axis} ({len(rows):,} listed)"
    table = Table(title=title, box=SIMPLE_HEAD)
    for name in ("rank", report.quadrants.axis):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("quadrant, cause", no_wrap=True)
    table.add_column("sample", overflow="fold")
    for rank, row in enumerate(rows, start=1):
        sample = Text.assemble((row.sample_id, "bold"), f"  {row.source}")
        shown = "" if row.text is None else f"\n{plain(row.text)}"
        table.add_row(
            str(rank),
            number(row.score),
            f"{row.quadrant}\n{row.cause}",
            Text.assemble(sample, shown),
        )
    return table


def render(table: Table) -> None:
    """Print a table on standard output; what looks like markup in it is text."""
    Console(markup=False).print(table)


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


def _remedies(report: Report) -> str:
    return "\n".join(f"{row.cause} ({row.num_hotspots:,}): {row.remedy}" for row in report.causes)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {num:,}" for name, num in counts.items() if num) or NOTHING


def _with_seeds(metric: OverSeeds, form: Form) -> str:
    """The mean, and below it the seeds when there is more than one."""
    seeds = [form(value) for value in metric.per_seed.values()]
    mean = form(metric.mean)
    return mean if metric.mean is None or len(seeds) == 1 else "\n".join([mean, *seeds])


def _ratio(arm: ArmResult, baseline: str | None) -> str:
    ratio = arm.perplexity_ratio
    return NOTHING if ratio is None or arm.arm == baseline else f"x{ratio:.3f}"


def _change(arm: ArmResult, baseline: str | None) -> str:
    change = arm.extraction_difference
    return NOTHING if change is None or arm.arm == baseline else f"{points(change)} pt"
