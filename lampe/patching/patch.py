"""Put a position map into a loaded transformers model, and take it out again.

Hooks on the instance do it. The one on its rotary embedding rotates each token to the position at which most queries
will want its key, and its key lies so in the ordinary cache. Another is an attention function: it rotates queries, and
the keys of the other regions, further to the positions of the map, with the model's own rotation. Layers that see only
near tokens, or no positions at all, get what the model would have given them. No class is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from lampe.errors import InputError
from lampe.methods import LampeConfig, Method, Rope
from lampe.patching.forward_pass import NAME, MappedHooks
from lampe.patching.probe import Layer, Support, UnsupportedModelError, find_support
from lampe.patching.rotary import Rotary
from lampe.positions import PositionMap

T = TypeVar("T")
_LONG = 2**24  # tokens; a method that changes frequencies does so at this length


def patch(model: nn.Module, method: Method | None = None) -> Patched:
    """Patch a loaded model in place so that it attends at a method's positions.

    The first patch of a model finds out what the model supports, by running it on a few tokens three times; the next
    ones take milliseconds.

    Parameters
    ----------
    model : transformers model
        Any causal language model with RoPE whose attention goes through transformers' attention interface.
        Quantised weights and any dtype are fine.
    method : Method, optional
        One of `lampe.METHODS`, with its settings. Default: `LampeConfig.for_model(model)`.

    Returns
    -------
    Patched
        A context manager; leaving it, or calling its `remove`, takes the patch off.

    Raises
    ------
    UnsupportedModelError
        If a short probe shows that the patch would not be in the model's path, or if the method changes frequencies
        that this model has changed already.
    """
    return Patched(model, LampeConfig.for_model(model) if method is None else method)


def applied(model: nn.Module, method: Method) -> AbstractContextManager[Patched | None]:
    """A method for a `with` block: the patched model, or None for plain RoPE, which leaves the model as it is."""
    return nullcontext() if isinstance(method, Rope) else patch(model, method)


def in_steps(model: nn.Module, method: Method, work: Callable[[Patched | None], Iterator[T]]) -> Iterator[T]:
    """Work with a patched model in steps; whenever it has yielded the model is as it was, and others may use it.

    Parameters
    ----------
    model : transformers model
        Not patched.
    method : Method
    work : callable
        From the patched model, or None for plain RoPE, to the steps.
    """
    if isinstance(method, Rope):
        yield from work(None)
        return
    patched = patch(model, method)
    try:
        for step in work(patched):
            patched.remove()
            yield step
            patched.restore()
    finally:
        patched.remove()


def probe(model: nn.Module) -> Support:
    """What a loaded model supports: found once for a model, by running it on a few tokens, and remembered.

    Raises
    ------
    UnsupportedModelError
        If it can't be patched; the message says why.
    """
    with patch(model, Rope.for_model(model)) as patched:
        return patched.support


class Patched:
    """A model with a position map in it; see `patch`.

    Attributes
    ----------
    model : transformers model
    method : Method
    support : Support
        Which layers attend at mapped positions, and why the others don't: those stay as they are.
    """

    def __init__(self, model: nn.Module, method: Method) -> None:
        self.model, self.method = model, method
        self._rotary = Rotary(model)
        self._check_free()
        self._rotary.hold(method.window)
        try:  # the model itself says what it supports
            self.support = find_support(model, self._rotary, method.window)
            if method.frequencies(_LONG):
                self._rotary.check_frequencies()
            mapped = [layer.index for layer in self.layers if layer.mapped]
            self._hooks = MappedHooks(model, self._rotary, method, mapped, self.support.windows)
            self._hooks.install()
            self._hooks.set_aside(self.support.aside)
        except BaseException:
            self._rotary.release()
            raise

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Which layers attend at mapped positions, and why the others don't: those stay as they are."""
        return self.support.layers

    def __enter__(self) -> Patched:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Take the patch off; the model is as it was. Calling it again does nothing.

        A cache filled by the patched model holds keys at mapped positions: don't go on with it afterwards.
        """
        self._hooks.remove()
        self._rotary.release()

    def restore(self) -> None:
        """Put the patch back where `remove` has taken it off, with its plan; see `in_steps`.

        Raises
        ------
        UnsupportedModelError
            If the model is patched.
        """
        self._check_free()
        self._rotary.hold(self.method.window)
        self._hooks.install()
        self._hooks.set_aside(self.support.aside)

    def _check_free(self) -> None:
        if str(self._rotary.decoder.config._attn_implementation).startswith(NAME):
            name = type(self.model).__name__
            raise UnsupportedModelError(f"This {name} is patched already; remove that patch first.")

    def plan(self, length: int | None, end: int | Sequence[int] | None = None) -> PositionMap | None:
        """Fix the map for a final length, whatever the length of the next inputs; None plans for each input again.

        Needed where a pass doesn't read just the whole input: chunked prefill, several questions on one
        document's cache, several turns, speculative decoding (whose first pass reads guesses too). Without it an
        input is planned for its own length, and whatever follows in its cache keeps that plan. A plan that would
        reach the window is made anew for the length reached.

        Several questions on one document share a plan's `length`, and each has an `end` of its own. What was read
        before ``position_map.shared`` of both is the same for both: crop the cache to the lesser, and read on from
        there, as `lampe.PromptReader` does.

        Parameters
        ----------
        length : int or None
            In tokens: the longest prompt, and room for an answer.
        end : int or sequence of int, optional
            Where the prompt ends, in tokens, or each prompt of a batch; Tail is measured from there. By default at
            `length`.

        Returns
        -------
        PositionMap or None
            Of a batch, the first prompt's.

        Raises
        ------
        ValueError
            If a prompt ends beyond `length`, or within Head + Tail where distances are compressed.
        """
        if length is None:
            self._hooks.planned = None
            return None
        ends = [end] if end is None or isinstance(end, int) else end
        if not ends:
            raise InputError("There is no prompt: give the end of each one in the batch.")
        self._hooks.planned = tuple(self.method.position_map(length, one) for one in ends)
        return self._hooks.planned[0]

    @property
    def position_maps(self) -> tuple[PositionMap, ...]:
        """What the last forward ran on, one for each row of the batch; empty before the first."""
        return self._hooks.position_maps

    @property
    def position_map(self) -> PositionMap:
        """The map that the last forward ran on (of the first row, if rows differ: see `position_maps`).

        Raises
        ------
        RuntimeError
            If nothing has been run yet.
        """
        if not self.position_maps:
            raise RuntimeError("The patched model hasn't run yet, so there is no position map.")
        return self.position_maps[0]

    @property
    def region_shares(self) -> Tensor:
        """Share of the last query's attention in each region, the mean over heads: shape (mapped layers, regions).

        Of the first row of a batch; `head_shares` has every row and head.

        Raises
        ------
        RuntimeError
            If nothing has been run yet.
        """
        return self.head_shares().mean(1)

    def head_shares(self, row: int = 0) -> Tensor:
        """Share of the last query's attention in each region of `position_maps[row]`, for each head.

        The weights of the merge, ``e^(lse_r − lse)``: exact, without an attention matrix.

        Returns
        -------
        Tensor, shape (mapped layers, heads, regions), float32; each row of regions sums to 1.

        Raises
        ------
        RuntimeError
            If nothing has been run yet.
        """
        number, inside = self._group_of(row)
        layers = [groups[number] for _, groups in sorted(self._hooks.region_lse.items())]
        lse = torch.stack([layer()[:, inside].float().cpu() for layer in layers])
        return lse.transpose(1, 2).softmax(-1)

    @property
    def keep_weights(self) -> bool:
        """Whether each forward keeps its last query's attention to every key, for `key_weights`; False at first.

        It costs about as much as attending with that query once more.
        """
        return self._hooks.keep_weights

    @keep_weights.setter
    def keep_weights(self, keep: bool) -> None:
        self._hooks.keep_weights = keep

    def key_weights(self, row: int = 0) -> Tensor:
        """The last query's attention to each token of its text, where `keep_weights` was set before the forward.

        Returns
        -------
        Tensor, shape (mapped layers, heads, tokens), float32; each row of tokens sums to 1.

        Raises
        ------
        RuntimeError
            If nothing has been run yet, or without `keep_weights`.
        """
        number, inside = self._group_of(row)
        if not self._hooks.weights:
            raise RuntimeError("The weights weren't kept: set keep_weights before the forward.")
        layers = [groups[number] for _, groups in sorted(self._hooks.weights.items())]
        return torch.stack([layer[inside].cpu() for layer in layers])

    def _group_of(self, row: int) -> tuple[int, int]:
        """The group that a row of the last batch ran in, and its place there."""
        for number, rows in enumerate(self._hooks.rows):
            if row in rows:
                return number, row - rows.start
        raise RuntimeError("The patched model hasn't run yet, or the batch has no such row.")
