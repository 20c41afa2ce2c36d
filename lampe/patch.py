"""Put a position map into a loaded transformers model, and take it out again.

Hooks on the instance do it. The one on its rotary embedding rotates each token to the position where most
queries will want its key, and so it lies in the ordinary cache; another is an attention function, which turns
queries, and the keys of the other regions, on to the positions of the map with the model's own rotation. No
class is touched.
"""

from __future__ import annotations

import copy
import itertools
import weakref
from dataclasses import replace
from typing import Any, NoReturn

import torch
import transformers  # its modules load when they are first named: `import lampe` stays quick
from torch import Tensor, nn

from lampe.engine import Step, Table, Tables
from lampe.plans import CachePlan, Group, Pass, check_positions, plan_rows, text_spans
from lampe.positions import IndexMap, LampeConfig, Method, PositionMap, plain_map
from lampe.probe import PROBE_TOKENS, Probe, UnsupportedModelError, rotation

_names = itertools.count()


_CHANGED = "The model's attention implementation was changed while it was patched."
_TWO_DIMENSIONS = "LaMPE takes a two-dimensional padding mask, or none; it builds the causal mask itself."


def patch(model: nn.Module, config: Method | None = None) -> Patched:
    """Patch a loaded model in place so that it attends at LaMPE's positions.

    Parameters
    ----------
    model : transformers model
        Any causal language model with RoPE whose attention goes through transformers' attention interface.
        Quantised weights and any dtype are fine.
    config : LampeConfig, optional
        Default: `LampeConfig.for_model(model)`.

    Returns
    -------
    Patched
        A context manager; leaving it, or calling its `remove`, takes the patch off.

    Raises
    ------
    UnsupportedModelError
        If a short probe shows that the patch would not be in the model's path.
    """
    return Patched(model, LampeConfig.for_model(model) if config is None else config)


