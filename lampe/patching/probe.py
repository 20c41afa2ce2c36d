"""Is the patch really in a model's path, and in which of its layers? Found by running a few tokens."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
import transformers  # its modules load when they are first named: `import lampe` stays quick
from torch import Tensor, nn

from lampe.attention.turning import Table
from lampe.models.device import input_device
from lampe.patching.cache_plan import Pass
from lampe.patching.forward_pass import Hooks
from lampe.patching.rotary import RopeKind, Rotary, UnsupportedModelError, rotation

_TOKENS = 32  # so many that even a RoPE stretched a hundredfold rotates its fastest pair visibly
_TOLERANCE = 0.02  # relative; a wrong or missing rotation is off by the order of 1, bf16 noise by 0.004
_OUTPUT_TOLERANCE = 0.1  # the same after all layers; attention that does something else is off by the order of 1

_known: weakref.WeakKeyDictionary[nn.Module, tuple[Any, Support]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Layer:
    """Whether a layer attends at mapped positions, and if not, why: "no RoPE", "sliding window of 4,096 tokens"."""

    index: int
    mapped: bool
    reason: str = ""


@dataclass(frozen=True)
class Support:
    """What a model supports, as running it has shown.

    Parameters
    ----------
    layers : tuple of Layer
    windows : dict
        Each layer's sliding window in tokens, or None.
    kind : tuple
        The kind of RoPE of the mapped layers; see `lampe.patching.rotary.RopeKind`.
    factor : float
        The factor on its cosine and sine, YaRN's.
    aside : tuple of nn.Module
        The attention modules of layers that share that RoPE but aren't mapped.
    """

    layers: tuple[Layer, ...]
    windows: dict[int, int | None]
    kind: RopeKind
    factor: float
    aside: tuple[nn.Module, ...]


class Probe:
    """One run of the model over a few tokens: what reached the attention of each layer.

    Parameters
    ----------
    rests : tuple, optional
        The kind of RoPE that is asked to leave every token at position 0; None: all are as the model has them.
    again : Probe, optional
        The run whose attention outputs are given again, so that each layer gets the same input.
    """

    like: Tensor

    def __init__(self, rests: RopeKind | None = None, again: Probe | None = None) -> None:
        self.rests, self._again = rests, again
        self.kinds: list[RopeKind] = []
        self.modules: dict[int, nn.Module] = {}
        self.windows: dict[int, int | None] = {}
        self.arrived: dict[int, tuple[Tensor, Tensor]] = {}
        self.outputs: dict[int, Tensor] = {}
        self.result = torch.empty(0)  # the model's output for each token

    def watch(self, module: Any, window: int | None, query: Tensor, key: Tensor) -> Tensor | None:
        """Record what reached a layer; gives the attention output of the run that is repeated, if there is one."""
        layer = module.layer_idx
        if layer in self.arrived:
            raise ValueError(f"layer {layer} attends more than once in a pass")
        self.modules[layer], self.windows[layer], self.arrived[layer] = module, window, (query, key)
        return self._again.outputs[layer] if self._again else None

    def moved(self, own: Probe, layers: Collection[int]) -> list[int]:
        """The layers whose queries or keys differ from those of another run."""
        return [layer for layer in layers if _differ(self.arrived[layer], own.arrived[layer])]

    def positionless(self, layers: Collection[int]) -> list[int]:
        """The layers whose keys are alike for all tokens: where all tokens are one, those without RoPE."""
        keys = {layer: self.arrived[layer][1] for layer in layers}
        return [layer for layer, key in keys.items() if not _differ([key], [key[:, :, :1].expand_as(key)])]

    def rotated(self, rotary: Rotary, layers: Collection[int]) -> Probe:
        """The same, with the layers' queries and keys rotated from position 0 to their own positions."""
        rotated = Probe()
        tables = rotary.tables(self.like)
        for layer in layers:
            query, key = self.arrived[layer]
            # A model spread over several GPUs has its layers elsewhere than its rotary embedding.
            table = [t.to(query.device) for t in tables(torch.arange(query.shape[2], device=self.like.device))]
            rotate = rotation(self.modules[layer])
            rotated.arrived[layer] = rotate(query, *table), rotate(key, *table)
        return rotated


