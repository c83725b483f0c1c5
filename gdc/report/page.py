"""A report and its pictures -> one HTML page that loads nothing."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gdc.audit.discoverability import NUM_SAMPLES
from gdc.audit.membership_table import MIN_SUFFIX_TOKENS
from gdc.comparison.results import CanaryLevel, ModelLeakage
from gdc.report.model import AuditReport, Report, TextSpan, to_json
from gdc.report.plots import COLOURS
from gdc.report.samples import ACTIONS
from gdc.schema import QUADRANTS
from gdc.statistics import wording
from gdc.statistics.bootstrap import Estimate
from gdc.statistics.exposure import null_exposure

if TYPE_CHECKING:
    from gdc.report.map_report import MapReport

_FORMS: Final[Mapping[str, wording.Form]] = {
    "percent": wording.percent,
    "number": wording.number,
    "points": wording.points,
}


@dataclass(frozen=True)
class Pictures:
    """What is drawn: the HTML of ``plots.interactive_map``, and PNG files or None."""

    map_html: str
    roc: bytes | None = None
    groups: bytes | None = None
    front: bytes | None = None


def render_html(report: Report, pictures: Pictures) -> str:
    """The report of a run as a page; pictures are inserted as they are."""
    return _render(
        "report.html",
        report,
        pictures,
        map_html=pictures.map_html,
        quadrants=QUADRANTS,
        actions=ACTIONS,
        canary_rows=sorted(report.canaries_by_quadrant.items(), key=_by_family_and_repeats),
    )


def render_audit(report: AuditReport, roc: bytes | None) -> str:
    """The audit of one model as a page; no ``roc`` (PNG) where no held-out text was given."""
    return _render("audit.html", report, Pictures("", roc))


def render_map(report: "MapReport", map_html: str) -> str:
    """The map of one trace with its texts as a page; ``map_html`` as in ``Pictures``."""
    return (
        _environment()
        .get_template("map_report.html")
        .render(
            report=report,
            settings=report.settings.model_dump(mode="json"),
            colours=COLOURS,
            map_html=map_html,
            quadrants=QUADRANTS,
            canary_rows=sorted(report.canaries_by_quadrant.items(), key=_by_family_and_repeats),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gdc.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "number": wording.number,
        "interval": interval,
        "underlined": underlined,
    }
    return environment


def _render(template: str, report: Report | AuditReport, pictures: Pictures, **more: object) -> str:
    return (
        _environment()
        .get_template(template)
        .render(
            report=report,
            settings=to_json(report)["settings"],
            pictures={
                "roc": _data_uri(pictures.roc),
                "groups": _data_uri(pictures.groups),
                "front": _data_uri(pictures.front),
            },
            colours=COLOURS,
            level_rows=_level_rows(report.arm_audits),
            sample_counts=[str(n) for n in NUM_SAMPLES],
            attack=attack_of(report),
            nulls=_null_exposures(report.arm_audits),
            min_suffix_tokens=MIN_SUFFIX_TOKENS,
            **more,
        )
    )


def interval(value: Estimate | None, form: Literal["percent", "number", "points"]) -> Markup:
    """A value and, in small print below it, the ends of its interval; or a dash."""
    if value is None:
        return Markup("-")
    shown = _FORMS[form]
    return Markup('{} <span class="soft">{}</span>').format(
        shown(value.value), wording.ends(value, shown)
    )


def underlined(text: str, spans: Sequence[TextSpan], end: int) -> Markup:
    """The first ``end`` characters of a text, escaped, with its spans underlined."""
    shown, index = Markup(), 0
    for span in spans:
        if span.start < end:
            stop = min(span.end, end)
            shown += text[index : span.start] + Markup("<u>{}</u>").format(text[span.start : stop])
            index = stop
    return shown + text[index:end]


def attack_of(report: Report | AuditReport) -> str:
    """The membership attack that all arms are judged by, or nothing without audits."""
    return next((audits.samples.attack for audits in report.arm_audits.values()), "")


def _by_family_and_repeats(entry: tuple[str, Mapping[str, int]]) -> tuple[str, int]:
    family, _, repeats = entry[0].rpartition("/")
    return family, int(repeats)


def _level_rows(
    arm_audits: Mapping[str, ModelLeakage],
) -> list[tuple[str, int, list[CanaryLevel]]]:
    """Family, times planted, and what every arm measured there."""
    levels = [audits.canaries.levels for audits in arm_audits.values()]
    return [
        (first.family, first.num_repeats, [arm[index] for arm in levels])
        for index, first in enumerate(levels[0] if levels else [])
    ]


def _null_exposures(arm_audits: Mapping[str, ModelLeakage]) -> dict[str, float]:
    """Mean exposure by family that a model which saw no canary would have."""
    first = next(iter(arm_audits.values()), None)
    levels = first.canaries.levels if first else []
    return {
        level.family: null_exposure(level.num_canaries)
        for level in levels
        if level.num_repeats == 0
    }


def _data_uri(png: bytes | None) -> str | None:
    return None if png is None else f"data:image/png;base64,{b64encode(png).decode()}"
