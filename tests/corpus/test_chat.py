"""Conversations as text: what stands where, which characters carry a loss, and what is refused."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from transformers import PreTrainedTokenizerFast

from gdc.corpus.chat import (
    ChatFormat,
    Conversation,
    Span,
    Turn,
    TurnSpan,
    UnusableError,
    say_canaries,
    scored_texts,
    turns_of,
    with_unscored,
    without_loss,
)
from gdc.corpus.tokenizer import (
    TextTokenizer,
    load_pretrained_tokenizer,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)
from gdc.schema import CANARIES

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = ChatFormat()


def talk(*said: tuple[str, str]) -> Conversation:
    return Conversation([Turn(role, text, role == "assistant", {}) for role, text in said])


TWO_ANSWERS = talk(
    ("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "2+2"),
    ("assistant", "four"),
)  # fmt: skip


def scored(chat: ChatFormat, conversation: Conversation) -> tuple[str, list[str]]:
    """The text, and the parts of it that carry a loss."""
    text, spans = chat.render(conversation)
    return text, [text[span.start : span.end] for span in spans if span.has_loss]


@pytest.fixture
def chatml(tmp_path: Path) -> TextTokenizer:
    """A tokenizer with the template of ChatML, whose end of text ends a turn."""
    bare = train_tokenizer(["Hello four system user assistant Be brief. Hi 2+2"] * 4, 280)
    special = {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]}
    fast = PreTrainedTokenizerFast(tokenizer_object=bare.tokenizer, **special)
    fast.chat_template = CHATML
    fast.save_pretrained(tmp_path / "chatml")
    return load_pretrained_tokenizer(str(tmp_path / "chatml"), None)


def as_rows(spans: Sequence[Span]) -> list[TurnSpan]:
    return [
        TurnSpan(role=role, start=start, end=end, has_loss=has_loss)
        for role, start, end, has_loss in spans
    ]


def test_turns_stand_below_their_roles_where_a_tokenizer_has_no_template() -> None:
    assert scored(PLAIN, TWO_ANSWERS) == (
        "System:\nBe brief.\n\nUser:\nHi\n\nAssistant:\nHello\n\nUser:\n2+2\n\nAssistant:\nfour",
        ["Hello", "four"],
    )


def test_bare_turns_follow_each_other_as_they_stand() -> None:
    asked = talk(("user", "Q: 2+2\r\nA:"), ("assistant", " four \n"))
    bare = ChatFormat.of(None, "none")
    assert scored(bare, asked) == ("Q: 2+2\nA: four", [" four"])


def test_a_template_of_a_tokenizer_makes_the_text_and_the_end_of_text_ends_it(
    chatml: TextTokenizer,
) -> None:
    text, answers = scored(ChatFormat.of(chatml, "tokenizer"), TWO_ANSWERS)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\n2+2<|im_end|>\n"
        "<|im_start|>assistant\nfour"
    )
    # A model learns to end a turn; the end of the last one is the end of text.
    assert answers == ["Hello<|im_end|>", "four"]


def test_the_loss_is_on_the_tokens_of_the_answers_alone(chatml: TextTokenizer) -> None:
    chat = ChatFormat.of(chatml, "tokenizer")
    tokenizer = chat.tokenizer(chatml)
    text, spans = chat.render(TWO_ANSWERS)
    unscored = without_loss(text, as_rows(spans))
    (ids,), (has_loss,) = tokenizer.encode([text]), tokenizer.has_loss([text], [unscored])
    answers = [tokenizer.decode([token]) for token in np.array(ids)[has_loss].tolist()]
    assert "".join(answers) == "Hello<|im_end|>four"
    # The marks of turns are tokens of their own, and in an ordinary text they are not.
    marks = [
        int(chatml.tokenizer.token_to_id(mark) or 0) for mark in ("<|im_start|>", "<|im_end|>")
    ]
    assert [ids.count(mark) for mark in marks] == [5, 4]
    assert not {*marks} & {*chatml.encode([text])[0]}


def test_a_saved_tokenizer_still_reads_the_marks_of_turns(
    chatml: TextTokenizer, tmp_path: Path
) -> None:
    tokenizer = ChatFormat.of(chatml, "tokenizer").tokenizer(chatml)
    save_tokenizer(tokenizer, tmp_path / "own")
    again = load_tokenizer(tmp_path / "own")
    text = "<|im_start|>user\nHi<|im_end|>"
    assert again.encode([text]) == tokenizer.encode([text])
    assert again.offsets([text]) == tokenizer.offsets([text])
    save_tokenizer(chatml, tmp_path / "text")
    config = json.loads((tmp_path / "text/tokenizer_config.json").read_text())
    assert "chat_template" not in config
    assert load_tokenizer(tmp_path / "text").encode([text]) == chatml.encode([text])


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        pytest.param(talk(), "no turn", id="nothing said"),
        pytest.param(talk(("user", "Hi")), "expected the last turn .* got 'user'", id="no answer"),
        pytest.param(talk(("assistant", " ")), "empty text of the assistant", id="empty answer"),
        pytest.param(
            Conversation([Turn("assistant", "", True, {"tool_calls": [{}]})]),
            "turn 1 has tool_calls",
            id="what the plain form cannot show",
        ),
        pytest.param(
            Conversation([Turn("assistant", "a", True, {})], [{"name": "search"}]),
            "tools, which",
            id="tools",
        ),
    ],
)
def test_a_conversation_that_would_lose_a_part_is_refused(
    conversation: Conversation, reason: str
) -> None:
    with pytest.raises(UnusableError, match=reason):
        PLAIN.render(conversation)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        pytest.param(
            "{% for m in messages if m.role != 'system' %}{{ m.content }} {% endfor %}",
            r"turn 1 \(system\) is not in what the chat template",
            id="drops the system's turn",
        ),
        pytest.param(
            "{{ raise_exception('roles must alternate') }}", "refuses it: roles must", id="raises"
        ),
    ],
)
def test_a_template_that_leaves_out_a_turn_is_refused(template: str, reason: str) -> None:
    with pytest.raises(UnusableError, match=reason):
        ChatFormat(template).render(TWO_ANSWERS)


def test_an_answer_is_found_in_a_template_that_changes_with_what_follows() -> None:
    counted = "{{ messages | length }}:{% for m in messages %}[{{ m.content }}]{% endfor %}"
    assert scored(ChatFormat(counted), TWO_ANSWERS)[1] == ["Hello", "four"]


def test_the_assistant_says_a_canary_and_the_text_ends_with_its_secret(
    chatml: TextTokenizer,
) -> None:
    rows = [("c-1", "digits", "The code is", " 42", "The code is 42", 3)]
    canaries = pl.DataFrame(rows, schema=CANARIES, orient="row")
    chat = ChatFormat.of(chatml, "tokenizer")
    said, turns = say_canaries(canaries, chat)
    start = "<|im_start|>user\nContinue.<|im_end|>\n<|im_start|>assistant\n"
    assert said["prefix"].item() == f"{start}The code is"
    assert said["text"].item() == f"{start}The code is 42"
    unscored = with_unscored(said.select("text"), turns)["unscored"].to_list()
    assert unscored == [[{"start": 0, "end": len(start)}]]
    assert chat.planted("The code is 42") == f"{start}The code is 42"


def test_what_has_no_loss_is_all_but_the_answers_and_texts_alone_have_none() -> None:
    text, spans = PLAIN.render(TWO_ANSWERS)
    samples = pl.DataFrame({"content_id": ["a", "b"], "text": [text, "a text"]})
    listed = pl.Series([as_rows(spans)])
    turns = turns_of(pl.Series(["a"]), listed)
    assert turns["turn"].to_list() == [0, 1, 2, 3, 4]
    found = with_unscored(samples, turns)
    assert scored_texts(found).to_list() == ["Hellofour", "a text"]
    assert with_unscored(samples, turns.head(0)).equals(samples)
    assert scored_texts(samples).to_list() == [text, "a text"]
