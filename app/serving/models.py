"""The models that answer: one is loaded at a time, and changes when another is asked for."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

import lampe
from app.serving.requests import Chosen
from app.serving.templates import fill_in_apart
from app.settings import ModelChoice, Settings
from lampe import LoadError, UnsupportedModelError
from lampe.errors import InputError
from lampe.families import family_config
from lampe.methods import Method, method_class
from lampe.models.load import DEFAULT_MODEL_NAME, Progress, ProgressCallback, fetch, load, load_config, load_tokenizer
from lampe.models.memory import cache_bytes, free_bytes, weight_bytes

_KEPT = 4  # tokenizers, some megabytes each, and configs
_MOST = {
    "num_hidden_layers": 512, "hidden_size": 65_536, "intermediate_size": 1_000_000, "vocab_size": 2_000_000,
    "num_attention_heads": 1024, "num_key_value_heads": 1024, "num_local_experts": 1024, "num_experts": 1024,
}  # fmt: skip
"""Of a config's numbers: models are larger nowhere, and a config that says so takes minutes to be built."""
_DISK_LEFT = 0.1
"""The share of the disk that models which visitors name leave free: each fits in the memory, but how many they name
nobody knows."""
_NO_MEMORY = ("not enough memory", "out of memory", "can't allocate memory", "alloc_failed")


@dataclass(frozen=True, eq=False)
class Loaded:
    """The model that answers; another load of the same weights is another model.

    Parameters
    ----------
    choice : ModelChoice
    model : transformers model
    decoder : transformers tokenizer
        Of its own: one that decodes can't be set to encode special tokens as text.
    """

    choice: ModelChoice
    model: Any
    decoder: Any


