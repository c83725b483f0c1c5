"""Loss trace -> difficulty, memorization and every enabled score, one row per sample.

Every registered score is higher the more a sample is taken to be memorized.
"""

from gdc.schema import REFERENCES
from gdc.scores.epsilon import epsilon_of
from gdc.scores.registry import (
    REGISTRY,
    STREAMED,
    cost_class,
    reads_of,
    reads_run,
    require_registered,
)
from gdc.scores.samples import (
    FORGETTING,
    Scored,
    columns_read,
    corpus_columns,
    reads_epsilon,
    scan_scores,
    score_samples,
    score_unseen,
)
from gdc.scores.summary import summarize, summarize_map

__all__ = [
    "FORGETTING",
    "REFERENCES",
    "REGISTRY",
    "STREAMED",
    "Scored",
    "columns_read",
    "corpus_columns",
    "cost_class",
    "epsilon_of",
    "reads_epsilon",
    "reads_of",
    "reads_run",
    "require_registered",
    "scan_scores",
    "score_samples",
    "score_unseen",
    "summarize",
    "summarize_map",
]
