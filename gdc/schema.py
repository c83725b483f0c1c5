"""The tables that pass between stages: their columns, dtypes and units.

Losses are cross-entropies in nats per token. One row is one sample unless a table says otherwise.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Literal, get_args

import polars as pl

from gdc.errors import SchemaError

if TYPE_CHECKING:
    import pyarrow as pa

Split = Literal["train", "validation", "reserved"]
Quadrant = Literal["stable-easy", "ambiguous-hard", "hotspot-memorized", "noisy-outlier"]
Action = Literal["keep", "drop", "weight", "copy", "mask", "early", "live", "private"]
QUADRANTS: Final[tuple[str, ...]] = get_args(Quadrant)
# Those above the memorization threshold.
FLAGGED: Final = ("hotspot-memorized", "noisy-outlier")
# A table in parts, in row order, so that memory need not hold all texts at once. It is iterated
# more than once: a list of tables or ``tables.chunks``, never a generator.
Chunks = Iterable[pl.DataFrame]
# What a calibration card says of a score.
Verdict = Literal["predicts memorization here", "does not", "not shown"]

# Rows of a source, in source order, before any normalisation.
SOURCE_ROWS: Final = pl.Schema({"text": pl.String, "source": pl.String})

# `split` is `reserved` for text that natural canaries and their twins are made of.
CORPUS: Final = pl.Schema(
    {
        "sample_id": pl.String,  # content_id, a dash, the ordinal of the copy
        "content_id": pl.String,  # hash of the normalised text, shared by exact copies
        "num_copies": pl.Int64,  # rows of its split with this content_id, this one included
        "text": pl.String,
        "num_chars": pl.Int64,
        "num_tokens": pl.Int64,  # predicted tokens: the text's and one end of text
        "source": pl.String,  # file and line; `canary` for planted text
        "split": pl.String,
        "canary_id": pl.String,  # null for ordinary text
    }
)
QUARANTINE: Final = pl.Schema({"source": pl.String, "reason": pl.String})
# One row is a usable row of the source, in source order; there are none without a `key_field`.
KEYS: Final = pl.Schema(
    {
        "source": pl.String,  # as in the corpus
        "key": pl.String,  # the row's value of `ingest.source.key_field`
    }
)

# One row is a turn of a conversation of the corpus, of a planted one too; texts that are no
# conversations have none. `start` and `end` are characters of its `text`, `end` exclusive.
TURNS: Final = pl.Schema(
    {
        "content_id": pl.String,
        "turn": pl.Int64,  # from 0
        "role": pl.String,
        "start": pl.Int64,
        "end": pl.Int64,
        "has_loss": pl.Boolean,  # what the assistant says; nothing else of the text has a loss
    }
)
# One row is a canary, or a twin that was never planted (num_repeats 0).
CANARIES: Final = pl.Schema(
    {
        "canary_id": pl.String,
        "family": pl.String,
        "prefix": pl.String,
        "secret": pl.String,
        "text": pl.String,  # prefix + secret
        "num_repeats": pl.Int64,
    }
)

TRACE_INDEX: Final = pl.Schema({"sample_id": pl.String, "num_tokens": pl.Int64})
# One row is a checkpoint: a column `loss_<checkpoint>` of the trace.
CHECKPOINTS: Final = pl.Schema(
    {
        "checkpoint": pl.Int64,
        "step": pl.Int64,  # optimizer steps taken when the losses were complete
        "epoch": pl.Float64,
        "mode": pl.String,  # `online` (in the training pass) or `probe` (frozen, eval mode)
        "learning_rate": pl.Float64,
    }
)
# An entry is a predicted token, so there are num_tokens; nats, frozen model in evaluation mode.
TOKEN_LOSSES: Final = pl.Schema(
    {
        "sample_id": pl.String(),
        "early": pl.List(pl.Float32),  # at the first probe, without probes after the first pass
        "late": pl.List(pl.Float32),  # after the last step
    }
)
FIRST_SEEN: Final = pl.Schema(
    {
        "sample_id": pl.String,
        "step": pl.Int64,  # optimizer steps taken after its first batch; null: never trained on
    }
)
SELF_INFLUENCE: Final = pl.Schema(
    {
        "sample_id": pl.String,
        # Loss before minus loss after, summed over the steps with the sample; null: no such step.
        "gain": pl.Float64,
    }
)

# One row is a training sample of a run that revised the weights.
REVISED_WEIGHTS: Final = pl.Schema(
    {
        "sample_id": pl.String(),
        "weight": pl.Float64(),  # in the last pass
        # The first pass, from 1, in which it had another weight than in the plan; null: none.
        "first_changed": pl.Int64(),
    }
)
# One row is a training or held-out sample. `seen` has an entry for each reference model: whether
# the sample is in its half. No model is trained on a held-out sample, whatever the entry.
HALVES: Final = pl.Schema({"sample_id": pl.String(), "seen": pl.List(pl.Boolean)})
REFERENCE_LOSS: Final = pl.Schema({"sample_id": pl.String, "loss": pl.Float32})  # nats per token
# A row is a sample under one reference model; token losses in nats, as in TOKEN_LOSSES.
REFERENCE_TOKENS: Final = pl.Schema({"sample_id": pl.String(), "token_losses": pl.List(pl.Float32)})
# Of one half-model of the leaderboard; token losses in nats, as in TOKEN_LOSSES.
HALF_MODEL_LOSS: Final = pl.Schema(
    {"sample_id": pl.String(), "loss": pl.Float32(), "token_losses": pl.List(pl.Float32)}
)
# The losses of all reference models; both lists are in the order of the models.
REFERENCES: Final = pl.Schema(
    {
        "sample_id": pl.String(),
        "loss": pl.List(pl.Float32),
        "seen": pl.List(pl.Boolean),
    }
)

# What `gdc map` writes: MAP is followed by the axis and the scores that are asked for, each of them
# Float64 but for `never_learned`, in the order of SCORES and then of the request, and by
# `quadrant`. With texts it is SCORES with all that follows it there.
MAP: Final = pl.Schema(
    {
        "sample_id": pl.String,
        "difficulty": pl.Float64,  # nats per token
    }
)
# SCORES is followed by one Float64 column for every enabled score of the registry, then by `cause`
# and `duplicate_ids` of gdc.mapping.causes, and in what `gdc map` writes by `quadrant`.
SCORES: Final = pl.Schema(
    {
        "sample_id": pl.String,
        "difficulty": pl.Float64,  # nats per token
        "memorization": pl.Float64,  # forget events per checkpoint step, in [0, 1]
        "first_learned": pl.Float64,  # first checkpoint with a loss below epsilon; null: never
        "never_learned": pl.Boolean,
    }
)
# One row is a sample in one of several tracked runs; `run` is an index into train.seeds. The table
# is followed by one Float64 column for every enabled score.
SCORES_BY_RUN: Final = pl.Schema(
    {
        "run": pl.Int64,
        "sample_id": pl.String,
        "difficulty": pl.Float64,
        "memorization": pl.Float64,
    }
)
# One row is a planted canary. Nats per token of its secret, mean over the tracked models, are
# compared with those of the never-planted twins of its family.
CANARY_MEMORIZATION: Final = pl.Schema(
    {
        "canary_id": pl.String,
        "family": pl.String,
        "num_repeats": pl.Int64,
        "num_twins": pl.Int64,
        "exposure": pl.Float64,  # bits, at most log2 of the twins; null without twins
        "is_memorized": pl.Boolean,  # likelier than every twin; null without twins
        "is_extracted": pl.Boolean,  # by greedy decoding of a tracked model
    }
)
# Scores of never-planted twins and of held-out text, on which no tracked model was trained, and one
# more column for every score that reads nothing but the losses.
UNSEEN_SCORES: Final = pl.Schema({"sample_id": pl.String})
QUADRANT_TABLE: Final = pl.Schema(
    {
        "sample_id": pl.String,
        "quadrant": pl.String,
        # Share of the tracked runs whose own map puts the sample there; null with one run.
        "stability": pl.Float64,
    }
)

# One row is a memorized span of a training text. `start` and `end` are character offsets (code
# points) in the text of the corpus, `end` exclusive.
SPANS: Final = pl.Schema(
    {
        "sample_id": pl.String,
        "start": pl.Int64,
        "end": pl.Int64,
        "num_tokens": pl.Int64,
        "nats": pl.Float64,  # sum over its tokens of mean held-out late loss minus late loss
    }
)

# One row is a turn with a loss of a training sample that is a conversation; losses are means over
# its tokens and the tracked runs.
TURN_LOSSES: Final = pl.Schema(
    {
        "sample_id": pl.String,
        "turn": pl.Int64,  # as in TURNS
        "num_tokens": pl.Int64,  # predicted ones; the end of text is of the last turn
        "early_loss": pl.Float64,  # at the first probe, without probes after the first pass
        "late_loss": pl.Float64,  # after the last step
        # Late loss of held-out tokens that were as hard at first, minus its own; nats per token.
        "gap": pl.Float64,
    }
)

# Spans whose tokens have no loss; later tokens still see them.
MASKED: Final = pl.List(pl.Struct({"start": pl.Int64(), "end": pl.Int64()}))
PLAN: Final = pl.Schema(
    {
        "sample_id": pl.String(),
        "action": pl.String(),  # `live`: the weights at the end stand beside each model
        "weight": pl.Float64(),  # factor of the sample's loss; 0 for a dropped sample
        "copies": pl.Int64(),  # times per epoch; 0 for a dropped sample
        "reason": pl.String(),
        "masked": MASKED,
    }
)
# Every row of the corpus with what is known of it, for other programs. It is followed by one
# Float64 column for every enabled score, then by `action_<arm>` for every arm, its dashes as
# underscores. A retrained arm of rule `live`, or `shuffled` of one, has there what its runs did:
# `weight` where that of any seed changed the weight in some pass, else `keep`; behind it stand
# `first_changed_<arm>` (Int64, the first such pass of any seed, from 1; null: none) and
# `num_seeds_<arm>` (Int64, how many of `retrain.seeds` did so). Split `train` alone has what stands
# after `num_tokens`.
SAMPLES: Final = pl.Schema(
    {
        "sample_id": pl.String(),
        "content_id": pl.String(),
        "text": pl.String(),
        "source": pl.String(),
        "split": pl.String(),
        "num_copies": pl.Int64(),
        "num_tokens": pl.Int64(),
        "canary": pl.String(),  # family/times planted; null for ordinary text
        "cause": pl.String(),
        "duplicate_ids": pl.List(pl.String),
        "quadrant": pl.String(),
        "stability": pl.Float64(),
        "spans": MASKED,  # memorized characters; empty where none are known
        "difficulty": pl.Float64(),
        "memorization": pl.Float64(),
        "first_learned": pl.Float64(),
        "never_learned": pl.Boolean(),
    }
)
CURATED: Final = pl.Schema(
    {
        "sample_id": pl.String(),
        "text": pl.String(),
        "weight": pl.Float64(),
        "copies": pl.Int64(),
        "quadrant": pl.String(),
        "reason": pl.String(),
        "masked": MASKED,
        "source": pl.String(),  # file and line
        "key": pl.String(),  # the row's value of `ingest.source.key_field`; null without one
    }
)
REMOVED: Final = pl.Schema(
    {
        "sample_id": pl.String,
        "text": pl.String,
        "quadrant": pl.String,
        "reason": pl.String,
        "source": pl.String,  # file and line
        "key": pl.String,  # as in CURATED
    }
)

# One row is a canary (planted or twin) under one model.
AUDIT: Final = pl.Schema(
    {
        "canary_id": pl.String,
        "family": pl.String,
        "num_repeats": pl.Int64,
        "num_secret_tokens": pl.Int64,
        "secret_nll": pl.Float64,  # sum over the secret's tokens given the prefix, nats
        # The same with another text before the prefix; null where the model's window has no room.
        "secret_nll_shifted": pl.Float64,
        "extracted": pl.Boolean,  # greedy decoding from the prefix gives the secret exactly
        "extracted_shifted": pl.Boolean,  # the same with another text before the prefix, or null
        # Similarity of the secret and the greedy tokens at its positions, given the true prefixes.
        "edit_similarity": pl.Float64,  # 1 minus the edit distance over the longer length
        "substring_share": pl.Float64,  # longest common substring over the secret's length
        "exposure": pl.Float64,  # bits among the twins of its family; null for a twin
        # Bits from a skew-normal fitted to the twins; null where they are too few.
        "exposure_fitted": pl.Float64,
        "fit_distance": pl.Float64,  # Kolmogorov-Smirnov distance of that fit from the twins
        "fit_is_beyond": pl.Boolean,  # more than 15 bits above what the twins resolve: extrapolated
    }
)

# One row is an ordinary training sample (member) or a held-out one under one model. It is
# followed by one Float64 column for every membership attack and blind baseline.
MEMBERSHIP: Final = pl.Schema(
    {
        "sample_id": pl.String,
        "is_member": pl.Boolean,
        "num_tokens": pl.Int64,
        "loss": pl.Float64,  # nats per token
        "num_suffix_tokens": pl.Int64,  # the second half of the text
        "suffix_nll": pl.Float64,  # sum over the suffix given the first half, nats
        "suffix_extracted": pl.Boolean,  # greedy decoding of the first half gives the suffix
    }
)
# One row is a predicted token of `gdc audit`, from which all of its other numbers follow. Texts are
# numbered: the canaries, the same with another text before them, then the samples.
TOKEN_RECORDS: Final = pl.Schema(
    {
        "sequence": pl.Int64,  # number of the text
        "position": pl.Int64,  # in the text; the last token is the end of text
        "nll": pl.Float32,  # negative log-likelihood, nats
        "is_greedy": pl.Boolean,  # the most likely token given the true ones before it
        "mean": pl.Float32,  # expectation of the log-probability over the vocabulary there, nats
        "std": pl.Float32,  # its standard deviation there, nats
        "greedy_id": pl.Int32,  # the most likely token there
    }
)


_FORMER_COLUMNS: Final = {"twin_ids": "duplicate_ids"}


def require(
    table: pl.DataFrame,
    schema: pl.Schema,
    *,
    name: str,
    remedy: str = "Re-run the stage that writes it.",
) -> None:
    """Raise ``SchemaError`` unless ``table`` starts with exactly the columns of ``schema``.

    A table of an older version, in which a column has a former name, is refused too.
    """
    for column in table.columns:
        if column in _FORMER_COLUMNS:
            raise SchemaError(
                f"{name}: `{column}` is called `{_FORMER_COLUMNS[column]}` now. Write the table "
                "again: gdc run."
            )
    head = pl.Schema(list(table.schema.items())[: len(schema)])
    if head != schema:
        raise SchemaError(
            f"{name}: expected columns {dict(schema)}, got {dict(table.schema)}. {remedy}"
        )


def to_arrow(table: pl.DataFrame) -> "pa.Table":
    """An Arrow table with types that every reader of Parquet supports."""
    return table.to_arrow(compat_level=pl.CompatLevel.oldest())
