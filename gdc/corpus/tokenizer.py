"""Texts <-> token ids: a byte-level BPE trained on the corpus, or a pretrained tokenizer."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from gdc.environment import is_only_in_cache
from gdc.errors import ConfigError, SchemaError, TransientError
from gdc.filesystem.json_values import JsonObject
from gdc.filesystem.model_folders import require_sound

END_OF_TEXT: Final = "<|endoftext|>"
# Bytes of text that are encoded at a time; their ids, as Python objects, take ten times as many.
CHUNK_BYTES: Final = 2**22
# Characters that the library encodes at a time: it keeps strings and offsets of all their tokens.
_ENCODED: Final = 2**19
# Start and end (exclusive) of each token of a text, in characters.
Offsets = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer and the id of the end of a text.

    A sample's sequence is ``[end_of_text] + ids + [end_of_text]``: it has ``len(ids) + 1``
    predicted tokens.

    Attributes:
        chat_template: Of the pretrained tokenizer; None: it has none.
        special_tokens: What the template may name: ``bos_token`` and the like.
        reads_special: Whether a text may spell special tokens, as those of a chat template do.
    """

    tokenizer: Tokenizer
    end_of_text: int
    chat_template: str | None = None
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    reads_special: bool = False

    def __post_init__(self) -> None:
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        # A text that spells a special token is ordinary text and must not end the sample.
        self.tokenizer.encode_special_tokens = not self.reads_special

    @property
    def vocab_size(self) -> int:
        """Number of ids, the end of text included."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, no special token added."""
        ids: list[list[int]] = []
        for rows in chunk_rows(np.array([len(text) for text in texts], np.int64), _ENCODED):
            some = list(texts[rows])
            encodings = self.tokenizer.encode_batch_fast(some, add_special_tokens=False)
            ids += [encoding.ids for encoding in encodings]
        return ids

    def reading_special_tokens(self) -> "TextTokenizer":
        """The same for texts in which special tokens are meant."""
        return replace(self, tokenizer=self._copy(), reads_special=True)

    def num_ids(self, texts: pl.Series) -> list[int]:
        """Number of ids of each text; memory holds the ids of one chunk of texts at a time."""
        return [len(ids) for chunk in text_chunks(texts) for ids in self.encode(chunk.to_list())]

    def offsets(self, texts: Sequence[str]) -> list[Offsets]:
        """Offsets of each token of each text.

        A token includes its blanks. A token that is a part of a character has the offsets of the
        whole character, so neighbours may overlap.
        """
        return self.encode_with_offsets(texts)[1]

    def encode_with_offsets(self, texts: Sequence[str]) -> tuple[list[list[int]], list[Offsets]]:
        """The results of ``encode`` and ``offsets``, by reading the texts once."""
        encodings = self._without_post_processor.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings], [of.offsets for of in encodings]

    def has_loss(
        self, texts: Sequence[str], unscored: Sequence[Sequence[Mapping[str, int]]]
    ) -> list[NDArray[np.bool_]]:
        """Whether each token of each text lies outside the spans that carry no loss."""
        return tokens_with_loss(self.offsets(texts), unscored)

    @cached_property
    def _without_post_processor(self) -> Tokenizer:
        bare = replace(self, tokenizer=self._copy()).tokenizer
        # It may cut blanks off the offsets.
        bare.post_processor = None
        return bare

    def _copy(self) -> Tokenizer:
        return Tokenizer.from_str(self.tokenizer.to_str())

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; special tokens are spelled out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))


def text_chunks(texts: pl.Series) -> Iterator[pl.Series]:
    """The texts in order, at most ``CHUNK_BYTES`` of text, or one text, at a time."""
    for rows in chunk_rows(texts.str.len_bytes().to_numpy()):
        yield texts[rows]


def chunk_rows(sizes: NDArray[np.integer], chunk_size: int = CHUNK_BYTES) -> Iterator[slice]:
    """The rows of each part of ``text_chunks``, from the bytes of each text."""
    chunk = sizes.cumsum(dtype=np.int64) // chunk_size
    edges = np.flatnonzero(np.diff(chunk, prepend=-1, append=-1))
    for first, last in pairwise(edges.tolist()):
        yield slice(first, last)


def masked_tokens(offsets: Offsets, masked: Sequence[Mapping[str, int]]) -> NDArray[np.bool_]:
    """Whether each token of a text shares a character with a span.

    Args:
        offsets: Of the text's tokens.
        masked: Spans with ``start`` and ``end`` in characters.
    """
    start, end = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    spans = np.array(sorted((span["start"], span["end"]) for span in masked), dtype=np.int64)
    begin, until = spans.reshape(-1, 2).T
    # Of the spans that begin before a token ends, the farthest end lies behind the token's start.
    farthest = np.concatenate([[-1], np.maximum.accumulate(until)])
    return np.asarray(farthest[np.searchsorted(begin, end)] > start)


