"""Loss trace -> difficulty, memorization and every enabled score, one row per sample.

Every registered score is higher the more a sample is taken to be memorized.
"""

from gdc.schema import REFERENCES
from gdc.scores.registry import REGISTRY, cost_class, needs_of, require_registered
from gdc.scores.samples import Scored, epsilon_of, score_samples

__all__ = [
    "REFERENCES",
    "REGISTRY",
    "Scored",
    "cost_class",
    "epsilon_of",
    "needs_of",
    "require_registered",
    "score_samples",
]
