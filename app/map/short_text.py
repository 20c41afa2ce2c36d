"""A text so short that the map draws each of its tokens."""

from __future__ import annotations

from collections.abc import Callable

from lampe.errors import InputError

MOST_TOKENS = 400
_MOST_CHARACTERS = 20 * MOST_TOKENS
_ELSEWHERE = 'Longer ones belong in "Ask a document", and the map follows them.'


def tokens_of(text: str, cut: Callable[[str], list[str]]) -> list[str]:
    """A short text's tokens as text.

    Parameters
    ----------
    text : str
    cut : callable
        Cuts a text into its tokens; it is called for one that isn't too long for that.

    Raises
    ------
    InputError
        If it has more than `MOST_TOKENS` tokens, or so many characters that it is sure to.
    """
    if len(text) > _MOST_CHARACTERS:
        raise InputError(
            f"This text has {len(text):,} characters; here each token is drawn, so at most {_MOST_CHARACTERS:,} are "
            f"read. {_ELSEWHERE}"
        )
    found = cut(text)
    if len(found) > MOST_TOKENS:
        raise InputError(
            f"This text has {len(found):,} tokens; here each one is drawn, so the limit is {MOST_TOKENS}. {_ELSEWHERE}"
        )
    return found
