"""Token log-probabilities of texts -> membership attack scores.

Every attack gives each text a float64 score, higher the more likely it is a member; a text without
tokens has the score NaN. A blind baseline never reads the audited model. Losses are mean nats per
token. How well an attack does is measured in ``attack_metrics``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from gdc.audit.attack_inputs import AttackInputs, Population, References, TokenTable
from gdc.errors import ConfigError, DataError
from gdc.statistics import hashing
from gdc.statistics.windows import VOTED, error_balance, window_votes

Scores = NDArray[np.float64]

SMALLEST_STD: Final = 1e-6
"""Nats. A smaller standard deviation is rounding; dividing by it would make noise a score."""


@dataclass(frozen=True)
class Gaussians:
    """A normal distribution of the loss for each text; ``std`` is at least ``SMALLEST_STD``."""

    mean: Scores
    std: Scores


# What a field of ``AttackInputs`` holds.
AttackInput = TokenTable | References | Population | NDArray[np.generic] | float


@dataclass(frozen=True)
class Attack:
    """A score and the fields of ``AttackInputs`` it is called with, in order."""

    score: Callable[..., Scores]
    needs: tuple[str, ...]


def loss(tokens: TokenTable) -> Scores:
    """Mean log-probability, that is, minus the loss.

    Source: Yeom et al. 2018, arXiv:1709.01604.
    """
    return _mean_of_text(tokens.text, tokens.log_prob, tokens.num_texts)


def zlib(tokens: TokenTable, zlib_sizes: NDArray[np.int64]) -> Scores:
    """Minus the nats of the whole text for each byte of its compressed form.

    Source: Carlini et al. 2021, arXiv:2012.07805.
    """
    _require_rows("zlib_sizes", zlib_sizes, tokens)
    if np.any(zlib_sizes < 1):
        raise DataError(f"zlib_sizes: expected at least 1 byte, got {zlib_sizes.min()}")
    return loss(tokens) * length(tokens) / zlib_sizes


def reference_ratio(tokens: TokenTable, references: References) -> Scores:
    """Log of the likelihood ratio for each token: mean *out* loss minus the loss.

    Source: Carlini et al. 2021, arXiv:2012.07805; Mireshghallah et al. 2022, arXiv:2203.03929.
    """
    _require_rows("references", references.loss, tokens)
    return _filled(_row_means(references.loss, ~references.seen)) + loss(tokens)


def min_k(tokens: TokenTable, min_k_share: float) -> Scores:
    """Mean log-probability of the text's least likely tokens.

    Of n tokens it reads floor(``min_k_share`` n), and one where that is none.

    Source: Shi et al. 2024, arXiv:2310.16789.
    """
    return _mean_of_lowest(tokens, tokens.log_prob.astype(np.float64), min_k_share)


def min_k_plus_plus(tokens: TokenTable, min_k_share: float) -> Scores:
    """As ``min_k``, of z = (log p - mean) / std over the vocabulary.

    A std below ``SMALLEST_STD`` is raised to it, so z is finite, and 0 where all tokens are equally
    likely.

    Source: Zhang et al. 2025, arXiv:2404.02936.
    """
    above_mean = tokens.log_prob.astype(np.float64) - tokens.mean
    z = above_mean / np.maximum(tokens.std.astype(np.float64), SMALLEST_STD)
    return _mean_of_lowest(tokens, z, min_k_share)


def lira(tokens: TokenTable, references: References, is_variance_fixed: bool) -> Scores:
    """Offline likelihood-ratio attack: standard deviations that the loss is below its *out* mean.

    The paper's 1 - P(Z > confidence) is the normal distribution function of this score, which ranks
    alike and does not round to 1.

    Source: Carlini et al. 2022, arXiv:2112.03570, with minus the loss for the confidence.
    """
    _require_rows("references", references.loss, tokens)
    out = fit_gaussians(references.loss, ~references.seen, is_variance_fixed=is_variance_fixed)
    return (out.mean + loss(tokens)) / out.std


def lira_online(tokens: TokenTable, references: References, is_variance_fixed: bool) -> Scores:
    """Likelihood-ratio attack: log density of the loss under *in* losses minus under *out* losses.

    Source: Carlini et al. 2022, arXiv:2112.03570, with minus the loss for the confidence.
    """
    _require_rows("references", references.loss, tokens)
    seen, target = references.seen, -loss(tokens)
    fitted = [
        fit_gaussians(references.loss, chosen, is_variance_fixed=is_variance_fixed)
        for chosen in (seen, ~seen)
    ]
    in_density, out_density = (log_density(target, gaussians) for gaussians in fitted)
    return in_density - out_density


def rmia(
    tokens: TokenTable,
    references: References,
    population: Population,
    rmia_gamma: float,
    rmia_offline: float,
) -> Scores:
    """Offline robust attack: share of the population that is ``rmia_gamma`` times less likely.

    Likelihoods are exp(-loss), the geometric mean over tokens, each relative to the p(x) of the
    reference models, (1 + a)/2 p_out(x) + (1 - a)/2 with a = ``rmia_offline``. At a = 1 and
    gamma = 1 it ranks like ``reference_ratio`` up to ties and the kind of mean over models.

    Source: Zarifzadeh et al. 2024, arXiv:2312.03262.
    """
    _require_rows("references", references.loss, tokens)
    if not (rmia_gamma >= 1 and 0 <= rmia_offline <= 1):
        raise ConfigError(
            "rmia: expected rmia_gamma >= 1 and rmia_offline in [0, 1], got "
            f"{rmia_gamma} and {rmia_offline}"
        )
    ratio = _relative_log_likelihood(-loss(tokens), references, rmia_offline)
    bar = math.log(rmia_gamma) + np.sort(
        _relative_log_likelihood(population.loss, population.references, rmia_offline)
    )
    beaten = np.searchsorted(bar, ratio, side="right") / len(bar)
    return np.where(np.isnan(ratio), np.nan, beaten)


def ez(
    tokens: TokenTable, token_reference: NDArray[np.floating], is_greedy: NDArray[np.bool_]
) -> Scores:
    """Error-zone attack: balance of gains and losses over the tokens that the model gets wrong.

    With d = log p minus the reference's log p at the tokens, after the first, that are not the most
    likely ones: (P - N) / (P + N), P the sum of the positive d, N that of the negative ones without
    their sign. It ranks as the P / N of the paper, which has no value where nothing is lost.
    A text with fewer than two such tokens has its geometric mean probability: in the same range,
    and 1 where the model knows it by heart.

    Source: Ilic et al. 2026, arXiv:2601.12104.
    """
    _require_tokens("token_reference", token_reference, tokens)
    _require_tokens("is_greedy", is_greedy, tokens)
    log_prob = tokens.log_prob.astype(np.float64)
    num_tokens = np.bincount(tokens.text, minlength=tokens.num_texts)
    return error_balance(log_prob - token_reference, -log_prob, ~is_greedy, num_tokens)


def wbc(tokens: TokenTable, token_reference: NDArray[np.floating]) -> Scores:
    """Window votes: share of windows that the model finds likelier than the reference does.

    The mean over windows of ``VOTED`` tokens, each cut to the text. In [0, 1].

    Source: arXiv:2601.02751.
    """
    _require_tokens("token_reference", token_reference, tokens)
    gain = tokens.log_prob.astype(np.float64) - token_reference
    return window_votes(gain, np.bincount(tokens.text, minlength=tokens.num_texts), VOTED)


def length(tokens: TokenTable) -> Scores:
    """Number of predicted tokens: a blind baseline."""
    return np.bincount(tokens.text, minlength=tokens.num_texts).astype(np.float64)


def zlib_size(zlib_sizes: NDArray[np.int64]) -> Scores:
    """Bytes of the compressed text: a blind baseline."""
    return zlib_sizes.astype(np.float64)


def reference_loss(reference_loss: NDArray[np.floating]) -> Scores:
    """Mean loss under models that did not see the text: a blind baseline."""
    return reference_loss.astype(np.float64)


ATTACKS: Final[Mapping[str, Attack]] = {
    "loss": Attack(loss, ("tokens",)),
    "zlib": Attack(zlib, ("tokens", "zlib_sizes")),
    "reference_ratio": Attack(reference_ratio, ("tokens", "references")),
    "min_k": Attack(min_k, ("tokens", "min_k_share")),
    "min_k_plus_plus": Attack(min_k_plus_plus, ("tokens", "min_k_share")),
    "lira": Attack(lira, ("tokens", "references", "is_variance_fixed")),
    "lira_online": Attack(lira_online, ("tokens", "references", "is_variance_fixed")),
    "rmia": Attack(rmia, ("tokens", "references", "population", "rmia_gamma", "rmia_offline")),
    "ez": Attack(ez, ("tokens", "token_reference", "is_greedy")),
    "wbc": Attack(wbc, ("tokens", "token_reference")),
    "base_ratio": Attack(reference_ratio, ("tokens", "base")),
    "base_ez": Attack(ez, ("tokens", "base_tokens", "is_greedy")),
    "base_wbc": Attack(wbc, ("tokens", "base_tokens")),
}

# Of members and non-members drawn at random before training they have an AUC of 0.5.
BLIND: Final[Mapping[str, Attack]] = {
    "length": Attack(length, ("tokens",)),
    "zlib_size": Attack(zlib_size, ("zlib_sizes",)),
    "reference_loss": Attack(reference_loss, ("reference_loss",)),
    "base_loss": Attack(reference_loss, ("base_loss",)),
}


def attack_texts(names: Sequence[str], inputs: AttackInputs) -> dict[str, Scores]:
    """Scores of the named attacks and blind baselines, in the order of ``names``.

    Raises:
        ConfigError: A name is not registered.
        DataError: ``inputs`` lacks what an attack needs.
    """
    known = {**ATTACKS, **BLIND}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ConfigError(f"attacks: expected names of {sorted(known)}, got {unknown}")
    return {name: known[name].score(*_needed(name, known[name], inputs)) for name in names}


def zlib_sizes(texts: Sequence[str]) -> NDArray[np.int64]:
    """Bytes of each text's UTF-8 form, compressed by zlib."""
    return np.array([hashing.zlib_size(text) for text in texts], dtype=np.int64)


