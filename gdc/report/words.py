"""A word of the field -> what it means, for the page."""

import re
from collections.abc import Mapping
from typing import Final

from markupsafe import Markup

GLOSSARY: Final[Mapping[str, str]] = {
    "score": "a number for each text, made of its losses while a model trained; higher is taken to "
    "be more memorized",
    "ordinary": "a text of yours, not one that was planted to measure",
    "precision": "the share of the listed texts that is confirmed",
    "arm": "one way to curate the training texts; fresh models are trained on what it leaves",
    "quadrant": "one of four fields of the map: easy or hard at first, and low or high on the "
    "memorization axis",
    "nats": "the unit of a loss: minus the natural logarithm of the probability that the model "
    "gives; 0 is certain",
    "checkpoint": "a moment of the training at which the loss of every text is recorded",
    "canaries": "made-up secrets planted a known number of times, to measure what a model repeats",
    "planted secrets": "canaries: made up, and planted a known number of times",
    "twins": "made like canaries and never planted: what a model says of them it guessed",
    "points": "percentage points: from 30 % to 25 % is -5",
    "perplexity": "between how many equally likely next tokens a model wavers on held-out text; "
    "lower is better",
    "rare tenth": "the tenth of the held-out texts that was hardest at the first checkpoint",
    "extraction": "the share of planted secrets that a model completes word for word",
    "exposure": "how far a planted secret stands out among its twins; each bit halves its rank",
    "AUROC": "how often a memorized canary scores above another one; 0.5 is a coin, 1 is perfect",
    "to choose": "measured on the canaries by which the automatic choice of the axis is made",
    "to report": "measured on canaries that had no part in that choice",
    "TPR": "true positive rate: the share of training texts found, at a rate of false alarms (FPR)",
    "privacy epsilon": "the least epsilon of differential privacy that fits what the attack finds; "
    "not the threshold of a loss",
}

_WORDS: Final = re.compile(rf"\b({'|'.join(sorted(GLOSSARY, key=len, reverse=True))})\b")


def word(name: str) -> Markup:
    """A word of the glossary that says on hover what it means."""
    return Markup('<abbr title="{}">{}</abbr>').format(GLOSSARY[name], name)


def explained(sentence: str) -> Markup:
    """A sentence in which the first of each word of the glossary says what it means."""
    told: set[str] = set()
    parts = []
    for part in _WORDS.split(sentence):
        parts.append(word(part) if part in GLOSSARY and part not in told else part)
        told.add(part)
    return Markup("").join(parts)
