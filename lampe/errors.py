"""Errors whose message is for a person: what was wrong, what the limit is, and what to do."""


class LampeError(Exception):
    """What the library or the page can't do as it was asked; the message says why, and what can be done instead."""


class InputError(LampeError, ValueError):
    """A setting, a length or an input that can't be used."""


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its type if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
