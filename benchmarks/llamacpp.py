"""The default model here and in llama.cpp, on the same processor: reading 4k and 12k tokens, and writing some.

    pip install xllamacpp
    python -m benchmarks.llamacpp [--lengths 4096 12288] [--tokens 16] [--quick] [--fresh]

llama.cpp, in the binding xllamacpp, runs the GGUF file that the default model comes from (Q4_1); here its weights are
NF4. Each has as many threads as PyTorch takes. The runs of a length follow each other, and times are the runtimes'
own: llama.cpp's from its answer. Rows go to llamacpp.jsonl beside this file. What llama.cpp writes beyond the window
is of no use: it rotates plainly there (its file is told a longer window, or its server would refuse), and
its SelfExtend isn't in this binding's server.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from transformers import DynamicCache

import lampe
from benchmarks.measure import TIMED, Rows, arguments, random_ids, seconds
from lampe.inference.prefill import PromptReader
from lampe.methods import Rope
from lampe.models.embedded import fetch_gguf
from lampe.models.progress import ignore
from lampe.patching.patch import applied

_ROOM = 8  # tokens of llama.cpp's own


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 12_288])
    parser.add_argument("--tokens", type=int, default=16, help="tokens that are written (default: 16)")
    given = parser.parse_args()
    try:
        import xllamacpp
    except ImportError:
        sys.exit("This compares with llama.cpp, which isn't here: pip install xllamacpp")
    lengths, tokens = ([600], 4) if given.quick else (given.lengths, given.tokens)
    rows = Rows(None if given.quick else "llamacpp", given.fresh)
    model = lampe.load(bits=4)[0]
    with tempfile.TemporaryDirectory() as folder:
        gguf = fetch_gguf(Path(folder), ignore)
        _make_longer(gguf, max(lengths) + tokens + _ROOM)
        for length in lengths:
            if rows.has(tokens=length, written=tokens):
                continue
            runs = {name: _here(model, method, length, tokens) for name, method in (
                ("plain", Rope.for_model(model)), ("LaMPE", TIMED),
            )}  # fmt: skip
            runs["llama.cpp"] = _there(xllamacpp, gguf, random_ids(model, length)[0].tolist(), tokens)
            for name, (reading, writing) in runs.items():
                print(f"{length:,} tokens, {name}: read in {reading:.1f} s, {writing * 1e3:.0f} ms a token", flush=True)
            rows.add(
                tokens=length,
                written=tokens,
                measured={
                    name: {"reading_s": reading, "token_s": writing} for name, (reading, writing) in runs.items()
                },
            )


@torch.inference_mode()
def _here(model: Any, method: lampe.Method, length: int, tokens: int) -> tuple[float, float]:
    """Seconds that reading takes, and a token."""
    ids = random_ids(model, length)[0].tolist()
    with applied(model, method) as patched:
        position_map = patched.plan(length + tokens, length) if patched else None
        reader = PromptReader(model)
        reading = seconds(lambda: list(reader.read(ids, position_map)))
        cache: DynamicCache = reader.cache

        def write() -> None:
            last = reader.last
            for _ in range(tokens):
                last = model(last, past_key_values=cache, logits_to_keep=1).logits[:, -1:].argmax(-1)

        return reading, seconds(write) / tokens


def _make_longer(gguf: Path, tokens: int) -> None:
    """Have a model's file say that it was trained for so many tokens: llama.cpp's server reads no more than that."""
    trained = GGUFReader(gguf, "r+").get_field("llama.context_length")
    assert trained is not None
    number = trained.parts[trained.data[0]]
    number[0] = max(number[0], tokens)


def _there(xllamacpp: Any, gguf: Path, ids: list[int], tokens: int) -> tuple[float, float]:
    """The same by llama.cpp's own clock."""
    settings = xllamacpp.CommonParams()
    settings.model.path = str(gguf)
    settings.n_ctx = len(ids) + tokens + _ROOM
    settings.n_parallel = 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = torch.get_num_threads()
    settings.verbosity = -1
    server = xllamacpp.Server(settings)
    asked = {"prompt": ids, "n_predict": tokens, "cache_prompt": False, "temperature": 0, "ignore_eos": True}
    answer = server.handle_completions(asked)
    if "timings" not in answer:
        raise RuntimeError(f"llama.cpp doesn't answer: {answer!s:.300}")
    timings = answer["timings"]
    if timings["prompt_n"] < len(ids) - 1 or timings["predicted_n"] != tokens:
        raise RuntimeError(f"llama.cpp has read {timings['prompt_n']} tokens and written {timings['predicted_n']}.")
    return timings["prompt_ms"] / 1e3, timings["predicted_per_token_ms"] / 1e3


if __name__ == "__main__":
    main()
