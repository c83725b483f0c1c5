"""The report -> the few numbers of each arm that decide, for MLflow and DVC."""

from collections.abc import Mapping
from typing import Final

from gdc.report.model import Report
from gdc.report.verdict import verdict
from gdc.statistics.bootstrap import Measured


def arm_numbers(report: Report) -> dict[str, dict[str, float]]:
    """What decides between the arms, with both ends of 95 % intervals; what is unknown is absent.

    Returns:
        By arm. ``extraction`` is a share of the planted secrets, its changes are differences of
        such shares; ``perplexity`` is on held-out text, its ratio is to the arm that keeps
        everything. ``against_random`` is to the arm of as many random samples.
    """
    numbers = {}
    for arm in report.arms:
        audits = report.arm_audits.get(arm.arm)
        plain = {"perplexity": arm.perplexity.mean, "extraction": arm.extraction_rate.mean}
        found = {name: value for name, value in plain.items() if value is not None}
        if audits is not None:
            measured = {
                "extraction": audits.canaries.planted.extracted,
                "extraction_change": audits.extraction_change,
                "extraction_against_random": audits.extraction_against_random,
                "perplexity": audits.perplexity,
                "perplexity_ratio": audits.perplexity_ratio,
            }
            for name, value in measured.items():
                found |= with_ends(name, value)
        numbers[arm.arm] = {**found, "samples_changed": arm.num_changed}
    return numbers


# What fits into one line of a terminal, and what it is called there.
_NARROW: Final = {
    "extraction": "extraction",
    "extraction_against_random": "vs_random",
    "perplexity": "perplexity",
    "perplexity_ratio": "ratio",
}


def narrow_numbers(report: Report) -> dict[str, dict[str, float]]:
    """Fewer of ``arm_numbers``, rounded to 4 digits, for a terminal; ends of differences alone."""
    columns = {
        f"{name}{end}": f"{short}{end}"
        for name, short in _NARROW.items()
        for end in ("", *(("_low", "_high") if name != short else ()))
    }
    return {
        arm: {
            columns[name]: float(f"{value:.4g}") for name, value in found.items() if name in columns
        }
        for arm, found in arm_numbers(report).items()
    }


def with_ends(name: str, value: Measured | None) -> dict[str, float]:
    """A number and the ends of its interval under names of their own; none where it is None."""
    if value is None:
        return {}
    return {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}


def note(report: Report, links: Mapping[str, str]) -> str:
    """The verdict of a run as Markdown, and where to read on.

    Args:
        report: Of the run.
        links: Address or path of what there is to read, by its name.
    """
    said = [f"**{heading}** {sentence}" for heading, sentence in verdict(report).lines]
    return "\n\n".join([*said, "\n".join(f"* {name}: `{place}`" for name, place in links.items())])