class Probing(Hooks):
    """The hooks of a model that is being tried: what reaches the attention of each layer is recorded in a `Probe`."""

    _probe: Probe

    def run(self, probe: Probe, same: bool = False) -> Probe:
        """Run a few tokens, or as many times the same one, through the model: as it is before they are installed."""
        embeddings = self._decoder.get_input_embeddings()
        tokens = torch.arange(1, _TOKENS + 1, device=input_device(self._decoder)) * 7 % embeddings.num_embeddings
        if same:
            tokens = tokens[:1].expand(_TOKENS)
        modes = [(module, module.training) for module in self._model.modules()]
        self._model.eval()
        self._probe = probe
        try:
            with torch.no_grad():
                probe.result = self._model(input_ids=tokens.unsqueeze(0), use_cache=False)[0]
        except (UnsupportedModelError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if self._handles and not probe.arrived:
                self._rotary.refuse("its attention doesn't go through transformers' attention interface", error)
            self._rotary.refuse(f"trying it on a few tokens fails ({error})", error)
        finally:
            for module, training in modes:
                module.training = training
        return probe

    def _mask(self, *args: Any, **asked: Any) -> Tensor | None:
        function: Any = asked.get("mask_function")
        causal = function in (None, transformers.masking_utils.causal_mask_function)
        if not causal and sliding_window(function, asked.get("config")) is None:
            self._rotary.refuse("layers of it see only chunks or surroundings of a token, not all tokens before it")
        return super()._mask(*args, **asked)

    def _rotated(self, now: Pass, kind: RopeKind, positions: Tensor, like: Tensor) -> Table | None:
        self._probe.kinds.append(kind)
        self._probe.like = like
        return self._rotary.at(like, torch.zeros_like(positions), kind) if kind == self._probe.rests else None

    def _attended(
        self, now: Pass, module: Any, window: int | None, query: Tensor, key: Tensor, value: Tensor, *how: Any
    ) -> Tensor:
        output = self._probe.watch(module, window, query, key)
        if output is None:
            output = super()._attended(now, module, window, query, key, value, *how)
            self._probe.outputs[module.layer_idx] = output
        return output


def find_support(model: nn.Module, rotary: Rotary, window: int) -> Support:
    """What a model supports: found once, by running a few tokens, and remembered. It isn't patched before or after.

    Parameters
    ----------
    model : transformers model
    rotary : Rotary
        The model's. It has the kind of RoPE of the mapped layers afterwards.
    window : int
        See `examine`.

    Raises
    ------
    UnsupportedModelError
        If it can't be patched; the message says why.
    """
    weights = next(model.parameters())
    state = window, weights.dtype, weights.device, tuple(map(id, model.modules()))
    known, support = _known.get(model, (None, None))
    if support is None or known != state:
        probing = Probing(model, rotary)
        plain = probing.run(Probe())
        probing.install()
        try:
            support = examine(probing, rotary, plain, rotary.decoder.config.num_hidden_layers, window)
        except UnsupportedModelError:
            raise
        except ValueError as error:
            rotary.refuse(str(error), error)
        finally:
            probing.remove()
        _known[model] = state, support
    rotary.choose(support.kind, support.factor)
    return support


def examine(probing: Probing, rotary: Rotary, plain: Probe, count: int, window: int) -> Support:
    """Find the layers to be mapped, and make sure that they can be.

    Parameters
    ----------
    probing : Probing
        Installed.
    rotary : Rotary
        Its kind will be that of the mapped layers.
    plain : Probe
        A run before the hooks were installed.
    count : int
        The model's layers.
    window : int
        Tokens; a layer that slides over fewer never meets a distance beyond its training.

    Raises
    ------
    ValueError
        Says why the model can't be patched.
    """
    run = probing.run
    own, everything = run(Probe()), range(count)
    if missing := sorted(set(everything) - set(own.arrived)):
        raise ValueError(f"in {_named(missing)} attention doesn't go through transformers' attention interface")
    if not plain.result.isfinite().all():
        raise ValueError(f"its own output isn't finite in {plain.result.dtype}; load it in another dtype")
    off = (own.result - plain.result).float().norm(dim=-1) / plain.result.float().norm(dim=-1)
    if not off.median() <= _OUTPUT_TOLERANCE:  # of a few tokens, one may well go to another expert
        raise ValueError(f"it gives something else where nothing is mapped (off by {off.median():.0%})")
    rested = {kind: run(Probe(kind, own)) for kind in dict.fromkeys(own.kinds)}
    kind_of = {layer: kind for kind, probe in rested.items() for layer in probe.moved(own, everything)}
    if still := set(everything) - set(kind_of):
        hidden = sorted(still - set(run(Probe(), same=True).positionless(still)))
        if hidden:
            raise ValueError(f"in {_named(hidden)} a changed rotation doesn't reach its attention")
    layers = tuple(_layer(index, kind_of.get(index), own.windows[index], window) for index in everything)
    mapped = [layer.index for layer in layers if layer.mapped]
    if not mapped:
        reasons = " or ".join(sorted({layer.reason.replace("sliding", "a sliding") for layer in layers}))
        raise ValueError(f"each of its layers has {reasons}, so none meets a distance beyond its training")
    if len({kind_of[index] for index in mapped}) > 1:
        raise ValueError("its full layers don't all have the same RoPE")
    kind = kind_of[mapped[0]]
    rotary.choose(kind, rotary.factor_of(kind, own.like))

    # At rest the queries and keys of the mapped layers, and no others, must come unrotated; rotated further they must
    # be the model's own.
    probe = rested[rotary.kind]
    aside = [index for index in probe.moved(own, everything) if index not in mapped]
    if aside:
        probing.set_aside([own.modules[index] for index in aside])
        probe = run(Probe(rotary.kind, own))
        if probe.moved(own, aside):
            raise ValueError(f"{_named(aside)} should stay unmapped, but can't be given the model's own rotation")
    try:
        wrong = probe.rotated(rotary, mapped).moved(own, mapped)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"its rotation doesn't fit the queries and keys that reach its attention: {error}") from error
    if wrong:
        raise ValueError(
            f"in {_named(wrong)} its own rotation, applied here, doesn't give its own queries and keys, as "
            "with multi-head latent attention"
        )
    return Support(layers, own.windows, kind, rotary.factor, tuple(own.modules[index] for index in aside))


