"""Models and tokenizers, ready to run: the embedded default (`lampe.models.embedded`), or any causal language model.

Every failure that a person can do something about is a `LoadError`, whose message says what.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub import errors as hub
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import validate_repo_id
from tqdm import tqdm

from lampe.errors import InputError, first_line
from lampe.models.device import compute_dtype, default_place
from lampe.models.embedded import DEFAULT_MODEL_NAME, NO_SPACE, LoadError, prepare_default
from lampe.models.memory import free_bytes
from lampe.models.progress import Progress, ProgressCallback, quiet
from lampe.models.strangers import check_tokenizer

_SHARED_HIDDEN_SIZE = 2048
"""From this hidden size on, a model's matrices are quantised by all threads."""
_FILES = re.compile(r"[\w.-]+\.(?:json|jinja|txt|model)|model[\w.-]*\.safetensors")
"""Of a repository's: some hold the weights a second time, in folders or under other names."""
_OLD_WEIGHTS = re.compile(r"pytorch_model[\w.-]*\.bin")
_SMALL = 100_000_000  # bytes of somebody else's config and tokenizer; Gemma 3's are 39 MB


def load(
    model_id: str | os.PathLike[str] | None = None,
    bits: int = 4,
    device: str | torch.device | None = None,
    *,
    progress: ProgressCallback | None = None,
    anonymous: bool = False,
    leave: float = 0.0,
) -> tuple[Any, Any]:
    """A model in evaluation mode, and its tokenizer.

    Parameters
    ----------
    model_id : str, path or None
        A Hub id (``owner/name``) or a folder of your own; None or `DEFAULT_MODEL_NAME` is the embedded default.
    bits : int
        4 is bitsandbytes NF4 with double quantisation, the output head left alone. 16 is bfloat16, or float16 on a
        GPU without bfloat16. A CPU without bfloat16 computes in float32 either way.
    device : str, torch.device or None
        "cpu", "cuda" or "cuda:n"; "auto" shares the layers out over all GPUs; None takes the GPU when there is one.
    progress : callable or None
        See `lampe.models.progress.ProgressCallback`.
    anonymous : bool
        For an id that somebody else has named: the Hub is asked without this machine's token, which may open what is
        private, and nothing but what `fetch` brings is taken, of the repository as it was then.
    leave : float
        For an id that somebody else has named: see `fetch`.

    Returns
    -------
    (model, tokenizer)

    Raises
    ------
    ValueError
        If `bits` is neither 4 nor 16, or `device` is neither a CPU nor a CUDA GPU.
    LoadError
        If the model can't be fetched, isn't a causal language model, or can't be loaded on this machine.
    """
    if bits not in (4, 16):
        raise InputError(f"Weights are loaded in 4 or in 16 bits, not {bits!r}.")
    place = _place(None if device == "auto" else device)
    name, source = _find(model_id, progress, anonymous)
    if anonymous:
        source = _somebody_elses(name, source, progress, leave)
    with _explained(name, bits, place), quiet(progress):
        config = _causal_config(name, source, bits)
        tokenizer = _tokenizer(name, source, anonymous)
        if progress and not source["local_files_only"]:
            progress(Progress(f"Fetching {name}", 0, 0, "bytes"))
        dtype = compute_dtype(place)
        quantisation = None
        # A model saved in bitsandbytes' 4 bits brings its own settings.
        if bits == 4 and getattr(config, "quantization_config", None) is None:
            quantisation = transformers.BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
            )
        small = quantisation is not None and getattr(config.get_text_config(), "hidden_size", 0) < _SHARED_HIDDEN_SIZE
        with _one_thread() if small and place.type == "cpu" else contextlib.nullcontext():
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                **source,
                config=config,
                dtype=dtype,
                quantization_config=quantisation,
                device_map="auto" if device == "auto" and place.type == "cuda" else {"": place},
                attn_implementation="sdpa",
                use_safetensors=True if anonymous else None,
                output_loading_info=True,
            )
        model, info = loaded
        if info["missing_keys"]:
            raise LoadError(
                f"{name} has no weights for {sorted(info['missing_keys'])[0]}, so it can't write text. "
                "Choose a causal language model."
            )
        if bits == 4 and place.type == "cpu":
            from lampe.models.linear4bit import Linear4bit, speed_up  # bitsandbytes is imported where it is needed

            layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
            speed_up(layers, free_bytes(place))
        return model.eval(), tokenizer


