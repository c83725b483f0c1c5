"""Sections of params.yaml that say which texts there are: source, tokenizer, canaries."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gdc.config.section import MAX_VOCAB_SIZE, MAX_WORDS, Count, Items, Section

ChatTemplate = Annotated[
    Literal["tokenizer", "plain", "none"],
    Field(
        description="How turns become text: as the tokenizer's chat template says (plain if it has "
        "none); plain: each below the name of its role; none: one directly behind the other."
    ),
]


class PythonDocsSource(Section):
    """CPython's own documentation topics (paragraphs) and standard-library docstrings."""

    kind: Literal["python-docs"]


class PythonLibrarySource(Section):
    """CPython's documentation by paragraph: help topics, head comments of modules, docstrings.

    Shorter rows than those of ``python-docs``, and many that repeat: licences, authors, templates.
    """

    kind: Literal["python-library"]


class JsonlSource(Section):
    """One JSON object per line, in one file or in all JSON lines of a folder."""

    kind: Literal["jsonl"]
    path: str = Field(min_length=1, description="The file or folder.")
    text_field: str = Field(min_length=1, description="The key that holds the text.")
    key_field: str | None = Field(description="A field that names each row; must be unique.")


class ParquetSource(Section):
    """One row per sample, in one file or in all Parquet files of a folder."""

    kind: Literal["parquet"]
    path: str = Field(min_length=1, description="The file or folder.")
    text_field: str = Field(min_length=1, description="The column that holds the text.")
    key_field: str | None = Field(description="A column that names each row; must be unique.")


class TextSource(Section):
    """Plain UTF-8 text: one file, or all text files of a folder."""

    kind: Literal["text"]
    path: str = Field(min_length=1, description="The file or folder.")
    unit: Literal["file", "paragraph", "line"] = Field(description="What one sample is.")


class HuggingFaceSource(Section):
    """A data set by Hub name or local path (extra ``huggingface``)."""

    kind: Literal["huggingface"]
    path: str = Field(min_length=1, description="Hub name, or a local folder.")
    name: str | None = Field(description="Configuration of the data set.")
    split: str = Field(min_length=1, description="Split of the data set, such as train.")
    revision: str | None = Field(description="Commit, tag or branch on the Hub.")
    text_field: str = Field(min_length=1, description="The column that holds the text.")


class ChatSource(Section):
    """Conversations to fine-tune on: JSON lines, Parquet, or a data set saved by Hugging Face.

    The loss is on what the assistant says alone.
    """

    kind: Literal["chat"]
    path: str = Field(min_length=1, description="The file or folder.")
    turns: str | None = Field(
        description="The field of the conversation, with dots into nested ones (data.messages); "
        "null: messages, prompt and completion, or instruction and output, whichever rows have."
    )
    prompt: str | None = Field(
        description="A template of what the user says, with fields in braces; null: see turns."
    )
    completion: str | None = Field(
        description="The same of what the assistant says; null where prompt is."
    )
    chat_template: ChatTemplate
    key_field: str | None = Field(description="A field that names each row; must be unique.")

    @model_validator(mode="after")
    def _templates_come_in_pairs(self) -> Self:
        if (self.prompt is None) != (self.completion is None):
            raise ValueError("prompt and completion: expected both templates or neither")
        if self.prompt is not None and self.turns is not None:
            raise ValueError("turns: expected null beside the templates prompt and completion")
        return self


class TokensSource(Section):
    """Token ids that Megatron, GPT-NeoX or nanoGPT trains on; a sample is a document.

    ``ingest.tokenizer`` makes text of them and must be the one that they were made by.
    """

    kind: Literal["tokens"]
    path: str = Field(min_length=1, description="The .bin file, or a folder of them.")
    dtype: Literal["uint16", "uint32"] | None = Field(
        description="Type of the ids in nanoGPT's .bin; null: the .idx beside it says, of Megatron."
    )
    separator: Annotated[Count, Field(ge=0)] | None = Field(
        description="The id that parts documents in nanoGPT's .bin; null: the tokenizer's end of "
        "text."
    )

    @model_validator(mode="after")
    def _an_index_parts_documents(self) -> Self:
        if self.dtype is None and self.separator is not None:
            raise ValueError("separator: expected null where dtype is null, as an index is read")
        return self


