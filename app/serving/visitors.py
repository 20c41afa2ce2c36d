"""Who asks."""

from __future__ import annotations

import ipaddress
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


def place_of(address: str) -> str:
    """What counts as one address: of IPv6 a network of 64 bits, all of which one machine may use."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network(f"{known}/64", strict=False)) if known.version == 6 else address
