"""Who asks."""

from __future__ import annotations

from typing import NamedTuple


class Visitor(NamedTuple):
    """A visitor of the page, or a program that calls it.

    Parameters
    ----------
    session : str
        An open page, or a program's client; the caller chooses it.
    address : str
        Where they call from; many may share one, as a class behind one router does.
    """

    session: str
    address: str = ""
