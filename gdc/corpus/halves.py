"""Samples and their near duplicates -> which reference model is trained on which half."""

from collections.abc import Mapping

import polars as pl

from gdc.errors import ConfigError
from gdc.schema import HALVES
from gdc.statistics.hashing import hash_order


def assign_halves(
    samples: pl.DataFrame, duplicates: pl.DataFrame, *, num_models: int, seed: int
) -> pl.DataFrame:
    """Assign every sample to one of the two models of each pair.

    Models 2k and 2k + 1 get complementary random halves, so every sample is unseen by half of the
    models. Exact and near copies fall in the same half, as a model that saw one knows the others.
    Held-out texts are assigned too, though no model is trained on them: the models that they fall
    to are left out for them as for a member, so that both have losses of as many models.

    Args:
        samples: Unique ``sample_id`` and ``content_id``, rows in any order.
        duplicates: ``sample_id`` and ``duplicate_of``, the kept sample that each nearly copies.
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
    group = _groups(samples, duplicates)
    ids = samples["sample_id"].sort().to_list()
    groups = sorted(set(group.values()))
    seen: dict[str, list[bool]] = {name: [] for name in groups}
    for pair in range(num_models // 2):
        draws = hash_order(groups, seed=seed, purpose=f"half {pair}")
        for name, draw in zip(groups, draws, strict=True):
            # A bit of the group's own hash does not depend on the other groups.
            first = draw % 2 == 0
            seen[name] += [first, not first]
    return pl.DataFrame({"sample_id": ids, "seen": [seen[group[i]] for i in ids]}, schema=HALVES)


def with_near_copies(samples: pl.DataFrame, duplicates: pl.DataFrame) -> pl.Series:
    """The ids of the samples that share their half with another text that is like theirs.

    Texts of one set of shingles may differ, so a similarity of 1 does not say that they are equal.

    Args:
        samples: As for ``assign_halves``; more of them change nothing.
        duplicates: As for ``assign_halves``, of these samples.
    """
    alike = pl.concat([duplicates["sample_id"], duplicates["duplicate_of"]])
    members = samples.filter(pl.col("sample_id").is_in(alike.implode()))
    group = _groups(members, duplicates)
    groups = members.with_columns(group=pl.col("sample_id").replace_strict(group))
    has_others = pl.col("content_id").n_unique().over("group") > 1
    return groups.filter(has_others)["sample_id"]


def _groups(samples: pl.DataFrame, duplicates: pl.DataFrame) -> Mapping[str, str]:
    """Group of each sample, named by the smallest ``content_id`` of the texts that are alike."""
    content = dict(samples.select("sample_id", "content_id").iter_rows())
    above = {name: name for name in content.values()}
    pairs = duplicates.select("sample_id", "duplicate_of").sort("sample_id").iter_rows()
    for one, other in pairs:
        ends = sorted((_root(content[one], above), _root(content[other], above)))
        above[ends[1]] = ends[0]
    return {sample: _root(name, above) for sample, name in content.items()}


def _root(name: str, above: Mapping[str, str]) -> str:
    while above[name] != name:
        name = above[name]
    return name