class SyntheticSource(Section):
    """Sentences of a seeded Markov chain over made-up words, for the LSTM experiment."""

    kind: Literal["synthetic"]
    num_samples: Count = Field(ge=2, description="Sentences that are made.")
    num_words: Count = Field(ge=2, description="Size of the made-up vocabulary.")
    words_per_sample: Count = Field(ge=2, description="Words of a sentence.")
    branching: Count = Field(ge=1, description="Possible successors of each word.")


Source = Annotated[
    PythonDocsSource
    | PythonLibrarySource
    | JsonlSource
    | ParquetSource
    | TextSource
    | HuggingFaceSource
    | ChatSource
    | TokensSource
    | SyntheticSource,
    Field(discriminator="kind"),
]


class BpeTokenizer(Section):
    """A byte-level BPE trained on the corpus's training split."""

    kind: Literal["bpe"]
    vocab_size: int = Field(
        ge=257, le=MAX_VOCAB_SIZE, description="Entries, the 256 bytes and end of text included."
    )


class PretrainedTokenizer(Section):
    """The tokenizer of a pretrained model, by Hub name or local path."""

    kind: Literal["pretrained"]
    name: str = Field(min_length=1, description="Hub name, or a local folder.")
    revision: str | None = Field(description="Commit, tag or branch on the Hub.")


Tokenizer = Annotated[BpeTokenizer | PretrainedTokenizer, Field(discriminator="kind")]


class CanaryFamily(Section):
    """How many canaries of one family are planted, and how many twins are not."""

    repeats: Items[Annotated[Count, Field(ge=1)]] = Field(
        min_length=1, description="Times a canary is planted, one level each."
    )
    per_level: Count = Field(ge=1, description="Canaries of each level.")
    num_twins: Count = Field(ge=0, description="Canaries of the same kind that are never planted.")

    @model_validator(mode="after")
    def _levels_differ(self) -> Self:
        if len(set(self.repeats)) != len(self.repeats):
            raise ValueError(f"repeats: expected distinct levels, got {list(self.repeats)}")
        return self


class DigitCanaries(CanaryFamily):
    """A template with random digits: prefix ``template`` with its key filled in, secret digits."""

    template: str = Field(pattern=r"\{key\}", description="The prefix; {key} becomes digits.")
    key_digits: int = Field(ge=1, le=18, description="Digits of the key.")
    secret_digits: int = Field(ge=1, le=18, description="Digits of the secret.")


class WordCanaries(CanaryFamily):
    """Random words of the corpus's own vocabulary."""

    prefix_words: int = Field(ge=1, le=MAX_WORDS, description="Words of the prefix.")
    secret_words: int = Field(ge=1, le=MAX_WORDS, description="Words of the secret.")


class NaturalCanaries(CanaryFamily):
    """Held-out texts of the corpus itself, cut in two halves."""

    min_words: Count = Field(ge=2, description="Shorter texts are not used.")
    max_words: Count = Field(ge=2, description="Longer texts are not used.")

    @model_validator(mode="after")
    def _some_length_is_left(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words ({self.min_words}) exceeds max_words ({self.max_words})")
        return self


class CanariesConfig(Section):
    """Canary families to plant; null plants none."""

    digits: DigitCanaries | None
    words: WordCanaries | None
    natural: NaturalCanaries | None


class IngestConfig(Section):
    """Stage `ingest`."""

    source: Source
    max_samples: Count | None = Field(
        ge=2, description="Keep this many rows, chosen by hash; null keeps all."
    )
    choose_by: Literal["text", "beginning"] = Field(
        description="What is hashed: the text, or its first characters, so that texts that begin "
        "alike (templates, licences, near copies) are kept or left out together."
    )
    max_chars: Count = Field(ge=1, description="A longer row is a bad row.")
    on_bad_row: Literal["fail", "quarantine"] = Field(
        description="Stop, or put the row into data/quarantine.parquet."
    )
    validation_fraction: float = Field(gt=0, lt=1, description="Share of contents held out.")
    tokenizer: Tokenizer
    canaries: CanariesConfig

    @model_validator(mode="after")
    def _token_ids_have_their_tokenizer(self) -> Self:
        if self.source.kind == "tokens" and self.tokenizer.kind != "pretrained":
            raise ValueError(
                "tokenizer.kind: expected pretrained, the tokenizer that made the ids of the "
                f"source, got {self.tokenizer.kind}. Name it"
            )
        return self

    @model_validator(mode="after")
    def _natural_canaries_are_of_texts(self) -> Self:
        if self.source.kind == "chat" and self.canaries.natural is not None:
            raise ValueError(
                "canaries.natural: expected null for conversations, which are not cut in halves. "
                "Plant digits and words"
            )
        return self
