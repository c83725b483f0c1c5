"""The size of a run and measured rates -> bytes that it stores and hours that it takes."""

from dataclasses import dataclass
from typing import Final, NamedTuple

# Of float32: a loss, a weight, and each of the two moments of AdamW.
FLOAT_BYTES: Final = 4
SECONDS_PER_HOUR: Final = 3600


@dataclass(frozen=True)
class Size:
    """The run that is estimated."""

    tokens: float
    documents: float
    token_bytes: float  # of text
    epochs: int
    checkpoints: int  # frozen models that compute the loss of every document
    references: int  # models of halves
    retrained: int
    plans: int
    largest_model: float  # parameters
    copies: float  # of every stored byte: workspace, DVC's cache and its remote make three

    @property
    def text_bytes(self) -> float:
        """The corpus as plain text."""
        return self.tokens * self.token_bytes


@dataclass(frozen=True)
class Machines:
    """The machines that it runs on."""

    gpus: int
    peak: float  # FLOP/s of a GPU
    utilisation: float  # share of the peak that training reaches
    cores: int
    network: float  # bytes a second


@dataclass(frozen=True)
class Measured:
    """Bytes that our files take on disk, and rates of our functions on one core."""

    corpus: float  # bytes for a byte of text
    curated: float  # the same
    loss: float  # bytes for a byte of float32
    index: float  # bytes a document, as all of the following
    halves: float
    reference: float
    scores: float
    quadrants: float
    plan: float
    ingested: float  # documents a second
    compared: float  # documents a second
    mapped: float  # losses a second
    hashed: float  # bytes a second


class Part(NamedTuple):
    """An amount and how it is counted: bytes, FLOPs or seconds of one core."""

    name: str
    how: str
    amount: float


# ---- what is stored, each once


def storage(size: Size, measured: Measured) -> list[Part]:
    """Bytes of everything that DVC keeps of a run."""
    documents = size.documents
    losses = documents * size.checkpoints * FLOAT_BYTES * measured.loss
    references = size.references * documents * measured.reference
    halves = documents * measured.halves if size.references else 0.0
    models = (1 + size.retrained) * size.largest_model * FLOAT_BYTES
    return [
        Part(
            "corpus",
            f"{size.token_bytes:g} bytes a token, x{measured.corpus:.2f} on disk",
            size.text_bytes * measured.corpus,
        ),
        Part(
            "trace",
            f"{size.checkpoints} float32 losses a document, x{measured.loss:.2f} on disk, "
            f"and {measured.index:.0f} bytes of index",
            losses + documents * measured.index,
        ),
        Part(
            "reference losses",
            f"{size.references} x {measured.reference:.0f} bytes a document, "
            f"and {measured.halves:.0f} of halves",
            references + halves,
        ),
        Part("scores", f"{measured.scores:.0f} bytes a document", documents * measured.scores),
        Part(
            "quadrants",
            f"{measured.quadrants:.0f} bytes a document",
            documents * measured.quadrants,
        ),
        Part(
            "plans",
            f"{size.plans} x {measured.plan:.0f} bytes a document",
            size.plans * documents * measured.plan,
        ),
        Part(
            "curated data",
            f"at most all text, x{measured.curated:.2f} on disk",
            size.text_bytes * measured.curated,
        ),
        Part("models", f"{1 + size.retrained} x 4 bytes a parameter, the largest", models),
    ]


def kept(parts: list[Part], copies: float) -> float:
    """Bytes of all parts, stored ``copies`` times."""
    return copies * sum(part.amount for part in parts)


def training_state(parameters: float) -> float:
    """Bytes of a checkpoint to resume from: float32 weights and both moments of AdamW."""
    return 3 * FLOAT_BYTES * parameters


# ---- what GPUs do


def forward(parameters: float, tokens: float) -> float:
    """FLOPs of a pass without gradients. Source: Kaplan et al. 2020, arXiv:2001.08361."""
    return 2 * parameters * tokens


def training(parameters: float, tokens: float) -> float:
    """FLOPs of a training pass; the backward pass takes twice the forward one. Source: as above."""
    return 3 * forward(parameters, tokens)


def gpu_work(size: Size, parameters: float) -> list[Part]:
    """FLOPs of all training and evaluation passes of a model of this size."""
    once = size.epochs * training(parameters, size.tokens)
    evaluated = forward(parameters, size.tokens)
    return [
        Part("the tracked run", f"6 N D x {size.epochs}", once),
        Part(
            "its losses at every checkpoint",
            f"2 N D x {size.checkpoints}",
            size.checkpoints * evaluated,
        ),
        Part(
            "reference models of halves",
            f"(3 N D x {size.epochs} + 2 N D) x {size.references}",
            size.references * (once / 2 + evaluated),
        ),
        Part(
            "retrained models", f"6 N D x {size.epochs} x {size.retrained}", size.retrained * once
        ),
    ]


def gpu_hours(flops: float, machines: Machines) -> float:
    """Hours that all GPUs together need."""
    rate = machines.gpus * machines.peak * machines.utilisation
    return flops / rate / SECONDS_PER_HOUR


# ---- what cores and the network do


def core_work(size: Size, measured: Measured) -> list[Part]:
    """Seconds that one core needs."""
    losses = size.documents * size.checkpoints
    stored = kept(storage(size, measured), 1)
    return [
        Part(
            "normalise, hash and tokenise",
            f"{measured.ingested:,.0f} documents a second",
            size.documents / measured.ingested,
        ),
        Part(
            "find near copies",
            f"{measured.compared:,.0f} documents a second",
            size.documents / measured.compared,
        ),
        Part(
            "trace to scores and quadrants",
            f"{measured.mapped / 1e6:,.1f} million losses a second",
            losses / measured.mapped,
        ),
        Part(
            "MD5 of all files",
            f"{measured.hashed / 1e6:,.0f} MB a second",
            stored / measured.hashed,
        ),
    ]


def core_hours(seconds: float, machines: Machines) -> float:
    """Hours that all cores together need."""
    return seconds / machines.cores / SECONDS_PER_HOUR


def transfer_hours(stored: float, machines: Machines) -> float:
    """Hours to transfer so many bytes to the remote."""
    return stored / machines.network / SECONDS_PER_HOUR
