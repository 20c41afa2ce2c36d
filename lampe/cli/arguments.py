"""What the commands' arguments have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lampe.cluster import LOCAL, Cluster, ClusterError
from lampe.files import REFUSALS, decoded, method_of, reason
from lampe.methods import Method, MethodError
from lampe.needle import HAYSTACKS, Haystack, NeedleError


def add_model(parser: argparse.ArgumentParser, positional: bool = False) -> None:
    about = "a Hub id or a folder (default: the embedded model)"
    if positional:
        parser.add_argument("model", nargs="?", help=about)
    else:
        parser.add_argument("--model", help=about)
    parser.add_argument("--bits", type=int, choices=(4, 16), default=4)


def add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray", nargs="?", const=LOCAL, metavar="ADDRESS",
        help="spread the work over the models of a Ray cluster; without an address one is started on this machine",
    )  # fmt: skip
    parser.add_argument("--actors", type=int, help="models at once (default: as many as the cluster's GPUs hold)")
    parser.add_argument(
        "--gpus-per-model", type=float, help="for each of them (default: 1 where there are GPUs here, else 0)"
    )


def cluster_of(given: argparse.Namespace) -> Cluster | None:
    """The cluster that work is to be spread over, if it is.

    Raises
    ------
    ClusterError
        If there can be no such one.
    """
    if given.ray is None:
        return None
    here = float(torch.cuda.is_available())
    gpus = here if given.gpus_per_model is None else given.gpus_per_model
    if gpus < 0 or (gpus > 1 and gpus % 1) or (given.actors is not None and given.actors < 1):
        raise ClusterError("Take at least one of --actors, and for --gpus-per-model a share of one GPU or whole ones.")
    return Cluster(given.ray, given.actors, gpus)


def device_of(cluster: Cluster) -> str | None:
    """Where an actor loads its model, by the GPUs that Ray shows it."""
    return "auto" if cluster.gpus > 1 else "cuda" if cluster.gpus else "cpu"


def list_of(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """A type for argparse: values between commas."""

    def parse(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",") if part.strip()]

    parse.__name__ = f"list of {getattr(kind, '__name__', 'values')}"
    return parse


def read_settings(path: Path) -> Method:
    """A method with the settings that a file has, as JSON with `method` and `settings`.

    Raises
    ------
    MethodError
        If the file has none.
    """
    try:
        return method_of(decoded(path.read_bytes()))
    except REFUSALS as error:
        raise MethodError(
            f"{path.name} has no settings of a method ({reason(error)}). `lampe tune` writes such files."
        ) from error


def text_named(name: str, known: dict[str, Callable[[], Haystack]] = HAYSTACKS) -> Haystack:
    """A text by its name, or that of a file."""
    if name in known:
        return known[name]()
    data = Path(name).read_bytes()
    try:
        return Haystack.named(Path(name).name, data.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError:
        raise NeedleError(f"{name} isn't plain text in UTF-8.") from None
