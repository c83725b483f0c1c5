"""A report, its samples and pictures -> one HTML page that loads nothing.

Whatever a sample says is escaped, and the page runs the scripts alone whose hashes it names.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from typing import TYPE_CHECKING, Final, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from gdc.audit.discoverability import NUM_SAMPLES
from gdc.audit.membership_table import MIN_SUFFIX_TOKENS
from gdc.audit.predictability import NUM_PREFIXES
from gdc.comparison import generalization
from gdc.comparison.results import CanaryLevel, ModelLeakage
from gdc.mapping.causes import REMEDIES
from gdc.report.model import AuditReport, Report, to_json
from gdc.report.page_data import PageData, to_script
from gdc.report.plots import COLOURS
from gdc.report.samples import DATA_ACTIONS
from gdc.report.sentences import tell_profile
from gdc.report.verdict import verdict
from gdc.report.words import explained, glossary_with, word
from gdc.schema import QUADRANTS
from gdc.statistics import wording
from gdc.statistics.bootstrap import Estimate
from gdc.statistics.exposure import null_exposure

if TYPE_CHECKING:
    from gdc.report.map_report import MapReport

Form = Literal["percent", "number", "points", "decimals"]
_FORMS: Final[Mapping[str, wording.Form]] = {
    "percent": wording.percent,
    "number": wording.number,
    "points": wording.points,
    "decimals": wording.decimals,
}


@dataclass(frozen=True)
class Pictures:
    """What is drawn: PNG files or None."""

    roc: bytes | None = None
    groups: bytes | None = None
    front: bytes | None = None


def render_html(report: Report, pictures: Pictures, data: PageData) -> str:
    """The report of a run as a page, with its map and the table of its texts."""
    return _render(
        "report.html",
        report,
        pictures,
        _map_scripts(),
        may_make_code=data.is_large,
        verdict=verdict(report).lines,
        glossary=glossary_with(report.quadrants.axis),
        profile_verdict=tell_profile(report.profiles) if report.profiles else None,
        gap_verdict=generalization.verdict(report.arm_audits),
        actions=DATA_ACTIONS,
        **_map_of(data, report.canaries_by_quadrant),
    )


def render_audit(report: AuditReport, roc: bytes | None) -> str:
    """The audit of one model as a page; no ``roc`` (PNG) where no held-out text was given."""
    return _render("audit.html", report, Pictures(roc), [script("tables.js")], may_make_code=False)


def render_map(report: "MapReport", data: PageData) -> str:
    """The map of one trace with its texts as a page."""
    return _render_with_scripts(
        "map_report.html",
        _map_scripts(),
        may_make_code=data.is_large,
        report=report,
        settings=report.settings.model_dump(mode="json"),
        colours=COLOURS,
        **_map_of(data, report.canaries_by_quadrant),
    )


def _map_scripts() -> list[Markup]:
    return [get_plotlyjs(), script("explorer.js"), script("tables.js")]


def _map_of(data: PageData, canaries: Mapping[str, Mapping[str, int]]) -> dict[str, object]:
    """What the template of the map reads, by the names it has there."""
    return {
        "samples_json": to_script(data.content),
        "num_texts": data.num_by_quadrant,
        "causes": data.num_by_cause,
        "remedies": REMEDIES,
        "quadrants": QUADRANTS,
        "canary_rows": sorted(canaries.items(), key=_by_family_and_repeats),
    }


def render_texts(words: Markup, runs: str) -> str:
    """The page of all texts, which asks for them where it came from.

    Args:
        words: What ``to_script`` makes of ``page_data.page_words`` and of the number of texts.
        runs: Where the pages of the runs stand, below the root.
    """
    scripts = [get_plotlyjs(), script("explorer.js"), script("tables.js")]
    return _render_with_scripts(
        "texts.html", scripts, may_make_code=False, connects=True, samples_json=words, runs=runs
    )


def script(name: str) -> str:
    """A script beside the templates."""
    return (resources.files("gdc.report") / "templates" / name).read_text(encoding="utf-8")


def script_sources(scripts: Sequence[str], *, may_make_code: bool) -> str:
    """The sources of scripts of a page with these: their hashes, so that no other one runs."""
    digests = (b64encode(sha256(text.encode()).digest()).decode() for text in scripts)
    made = ["'unsafe-eval'"] if may_make_code else []
    return " ".join([*(f"'sha256-{digest}'" for digest in digests), *made])


def environment_of_pages() -> Environment:
    """Where the templates are found, with our filters; what is inserted is escaped."""
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
        "explained": explained,
    }
    environment.globals |= {"word": word, "connects": False}
    return environment


def _render(
    template: str,
    report: Report | AuditReport,
    pictures: Pictures,
    scripts: Sequence[str],
    *,
    may_make_code: bool,
    **more: object,
) -> str:
    return _render_with_scripts(
        template,
        scripts,
        may_make_code=may_make_code,
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
        num_prefixes=NUM_PREFIXES,
        **more,
    )


def _render_with_scripts(
    template: str,
    scripts: Sequence[str],
    *,
    may_make_code: bool,
    **more: object,
) -> str:
    page = environment_of_pages().get_template(template)
    return page.render(
        scripts=[Markup(text) for text in scripts],  # noqa: S704 - our own, and plotly.js
        script_sources=Markup(script_sources(scripts, may_make_code=may_make_code)),  # noqa: S704
        **more,
    )


def interval(value: Estimate | None, form: Form) -> Markup:
    """A value and, in small print below it, the ends of its interval; or a dash."""
    if value is None:
        return Markup("-")
    shown = _FORMS[form]
    return Markup('{} <span class="soft">{}</span>').format(
        shown(value.value), wording.ends(value, shown)
    )


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