def load_tokenizer(
    model_id: str | os.PathLike[str] | None = None,
    *,
    progress: ProgressCallback | None = None,
    anonymous: bool = False,
    leave: float = 0.0,
) -> Any:
    """The tokenizer alone; no weights are read into memory. Parameters and errors as in `load`."""
    name, source = _find(model_id, progress, anonymous)
    if anonymous:
        source = _somebody_elses(name, source, progress, leave, weights=False)
    with _explained(name):
        return _tokenizer(name, source, anonymous)


def load_config(model_id: str | os.PathLike[str] | None = None, *, anonymous: bool = False, leave: float = 0.0) -> Any:
    """The config alone: a small file, no weights. Parameters and errors as in `load`."""
    name, source = _find(model_id, anonymous=anonymous)
    if anonymous:
        source = _somebody_elses(name, source, leave=leave, weights=False)
    with _explained(name):
        return _causal_config(name, source, 4)  # the more lenient: it takes folders saved in 4 bits too


def fetch(
    model_id: str | os.PathLike[str] | None,
    *,
    progress: ProgressCallback | None = None,
    anonymous: bool = False,
    leave: float = 0.0,
    weights: bool = True,
) -> str | None:
    """Have a model's files on this computer, without reading them into memory: what `load` would fetch first.

    Other parameters and errors are as in `load`; an exception of `progress` ends the download, and what has come of a
    file is kept for the next.

    Parameters
    ----------
    leave : float
        The share of the disk that is to stay free.
    weights : bool
        False takes the other files alone. Of somebody else's these are 100 MB at most.

    Returns
    -------
    str or None
        The commit that the files are of; None where nothing can be fetched.

    Raises
    ------
    LoadError
        If less of the disk would stay free, or what isn't weights is too much.
    """
    name, source = _find(model_id, progress, anonymous)
    if source["local_files_only"]:
        return None
    token = False if anonymous else None
    with _explained(name):
        repository = HfApi(token=token).model_info(name, files_metadata=True, timeout=10)
        files, commit = repository.siblings or [], repository.sha
        wanted = {file.rfilename: file.size or 0 for file in files if _FILES.fullmatch(file.rfilename)}
        small = {file: size for file, size in wanted.items() if not file.endswith(".safetensors")}
        if anonymous and sum(small.values()) > _SMALL:
            raise LoadError(
                f"{name}'s config and tokenizer are {sum(small.values()) / 1e6:,.0f} MB, and at most "
                f"{_SMALL / 1e6:.0f} MB are fetched here. Choose another model."
            )
        if not weights:
            wanted = small
        elif not any(file.endswith(".safetensors") for file in wanted) and not anonymous:
            wanted |= {file.rfilename: file.size or 0 for file in files if _OLD_WEIGHTS.fullmatch(file.rfilename)}
        total, before = sum(wanted.values()), 0
        missing = sum(
            size
            for file, size in wanted.items()
            if not isinstance(try_to_load_from_cache(name, file, revision=commit), str)
        )
        cache = Path(constants.HF_HUB_CACHE)
        there = next((folder for folder in (cache, *cache.parents) if folder.exists()), None)
        if there is None:
            raise LoadError(f"The folder {cache} can't be made: its drive isn't there. Set HF_HOME to another one.")
        disk = shutil.disk_usage(there)
        if missing and leave and missing > disk.free - leave * disk.total:
            raise LoadError(
                f"{name} takes {missing / 1e9:.1f} GB of the disk here, of which {disk.free / 1e9:.1f} GB are free and "
                f"{leave * disk.total / 1e9:.1f} GB are to stay so: choose a smaller model, or ask whoever runs this "
                "to make room."
            )

        class Bar(tqdm):
            """What the Hub's client tells its progress to, for each file."""

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                self._done = kwargs.get("initial") or 0
                kwargs.pop("name", None)
                super().__init__(*args, **{**kwargs, "disable": True})

            def update(self, n: float | None = 1) -> bool | None:
                self._done += n or 0
                if progress:
                    progress(Progress(f"Fetching {name}", min(total, before + int(self._done)), total, "bytes"))
                return super().update(n)

        for file, size in wanted.items():
            # Of somebody else's, the files whose sizes were looked at: a branch may have moved on since.
            hf_hub_download(name, file, revision=commit if anonymous else None, token=token, tqdm_class=Bar)
            before += size
        return commit


