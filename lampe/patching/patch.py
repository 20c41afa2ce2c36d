"""Put a position map into a loaded transformers model, and take it out again.

Hooks on the instance do it. The one on its rotary embedding rotates each token to the position where most queries will
want its key, and so it lies in the ordinary cache; another is an attention function, which turns queries, and the keys
of the other regions, on to the positions of the map with the model's own rotation. Layers that see only near tokens, or
no positions at all, get what the model would have given them. No class is touched.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import torch
import transformers  # its modules load when they are first named: `import lampe` stays quick
from torch import Tensor, nn

from lampe.attention.step import Step
from lampe.errors import InputError
from lampe.methods import LampeConfig, Method, Rope
from lampe.patching import registries
from lampe.patching.cache_plan import (
    CachePlan,
    Pass,
    Planned,
    RowPlan,
    check_positions,
    group_rows,
    plain_groups,
    plan_rows,
    resting_table,
    text_spans,
)
from lampe.patching.probe import PROBE_TOKENS, Layer, Probe, Support, UnsupportedModelError, examine, sliding_window
from lampe.patching.rotary import Rotary, rotation
from lampe.positions import PositionMap

_names = itertools.count()
_known: weakref.WeakKeyDictionary[nn.Module, tuple[Any, Support]] = weakref.WeakKeyDictionary()  # found by probing
_LONG = 2**24  # tokens; a method that changes frequencies does so at this length

_CHANGED = "The model's attention implementation was changed while it was patched."
_CAUSAL = "LaMPE needs plain causal attention; packed texts and custom masks can't be mapped."
_TWO_DIMENSIONS = "LaMPE takes a two-dimensional padding mask, or none; it builds the causal mask itself."


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
    position_maps : tuple of PositionMap
        What the last forward ran on, one for each row of the batch; empty before the first.
    keep_weights : bool
        Whether each forward keeps its last query's attention to every key, for `key_weights`. It costs about as
        much as attending with that query once more. False at first.
    """

    def __init__(self, model: nn.Module, method: Method) -> None:
        self.model, self.method = model, method
        self.position_maps: tuple[PositionMap, ...] = ()
        self._planned: Planned | None = None
        self._pass: Pass | None = None
        self._rows: list[range] = []
        self._region_lse: dict[int, list[Tensor]] = {}
        self._weights: dict[int, list[Tensor]] = {}
        self._mapped: frozenset[int] = frozenset()  # layers
        self._windows: dict[int, int | None] = {}  # of each layer
        self.keep_weights = False
        self._handles: list[Any] = []
        self._configs: list[tuple[Any, Any]] = []  # each module's own
        self._probing: Probe | None = None

        self._family = type(model).__name__
        self._rotary = Rotary(model, self._refuse)
        self._decoder = self._rotary.decoder
        self._name = f"lampe-{next(_names)}"
        self._plain_config = self._decoder.config
        if str(self._plain_config._attn_implementation).startswith("lampe-"):
            raise UnsupportedModelError(f"This {self._family} is patched already; remove that patch first.")
        self._rotary.hold(method.window)
        self._unregister = weakref.finalize(self, registries.unregister, self._name)
        try:
            self.support = self._supported(method.window)
            self._rotary.choose(self.support.kind, self.support.factor)
            self._windows = self.support.windows
            self._mapped = frozenset(layer.index for layer in self.layers if layer.mapped)
            if method.frequencies(_LONG):
                self._rotary.check_frequencies()
        except BaseException:
            self.remove()
            raise

    # What people use

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
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for module, config in self._configs:
            module.config = config
        self._configs.clear()
        self._rotary.release()
        self._unregister()
        self._pass = None

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
            self._planned = None
            return None
        ends = [end] if end is None or isinstance(end, int) else end
        if not ends:
            raise InputError("There is no prompt: give the end of each one in the batch.")
        self._planned = tuple(self.method.position_map(length, one) for one in ends)
        return self._planned[0]

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
        layers = [self._region_lse[layer][number] for layer in sorted(self._region_lse)]
        lse = torch.stack([layer[:, inside].float().cpu() for layer in layers])
        return lse.transpose(1, 2).softmax(-1)

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
        if not self._weights:
            raise RuntimeError("The weights weren't kept: set keep_weights before the forward.")
        return torch.stack([self._weights[layer][number][inside].cpu() for layer in sorted(self._weights)])

    def _group_of(self, row: int) -> tuple[int, int]:
        """The group that a row of the last batch ran in, and its place there."""
        for number, rows in enumerate(self._rows):
            if row in rows:
                return number, row - rows.start
        raise RuntimeError("The patched model hasn't run yet, or the batch has no such row.")

    # Putting it in

    def _install(self) -> None:
        registries.register(self._name, self._attention, self._mask)
        self._configs = registries.name_attention(self.model, self._plain_config, self._name)
        self._handles = [
            self._decoder.register_forward_pre_hook(self._before, with_kwargs=True),
            self._decoder.register_forward_hook(self._after, always_call=True),
            self._rotary.module.register_forward_hook(self._rest, with_kwargs=True),
        ]

    # One forward pass

    def _before(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self._pass = Pass(cache=kwargs.get("past_key_values"))
        self._rows, self._region_lse, self._weights = [], {}, {}
        masks = kwargs.get("attention_mask")
        if isinstance(masks, dict):  # what `_mask` gave generate() for each type of layer: the padding mask
            kwargs["attention_mask"] = next(iter(masks.values()))
        return args, kwargs

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        now, self._pass = self._pass, None
        if now is None or output is None:  # it failed
            return
        if not self._region_lse and self._probing is None:
            raise RuntimeError(_CHANGED)
        # The plan goes with the cache, so that several caches can be filled in turn, copied and cropped.
        cache = now.cache if now.cache is not None else getattr(output, "past_key_values", None)
        if cache is not None:
            cache.lampe_plan = CachePlan(self.method, now.rows, self._planned)

    def _rest(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """The rotary embedding's hook: plan, and give each token's resting position instead of its own."""
        if not (isinstance(output, tuple) and len(output) == 2 and not output[0].is_complex()):
            self._refuse("its rotary embedding doesn't give a cosine and a sine")
        now, cos = self._pass, output[0]
        if now is None:
            self._refuse("its rotary embedding runs outside its decoder's forward")
        if now.offset is None:
            if self._probing is not None:
                self._refuse("its rotary embedding runs before its attention mask is made")
            if self._decoder.config._attn_implementation != self._name:
                raise RuntimeError(_CHANGED)
            raise InputError(_TWO_DIMENSIONS)  # transformers takes a mask of four dimensions as it is
        kind = (*args[2:], *(value for name, value in kwargs.items() if name not in ("x", "position_ids")))
        positions = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
        if positions.ndim != 2:
            self._refuse("its position ids have more than one dimension for each token")
        first, now.like = now.like is None, cos
        if self._probing is not None:
            self._probing.kinds.append(kind)
            self._probing.like = cos
            given = None
            if kind == self._probing.rests:
                given = self._rotary.at(cos, torch.zeros_like(positions), kind)
        else:
            if first:
                self._start(now, positions, cos)
            given = resting_table(now, self._rotary, cos) if kind == self._rotary.kind else None
        if given is None:
            return output
        now.own, now.given = output, given
        return given

    def _give_own(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Before the attention of a layer that stays as it is: the model's own rotation instead of the resting one."""
        now = self._pass
        if now is None or now.given is None:
            return args, kwargs

        def swapped(x: Any) -> Any:
            return now.own if x is now.given else x

        return tuple(map(swapped, args)), {name: swapped(value) for name, value in kwargs.items()}

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
        """Transformers' mask hook: takes down where each row's tokens are; the tiles do the masking.

        A sliding layer gets a mask of no numbers, as wide as its window.
        """
        now, window = self._pass, None
        causal = mask_function in (None, transformers.masking_utils.causal_mask_function)
        if not causal:
            if self._probing is not None and sliding_window(mask_function, config) is None:
                self._refuse("layers of it see only chunks or surroundings of a token, not all tokens before it")
            window = getattr(config, "sliding_window", None)
        # Of several tokens, only a mask that is nothing else may be left out.
        if (window is None) != causal or (causal and kv_offset) or (q_length > 1 and not allow_is_causal_skip):
            raise InputError(_CAUSAL)
        if now is None:  # generate() asks ahead for a static cache; the forward then asks again with this
            return attention_mask
        if now.offset is None:
            now.offset = int(q_offset)
            now.total = now.offset + q_length
            now.spans = text_spans(attention_mask, batch_size, now.total)
        if window is None:
            return None
        if now.total > window and window in (self._windows[index] for index in self._mapped):
            raise InputError(
                f"At {now.total} tokens the text is longer than the model's sliding window of {window}, and LaMPE "
                "can't map what a layer doesn't see; shorten it."
            )
        now.key_start[window] = int(kv_offset)
        return torch.empty(0, window)

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
            self._refuse("its attention has sinks (s_aux), which LaMPE can't map yet")
        if dropout:
            raise InputError("LaMPE is for inference: call model.eval() first (attention dropout is on).")
        if query.device.type not in ("cpu", "cuda"):
            raise InputError(f"LaMPE runs on CPU and CUDA, not on {query.device.type}.")
        now, layer = self._pass, module.layer_idx
        if now is None or now.offset is None or now.like is None:
            self._refuse("its layers run outside its decoder's forward, or before its rotary embedding")
        if self._probing is not None:
            again = self._probing.watch(module, window, query, key)
            if again is not None:
                return again, None
        elif window != self._windows[layer]:
            raise RuntimeError("The model's sliding window was changed while it was patched.")
        mapped = layer in self._mapped
        groups = now.groups if mapped else plain_groups(now, window, self._rotary)
        scaling = (query.shape[-1] ** -0.5 if scaling is None else scaling) * (
            self.method.attention_scale if mapped else 1
        )
        rotate = rotation(module)

        with torch.no_grad():
            output, region_lse, weights = None, [], []
            for group in groups:
                q = _cut(query, group.rows, group.query)
                k, v = (_cut(x, group.rows, group.key) for x in (key, value))
                part, lse = group.step.attend(q, k, v, rotate, scaling, softcap)
                region_lse.append(lse)
                if self.keep_weights and mapped:
                    weights.append(group.step.weights(q, k, rotate, scaling, softcap))
                if part.shape == query.shape:
                    output = part
                else:  # the rest is padding, which nobody attends to
                    output = torch.zeros_like(query) if output is None else output
                    _cut(output, group.rows, group.query).copy_(part)
            if mapped:
                self._region_lse[layer] = region_lse
            if weights:
                self._weights[layer] = weights
            output = torch.zeros_like(query) if output is None else output
        if torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)):
            output = _NoBackward.apply(output, query, key, value)
        output = output.transpose(1, 2)
        if self._probing is not None:
            self._probing.outputs[layer] = output
        return output, None

    def _start(self, now: Pass, positions: Tensor, like: Tensor) -> None:
        """Before the first layer: plan each row, and lay out what all mapped layers share."""
        now.rows = list(plan_rows(now, self.method, self._planned))
        self.position_maps = tuple(row.position_map for row in now.rows)
        check_positions(now, positions)

        def step(row: RowPlan, first: int, stop: int) -> Step:
            tables = self._rotary.tables(like, row.frequencies)
            return Step(row.position_map, row.resting, first, stop, tables, like.device)

        now.groups = group_rows(now, now.rows, 0, step)
        self._rows = [group.rows for group in now.groups]

    # Is it really in the path?

    def _supported(self, window: int) -> Support:
        """Put the patch in, and find out by running a few tokens what the model supports, if that isn't known."""
        weights = next(self.model.parameters())
        state = window, weights.dtype, weights.device, tuple(map(id, self.model.modules()))
        known, support = _known.get(self.model, (None, None))
        if support is not None and known == state:
            self._install()
            self._set_aside(support.aside)
            return support
        plain = self._run(Probe())
        self._install()
        try:
            support = examine(
                self._run, self._set_aside, self._rotary, plain, self._plain_config.num_hidden_layers, window
            )
        except UnsupportedModelError:
            raise
        except ValueError as error:
            self._refuse(str(error), error)
        self.position_maps, self._rows, self._region_lse = (), [], {}
        _known[self.model] = state, support
        return support

    def _run(self, probe: Probe, same: bool = False) -> Probe:
        """Run a few tokens, or as many times the same one, through the model."""
        embeddings = self._decoder.get_input_embeddings()
        tokens = torch.arange(1, PROBE_TOKENS + 1, device=embeddings.weight.device) * 7 % embeddings.num_embeddings
        if same:
            tokens = tokens[:1].expand(PROBE_TOKENS)
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        self._probing = probe
        try:
            with torch.no_grad():
                probe.result = self.model(input_ids=tokens.unsqueeze(0), use_cache=False)[0]
        except (UnsupportedModelError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if self._handles and not probe.arrived:
                self._refuse("its attention doesn't go through transformers' attention interface", error)
            self._refuse(f"trying it on a few tokens fails ({error})", error)
        finally:
            self._probing = None
            for module, training in modes:
                module.training = training
        return probe

    def _set_aside(self, modules: Collection[nn.Module]) -> None:
        for module in modules:
            self._handles.append(module.register_forward_pre_hook(self._give_own, with_kwargs=True))

    def _refuse(self, why: str, cause: Exception | None = None) -> NoReturn:
        raise UnsupportedModelError(f"LaMPE can't patch this {self._family}: {why}.") from cause


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