def tokens_with_loss(
    offsets: Sequence[Offsets], unscored: Sequence[Sequence[Mapping[str, int]]]
) -> list[NDArray[np.bool_]]:
    """``TextTokenizer.has_loss`` of texts whose offsets are known."""
    return [~masked_tokens(of, spans) for of, spans in zip(offsets, unscored, strict=True)]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> TextTokenizer:
    """Train a byte-level BPE.

    Args:
        texts: Training texts; their order does not matter.
        vocab_size: Entries at most, the 256 bytes and the end of text included; fewer when the
            texts have no more pairs to merge.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return TextTokenizer(tokenizer, _id(tokenizer, END_OF_TEXT))


def load_pretrained_tokenizer(name: str, revision: str | None) -> TextTokenizer:
    """Load the tokenizer of a pretrained model by Hub name or local path.

    Raises:
        ConfigError: There is no such tokenizer (offline: none in the local cache), or it has no
            end-of-text token.
        TransientError: The Hub did not answer and the tokenizer is not in the local cache.
    """
    from huggingface_hub import is_offline_mode  # noqa: PLC0415 - as the next one
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds, only here needed

    where = f"ingest.tokenizer.name: {name!r}"
    require_sound(Path(name), where)
    try:
        pretrained = AutoTokenizer.from_pretrained(
            name,
            revision=revision,
            trust_remote_code=False,
            local_files_only=is_only_in_cache(name),
        )
    except OSError as error:
        # Offline, transformers words a name that is not in the cache as a failure to connect.
        if "connect" in str(error).replace(name, "") and not is_offline_mode():
            raise TransientError(f"{where}: the Hub did not answer: {error}") from None
        raise ConfigError(
            f"{where}: expected a local folder or a Hub name (of the local cache only when "
            f"HF_HUB_OFFLINE is set): {error}"
        ) from None
    # The tokenizers library raises nothing narrower for a damaged file.
    except Exception as error:  # noqa: BLE001
        raise ConfigError(
            f"{where}: not a tokenizer that can be loaded: {type(error).__name__}: {error}"
        ) from None
    if pretrained.eos_token_id is None or not pretrained.is_fast:
        raise ConfigError(f"{where}: expected a fast tokenizer with an end-of-text token")
    template = pretrained.chat_template
    if isinstance(template, Mapping):
        template = template.get("default")
    return TextTokenizer(
        Tokenizer.from_str(pretrained.backend_tokenizer.to_str()),
        pretrained.eos_token_id,
        template if isinstance(template, str) else None,
        {name: str(token) for name, token in pretrained.special_tokens_map.items()},
    )


def save_tokenizer(tokenizer: TextTokenizer, folder: Path) -> None:
    """Write ``tokenizer.json`` and a ``tokenizer_config.json`` for ``AutoTokenizer``."""
    token = tokenizer.tokenizer.id_to_token(tokenizer.end_of_text)
    config: JsonObject = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "bos_token": token,
        "eos_token": token,
        "unk_token": token,
    }
    if tokenizer.reads_special:
        config |= {"split_special_tokens": False, "chat_template": tokenizer.chat_template}
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def load_tokenizer(folder: Path) -> TextTokenizer:
    """Read what ``save_tokenizer`` wrote.

    Raises:
        SchemaError: The folder holds no tokenizer, or a damaged one.
    """
    settings, content = folder / "tokenizer_config.json", folder / "tokenizer.json"
    with _refusing_damage(settings):
        config = json.loads(settings.read_text(encoding="utf-8"))
        token = config["eos_token"]
    with _refusing_damage(content):
        tokenizer = Tokenizer.from_str(content.read_text(encoding="utf-8"))
        end_of_text = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if end_of_text is None:
        raise SchemaError(
            f"{settings}: expected an eos_token that tokenizer.json knows, got {token!r}. "
            "Make it again: gdc stage ingest."
        )
    return TextTokenizer(
        tokenizer,
        end_of_text,
        config.get("chat_template"),
        reads_special=config.get("split_special_tokens") is False,
    )


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise SchemaError(f"{path}: not found. Re-run: gdc stage ingest.") from None
    # The tokenizers library raises nothing narrower for a damaged file.
    except Exception as error:  # noqa: BLE001
        raise SchemaError(
            f"{path}: expected the tokenizer that stage ingest wrote, got "
            f"{type(error).__name__}: {error}. Make it again: gdc stage ingest."
        ) from None


def _id(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.token_to_id(token)
    assert token_id is not None  # noqa: S101 - we put it there
    return int(token_id)
