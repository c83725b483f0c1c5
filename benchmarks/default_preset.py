"""Finished runs of preset `docs`, each with another `seed` -> docs/results/default.md.

gdc init docs              # in a folder for each seed; then change `seed` in params.yaml
gdc run
python benchmarks/default_preset.py FOLDER ...
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gdc.comparison.results import ArmAudits
from gdc.config import parse_params
from gdc.report.model import Report, read_report
from gdc.report.verdict import RunVerdict, verdict
from gdc.statistics import markdown
from gdc.statistics.wording import counted, decimals, interval, percent, points
from gdc.workspace import files, paths

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "results" / "default.md"
# What the default is to reach: the share of the baseline's extraction that the plan removes, and
# texts that half-models confirm.
MIN_REMOVED: Final = 0.8
MIN_CONFIRMED: Final = 5


def main() -> None:
    """Read the reports of all folders and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", type=Path, nargs="+", help="Each with a finished run.")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    runs = [(seed_of(folder), read_report(folder / paths.REPORT)) for folder in options.folders]
    files.write_text(options.out, render(runs))
    sys.stdout.write(f"{options.out}\n")


def seed_of(folder: Path) -> int:
    """The value of `seed` in a folder's params.yaml."""
    path = folder / paths.PARAMS
    return parse_params(files.parse_yaml(files.read_text(path), path), name=str(path)).seed


def render(runs: Sequence[tuple[int, Report]]) -> str:
    """The page: what each run found, whether its plan works, and every arm."""
    said = [(seed, report, verdict(report)) for seed, report in runs]
    return "\n".join([
        "# The default preset",
        "",
        f"`benchmarks/default_preset.py` writes this page, here from {counted(len(runs), 'run')} "
        "of preset `docs`. Another `seed` is another choice of rows, split, canaries and random "
        "arm.",
        "",
        "## Are the texts that it lists memorized?",
        "",
        "Confirmed by two half-models that the axis does not read: a gap in the top decile of all "
        f"ordinary training texts. Reached: at least {MIN_CONFIRMED} texts.",
        "",
        _found_table(said),
        confirmed_in_all([report for _, report in runs]),
        "",
        "## Does the curated data set leak less?",
        "",
        "Removed: share of the extraction of arm `none`. Reached: at least "
        f"{percent(MIN_REMOVED)}, shown against as many random samples, perplexity not shown to "
        "be worse than theirs.",
        "",
        _worked_table(said),
        "## Every arm",
        "",
        _arm_table(runs),
    ])  # fmt: skip


def _found_table(said: Sequence[tuple[int, Report, RunVerdict]]) -> str:
    return markdown.table(
        ["seed", "axis", "validated", "distinct texts", "confirmed", "precision", "reached"],
        [
            [
                str(seed), one.axis, "yes" if one.is_validated else "no", str(one.num_texts),
                "-" if one.num_confirmed is None else str(one.num_confirmed),
                interval(one.precision, percent),
                "yes" if (one.num_confirmed or 0) >= MIN_CONFIRMED else "no",
            ]
            for seed, _, one in said
        ],
    )  # fmt: skip


def _worked_table(said: Sequence[tuple[int, Report, RunVerdict]]) -> str:
    return markdown.table(
        ["seed", "curated arm", "shown", "removed", "against random, points",
         "perplexity against random", "reached"],
        [_worked(seed, report, one) for seed, report, one in said],
    )  # fmt: skip


def _arm_table(runs: Sequence[tuple[int, Report]]) -> str:
    return markdown.table(
        ["seed", "arm", "extraction", "against random, points", "perplexity to keeping all"],
        [
            [str(seed), arm.arm, *_arm(report.arm_audits[arm.arm])]
            for seed, report in runs
            for arm in report.arms
        ],
    )


def confirmed_in_all(reports: Sequence[Report]) -> str:
    """How far the lists of all runs together are to be trusted."""
    checks = [check for report in reports if (check := report.memorized.gap_check)]
    num_confirmed = sum(check.num_confirmed for check in checks)
    num_texts = sum(check.num_texts for check in checks)
    share = percent(num_confirmed / num_texts if num_texts else None)
    return (
        f"Of all texts listed {num_confirmed} of {num_texts} are confirmed, {share} (by chance "
        "10 %): a listed text is a suspect. A run prints the precision of its own list next to it."
    )


def removed_share(report: Report, arm: str) -> float | None:
    """The share of the baseline's extraction that an arm removes; None: nothing was extracted."""
    if report.baseline is None or arm not in report.arm_audits:
        return None
    kept = report.arm_audits[report.baseline].canaries.planted.extracted
    left = report.arm_audits[arm].canaries.planted.extracted
    if kept is None or left is None or not kept.value:
        return None
    return 1 - left.value / kept.value


def _worked(seed: int, report: Report, one: RunVerdict) -> list[str]:
    removed = removed_share(report, one.arm)
    reached = one.is_shown and removed is not None and removed >= MIN_REMOVED
    return [
        str(seed),
        one.arm,
        "yes" if one.is_shown else "no",
        percent(removed),
        interval(one.extraction_change, points),
        interval(one.perplexity_ratio, decimals),
        "yes" if reached else "no",
    ]


def _arm(audits: ArmAudits) -> list[str]:
    return [
        interval(audits.canaries.planted.extracted, percent),
        interval(audits.extraction_against_random, points),
        interval(audits.perplexity_ratio, decimals),
    ]


if __name__ == "__main__":
    main()
