"""A document and a question, as tokens of the model's chat template."""

from __future__ import annotations

import threading
from typing import Any

_DOCUMENT, _QUESTION = "\ue000document\ue000", "\ue000question\ue000"

ANSWER_PREFIX = "Answer:"
"""The model's turn starts with this word: a small model then answers instead of ending its turn at once."""

# A fast tokenizer keeps the switch for special tokens as state: encoding in two threads at once would read one
# visitor's text under the other's switch.
_encoding = threading.Lock()


def build_prompt(tokenizer: Any, document: str, question: str) -> list[int]:
    """Put a document and a question into the chat template as plain data.

    Both are tokenized apart from the template, with special tokens switched off: whatever the document
    contains, an end-of-turn marker for instance, it stays text.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    document, question : str

    Returns
    -------
    list of int
        The token ids of the whole prompt, template included.
    """
    before, after = around(tokenizer, question)
    return [*before, *encode(tokenizer, document.strip()), *after]


def around(tokenizer: Any, question: str, prefix: str = ANSWER_PREFIX) -> tuple[list[int], list[int]]:
    """The tokens before a document, and those after it: the question, the template's end, the answer's first words.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    question, prefix : str
        The prefix begins the model's turn.
    """
    content = f"{_DOCUMENT}\n\nQuestion: {_QUESTION}"
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": content}]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    else:
        rendered = f"{tokenizer.bos_token or ''}{content}\n"
    before, rest = rendered.split(_DOCUMENT)
    between, after = rest.split(_QUESTION)
    # A space belongs to the word after it: " What" is one token of ordinary text, " " and "What" are not.
    asked = " " * (len(between) - len(between.rstrip(" "))) + question.strip()
    return (
        encode(tokenizer, before, special=True),
        [
            *encode(tokenizer, between.rstrip(" "), special=True),
            *encode(tokenizer, asked),
            *encode(tokenizer, after, special=True),
            *encode(tokenizer, prefix),
        ],
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
