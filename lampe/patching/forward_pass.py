"""What a patch does in one forward pass of a model: the hooks that transformers calls, from first to last.

`Hooks` let every token keep its own position; `MappedHooks` give the layers of a patched model the positions of its
method. A pass goes through them in the order in which they stand here: the decoder begins, a mask is asked for, the
rotary embedding rotates, each layer attends, the decoder ends.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

import torch
import transformers  # its modules load when they are first named: `import lampe` stays quick
from torch import Tensor, nn

from lampe.attention.selfcheck import checked
from lampe.attention.step import RegionLse, Step
from lampe.attention.token import NearKeys, TokenStep, make_step
from lampe.attention.turning import Rotate, Table
from lampe.errors import InputError
from lampe.methods import Method
from lampe.patching import registries
from lampe.patching.cache_plan import (
    CachePlan,
    Group,
    Pass,
    Planned,
    RowPlan,
    check_positions,
    group_rows,
    plain_groups,
    plan_rows,
    resting_table,
)
from lampe.patching.room import RoomyLayer, make_room
from lampe.patching.rotary import RopeKind, Rotary, rotation
from lampe.positions import PositionMap

NAME = "lampe-"
"""What the names of all attention implementations begin with that are registered here."""

_numbers = itertools.count()

_CHANGED = "The model's attention implementation was changed while it was patched."
_CAUSAL = "LaMPE needs plain causal attention; packed texts and custom masks can't be mapped."
_TWO_DIMENSIONS = "LaMPE takes a two-dimensional padding mask, or none; it builds the causal mask itself."


class Hooks:
    """Hooks that put this library's attention in a model's path, and leave every token at its own position.

    Parameters
    ----------
    model : transformers model
    rotary : Rotary
        The model's.
    """

    def __init__(self, model: nn.Module, rotary: Rotary) -> None:
        self._model, self._rotary, self._decoder = model, rotary, rotary.decoder
        self._pass: Pass | None = None
        self._name = f"{NAME}{next(_numbers)}"
        self._handles: list[Any] = []
        self._configs: list[tuple[Any, Any]] = []  # each module, and its own config
        self._unregister = weakref.finalize(self, registries.unregister, self._name)

    def install(self) -> None:
        """Put them in."""
        registries.register(self._name, self._attention, self._mask)
        if not self._unregister.alive:  # they were in before
            self._unregister = weakref.finalize(self, registries.unregister, self._name)
        self._configs = registries.name_attention(self._model, self._decoder.config, self._name)
        eager: Any = torch.compiler.disable  # what is compiled around a patched model leaves these as they are
        self._handles = [
            self._decoder.register_forward_pre_hook(eager(self._before), with_kwargs=True),
            self._decoder.register_forward_hook(eager(self._after), always_call=True),
            self._rotary.module.register_forward_hook(eager(self._rest), with_kwargs=True),
        ]

    def set_aside(self, modules: Collection[nn.Module]) -> None:
        """Give the attention modules of some layers the model's own rotation, whatever the others get."""
        for module in modules:
            give_own: Any = torch.compiler.disable(self._give_own)
            self._handles.append(module.register_forward_pre_hook(give_own, with_kwargs=True))

    def remove(self) -> None:
        """Take them out; the model is as it was. Calling it again does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for module, config in self._configs:
            module.config = config
        self._configs.clear()
        self._unregister()
        self._pass = None

    # What transformers and torch call

    def _before(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if module is not self._decoder:
            raise RuntimeError(
                "This model is a copy of a patched one: take the patch off before copying, and patch the copy."
            )
        self._pass = Pass(cache=kwargs.get("past_key_values"))
        masks = kwargs.get("attention_mask")
        if isinstance(masks, dict):  # what `_mask` gave generate() for each type of layer: the padding mask
            kwargs["attention_mask"] = next(iter(masks.values()))
        return args, kwargs

    def _mask(
        self,
        batch_size: int,
        q_length: int,
        kv_length: int,
        q_offset: int | Tensor = 0,
        kv_offset: int = 0,
        mask_function: Any = None,
        attention_mask: Tensor | None = None,
        config: Any = None,
        allow_is_causal_skip: bool = True,
        **_: Any,
    ) -> Tensor | None:
        """Transformers' mask hook: records where each row's tokens are; the tiles do the masking.

        A sliding layer gets a mask of no numbers, as wide as its window.
        """
        causal = mask_function in (None, transformers.masking_utils.causal_mask_function)
        window = None if causal else getattr(config, "sliding_window", None)
        # Of several tokens, only a mask that is nothing else may be left out.
        if (window is None) != causal or (causal and kv_offset) or (q_length > 1 and not allow_is_causal_skip):
            raise InputError(_CAUSAL)
        now = self._pass
        if now is None:  # generate() asks ahead for a static cache; the forward then asks again with this
            return attention_mask
        if now.offset is None:
            now.offset = int(q_offset)
            now.total = now.offset + q_length
            now.batch, now.mask = batch_size, attention_mask
        if window is None:
            return None
        self._slides(now, window)
        now.key_start[window] = int(kv_offset)
        return torch.empty(0, window)

    def _rest(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """The rotary embedding's hook: give each token's resting position instead of its own."""
        if not (isinstance(output, tuple) and len(output) == 2 and not output[0].is_complex()):
            self._rotary.refuse("its rotary embedding doesn't give a cosine and a sine")
        now, cos = self._pass, output[0]
        if now is None:
            self._rotary.refuse("its rotary embedding runs outside its decoder's forward")
        if now.offset is None:
            self._maskless()
        kind = (*args[2:], *(value for name, value in kwargs.items() if name not in ("x", "position_ids")))
        positions = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
        if positions.ndim != 2:
            self._rotary.refuse("its position ids have more than one dimension for each token")
        given = self._rotated(now, kind, positions, cos)
        now.like = cos
        if given is None:
            return output
        now.own, now.given = output, given
        return given

    def _give_own(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Before the attention of a layer that stays as it is: the model's own rotation instead of the resting one."""
        now = self._pass
        if now is None or now.given is None:
            return args, kwargs

        own, given = now.own, now.given

        def swapped(x: Any) -> Any:
            # Where a model's layers are spread over several devices, accelerate makes a new pair for each.
            pair = isinstance(x, (tuple, list)) and len(x) == 2 and all(isinstance(one, Tensor) for one in x)
            if not pair or x[0].shape != given[0].shape:
                return x
            return tuple(one.to(x[0].device) for one in own)

        return tuple(map(swapped, args)), {name: swapped(value) for name, value in kwargs.items()}

    def _attention(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        softcap: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Transformers' attention hook; query, key and value as in `Step.attend`, with padding."""
        if attention_mask is not None and attention_mask.numel():
            raise InputError(_TWO_DIMENSIONS)
        window = None if attention_mask is None else attention_mask.shape[1]
        if kwargs.get("s_aux") is not None:
            self._rotary.refuse("its attention has sinks (s_aux), which LaMPE can't map yet")
        if dropout:
            raise InputError("LaMPE is for inference: call model.eval() first (attention dropout is on).")
        if query.device.type not in ("cpu", "cuda"):
            raise InputError(f"LaMPE runs on CPU and CUDA, not on {query.device.type}.")
        if torch.is_autocast_enabled(query.device.type):  # as PyTorch's attention: its inputs are cast, nothing within
            q, k, v = (x.to(torch.get_autocast_dtype(query.device.type)) for x in (query, key, value))
            with torch.autocast(query.device.type, enabled=False):
                return self._attention(module, q, k, v, attention_mask, scaling, dropout, softcap, **kwargs)
        now = self._pass
        if now is None or now.offset is None or now.like is None:
            self._rotary.refuse("its layers run outside its decoder's forward, or before its rotary embedding")
        checked(query)
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        output = self._attended(now, module, window, query, key, value, scaling, softcap)
        return output.transpose(1, 2), None

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        now, self._pass = self._pass, None
        if now is not None and output is not None:  # otherwise it failed
            self._done(now, output)

    # What becomes of it

    def _slides(self, now: Pass, window: int) -> None:
        """Layers that slide over so many tokens have asked for a mask."""

    def _maskless(self) -> NoReturn:
        """The rotary embedding runs before a mask was asked for: refuse."""
        self._rotary.refuse("its rotary embedding runs before its attention mask is made")

    def _rotated(self, now: Pass, kind: RopeKind, positions: Tensor, like: Tensor) -> Table | None:
        """The rotation of this pass's tokens for one kind of RoPE; None is the model's own."""
        return None

    def _attended(
        self,
        now: Pass,
        module: Any,
        window: int | None,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        softcap: float | None,
    ) -> Tensor:
        """A layer's attention; arguments and output as in `Step.attend`, `window` in tokens if it slides."""
        groups = plain_groups(now, window, self._rotary)
        return _attend_groups(groups, query, key, value, rotation(module), scaling, softcap)[0]

    def _done(self, now: Pass, output: Any) -> None:
        """The decoder has given its output."""


class MappedHooks(Hooks):
    """The hooks of a patched model: its mapped layers attend at the positions of a method.

    Parameters
    ----------
    model : transformers model
    rotary : Rotary
        With the kind of RoPE of the mapped layers chosen.
    method : Method
    mapped : collection of int
        The layers that are mapped.
    windows : dict
        Each layer's sliding window in tokens, or None.

    Attributes
    ----------
    planned : tuple of PositionMap or None
        What the next passes are mapped by; None plans for each input.
    keep_weights : bool
        Whether each pass keeps its last query's attention to every key.
    position_maps : tuple of PositionMap
        Of the last pass, one for each row of the batch; empty before the first.
    rows : list of range
        The rows that the last pass computed together.
    region_lse : dict of list of RegionLse
        For each mapped layer and group of rows.
    weights : dict of list of Tensor
        For each mapped layer and group of rows, what `keep_weights` kept: shape (rows, heads, tokens).
    """

    def __init__(
        self, model: nn.Module, rotary: Rotary, method: Method, mapped: Collection[int], windows: dict[int, int | None]
    ) -> None:
        super().__init__(model, rotary)
        self._method, self._mapped, self._windows = method, frozenset(mapped), windows
        self.planned: Planned | None = None
        self.keep_weights = False
        self.position_maps: tuple[PositionMap, ...] = ()
        self.rows: list[range] = []
        self.region_lse: dict[int, list[RegionLse]] = {}
        self.weights: dict[int, list[Tensor]] = {}

    def _before(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self.rows, self.region_lse, self.weights = [], {}, {}
        planned = max((position_map.length for position_map in self.planned or ()), default=0)
        make_room(kwargs.get("past_key_values"), planned)
        return super()._before(module, args, kwargs)

    def _slides(self, now: Pass, window: int) -> None:
        if now.total > window and window in (self._windows[index] for index in self._mapped):
            raise InputError(
                f"At {now.total} tokens the text is longer than the model's sliding window of {window}, and LaMPE "
                "can't map what a layer doesn't see; shorten it."
            )

    def _maskless(self) -> NoReturn:
        if self._decoder.config._attn_implementation != self._name:
            raise RuntimeError(_CHANGED)
        raise InputError(_TWO_DIMENSIONS)  # transformers takes a mask of four dimensions as it is

    def _rotated(self, now: Pass, kind: RopeKind, positions: Tensor, like: Tensor) -> Table | None:
        if now.like is None:
            self._start(now, positions, like)
        return resting_table(now, self._rotary, like) if kind == self._rotary.kind else None

    def _start(self, now: Pass, positions: Tensor, like: Tensor) -> None:
        """Before the first layer: plan each row, and lay out what all mapped layers share."""
        whole = now.is_whole(positions)
        now.rows = list(plan_rows(now, self._method, self.planned))
        self.position_maps = tuple(row.position_map for row in now.rows)
        if not whole:
            check_positions(now, positions)

        def step(row: RowPlan, first: int, stop: int) -> Step | TokenStep:
            tables = self._rotary.tables(like, row.frequencies)
            return make_step(row.position_map, row.resting, first, stop, tables, like.device)

        now.groups = group_rows(now, now.rows, 0, step)
        self.rows = [group.rows for group in now.groups]

    def _attended(
        self,
        now: Pass,
        module: Any,
        window: int | None,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        softcap: float | None,
    ) -> Tensor:
        layer = module.layer_idx
        if window != self._windows[layer]:
            raise RuntimeError("The model's sliding window was changed while it was patched.")
        if layer not in self._mapped:
            return super()._attended(now, module, window, query, key, value, scaling, softcap)
        scaling = scaling * self._method.attention_scale
        kept = (
            now.cache.layers[layer]
            if isinstance(now.cache, transformers.Cache) and layer < len(now.cache.layers)
            else None
        )
        near = kept.near if isinstance(kept, RoomyLayer) else {}
        output, self.region_lse[layer], weights = _attend_groups(
            now.groups, query, key, value, rotation(module), scaling, softcap, self.keep_weights, near
        )
        if weights:
            self.weights[layer] = weights
        return output

    def _done(self, now: Pass, output: Any) -> None:
        if not self.region_lse:
            raise RuntimeError(_CHANGED)
        # The plan goes with the cache, so that several caches can be filled in turn, copied and cropped.
        cache = now.cache if now.cache is not None else getattr(output, "past_key_values", None)
        if cache is not None:
            cache.lampe_plan = CachePlan(self._method, now.rows, self.planned)


def _attend_groups(
    groups: Sequence[Group],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rotate: Rotate,
    scaling: float,
    softcap: float | None,
    keep_weights: bool = False,
    near: dict[int, NearKeys] | None = None,
) -> tuple[Tensor, list[RegionLse], list[Tensor]]:
    """One layer's attention, a group of rows at a time; arguments as in `Step.attend`, with padding.

    Returns
    -------
    output : Tensor, the shape of the query
    region_lse, weights : list
        Of each group; see `Step.attend` and `Step.weights`. The latter is empty without `keep_weights`.
    """
    with torch.no_grad():
        output, region_lse, weights, near = None, [], [], {} if near is None else near
        for group in groups:
            q = _cut(query, group.rows, group.query)
            k, v = (_cut(x, group.rows, group.key) for x in (key, value))
            kept = near.setdefault(group.rows.start, NearKeys())
            part, lse = group.step.attend(q, k, v, rotate, scaling, softcap, kept)
            region_lse.append(lse)
            if keep_weights:
                weights.append(group.step.weights(q, k, rotate, scaling, softcap))
            if part.shape == query.shape:
                output = part
            else:  # the rest is padding, which nobody attends to
                output = torch.zeros_like(query) if output is None else output
                _cut(output, group.rows, group.query).copy_(part)
        output = torch.zeros_like(query) if output is None else output
    if torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)):
        output = _NoBackward.apply(output, query, key, value)
    return output, region_lse, weights


class _NoBackward(torch.autograd.Function):
    """Makes a backward pass through the patch an error instead of a wrong gradient."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, *inputs: Tensor) -> Tensor:
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError("LaMPE is for inference: there is no backward pass through a patched model.")


def _cut(x: Tensor, rows: range, tokens: slice) -> Tensor:
    """Some rows of a batch and some of their tokens; most often all of both, and x as it is."""
    if (len(rows), tokens.start, tokens.stop) == (x.shape[0], 0, x.shape[2]):
        return x
    return x[rows.start : rows.stop, :, tokens]