class Patched:
    """A model with a position map in it; see `patch`.

    Attributes
    ----------
    model : transformers model
    config : LampeConfig
    position_maps : tuple of PositionMap
        What the last forward ran on, one for each row of the batch; empty before the first.
    keep_weights : bool
        Whether each forward keeps its last query's attention to every key, for `key_weights`. It costs about as
        much as attending with that query once more. False at first.
    """

    def __init__(self, model: nn.Module, config: Method) -> None:
        self.model, self.config = model, config
        self.position_maps: tuple[PositionMap, ...] = ()
        self._planned: PositionMap | None = None
        self._pass: Pass | None = None
        self._rows: list[range] = []
        self._region_lse: dict[int, list[Tensor]] = {}
        self._weights: dict[int, list[Tensor]] = {}
        self.keep_weights = False
        self._handles: list[Any] = []
        self._probing: Probe | None = None

        self._family = type(model).__name__
        self._rotary, self._decoder = self._find_rotary()
        self._name = f"lampe-{next(_names)}"
        self._plain_config = self._decoder.config
        if str(self._plain_config._attn_implementation).startswith("lampe-"):
            raise UnsupportedModelError(f"This {self._family} is patched already; remove that patch first.")
        self._install()
        try:
            self._probe()
        except BaseException:
            self.remove()
            raise

    # What people use

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
        self._share_config(self._plain_config)
        self._unregister()
        self._pass = None

    def plan(self, length: int | None) -> PositionMap | None:
        """Fix the map for a final length, whatever the length of the next inputs; None plans for each input again.

        Needed where a pass doesn't read just the whole input: chunked prefill, several questions on one
        document's cache, several turns, speculative decoding (whose first pass reads guesses too). Without it an
        input is planned for its own length, and whatever follows in its cache keeps that plan. A plan that would
        reach the window is made anew for the length reached.

        Parameters
        ----------
        length : int or None
            Input length in tokens.
        """
        self._planned = None if length is None else self.config.position_map(length)
        return self._planned

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
        """Share of the last query's attention in each region, the mean over heads: shape (layers, regions).

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
        Tensor, shape (layers, heads, regions), float32; each row of regions sums to 1.

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
        Tensor, shape (layers, heads, tokens), float32; each row of tokens sums to 1.

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

    def _find_rotary(self) -> tuple[nn.Module, Any]:
        """The rotary embedding and the module that owns it and runs once per forward: the decoder."""
        found = [
            (name, module)
            for name, module in self.model.named_modules()
            if any(buffer.endswith("inv_freq") for buffer, _ in module.named_buffers(recurse=False))
        ]
        if not found:
            self._refuse("it has no rotary position embedding (RoPE), so there are no positions to map")
        if len(found) > 1 or not isinstance(getattr(found[0][1], "inv_freq", None), Tensor):
            self._refuse("it has more than one kind of RoPE, and LaMPE can't tell yet which layers need it")
        name, rotary = found[0]
        rope_type = getattr(rotary, "rope_type", "default")
        if rope_type in ("dynamic", "longrope"):
            self._refuse(f"its RoPE ({rope_type}) changes its frequencies with the input length")
        decoder = self.model.get_submodule(name.rpartition(".")[0])
        if getattr(decoder, "config", None) is None:
            self._refuse("its rotary embedding doesn't belong to a model that runs once per forward")
        return rotary, decoder

    def _install(self) -> None:
        # The registries are global: a weak reference lets a patched model that nobody holds be freed.
        this = weakref.ref(self)
        transformers.AttentionInterface.register(
            self._name, lambda *args, **kwargs: _alive(this)._attention(*args, **kwargs)
        )
        transformers.AttentionMaskInterface.register(
            self._name, lambda *args, **kwargs: _alive(this)._mask(*args, **kwargs)
        )
        self._unregister = weakref.finalize(self, _unregister, self._name)
        patched_config = copy.copy(self._plain_config)
        patched_config._attn_implementation = self._name
        self._share_config(patched_config)
        self._handles = [
            self._decoder.register_forward_pre_hook(self._before, with_kwargs=True),
            self._decoder.register_forward_hook(self._after),
            self._rotary.register_forward_hook(self._rest, with_kwargs=True),
        ]

    def _share_config(self, config: Any) -> None:
        # A copy for this model's modules alone: another model may have been built from the same config object.
        current = self._decoder.config
        for module in self.model.modules():
            if module.__dict__.get("config") is current:
                module.config = config

    # One forward pass

    def _before(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._pass = Pass(cache=kwargs.get("past_key_values"))
        self._rows, self._region_lse, self._weights = [], {}, {}

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        assert self._pass is not None
        if not self._region_lse:
            raise RuntimeError(_CHANGED)
        # The plan goes with the cache, so that several caches can be filled in turn, copied and cropped.
        cache = self._pass.cache if self._pass.cache is not None else getattr(output, "past_key_values", None)
        if cache is not None:
            cache.lampe_plan = CachePlan(self.config, self._pass.rows)
        self._pass = None

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
            raise ValueError(_TWO_DIMENSIONS)  # transformers takes a mask of four dimensions as it is
        self._start(now, kwargs["position_ids"] if "position_ids" in kwargs else args[1], cos)
        if self._probing is not None and not self._probing.hooked:
            return output
        if all(row.resting == IndexMap() and not row.start for row in now.rows):
            return output
        columns = torch.arange(now.offset, now.total, device=cos.device)
        alike = dict.fromkeys((row.start, row.resting) for row in now.rows)  # most often a single one
        rows = list(alike) if len(alike) == 1 else [(row.start, row.resting) for row in now.rows]
        positions = torch.stack([resting((columns - start).clamp(min=0)) for start, resting in rows])
        return self._rotary.forward(cos, positions)

    def _mask(
        self,
        batch_size: int,
        q_length: int,
        kv_length: int,
        q_offset: int | Tensor = 0,
        kv_offset: int = 0,
        mask_function: Any = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor | None:
        """Transformers' mask hook: takes down where each row's tokens are; the tiles do the masking."""
        causal = transformers.masking_utils.causal_mask_function
        if mask_function not in (None, causal) or kv_offset:
            if self._probing is None:
                raise ValueError("LaMPE needs plain causal attention; packed texts and custom masks can't be mapped.")
            window = getattr(self._plain_config, "sliding_window", None)
            limit = f"a sliding window of {window} tokens" if window else "chunks or its surroundings"
            self._refuse(f"layers of it see only {limit}, so they never meet a distance beyond their training")
        if self._pass is None:  # generate() asks ahead for a static cache; the forward then asks again with this
            return attention_mask
        self._pass.offset = int(q_offset)
        self._pass.total = total = self._pass.offset + q_length
        self._pass.spans = text_spans(attention_mask, batch_size, total)
        return None

    def _attention(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Transformers' attention hook; query, key and value as in `Step.attend`, with padding."""
        if attention_mask is not None:
            raise ValueError(_TWO_DIMENSIONS)
        for name in ("sliding_window", "softcap", "s_aux"):
            if kwargs.get(name) is not None:
                self._refuse(f"its attention uses {name} = {kwargs[name]!r}, which LaMPE can't map yet")
        if dropout:
            raise ValueError("LaMPE is for inference: call model.eval() first (attention dropout is on).")
        if query.device.type not in ("cpu", "cuda"):
            raise ValueError(f"LaMPE runs on CPU and CUDA, not on {query.device.type}.")
        now = self._pass
        if now is None or now.offset is None or now.like is None:
            self._refuse("its layers run outside its decoder's forward, or before its rotary embedding")
        rotate = rotation(module)
        if self._probing is not None:
            self._probing.watch(module, query, key, rotate, self._tables(now.like))
        scaling = (query.shape[-1] ** -0.5 if scaling is None else scaling) * self.config.attention_scale

        with torch.no_grad():
            output, region_lse, weights = None, [], []
            for group in now.groups:
                first = group.start + group.step.first - now.offset
                q = _cut(query, group.rows, first, group.stop - now.offset)
                k, v = (_cut(x, group.rows, group.start, group.stop) for x in (key, value))
                part, lse = group.step.attend(q, k, v, rotate, scaling)
                region_lse.append(lse)
                if self.keep_weights:
                    weights.append(group.step.weights(q, k, rotate, scaling))
                if part.shape == query.shape:
                    output = part
                else:  # the rest is padding, which nobody attends to
                    output = torch.zeros_like(query) if output is None else output
                    _cut(output, group.rows, first, group.stop - now.offset).copy_(part)
            self._region_lse[module.layer_idx] = region_lse
            if weights:
                self._weights[module.layer_idx] = weights
            output = torch.zeros_like(query) if output is None else output
        if torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)):
            output = _NoBackward.apply(output, query, key, value)
        return output.transpose(1, 2), None

    def _start(self, now: Pass, positions: Tensor, like: Tensor) -> None:
        """Before the first layer: plan each row, and lay out what all layers share."""
        assert now.offset is not None
        now.like = like
        now.rows = list(plan_rows(now, self.config, self._planned))
        if self._probing is not None:
            resting = IndexMap(0) if self._probing.hooked else IndexMap()
            now.rows = [replace(row, resting=resting) for row in now.rows]
        self.position_maps = tuple(row.position_map for row in now.rows)
        if positions.ndim != 2:
            self._refuse("its position ids have more than one dimension for each token")
        check_positions(now, positions)
        for number, ((start, stop), row) in enumerate(zip(now.spans, now.rows, strict=True)):
            last = now.groups[-1] if now.groups else None
            first = max(0, now.offset - start)
            if last and last.rows.stop == number and last.stop == stop and now.rows[last.rows.start] == row:
                last.rows = range(last.rows.start, number + 1)
            elif start + first < stop:
                step = Step(row.position_map, row.resting, first, stop - start, self._tables(like), like.device)
                now.groups.append(Group(range(number, number + 1), start, stop, step))
        self._rows = [group.rows for group in now.groups]

    def _tables(self, like: Tensor) -> Tables:
        # forward() itself, past the hook: every kind of RoPE scaling comes with it. Yarn's factor on the cosine and
        # sine is in queries and keys already when they are turned on.
        factor = getattr(self._rotary, "attention_scaling", 1.0)
        exact = like.to(torch.promote_types(like.dtype, torch.float32))

        def tables(positions: Tensor) -> Table:
            cos, sin = self._rotary.forward(exact, positions.unsqueeze(0))
            return (cos, sin) if factor == 1 else (cos / factor, sin / factor)

        return tables

    # Is it really in the path?

    def _probe(self) -> None:
        """Run a few tokens as the model has them and with every token resting at position 0, and compare.

        At rest there, queries and keys must come unrotated, and turned on here they must be the model's own.
        """
        own, mine = Probe(hooked=False), Probe(hooked=True)
        embeddings = self._decoder.get_input_embeddings()
        tokens = torch.arange(1, PROBE_TOKENS + 1, device=embeddings.weight.device) * 7 % embeddings.num_embeddings
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        self._planned = plain_map(PROBE_TOKENS)
        try:
            for self._probing in (own, mine):
                with torch.no_grad():
                    self._decoder(input_ids=tokens.unsqueeze(0), use_cache=False)
        except (UnsupportedModelError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            self._refuse(f"trying it on a few tokens fails ({error})", error)
        finally:
            self._probing = self._planned = None
            for module, training in modes:
                module.training = training
        if reason := mine.differs_from(own, self._plain_config.num_hidden_layers):
            self._refuse(reason)
        self.position_maps, self._rows, self._region_lse = (), [], {}

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


def _cut(x: Tensor, rows: range, start: int, stop: int) -> Tensor:
    """Some rows of a batch and some of their tokens; most often all of both, and x as it is."""
    if (len(rows), start, stop) == (x.shape[0], 0, x.shape[2]):
        return x
    return x[rows.start : rows.stop, :, start:stop]


def _unregister(name: str) -> None:
    transformers.AttentionInterface._global_mapping.pop(name, None)
    transformers.AttentionMaskInterface._global_mapping.pop(name, None)


def _alive(this: weakref.ref[Patched]) -> Patched:
    patched = this()
    assert patched is not None, "its hooks hold it as long as the model lives"
    return patched