def sliding_window(mask_function: Callable[..., Tensor], config: Any) -> int | None:
    """The window of a sliding causal mask, in tokens; None if the mask is another one."""
    window = getattr(config, "sliding_window", None)
    if not isinstance(window, int):
        return None
    edges = torch.tensor([0, 1, window - 1, window, window + 1, 2 * window - 1, 2 * window, 2 * window + 1])
    query, key = edges.clamp(min=0)[:, None], edges.clamp(min=0)[None]
    nothing = torch.zeros((), dtype=torch.long)
    sees = mask_function(nothing, nothing, query, key)
    return window if torch.equal(sees, (key <= query) & (key > query - window)) else None


def _layer(index: int, kind: RopeKind | None, slides: int | None, window: int) -> Layer:
    reason = "no RoPE" if kind is None else ""
    if slides is not None and slides < window:
        reason = f"sliding window of {slides:,} tokens"
    return Layer(index, not reason, reason)


def _differ(ours: Any, theirs: Any) -> bool:
    return any(
        not (a.float() - b.float()).norm() <= _TOLERANCE * b.float().norm() for a, b in zip(ours, theirs, strict=True)
    )


def _named(layers: list[int]) -> str:
    numbers = ", ".join(map(str, layers[:6])) + (", …" if len(layers) > 6 else "")
    return f"layer{'s' * (len(layers) > 1)} {numbers}"
