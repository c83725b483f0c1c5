"""An audit -> what of the user's rows comes out, a verdict, and a model card section."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import polars as pl

from gdc.audit import windows
from gdc.audit.predictability import NUM_PREFIXES, PREDICTABLE_BITS
from gdc.commands import own_turns
from gdc.commands.audit import Audited
from gdc.corpus.tokenizer import TextTokenizer
from gdc.errors import ConfigError
from gdc.filesystem import table_files
from gdc.filesystem.json_values import JsonObject
from gdc.report import console
from gdc.report.model import AuditReport, to_json
from gdc.statistics import wording
from gdc.statistics.bootstrap import Measured, share_interval
from gdc.training.token_records import TokenRecords
from gdc.workspace import files, outputs

WRITTEN: Final = ("leaked.parquet", "turns.parquet", "verdict.json", "model-card.md")
_SHOWN: Final = (
    ("report", "report.html"), ("rows", "leaked.parquet"), ("verdict", "verdict.json"),
    ("model card", "model-card.md"),
)  # fmt: skip
# What --fail-above can judge, and what it is in words.
MEASURES: Final[Mapping[str, str]] = {
    "extraction": "training texts of which a window comes out verbatim",
    "extraction-memorized": "training texts of which a window comes out that is not predictable "
    "after unrelated texts too",
    "extraction-beyond-reference": "training texts of which a window comes out that does not come "
    "out of the reference model",
    "canary-extraction": "planted secrets that come out",
    "auc": "AUC of the strongest membership attack",
}


@dataclass(frozen=True)
class Options:
    """What is asked of a release.

    Attributes:
        corpus: As ``--corpus`` names it.
        limits: Highest values allowed, by the names of ``MEASURES``.
        show_text: Whether texts may stand in what is written.
    """

    corpus: str
    limits: Mapping[str, float]
    show_text: bool


@dataclass(frozen=True)
class Verdict:
    """What was measured and what of it is above its limit; ``passed`` where nothing is."""

    model: str
    reference: str | None
    measures: Mapping[str, Measured]
    heldout_extraction: Measured | None
    limits: Mapping[str, float]
    failed: tuple[str, ...]
    num_leaked_rows: int

    @property
    def passed(self) -> bool:
        """Whether the upper end of every interval that has a limit is at most the limit."""
        return not self.failed

    def to_json(self) -> JsonObject:
        """As values of JSON."""
        return {**asdict(self), "failed": list(self.failed), "passed": self.passed}


def limits_of(given: Sequence[str]) -> dict[str, float]:
    """Parse values of ``--fail-above``.

    Raises:
        ConfigError: One is no ``NAME=NUMBER`` with a name of ``MEASURES``, or stands there twice.
    """
    limits: dict[str, float] = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if name not in MEASURES or name in limits or not 0 <= value <= 1:
            raise ConfigError(
                f"--fail-above {text}: expected NAME=SHARE once for a name, with a share in [0, 1] "
                f"and a name of {', '.join(MEASURES)}. Mend it."
            )
        limits[name] = value
    return limits


def require_free(options: Options, reference: str | None, folder: Path) -> None:
    """Refuse options and a folder before any model runs.

    Args:
        options: What is asked.
        reference: A model that did not see the texts; None: there is none.
        folder: Of the audit.

    Raises:
        ConfigError: A result would take the place of something else, or a limit needs an option
            that is not given.
    """
    outputs.require_free(folder, WRITTEN, {"--corpus": Path(options.corpus)})
    if "extraction-beyond-reference" in options.limits and reference is None:
        raise ConfigError("--fail-above extraction-beyond-reference: expected --reference. Add it.")


def judge(audited: Audited, options: Options, folder: Path) -> Verdict:
    """Name the rows that come out, and judge the model by its limits.

    Args:
        audited: What ``run_audit`` returned.
        options: What is asked.
        folder: Of the audit. ``leaked.parquet`` is written there (a row for each of the user's rows
            of which a window comes out, the longest first), ``turns.parquet`` (of conversations
            each turn of the assistant), ``verdict.json`` and ``model-card.md``.

    Raises:
        ConfigError: A limit is on something that was not measured.
    """
    report = audited.measured.report
    samples = audited.samples.with_row_index("sequence").cast({"sequence": pl.Int64})
    found = audited.windows.join(
        samples, on="sequence", how="left", maintain_order="left"
    ).with_columns(
        predictable=(pl.col("bits_elsewhere") <= PREDICTABLE_BITS).fill_null(value=False)
    )
    if audited.reference is not None:
        under = _under_reference(audited.reference, found, report.settings.block_size)
        found = found.with_columns(under)
    leaked = _leaked(found, audited.rows, audited.tokenizer, show_text=options.show_text)
    verdict = _verdict(report, found, options, leaked.height)
    outputs.claim(folder, WRITTEN)
    table_files.write_parquet(folder / "leaked.parquet", leaked)
    table_files.write_parquet(folder / "turns.parquet", own_turns.audited_turns(audited))
    files.write_json(folder / "verdict.json", verdict.to_json())
    files.write_text(folder / "model-card.md", card(verdict))
    return verdict


def card(verdict: Verdict) -> str:
    """A section for a model card, in Markdown."""
    floor = verdict.heldout_extraction
    lines = [
        "## Memorization of the training data",
        "",
        "| measure | value, 95 % interval | limit |",
        "| --- | --- | --- |",
        *(
            f"| {MEASURES[name]} | {wording.interval(value, _form(name))} "
            f"| {_limit(verdict, name)} |"
            for name, value in verdict.measures.items()
        ),
        "",
        f"A window is {windows.WINDOW_TOKENS} tokens behind at least {windows.PREFIX_TOKENS} true "
        "ones of the same text; it comes out when greedy decoding gives it exactly. A limit is "
        "held when the upper end of the interval is at most the limit. It is predictable if it "
        f"costs at most {PREDICTABLE_BITS:g} bit per token after the ends of {NUM_PREFIXES} "
        "unrelated texts, as boilerplate does.",
        *(
            []
            if floor is None
            else [
                "",
                "Of held-out texts of the same kind, which the model was not trained on, a window "
                f"comes out of {wording.interval(floor, wording.percent)}.",
            ]
        ),
        "",
        "This is one attack, greedy decoding from true text. A low rate says nothing about other "
        "attacks, and nothing here guarantees privacy.",
    ]
    return "\n".join(lines) + "\n"


def sentences(verdict: Verdict) -> list[str]:
    """The verdict for the terminal."""
    told = [
        f"{MEASURES[name]}: {wording.interval(value, _form(name))}"
        for name, value in verdict.measures.items()
        if name.startswith("extraction")
    ]
    if verdict.heldout_extraction is not None:
        floor = wording.interval(verdict.heldout_extraction, wording.percent)
        told.append(f"the same of held-out texts: {floor}")
    told += [
        f"above --fail-above {name}={verdict.limits[name]:g}: the interval of {MEASURES[name]} "
        f"ends at {verdict.measures[name].high:.4g}"
        for name in verdict.failed
    ]
    return told


def as_plain(report: AuditReport, verdict: Verdict) -> JsonObject:
    """The report with the verdict in it, as values of JSON."""
    return {**to_json(report), "verdict": verdict.to_json()}


def told(report: AuditReport, verdict: Verdict, folder: Path, limit: int) -> list[str]:
    """What an audit found, line by line, for the terminal."""
    return [
        *report.summary,
        *console.audit_findings(report),
        *sentences(verdict),
        *report.warnings,
        *own_turns.sentences(table_files.read_parquet(folder / "turns.parquet")),
        *leaked_lines(folder, limit),
        *(f"{name:<13} {(folder / file).resolve()}" for name, file in _SHOWN),
    ]


def leaked_lines(folder: Path, limit: int) -> list[str]:
    """The first rows that come out: id, place, span and bits, and the text where it is shown."""
    rows = table_files.read_parquet(folder / "leaked.parquet")
    lines = [f"{rows.height:,} of your rows have a window that comes out"] if rows.height else []
    for row in rows.head(limit).iter_rows(named=True):
        text = f": {row['text']!r}" if row.get("text") else ""
        lines.append(
            f"  {row['sample_id']}  {row['source']}  characters {row['start']} to {row['end']}, "
            f"{row['num_tokens']} tokens, {row['bits']:.1f} bits"
            f"{', predictable' if row['predictable'] else ''}{text}"
        )
    return lines


def _under_reference(
    records: TokenRecords, found: pl.DataFrame, block_size: int
) -> tuple[pl.Series, pl.Series]:
    """``reference_bits`` of the same windows, and ``reference_extracted`` of the texts."""
    others = windows.worst_windows(records, found.height, block_size=block_size)
    return (
        windows.window_bits(records, found),
        others["extracted"].rename("reference_extracted"),
    )


def _leaked(
    found: pl.DataFrame, own: pl.DataFrame, tokenizer: TextTokenizer, *, show_text: bool
) -> pl.DataFrame:
    """Each of the user's rows whose text has a window that comes out, the longest first."""
    out = found.filter("is_member", "extracted")
    spans = tokenizer.offsets(out["text"].to_list())
    places = [
        (of[start][0], of[end - 1][1])
        for of, (start, end) in zip(spans, out.select("start", "end").iter_rows(), strict=True)
    ]
    more = [name for name in ("reference_bits",) if name in out.columns]
    rows = out.select(
        "sample_id",
        "bits",
        *more,
        "bits_elsewhere",
        "predictable",
        num_tokens=pl.col("end") - pl.col("start"),
    ).with_columns(
        start=pl.Series([place[0] for place in places], dtype=pl.Int64),
        end=pl.Series([place[1] for place in places], dtype=pl.Int64),
        text=pl.Series(
            [
                text[start:end] if show_text else None
                for text, (start, end) in zip(out["text"], places, strict=True)
            ],
            dtype=pl.String,
        ),
    )
    return (
        own.join(rows, left_on="content_id", right_on="sample_id", maintain_order="left")
        .sort("num_tokens", descending=True, maintain_order=True)
        .drop("content_id")
    )