class Models:
    """The loaded model, and the tokenizers and configs of those that visitors have chosen.

    Parameters
    ----------
    settings : Settings
    replaced : callable
        Called before the loaded model goes: what belongs to it is to be let go of.
    held : callable
        Bytes of what belongs to it.
    """

    def __init__(self, settings: Settings, replaced: Callable[[], None], held: Callable[[], int]) -> None:
        self.settings = settings
        self.loaded: Loaded | None = None
        self._replaced, self._held = replaced, held
        self.tokenizers: dict[str | None, Any] = {}  # those that are here
        self._configs: dict[str | None, Any] = {}
        self._fetching = {offered: threading.Lock() for offered in (True, False)}

    def choice(self, chosen: Chosen | None = None) -> ModelChoice:
        """The model that is to run: the chosen one, or the deployment's own.

        Raises
        ------
        InputError
            If this deployment doesn't offer it.
        """
        model = chosen.model if chosen else self.settings.own
        self.check(model)
        return model

    def check(self, choice: ModelChoice) -> None:
        """Refuse a model that this deployment doesn't offer.

        Raises
        ------
        InputError
        """
        if choice.bits not in (4, 16):
            raise InputError(f"Weights are loaded in 4 or in 16 bits, not {choice.bits!r:.40}.")
        if choice.model_id in self.settings.offered:
            return
        if not self.settings.allow_any_model:
            names = ", ".join(ModelChoice(one, 4).name for one in self.settings.offered)
            raise InputError(
                f"{choice.name!r:.120} isn't offered here; choose one of {names}. Whoever runs the app may allow "
                "others: MODEL_IDS lists them, ALLOW_ANY_MODEL=1 allows all."
            )
        # A name that a visitor typed is never looked up on the server's own disk.
        name = choice.name
        if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, re.ASCII) or len(name) > 120 or Path(name).exists():
            raise InputError(f"{name!r:.120} isn't a model id of the Hugging Face Hub: these look like owner/name.")

    def tokenizer(self, choice: ModelChoice, progress: ProgressCallback | None = None) -> Any:
        """The tokenizer, fetched at its first use.

        Raises
        ------
        lampe.LoadError
        """
        if made := self.tokenizers.get(choice.model_id):
            return made
        with self._fetching[choice.model_id in self.settings.offered]:  # one that is slow to come holds up no other
            if choice.model_id not in self.tokenizers:
                made = load_tokenizer(choice.model_id, progress=progress, **self._caution(choice))
                if self._named(choice):
                    fill_in_apart(made)
                _keep(self.tokenizers, choice.model_id, made)
            return self.tokenizers[choice.model_id]

    def config(self, choice: ModelChoice) -> lampe.LampeConfig:
        """The LaMPE settings of a model, from its preset or its config; no weights are needed.

        Raises
        ------
        lampe.LoadError
        """
        if choice.model_id in (None, DEFAULT_MODEL_NAME):  # known without fetching it, and measured in 4 bits
            return replace(lampe.PRESETS["smollm2"], basis="measured" if choice.bits == 4 else "family")
        return lampe.LampeConfig.for_model(self._known(choice))

    def settled(self, chosen: Chosen | None = None) -> lampe.LampeConfig:
        """The LaMPE settings that run: the chosen ones, or the model's own.

        Raises
        ------
        InputError, lampe.LoadError
        """
        return (chosen and chosen.config) or self.config(self.choice(chosen))

    def method(self, key: str, choice: ModelChoice) -> Method:
        """A method with its own settings for a model, from its config.

        Raises
        ------
        lampe.LoadError, lampe.MethodError
        """
        return method_class(key).for_model(self._known(choice))

    def fetch(
        self, choice: ModelChoice, progress: ProgressCallback | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """Have a model's files here, if it would fit: beside all else, for that may take longer than anybody waits.

        Raises
        ------
        lampe.LoadError
        """
        loaded = self.loaded  # which the model's thread may change meanwhile
        if choice.model_id in (None, DEFAULT_MODEL_NAME) or (loaded and loaded.choice == choice):
            return
        own = _weights(loaded.model) + self._held() if loaded else 0
        _check_memory(choice, needed_bytes(self._config(choice), choice.bits), free_bytes() + own)
        fetch(choice.model_id, progress=self._telling(choice, progress, stopped), **self._caution(choice))

    def load(
        self, choice: ModelChoice, progress: ProgressCallback | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> Loaded:
        """Make this the loaded model, unless it is; to be called in the model's thread.

        The one before stays until this one can answer, if the memory is enough for both; else it goes first.

        Parameters
        ----------
        choice : ModelChoice
        progress : callable, optional
        stopped : callable, optional
            Whether nobody waits for it any more: then the load ends, but for the deployment's own model, which will be
            wanted again.

        Raises
        ------
        lampe.LoadError, lampe.UnsupportedModelError
            The one before stays, or is loaded again when it is next asked for.
        """
        if self.loaded and self.loaded.choice == choice:
            return self.loaded
        memory, released = "", ""
        if self.loaded or choice.model_id not in (None, DEFAULT_MODEL_NAME):  # that one is small, and fetched below
            needed, free = needed_bytes(self._config(choice), choice.bits), free_bytes()
            if self.loaded and free < needed <= free + _weights(self.loaded.model) + self._held():
                released = (
                    f" {self.loaded.choice.name} was let go of first; it is loaded again when it is next asked for."
                )
                self._release()
                free = free_bytes()
            _check_memory(choice, needed, free, released)
            memory = f" ({needed / 1e6:,.0f} MB of {free / 1e6:,.0f} MB free memory)"
        told = self._telling(choice, progress, stopped, memory)
        try:
            told(Progress("Getting the model ready", 0, 0, ""))
            model, tokenizer = load(choice.model_id, bits=choice.bits, progress=told, **self._caution(choice))
            if self._named(choice):
                fill_in_apart(tokenizer)
            lampe.patch(model).remove()  # refuse now, not after a long document was read
            told(Progress("Changing the model", 0, 0, ""))
        except (LoadError, UnsupportedModelError) as error:
            raise type(error)(f"{error}{released}") from error
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise LoadError(
                f"There isn't enough memory here to load {choice.name} in {choice.bits} bits: choose a smaller "
                f"model{', or 4 bits' * (choice.bits == 16)}, or close other programs.{released}"
            ) from error
        self._release()
        self.loaded = Loaded(choice, model, tokenizer)
        return self.loaded

    def _named(self, choice: ModelChoice) -> bool:
        """Whether a visitor has named it."""
        return choice.model_id not in self.settings.offered

    def _caution(self, choice: ModelChoice) -> dict[str, Any]:
        """How its files are fetched: those that a visitor has named without this machine's token, with disk left."""
        named = self._named(choice)
        return {"anonymous": named, "leave": _DISK_LEFT if named else 0.0}

    def _known(self, choice: ModelChoice) -> Any:
        """A model's config as it was when it was first asked for; errors as in `_config`."""
        if choice.model_id in (None, DEFAULT_MODEL_NAME):  # known without fetching it
            return family_config("smollm2")
        if choice.model_id not in self._configs:
            _keep(self._configs, choice.model_id, self._config(choice))
        return self._configs[choice.model_id]

    def _config(self, choice: ModelChoice) -> Any:
        """A model's config, held against what is ever built here.

        Raises
        ------
        lampe.LoadError
        """
        config = load_config(choice.model_id, **self._caution(choice))
        text = config.get_text_config()
        for field, most in _MOST.items():
            value = getattr(text, field, None) or 0
            if not isinstance(value, int) or value > most:
                what = field.removeprefix("num_").replace("_", " ")
                raise LoadError(f"{choice.name} says {what} {value!r:.40}; at most {most:,} are loaded here.")
        return config

    def _telling(
        self, choice: ModelChoice, progress: ProgressCallback | None, stopped: Callable[[], bool], memory: str = ""
    ) -> ProgressCallback:
        def told(report: Progress) -> None:
            if stopped() and choice != self.settings.own:
                raise LoadError(f"Loading {choice.name} was stopped.")
            if progress:
                progress(replace(report, stage=report.stage + memory))

        return told

    def _release(self) -> None:
        self._replaced()
        self.loaded = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _keep(known: dict[Any, Any], key: Any, value: Any) -> None:
    """Remember one more, and of more than a few forget the first."""
    while len(known) >= _KEPT:
        del known[next(iter(known))]
    known[key] = value


def _check_memory(choice: ModelChoice, needed: int, free: int, released: str = "") -> None:
    if needed > free:
        raise LoadError(
            f"{choice.name} in {choice.bits} bits takes about {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are "
            f"free here: choose a smaller model{', or 4 bits' * (choice.bits == 16)}.{released}"
        )


def out_of_memory(error: Exception) -> bool:
    """Whether it says that there isn't enough memory, whichever allocator does."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)


@contextmanager
def enough_memory(tokens: int) -> Iterator[None]:
    """Turns running out of memory into a sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise InputError(
                f"There isn't enough memory for a prompt of {tokens:,} tokens on this machine. The model is still "
                "loaded: try a shorter text, or close other programs."
            ) from error
        raise


def _weights(model: Any) -> int:
    """Bytes of a loaded model's weights."""
    return sum(weight.nbytes for weight in model.parameters())


def needed_bytes(config: Any, bits: int) -> int:
    """Memory that loading takes, about: the weights, and a quarter more for what is read before it is packed."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    return weight_bytes(model, bits) * 5 // 4


def bytes_for(model: Any, tokens: int) -> int:
    """Memory that reading and writing so many tokens takes.

    A cache that outgrows its room is copied, a layer at a time, and chunks take some: twice the cache is what is asked
    for.
    """
    return 2 * cache_bytes(model.config, tokens, model.dtype.itemsize)
