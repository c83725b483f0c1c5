"""Token records of members and held-out texts -> attack scores and extraction of each text."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.audit import attacks, predictability
from gdc.audit.attack_inputs import AttackInputs, Population, References, TokenTable
from gdc.audit.attack_metrics import AttackMetrics, measure_attack, tail_rate
from gdc.audit.extraction import Secrets
from gdc.audit.predictability import Stretch
from gdc.corpus.chat import scored_texts
from gdc.errors import DataError
from gdc.filesystem.json_values import JsonObject
from gdc.schema import MEMBERSHIP
from gdc.statistics.hashing import hash_order
from gdc.training.token_records import TokenRecords

# A variance for each text takes a few models that did not see it. With one variance for all, LiRA
# ranks texts exactly as the reference ratio does.
MODELS_OF_LIRA: Final = 8
# Shorter second halves are often decoded by chance.
MIN_SUFFIX_TOKENS: Final = 10
# Column of a ``MEMBERSHIP`` table: bits per token of a second half that comes out, after the ends
# of unrelated texts; null where it does not come out or is short.
ELSEWHERE: Final = "suffix_bits_elsewhere"
# Source: Zarifzadeh et al. 2024, arXiv:2312.03262, who find both to matter little.
RMIA_GAMMA: Final = 1.0
RMIA_OFFLINE: Final = 1.0
# Source: arXiv:2510.19773.
TAIL_QUANTILES: Final = (0.99, 0.999)
# Columns of attacks and blind baselines, in their order.
_SCORES: Final = (
    "zlib", "min_k", "min_k_plus_plus", "reference_ratio", "rmia", "lira", "ez", "wbc",
    "base_ratio", "base_ez", "base_wbc", "length", "zlib_size", "reference_loss", "base_loss",
)  # fmt: skip
# Those that compare losses of texts; the others read tokens or texts.
_COMPARE: Final = frozenset(
    {"reference_ratio", "rmia", "lira", "base_ratio", "reference_loss", "base_loss"}
)


@dataclass(frozen=True)
class SuffixExtraction:
    """Share of second halves that greedy decoding of the first gives; None: of no text."""

    members: float | None
    heldout: float | None


@dataclass(frozen=True)
class MembershipMetrics:
    """What one ``MEMBERSHIP`` table says as a whole.

    Attributes:
        heldout_loss: Nats per token over all held-out tokens.
        perplexity: ``exp(heldout_loss)``.
        num_heldout_tokens: Predicted tokens of the held-out texts.
        membership: Metrics of each attack.
        blind: Metrics of each blind baseline. If its AUC is away from 0.5, the two groups differ by
            more than membership, and no attack on them proves a leak.
        suffix_extraction: Of members and of held-out texts.
        tail_rates: Share of held-out losses above a quantile of the members' losses, by quantile;
            1 minus the quantile where nothing leaked.
    """

    heldout_loss: float
    perplexity: float
    num_heldout_tokens: int
    membership: dict[str, AttackMetrics]
    blind: dict[str, AttackMetrics]
    suffix_extraction: SuffixExtraction
    tail_rates: dict[str, float]

    def to_json(self) -> JsonObject:
        """The same as nested objects of numbers and strings."""
        return asdict(self)


def choose_samples(corpus: pl.DataFrame, num_members: int, *, seed: int) -> pl.DataFrame:
    """Ordinary training samples, at most ``num_members``, and all held-out ones.

    Both were drawn at random before any training, so nothing but a model can tell them apart. Of
    copies in a split one is taken, as copies are not independent.

    Returns:
        Table with ``sample_id`` and ``is_member``, members first, and with ``text`` and
        ``unscored`` where the corpus has them.
    """
    ordinary = corpus.filter(pl.col("canary_id").is_null()).unique(
        "content_id", keep="first", maintain_order=True
    )
    members = ordinary.filter(pl.col("split") == "train")
    draws = hash_order(members["content_id"].to_list(), seed=seed, purpose="members")
    chosen = (
        members.with_columns(draw=pl.Series(draws, dtype=pl.UInt64))
        .sort("draw", "sample_id")
        .head(num_members)
        .drop("draw")
        .sort("sample_id")
    )
    heldout = ordinary.filter(pl.col("split") == "validation")
    more = [name for name in ("text", "unscored") if name in corpus.columns]
    return pl.concat([chosen, heldout]).select(
        "sample_id", *more, is_member=pl.col("split") == "train"
    )


def align_references(
    samples: pl.DataFrame, table: pl.DataFrame | None, tokens: pl.DataFrame | None = None
) -> References | None:
    """Losses of the samples under the reference models, in the row order of ``samples``.

    Args:
        samples: As ``choose_samples`` returns them.
        table: ``REFERENCES`` table with every sample, or None.
        tokens: ``REFERENCE_TOKENS`` table, a row for each sample and each model that did not see
            it; None: not recorded.
    """
    if table is None:
        return None
    chosen = samples.select("sample_id").join(
        table, on="sample_id", how="left", maintain_order="left"
    )
    loss, seen = (np.array(chosen[name].to_list()) for name in ("loss", "seen"))
    return References(
        loss.astype(np.float64),
        seen.astype(np.bool_),
        None if tokens is None else _token_loss(samples, tokens),
    )


def align_base(
    samples: pl.DataFrame, table: pl.DataFrame, tokens: pl.DataFrame | None
) -> References:
    """Losses of the samples under the pretrained model, which saw none of them in training.

    Args:
        samples: As ``choose_samples`` returns them.
        table: ``REFERENCE_LOSS`` table with every sample.
        tokens: ``REFERENCE_TOKENS`` table with every sample; None: not recorded.
    """
    lists = table.select(
        "sample_id", loss=pl.concat_list("loss"), seen=pl.lit([False], pl.List(pl.Boolean))
    )
    found = align_references(samples, lists, tokens)
    assert found is not None  # noqa: S101 - there is a table
    return found


def _token_loss(samples: pl.DataFrame, tokens: pl.DataFrame) -> NDArray[np.float64]:
    """Mean loss of each token over the models that did not see its text, text after text."""
    num_missing = samples.join(tokens, on="sample_id", how="anti").height
    if num_missing:
        raise DataError(
            "references: expected token losses of every sample under a model that did not see it, "
            f"got none of {num_missing}. Re-run: gdc stage reference."
        )
    return (
        samples.select("sample_id")
        .with_row_index("row")
        .join(tokens, on="sample_id", maintain_order="left_right")
        .with_columns(position=pl.int_ranges(pl.col("token_losses").list.len()))
        .explode("token_losses", "position")
        .group_by("row", "position", maintain_order=True)
        .agg(pl.col("token_losses").cast(pl.Float64).mean())["token_losses"]
        .to_numpy()
    )


def audit_samples(  # noqa: PLR0913 - references of two kinds
    samples: pl.DataFrame,
    records: TokenRecords,
    *,
    block_size: int,
    min_k_share: float,
    references: References | None = None,
    base: References | None = None,
) -> pl.DataFrame:
    """Loss, membership scores and the extraction of the second half of every sample.

    Args:
        samples: As ``choose_samples`` returns them.
        records: Token records of their texts, sequence i being row i.
        block_size: Tokens that the model saw at once.
        min_k_share: Share of the tokens that the Min-K attacks read.
        references: Losses of the samples under the reference models. The held-out samples are also
            the population that RMIA compares with, each without itself.
        base: Losses of the samples under the pretrained model.

    Returns:
        ``MEMBERSHIP`` table in the row order of ``samples``, with a column for every attack and
        blind baseline that can be computed; a score is higher the more likely a sample is a member.
    """
    alone = audit_alone(
        samples,
        records,
        block_size=block_size,
        min_k_share=min_k_share,
        references=references,
        base=base,
    )
    return compare_samples(alone, references, base)


def audit_alone(  # noqa: PLR0913 - as audit_samples
    samples: pl.DataFrame,
    records: TokenRecords,
    *,
    block_size: int,
    min_k_share: float,
    references: References | None = None,
    base: References | None = None,
) -> pl.DataFrame:
    """What the tokens of every sample say without the other samples.

    Args:
        samples: As in ``audit_samples``, or some of them.
        records: Of these samples, likewise.
        block_size: As there.
        min_k_share: As there.
        references: Of these samples; only the losses of tokens are read.
        base: Likewise.

    Returns:
        ``MEMBERSHIP`` table of these samples, and columns of the attacks that need no comparison.
    """
    tokens = TokenTable(
        records.sequence, -records.nll, records.mean, records.std, num_texts=samples.height
    )
    inputs = AttackInputs(
        tokens,
        is_greedy=records.is_greedy,
        zlib_sizes=attacks.zlib_sizes(scored_texts(samples).to_list()),
        min_k_share=min_k_share,
        token_reference=_log_prob(references),
        base_tokens=_log_prob(base),
    )
    names = [name for name in _computable(references, base) if name not in _COMPARE]
    suffixes = _second_halves(records, samples.height, block_size)
    num_tokens = np.bincount(records.sequence, minlength=samples.height)
    return (
        samples.select("sample_id", "is_member")
        .with_columns(
            num_tokens=pl.Series(num_tokens, dtype=pl.Int64),
            loss=pl.Series(-attacks.loss(tokens), dtype=pl.Float64),
            num_suffix_tokens=pl.Series(suffixes.num_tokens, dtype=pl.Int64),
            suffix_nll=pl.Series(suffixes.nll, dtype=pl.Float64),
            suffix_extracted=pl.Series(suffixes.is_extracted),
            **attacks.attack_texts(names, inputs),
        )
        .select(*MEMBERSHIP.names(), *names)
    )


def compare_samples(
    alone: pl.DataFrame, references: References | None, base: References | None
) -> pl.DataFrame:
    """Add the attacks that compare a sample's loss with others.

    Args:
        alone: What ``audit_alone`` returns of all samples.
        references: Losses of all samples under the reference models, as in ``audit_samples``.
        base: Losses of all samples under the pretrained model.

    Returns:
        What ``audit_samples`` returns.
    """
    ones = np.ones(alone.height, dtype=np.float32)
    # A text's mean as its one token: these attacks read no more of its tokens.
    means = TokenTable(
        np.arange(alone.height), -alone["loss"].to_numpy(), ones, ones, num_texts=alone.height
    )
    inputs = _with_references(AttackInputs(means), references, ~alone["is_member"].to_numpy())
    names = [name for name in _computable(references, base) if name in _COMPARE]
    compared = attacks.attack_texts(names, _with_base(inputs, base))
    table = alone.with_columns(**_without_self_comparison(compared, alone["is_member"]))
    in_order = [name for name in _SCORES if name in table.columns]
    return table.select(*MEMBERSHIP.names(), *in_order)


def _log_prob(references: References | None) -> NDArray[np.floating] | None:
    """Of each token; None: it is not known."""
    if references is None or references.token_loss is None:
        return None
    return -references.token_loss


def suffix_stretches(audit: pl.DataFrame, records: TokenRecords, block_size: int) -> list[Stretch]:
    """The second halves that come out, of at least ``MIN_SUFFIX_TOKENS``; texts by their row.

    Args:
        audit: ``MEMBERSHIP`` table.
        records: Of its texts, sequence i being row i.
        block_size: Tokens that the model saw at once.
    """
    is_out = audit.select(
        pl.col("suffix_extracted") & (pl.col("num_suffix_tokens") >= MIN_SUFFIX_TOKENS)
    ).to_series()
    halves = _second_halves(records, audit.height, block_size)
    ends = zip(is_out, halves.starts.tolist(), halves.ends.tolist(), strict=True)
    return [
        Stretch(row, start, end) for row, (is_chosen, start, end) in enumerate(ends) if is_chosen
    ]


def with_bits_elsewhere(
    audit: pl.DataFrame, stretches: Sequence[Stretch], bits: NDArray[np.float64]
) -> pl.DataFrame:
    """Add the column ``ELSEWHERE`` to a ``MEMBERSHIP`` table: null where nothing was asked."""
    values = np.full(audit.height, np.nan)
    values[[stretch.text for stretch in stretches]] = bits
    return audit.with_columns(pl.Series(ELSEWHERE, values, nan_to_null=True))


def is_memorized(audit: pl.DataFrame) -> pl.Series:
    """Whether each second half comes out, and not after unrelated prefixes too."""
    is_predictable = pl.col(ELSEWHERE) <= predictability.PREDICTABLE_BITS
    return audit.select(
        memorized=pl.col("suffix_extracted") & ~is_predictable.fill_null(value=False)
    ).to_series()


def _second_halves(records: TokenRecords, num_texts: int, block_size: int) -> Secrets:
    """The second half of what is predicted of each text, given all that stands before it.

    Of a text longer than a window only the first window counts: in later ones the model does not
    see the tokens before. The last predicted token, the end of text, is not extracted.
    """
    edges = np.searchsorted(records.sequence, np.arange(num_texts + 1))
    in_window = records.sequence[records.position < block_size]
    middles = edges[:-1] + np.bincount(in_window, minlength=num_texts) // 2
    ends = np.minimum(block_size, records.position[edges[1:] - 1])
    return Secrets(records, records.position[middles], ends)


def attacks_in(table: pl.DataFrame) -> list[str]:
    """The membership attacks that a ``MEMBERSHIP`` table has scores of; ``loss`` is always one."""
    return [name for name in attacks.ATTACKS if name == "loss" or name in table.columns]


def blind_in(table: pl.DataFrame) -> list[str]:
    """The blind baselines that a ``MEMBERSHIP`` table has scores of."""
    return [name for name in attacks.BLIND if name in table.columns]


def _computable(references: References | None, base: References | None) -> list[str]:
    names = ["zlib", "min_k", "min_k_plus_plus"]
    blind = ["length", "zlib_size"]
    if references is not None:
        names += ["reference_ratio", "rmia"]
        names += ["lira"] if references.loss.shape[1] >= MODELS_OF_LIRA else []
        names += ["ez", "wbc"] if references.token_loss is not None else []
        blind += ["reference_loss"]
    if base is not None:
        names += ["base_ratio"]
        names += ["base_ez", "base_wbc"] if base.token_loss is not None else []
        blind += ["base_loss"]
    return names + blind


def _without_self_comparison(
    scores: dict[str, NDArray[np.float64]], is_member: pl.Series
) -> dict[str, NDArray[np.float64]]:
    """Correct RMIA, which compares each held-out text with itself too and counts that as a win."""
    size = int((~is_member).sum())
    if "rmia" not in scores or size < 2:
        return scores
    corrected = (scores["rmia"] * size - 1) / (size - 1)
    return scores | {"rmia": np.where(is_member.to_numpy(), scores["rmia"], corrected)}


def _with_references(
    inputs: AttackInputs, references: References | None, is_heldout: NDArray[np.bool_]
) -> AttackInputs:
    if references is None:
        return inputs
    unseen = np.where(references.seen, np.nan, references.loss)
    population = References(references.loss[is_heldout], references.seen[is_heldout])
    return replace(
        inputs,
        references=references,
        population=Population(-attacks.loss(inputs.tokens)[is_heldout], population),
        reference_loss=np.nanmean(unseen, axis=1),
        is_variance_fixed=False,
        rmia_gamma=RMIA_GAMMA,
        rmia_offline=RMIA_OFFLINE,
    )


def _with_base(inputs: AttackInputs, base: References | None) -> AttackInputs:
    if base is None:
        return inputs
    return replace(
        inputs,
        base=base,
        base_loss=base.loss[:, 0],
    )


def membership_metrics(audit: pl.DataFrame) -> MembershipMetrics:
    """How well each attack tells members from held-out samples, and the perplexity of the latter.

    Args:
        audit: ``MEMBERSHIP`` table with members and held-out samples.

    Raises:
        DataError: The perplexity is no finite number: the model has diverged.
    """
    scored = audit.with_columns(loss_attack=-pl.col("loss"))
    members = scored.filter("is_member")
    heldout = scored.filter(~pl.col("is_member"))

    def measure(name: str) -> AttackMetrics:
        column = "loss_attack" if name == "loss" else name
        return measure_attack(members[column].to_numpy(), heldout[column].to_numpy())

    losses = (members["loss"].to_numpy(), heldout["loss"].to_numpy())
    heldout_loss = float(np.average(heldout["loss"], weights=heldout["num_tokens"]))
    return MembershipMetrics(
        heldout_loss=heldout_loss,
        perplexity=_perplexity(heldout_loss),
        num_heldout_tokens=int(heldout["num_tokens"].sum()),
        membership={name: measure(name) for name in attacks_in(audit)},
        blind={name: measure(name) for name in blind_in(audit)},
        suffix_extraction=SuffixExtraction(
            members=members.select(pl.col("suffix_extracted").mean()).item(),
            heldout=heldout.select(pl.col("suffix_extracted").mean()).item(),
        ),
        tail_rates={str(share): tail_rate(*losses, share) for share in TAIL_QUANTILES},
    )


def _perplexity(loss: float) -> float:
    with np.errstate(over="ignore"):
        perplexity = float(np.exp(loss))
    if not math.isfinite(perplexity):
        raise DataError(
            f"evaluate: expected held-out losses whose perplexity is a finite number, got "
            f"{loss:.6g} nats per token: the model has diverged. Lower training.learning_rate or "
            "training.clip_norm."
        )
    return perplexity