def _verdict(
    report: AuditReport, found: pl.DataFrame, options: Options, num_leaked: int
) -> Verdict:
    seed = report.settings.seed
    usable = found.drop_nulls("extracted")
    members, heldout = usable.filter("is_member"), usable.filter(~pl.col("is_member"))
    audits = report.arm_audits[report.queried]
    measured: dict[str, Measured | None] = {
        "extraction": _share(members["extracted"], seed),
        "extraction-memorized": _share(members["extracted"] & ~members["predictable"], seed),
        "extraction-beyond-reference": None,
        "canary-extraction": audits.canaries.planted.extracted,
        "auc": audits.samples.auc,
    }
    if "reference_extracted" in members.columns:
        beyond = members["extracted"] & ~members["reference_extracted"]
        measured["extraction-beyond-reference"] = _share(beyond, seed)
    measures = {name: value for name, value in measured.items() if value is not None}
    for name in options.limits:
        if name not in measures:
            raise ConfigError(
                f"--fail-above {name}: expected what it is measured on (held-out texts, canaries, "
                f"or training texts of {windows.PREFIX_TOKENS + windows.WINDOW_TOKENS} tokens), "
                "got none. Give it, or leave the limit out."
            )
    return Verdict(
        model=report.model,
        reference=report.settings.reference,
        measures=measures,
        heldout_extraction=_share(heldout["extracted"], seed),
        limits=dict(options.limits),
        failed=tuple(name for name, most in options.limits.items() if measures[name].high > most),
        num_leaked_rows=num_leaked,
    )


def _share(values: pl.Series, seed: int) -> Measured | None:
    return share_interval([values.to_numpy()], seed=seed) if len(values) else None


def _form(name: str) -> wording.Form:
    return wording.number if name == "auc" else wording.percent


def _limit(verdict: Verdict, name: str) -> str:
    if name not in verdict.limits:
        return "-"
    held = "not held" if name in verdict.failed else "held"
    return f"{_form(name)(verdict.limits[name])}, {held}"