def refusal(model_id: str) -> str:
    """Why a model of the Hub can't be had here, in a sentence; empty if it can, and of its files only the config is
    fetched.
    """
    try:
        load_config(model_id)
    except LoadError as error:
        return str(error)
    return ""


# Where models are found


def _find(
    model_id: str | os.PathLike[str] | None, progress: ProgressCallback | None = None, anonymous: bool = False
) -> tuple[str, dict[str, Any]]:
    """A model's name for people, and what transformers' `from_pretrained` is to be asked for."""

    def source(location: str | Path, online: bool = False) -> dict[str, Any]:
        place = {"pretrained_model_name_or_path": str(location), "local_files_only": not online}
        return place | {"trust_remote_code": False} | ({"token": False} if anonymous else {})

    if model_id is None or model_id == DEFAULT_MODEL_NAME:
        return DEFAULT_MODEL_NAME, source(prepare_default(progress))
    text = os.fspath(model_id)
    folder = _as_folder(text)
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise LoadError(f"The folder {folder} has no config.json, so it holds no transformers model.")
        return folder.name, source(folder)
    try:
        validate_repo_id(text)
    except hub.HFValidationError as error:
        shown = text if len(text) <= 100 else text[:99] + "…"
        raise LoadError(
            f"{shown!r} is neither a folder on this computer nor a Hugging Face model id. "
            "An id looks like owner/name, with letters, digits, '-', '_' and '.' only."
        ) from error
    return text, source(text, online=_hub_answers(text, anonymous))


def _somebody_elses(
    name: str,
    source: dict[str, Any],
    progress: ProgressCallback | None = None,
    leave: float = 0.0,
    weights: bool = True,
) -> dict[str, Any]:
    """The same of a repository as it was when the sizes of its files were looked at, with nothing left to be fetched
    (what an index of weights names may lie elsewhere, and be of any size), and a tokenizer that is safe to build."""
    place = source["pretrained_model_name_or_path"]
    if Path(place).is_dir():
        return source
    if source["local_files_only"]:  # the Hub doesn't answer: as it was when it last did
        snapshots = (Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=place, repo_type="model")).glob(
            "snapshots/*"
        )
        revision = max(snapshots, key=lambda one: one.stat().st_mtime, default=Path("main")).name
    else:
        revision = fetch(place, progress=progress, anonymous=True, leave=leave, weights=weights) or "main"
    tokenizer = try_to_load_from_cache(place, "tokenizer.json", revision=revision)
    if isinstance(tokenizer, str):
        check_tokenizer(name, Path(tokenizer).read_bytes())
    return source | {"revision": revision, "local_files_only": True}


