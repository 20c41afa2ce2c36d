"""Where a patch enters transformers: the registries of attention functions, and the configs that name one."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers  # its modules load when they are first named: `import lampe` stays quick
from torch import nn


def register(name: str, attention: Callable[..., Any], mask: Callable[..., Any]) -> None:
    """Make two methods of an object known under a name, as attention and as what makes masks for it."""
    # The registries are global: weak references let a patched model that nobody holds be freed.
    call: Any = torch.compiler.disable(_call)  # what is compiled around a patched model leaves them as they are
    transformers.AttentionInterface.register(name, partial(call, weakref.WeakMethod(attention)))
    transformers.AttentionMaskInterface.register(name, partial(call, weakref.WeakMethod(mask)))


def unregister(name: str) -> None:
    """Forget the name; if it isn't known, do nothing."""
    transformers.AttentionInterface._global_mapping.pop(name, None)
    transformers.AttentionMaskInterface._global_mapping.pop(name, None)


def name_attention(model: nn.Module, plain: Any, name: str) -> list[tuple[Any, Any]]:
    """Give all modules with this config, or with one that holds it, copies that name another attention.

    Copies for this model's modules alone: another model may have been built from the same config object.

    Returns
    -------
    list of (module, config)
        What they had before.
    """
    mine, before = copy.copy(plain), []
    mine._attn_implementation = name
    for module in model.modules():
        config: Any = module.__dict__.get("config")
        inside = [name for name, part in getattr(config, "__dict__", {}).items() if part is plain]
        if not inside and config is not plain:
            continue
        before.append((module, config))
        if inside:  # the config of a model that reads more than text
            module.config = copy.copy(config)
            module.config.__dict__.update(dict.fromkeys(inside, mine))
        else:
            module.config = mine
    return before


def _call(method: weakref.WeakMethod[Callable[..., Any]], *args: Any, **kwargs: Any) -> Any:
    alive = method()
    assert alive is not None, "its hooks hold it as long as the model lives"
    return alive(*args, **kwargs)
