"""How a request is turned away."""

from __future__ import annotations


class Refused(Exception):
    """A request isn't let in.

    Parameters
    ----------
    status : int
        Of HTTP.
    sentence : str
        For whoever made it.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
