"""A document and a question, as tokens of the model's chat template."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

_DOCUMENT = "\ue000document\ue000"

ANSWER_PREFIX = "According to the text,"
"""The model's turn starts with these words: a small model then answers in a sentence, from the text. After "Answer:" it
tends to give some short number at once."""


def _marked(number: int) -> str:
    """What stands in a turn's place while the template is filled in."""
    return f"\ue000{number}\ue000"


# A fast tokenizer keeps the switch for special tokens as state: encoding in two threads at once would read one
# visitor's text under the other's switch.
_encoding = threading.Lock()


def build_prompt(tokenizer: Any, document: str, question: str, earlier: Sequence[tuple[str, str]] = ()) -> list[int]:
    """Put a document and a question into the chat template as plain data.

    Both are tokenized apart from the template, with special tokens switched off: whatever the document
    contains, an end-of-turn marker for instance, it stays text.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    document, question : str
    earlier : sequence of (question, answer)
        The turns before this one.

    Returns
    -------
    list of int
        The token ids of the whole prompt, template included.
    """
    before, after = around(tokenizer, question, earlier=earlier)
    return [*before, *encode(tokenizer, document.strip()), *after]


def around(
    tokenizer: Any, question: str, prefix: str = ANSWER_PREFIX, earlier: Sequence[tuple[str, str]] = ()
) -> tuple[list[int], list[int]]:
    """The tokens before a document, and those after it: the question, the template's end, the answer's first words.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    question, prefix : str
        The prefix begins the model's turn.
    earlier : sequence of (question, answer)
        The turns before this one; the document stands in the first.
    """
    texts = [*(text for turn in earlier for text in turn), question]
    contents = [_marked(number) for number in range(len(texts))]
    contents[0::2] = [f"Question: {mark}" for mark in contents[0::2]]
    contents[1::2] = [f"{prefix} {mark}" for mark in contents[1::2]]
    contents[0] = f"{_DOCUMENT}\n\n{contents[0]}"
    if tokenizer.chat_template:
        roles = itertools.cycle(("user", "assistant"))
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    else:
        joined = "\n".join(contents)
        rendered = f"{tokenizer.bos_token or ''}{joined}\n"
    before, rest = rendered.split(_DOCUMENT)
    after: list[int] = []
    for number, text in enumerate(texts):
        between, rest = rest.split(_marked(number))
        # A space belongs to the word after it: " What" is one token of ordinary text, " " and "What" are not.
        said = " " * (len(between) - len(between.rstrip(" "))) + text.strip()
        after += [*encode(tokenizer, between.rstrip(" "), special=True), *encode(tokenizer, said)]
    return (
        encode(tokenizer, before, special=True),
        [*after, *encode(tokenizer, rest, special=True), *encode(tokenizer, prefix)],
    )


def encode(tokenizer: Any, text: str, special: bool = False) -> list[int]:
    """A text's token ids, none added; special tokens in it are plain text unless it is the template's."""
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate is no text
    with _encoding:
        return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not special)


def encode_all(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """The token ids of several texts, each by itself and as plain text."""
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    with _encoding:
        return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def decode(tokenizer: Any, ids: list[int], special: bool = True) -> str:
    """The text of token ids; without special tokens where `special` is False."""
    with _encoding:
        return tokenizer.decode(ids, skip_special_tokens=not special)


def pieces(tokenizer: Any, text: str) -> list[str]:
    """A text's tokens, each as text."""
    return [decode(tokenizer, [token]) for token in encode(tokenizer, text)]