def _tokenizer(name: str, source: dict[str, Any], anonymous: bool) -> Any:
    """A tokenizer; somebody else's is looked at as it was built."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    if anonymous:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise LoadError(
                f"{name} has no tokenizer.json, and others' tokenizers may take for ever. Choose another model."
            )
        check_tokenizer(name, backend.to_str())
    return tokenizer


def _as_folder(text: str) -> Path | None:
    if not text.strip():  # Path("") would be the working folder
        return None
    try:
        folder = Path(text).expanduser().resolve()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, an unknown ~user, a null character
        return None


def _hub_answers(model_id: str, anonymous: bool = False) -> bool:
    """Whether the Hub answers; a LoadError if it answers that there is no such model.

    One short question first: without a network transformers would try for 23 s, once for each file.
    """
    try:
        files = [
            file.rfilename
            for file in HfApi(token=False if anonymous else None).model_info(model_id, timeout=10).siblings or []
        ]
    except hub.RepositoryNotFoundError as error:
        raise LoadError(_explanation(error, model_id)) from error
    except Exception:  # whatever keeps the Hub from answering, a copy fetched earlier may still do
        return False
    if files and "config.json" not in files:
        raise LoadError(
            f"{model_id} has no config.json: it is a GGUF file, an adapter or no language model. "
            "Choose a model with transformers weights."
        )
    return True


def _causal_config(name: str, source: dict[str, Any], bits: int) -> Any:
    config = transformers.AutoConfig.from_pretrained(**source)
    if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING or getattr(config, "is_encoder_decoder", False):
        raise LoadError(
            f"{name} ({config.model_type}) isn't a causal language model: it doesn't continue a text. "
            "Choose one that does, such as a Llama, Mistral or Qwen model."
        )
    given = getattr(config, "quantization_config", None)
    if given is not None:
        given = given if isinstance(given, dict) else given.to_dict()
        if bits != 4 or not given.get("load_in_4bit"):
            method = str(getattr(given.get("quant_method"), "value", given.get("quant_method")))
            raise LoadError(
                f"{name} is already quantised ({method}) and can't be loaded in {bits} bits. "
                "Choose the model it was made from."
            )
    return config


# How they are loaded


def _place(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = default_place().device
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"A device is 'cpu', 'cuda' or 'cuda:n', not {device!r}.") from error
    if place.type not in ("cpu", "cuda"):
        raise InputError(f"Models run on 'cpu' or 'cuda', not on {str(place)!r}.")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise LoadError(f"This computer has no GPU {str(place)!r} that PyTorch can use. Take device='cpu'.")
    return place


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Quantise small matrices without sharing them out.

    Two threads save nothing at the default's sizes, and where another program keeps the cores busy the waiting of
    one for the other makes 3 s into 18 s and more.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# What went wrong


@contextlib.contextmanager
def _explained(name: str, bits: int | None = None, place: torch.device | None = None) -> Iterator[None]:
    """Turn what the libraries raise into a LoadError with the cause chained."""
    before = sys.exception()  # whatever the caller is handling has nothing to do with it
    try:
        yield
    except LoadError:
        raise
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, MemoryError) as error:
        raise LoadError(_explanation(error, name, bits, place, before)) from error


def _explanation(
    error: BaseException,
    name: str,
    bits: int | None = None,
    place: torch.device | None = None,
    before: BaseException | None = None,
) -> str:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause is not before:
        chain.append(cause)

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in chain)

    def says(*words: str) -> bool:
        return any(word in str(cause) for cause in chain for word in words)

    if caused_by(hub.GatedRepoError):  # before RepositoryNotFoundError, of which it is one
        return f"{name} is gated. Accept its terms on its Hugging Face page, then run `hf auth login` or set HF_TOKEN."
    if caused_by(hub.RepositoryNotFoundError):
        return (
            f"The Hugging Face Hub has no model {name} that you may see. Check the spelling (owner/name); "
            "for a private model set HF_TOKEN."
        )
    if caused_by(torch.OutOfMemoryError, MemoryError) or says("can't allocate memory", "not enough memory"):
        return f"{name} doesn't fit in the memory of {place} in {bits} bits. Choose a smaller model" + (
            ", or 4 bits." if bits == 16 else "."
        )
    if any(isinstance(cause, OSError) and cause.errno in NO_SPACE for cause in chain):
        return f"The disk is full, so {name} can't be fetched. Make room, or set HF_HOME to a folder on another disk."
    if caused_by(hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError) or says("couldn't connect to"):
        return (
            f"{name} isn't on this computer and the Hugging Face Hub can't be reached. Check the network and try "
            f"again, or take the embedded {DEFAULT_MODEL_NAME}."
        )
    if says("trust_remote_code"):
        return f"{name} needs program code of its own, which is never run here. Choose a model that transformers knows."
    if says("does not recognize this architecture", "Unrecognized model"):
        return f"This version of transformers doesn't know the kind of model that {name} is. Choose another model."
    if says("backend tokenizer"):
        return f"{name} has no tokenizer that transformers can read. Choose a model that comes with a tokenizer.json."
    if caused_by(ImportError) and says("bitsandbytes", "accelerate", "gguf"):
        words = f'{name} needs packages that aren\'t here ({first_line(error)}): pip install "lampe-lab[4bit]".'
        return f"{words} Try 16 bits otherwise." if bits == 4 else words
    if bits == 4 and says("bitsandbytes", "4bit", "4-bit", "quantiz"):
        return f"bitsandbytes can't load {name} in 4 bits here ({first_line(error)}). Try 16 bits."
    return f"{name} can't be loaded: {first_line(error)}"
