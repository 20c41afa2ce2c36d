"""A document and a question, as tokens of the model's chat template."""

from __future__ import annotations

import copy
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from lampe.errors import InputError, first_line

PART = 65_536
"""Characters that are tokenized at once: some hundredths of a second."""

_DOCUMENT = "\ue000document\ue000"

ANSWER_PREFIX = "According to the text,"
"""The model's turn starts with these words: a small model then answers in a sentence, from the text. After "Answer:" it
tends to give some short number at once."""


def _marked(number: int) -> str:
    """What stands in a turn's place while the template is filled in."""
    return f"\ue000{number}\ue000"


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

    Raises
    ------
    InputError
        If the model's chat template fails, or leaves one of them out.
    """
    texts = [*(text for turn in earlier for text in turn), question]
    contents = [_marked(number) for number in range(len(texts))]
    contents[0::2] = [f"Question: {mark}" for mark in contents[0::2]]
    contents[1::2] = [f"{prefix} {mark}" for mark in contents[1::2]]
    contents[0] = f"{_DOCUMENT}\n\n{contents[0]}"
    if tokenizer.chat_template:
        roles = itertools.cycle(("user", "assistant"))
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
        try:
            rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except InputError:
            raise
        except (TemplateError, ValueError) as error:
            raise InputError(
                f"This model's chat template fails ({first_line(error)}). Choose another model."
            ) from error
    else:
        joined = "\n".join(contents)
        rendered = f"{tokenizer.bos_token or ''}{joined}\n"
    marks = [_DOCUMENT, *map(_marked, range(len(texts)))]
    if any(rendered.count(mark) != 1 for mark in marks):
        raise InputError(
            "This model's chat template doesn't pass on a document and a question as they are. Choose another model."
        )
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
    return [token for part in encode_parts(tokenizer, text, special) for token in part]


def encode_parts(tokenizer: Any, text: str, special: bool = False) -> Iterator[list[int]]:
    """The same a part at a time, so that a long text can be left off and never holds up others."""
    for part in parts_of(text):
        yield from _encoded(tokenizer, [part], special)


def encode_all(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of several texts, each by itself and as plain text."""
    return _encoded(tokenizer, texts, special=False)


def parts_of(text: str) -> Iterator[str]:
    """A text in parts of at most `PART` characters, which end with a line if one ends in their second half, else
    before a space.

    Each is tokenized by itself, wherever this library tokenizes: what it takes grows with the text's length alone,
    whichever letters are in it.
    """
    start = 0
    while len(text) - start > PART:
        line, space = (text.rfind(border, start + PART // 2, start + PART) for border in ("\n", " "))
        stop = line + 1 if line >= 0 else space if space >= 0 else start + PART
        yield text[start:stop]
        start = stop
    if start < len(text):
        yield text[start:]


def decode(tokenizer: Any, ids: list[int], special: bool = True) -> str:
    """The text of token ids; without special tokens where `special` is False."""
    return _settled(tokenizer, split=True).decode(ids, skip_special_tokens=not special)


def pieces(tokenizer: Any, text: str) -> list[str]:
    """A text's tokens, each as text."""
    return [decode(tokenizer, [token]) for token in encode(tokenizer, text)]


def _encoded(tokenizer: Any, texts: Sequence[str], special: bool) -> list[list[int]]:
    if not texts:
        return []
    texts = [text.encode("utf-8", "replace").decode() for text in texts]  # a lone surrogate is no text
    settled = _settled(tokenizer, split=not special)
    with nullcontext() if settled.is_fast else _slow:
        return settled(texts, add_special_tokens=False, split_special_tokens=not special)["input_ids"]


# A fast tokenizer keeps the switch for special tokens as state, so that threads which want it different would read
# one visitor's text under the other's switch, or wait for each other: each way has a tokenizer of its own.
_settled_ones: WeakKeyDictionary[Any, dict[bool, Any]] = WeakKeyDictionary()
_settling, _slow = threading.Lock(), threading.Lock()


def _with_new_locks() -> None:
    """In a forked process: whoever held one isn't there to give it back."""
    global _settling, _slow
    _settling, _slow = threading.Lock(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_with_new_locks)


def _settled(tokenizer: Any, split: bool) -> Any:
    """This tokenizer, or a copy, with the switch as it is wanted, and never changed."""
    if not tokenizer.is_fast:  # which has no such state, but may have others
        return tokenizer
    with _settling:
        ones = _settled_ones.setdefault(tokenizer, {})
        if split not in ones:
            ones[split] = copy.deepcopy(tokenizer)
            ones[split]("a", add_special_tokens=False, split_special_tokens=split)
        return ones[split]