def fit_gaussians(
    losses: NDArray[np.floating], chosen: NDArray[np.bool_], *, is_variance_fixed: bool
) -> Gaussians:
    """Fit a normal distribution to the chosen losses of each text.

    A text with no chosen loss has the mean of the other texts' means, one with fewer than two the
    mean of their standard deviations.

    Args:
        losses: Texts x models.
        chosen: Texts x models, whether a loss is fitted.
        is_variance_fixed: One variance for all texts, of all deviations from their texts' means.

    Raises:
        DataError: No text has two chosen losses.

    Source: Carlini et al. 2022, arXiv:2112.03570. Missing fits are filled as in tensorflow/privacy
        ``advanced_mia.py``, which takes 0 for the deviation of one loss alone.
    """
    counts = chosen.sum(axis=1)
    if not np.any(counts >= 2):
        raise DataError(
            "lira: expected two in (or two out) losses of some text, got at most "
            f"{counts.max(initial=0)}. Train more reference models, or use reference_ratio."
        )
    means = _row_means(losses, chosen)
    variances = _row_means((losses - means[:, None]) ** 2, chosen)
    variances[counts < 2] = np.nan
    if is_variance_fixed:
        fitted = counts >= 2
        pooled = math.fsum(variances[fitted] * counts[fitted]) / counts[fitted].sum()
        stds = np.full(len(losses), math.sqrt(pooled))
    else:
        stds = _filled(np.sqrt(variances))
    return Gaussians(_filled(means), np.maximum(stds, SMALLEST_STD))


