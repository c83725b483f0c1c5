"""A word of the field -> what it means, for the page."""

import re
from collections.abc import Mapping
from typing import Final

from markupsafe import Markup

from gdc.scores import REGISTRY

GLOSSARY: Final[Mapping[str, str]] = {
    "score": "a number for each text, made of its losses while a model trained; higher is taken to "
    "be more memorized",
    "threshold": "of a score: texts above it are taken to be memorized; the dashed line of the map",
    "ordinary": "a text of yours, not one that was planted to measure",
    "confirm": "the loss of the text differs more between models that did and did not train on it "
    "than that of nine in ten ordinary texts",
    "precision": "the share of the listed texts that is confirmed",
    "arm": "one way to curate the training texts; fresh models are trained on what it leaves",
    "quadrant": "one of four fields of the map: easy or hard at first, and low or high on the "
    "memorization axis",
    "hotspot-memorized": "a quadrant: easy at first and above the threshold",
    "noisy-outlier": "a quadrant: hard at first and above the threshold, so taken to be memorized "
    "too; its name is the paper's",
    "difficulty": "the mean loss of a text at the first checkpoints",
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
    "order of ordinary text": "rank correlation, over ordinary texts, with how much better models "
    "know a text that trained on it than those that did not; 1: the same order, 0: none",
    "to choose": "measured on the canaries by which the automatic choice of the axis is made",
    "to report": "measured on canaries that had no part in that choice",
    "TPR": "true positive rate: the share of training texts found, at a rate of false alarms (FPR)",
    "privacy epsilon": "the least epsilon of differential privacy that fits what the attack finds; "
    "not the threshold of a loss",
}


def meaning_of(score: str) -> str:
    """What a score is, in the first sentence of its description; empty for an unknown one."""
    known = REGISTRY.get(score)
    return " ".join((known.function.__doc__ or "").split("\n\n")[0].split()) if known else ""


def glossary_with(axis: str) -> Mapping[str, str]:
    """The glossary, and what the score of the map is where that is known."""
    meaning = meaning_of(axis)
    return {**GLOSSARY, **({axis: meaning} if meaning else {})}


def word(name: str) -> Markup:
    """A word of the glossary that says on hover what it means."""
    return _hover(name, GLOSSARY)


def explained(sentence: str, glossary: Mapping[str, str] = GLOSSARY) -> Markup:
    """A sentence in which the first of each word of the glossary says what it means."""
    words = re.compile(
        rf"\b({'|'.join(map(re.escape, sorted(glossary, key=len, reverse=True)))})\b"
    )
    told: set[str] = set()
    parts = []
    for part in words.split(sentence):
        parts.append(_hover(part, glossary) if part in glossary and part not in told else part)
        told.add(part)
    return Markup("").join(parts)


def _hover(name: str, glossary: Mapping[str, str]) -> Markup:
    return Markup('<abbr title="{}">{}</abbr>').format(glossary[name], name)
