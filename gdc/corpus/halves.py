"""Samples and their near copies -> which reference model is trained on which half."""

from collections.abc import Mapping

import polars as pl

from gdc.errors import ConfigError
from gdc.schema import HALVES
from gdc.statistics.hashing import hash_order


def assign_halves(
    samples: pl.DataFrame, twins: pl.DataFrame, *, num_models: int, seed: int
) -> pl.DataFrame:
    """Give every sample to one of the two models of each pair.

    Models 2k and 2k + 1 get complementary random halves, so every sample is unseen by half of the
    models. Exact and near copies fall in the same half: one that is seen would tell of the others.
    Held-out texts are assigned too, though no model is trained on them: those that they fall to
    are left out when they are asked about, as for a member, so that both are asked of as many.

    Args:
        samples: Unique ``sample_id`` and ``content_id``, rows in any order.
        twins: ``sample_id`` of near copies and ``duplicate_of`` of the kept one each is like.
        num_models: Even; 0 assigns nothing.
        seed: Of the assignment.

    Returns:
        ``HALVES`` table sorted by ``sample_id``.

    Raises:
        ConfigError: ``num_models`` is odd.

    Source: Feldman & Zhang 2020, arXiv:2008.03703; pairs as in Carlini et al. 2022,
        arXiv:2112.03570.
    """
    if num_models % 2:
        raise ConfigError(f"reference.models: expected an even number, got {num_models}.")
    group = _groups(samples, twins)
    ids = samples["sample_id"].sort().to_list()
    groups = sorted(set(group.values()))
    seen: dict[str, list[bool]] = {name: [] for name in groups}
    for pair in range(num_models // 2):
        draws = hash_order(groups, seed=seed, purpose=f"half {pair}")
        for name, draw in zip(groups, draws, strict=True):
            # By a bit of the group's own hash: it does not depend on the other groups.
            first = draw % 2 == 0
            seen[name] += [first, not first]
    return pl.DataFrame({"sample_id": ids, "seen": [seen[group[i]] for i in ids]}, schema=HALVES)


def _groups(samples: pl.DataFrame, twins: pl.DataFrame) -> Mapping[str, str]:
    """Name of the group of each sample: the smallest ``content_id`` of the texts that are alike."""
    content = dict(samples.select("sample_id", "content_id").iter_rows())
    above = {name: name for name in content.values()}
    pairs = twins.select("sample_id", "duplicate_of").sort("sample_id").iter_rows()
    for one, other in pairs:
        ends = sorted((_root(content[one], above), _root(content[other], above)))
        above[ends[1]] = ends[0]
    return {sample: _root(name, above) for sample, name in content.items()}


def _root(name: str, above: Mapping[str, str]) -> str:
    while above[name] != name:
        name = above[name]
    return name