def log_density(values: NDArray[np.floating], gaussians: Gaussians) -> Scores:
    """Log density of each text's value under its distribution."""
    return np.asarray(norm.logpdf(values, gaussians.mean, gaussians.std), dtype=np.float64)


def _needed(name: str, attack: Attack, inputs: AttackInputs) -> list[AttackInput]:
    missing = [need for need in attack.needs if getattr(inputs, need) is None]
    if missing:
        raise DataError(f"attack {name}: expected {list(attack.needs)}, got no {missing}")
    return [getattr(inputs, need) for need in attack.needs]


def _mean_of_text(text: NDArray[np.int64], values: NDArray[np.floating], num_texts: int) -> Scores:
    sums = np.bincount(text, weights=values, minlength=num_texts).astype(np.float64)
    return _ratio(sums, np.bincount(text, minlength=num_texts))


def _mean_of_lowest(tokens: TokenTable, values: Scores, share: float) -> Scores:
    if not 0 < share <= 1:
        raise ConfigError(f"min_k_share: expected a share in (0, 1], got {share}")
    lengths = np.bincount(tokens.text, minlength=tokens.num_texts)
    # Rounded first: 0.29 * 100 is a little less than 29.
    counts = np.maximum(np.floor(np.round(share * lengths, 9)), 1)
    ascending = np.lexsort((values, tokens.text))
    rank = np.arange(len(values)) - np.repeat(lengths.cumsum() - lengths, lengths)
    chosen = ascending[rank < counts[tokens.text]]
    return _mean_of_text(tokens.text[chosen], values[chosen], tokens.num_texts)


def _relative_log_likelihood(
    losses: NDArray[np.floating], references: References, offline: float
) -> Scores:
    out = _filled(_row_means(np.exp(-references.loss.astype(np.float64)), ~references.seen))
    relative = -losses - np.log((1 + offline) / 2 * out + (1 - offline) / 2)
    return np.asarray(relative, dtype=np.float64)


def _row_means(values: NDArray[np.floating], chosen: NDArray[np.bool_]) -> Scores:
    # In C order the bits of a row's sum do not depend on the other rows.
    kept = np.ascontiguousarray(np.where(chosen, values, 0.0), dtype=np.float64)
    return _ratio(kept.sum(axis=1), chosen.sum(axis=1))


def _ratio(sums: NDArray[np.floating], counts: NDArray[np.integer]) -> Scores:
    ratios = np.full(len(sums), np.nan)
    np.divide(sums, counts, out=ratios, where=counts > 0)
    return ratios


def _filled(values: Scores) -> Scores:
    known = values[~np.isnan(values)]
    if not len(known):
        raise DataError("references: expected a loss of some text, got none. Check `seen`.")
    # math.fsum is exact, so the order of the texts does not matter.
    filled = values.copy()
    filled[np.isnan(values)] = math.fsum(known) / len(known)
    return filled


def _require_rows(name: str, values: NDArray[np.generic], tokens: TokenTable) -> None:
    if len(values) != tokens.num_texts:
        raise DataError(f"{name}: expected {tokens.num_texts} rows, got {len(values)}")


def _require_tokens(name: str, values: NDArray[np.generic], tokens: TokenTable) -> None:
    if len(values) != len(tokens.text):
        raise DataError(
            f"{name}: expected one for each of the {len(tokens.text)} tokens, got {len(values)}. "
            "Record them with the tokenizer and the block size of the audited model."
        )
