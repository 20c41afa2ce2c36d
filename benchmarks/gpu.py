"""Reading and writing on a GPU: models of two shapes with random weights, plain and under LaMPE.

    python -m benchmarks.gpu [--lengths 4096 16384 65536 131072] [--bits 16 4] [--repeats 3] [--quick] [--fresh]

What weights hold doesn't change what they cost, so nothing is fetched: Llama-3-8B's shape, and the default model's. For
each length the text is read in chunks, and then tokens are made, in turn plain and under LaMPE; beside the seconds
stands the memory that a reading takes beyond weights and cache, at its peak. A last table has the size of the chunks.
Rows go to gpu.jsonl beside this file; the first ones there, of chunks of 512 tokens, were taken from what it printed.
"""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.measure import TIMED, Rows, arguments, paired, prefill, random_ids, seconds
from lampe.inference.prefill import GPU_CHUNK
from lampe.methods import PRESETS, Rope
from lampe.models.memory import cache_bytes
from lampe.patching.patch import applied, patch

LENGTHS = [4096, 16_384, 65_536, 131_072]
CHUNKS = [512, 1024, 2048, 4096]
SHAPES = {
    "Llama-3-8B": (
        LlamaConfig(
            hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
            num_key_value_heads=8, vocab_size=128_256, max_position_embeddings=8192,
        ),
        PRESETS["llama3"],
    ),
    "SmolLM2-135M": (
        LlamaConfig(
            hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, vocab_size=49_152, max_position_embeddings=8192, tie_word_embeddings=True,
        ),
        TIMED,
    ),
}  # fmt: skip
"""A config, and the settings that it is measured with."""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 4])
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("This measures a GPU, and PyTorch sees none here.")
    rows = Rows(None if given.quick else "gpu", given.fresh)
    for shape in given.shapes:
        config, settings = SHAPES[shape]
        model = random_model(config)
        for bits in sorted(given.bits, reverse=True):  # what was packed isn't unpacked again
            if bits == 4:
                in_four_bits(model)
            for length in [4096] if given.quick else given.lengths:
                asked = {"shape": shape, "bits": bits, "tokens": length, "chunk": GPU_CHUNK}
                if not rows.has(**asked, what="reading"):
                    for what, row in measured(model, settings, length, given.repeats).items():
                        rows.add(**asked, what=what, **row)
            if not given.quick and not rows.has(shape=shape, bits=bits, tokens=16_384, what="chunks"):
                rows.add(shape=shape, bits=bits, tokens=16_384, what="chunks", **chunks(model, settings, 16_384))
        del model
        gc.collect()
        torch.cuda.empty_cache()


def random_model(config: Any) -> Any:
    """Of a config, in bfloat16 on the GPU."""
    torch.manual_seed(0)
    with torch.device("cuda"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def in_four_bits(model: Any) -> None:
    """Its linear layers in NF4, all but the output head, as `lampe.load` has them."""
    head = model.get_output_embeddings()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and child is not head:
                packed = Linear4bit(
                    child.in_features, child.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
                )
                packed.weight = Params4bit(child.weight.data, requires_grad=False, quant_type="nf4")
                setattr(module, name, packed.to("cuda"))


def measured(model: Any, settings: Any, length: int, repeats: int) -> dict[str, dict[str, Any]]:
    """A reading and tokens after it, plain and under LaMPE."""
    ids, held = random_ids(model, length), cache_bytes(model.config, length)
    ways = {"plain": Rope(settings.window), "LaMPE": settings}
    beyond: dict[str, int] = {}
    caches: dict[str, Any] = {}

    def reading(way: str) -> float:
        caches.pop(way, None)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with applied(model, ways[way]) as patched:
            if patched:
                patched.plan(length)

            def read() -> None:
                caches[way] = prefill(model, ids, GPU_CHUNK)

            taken = seconds(read)
        beyond[way] = round((torch.cuda.max_memory_allocated() - before - held) / 1e6)
        return taken

    def token(way: str) -> float:
        with applied(model, ways[way]):
            step = partial(model, ids[:, :1], past_key_values=caches[way], logits_to_keep=1)
            step()
            return seconds(lambda: [step() for _ in range(8)]) / 8

    read = paired({way: partial(reading, way) for way in ways}, repeats if length < 65_536 else 1)
    with torch.inference_mode():
        made = paired({way: partial(token, way) for way in ways}, 5 * repeats)
    return {"reading": {"beyond_mb": beyond, **read}, "a token": made}


def chunks(model: Any, settings: Any, length: int) -> dict[str, Any]:
    """Seconds of a reading under LaMPE by the size of its chunks."""
    with patch(model, settings) as patched:
        patched.plan(length)
        ids = random_ids(model, length)
        return paired({str(chunk): partial(seconds, partial(prefill, model, ids, chunk)) for chunk in CHUNKS}, 2)


if __name__ == "__main__":
    main()
