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
    Scored,
    corpus_columns,
    scan_scores,
    score_samples,
    score_unseen,
    summarize,
)

__all__ = [
    "REFERENCES",
    "REGISTRY",
    "STREAMED",
    "Scored",
    "corpus_columns",
    "cost_class",
    "epsilon_of",
    "reads_of",
    "reads_run",
    "require_registered",
    "scan_scores",
    "score_samples",
    "score_unseen",
    "summarize",
]
