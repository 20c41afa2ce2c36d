"""Where the time of reading goes: the last chunk of a 12k prefill, by what computes, and how near the machine's peak.

    python -m benchmarks.shares [--tokens 12288] [--quick] [--fresh]

The default model in 4 bits under LaMPE, by PyTorch's profiler. The peak is what a large matrix product reaches in the
dtype that the model computes in. Only the last chunk is profiled, after a cache of random keys: what lies in it
doesn't change what reading costs. Rows go to shares.jsonl beside this file.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import DynamicCache

import lampe
from benchmarks.measure import TIMED, Rows, arguments, random_ids, seconds
from lampe.inference.prefill import CHUNK

_PARTS = {
    "attention": ("_scaled_dot_product", "_flash_attention", "_efficient_attention"),
    "linear layers": ("aten::mm", "aten::addmm", "aten::bmm", "mkldnn", "gemm_4bit"),
    "unpacking 4 bits": ("dequantize",),
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--tokens", type=int, default=12_288)
    given = parser.parse_args()
    length = 1536 if given.quick else given.tokens
    rows = Rows(None if given.quick else "shares", given.fresh)
    if rows.has(tokens=length):
        return
    model = lampe.load(bits=4)[0]
    peak = peak_rate(model.dtype, 512 if given.quick else 2048)
    rows.add(tokens=length, peak_gflops=round(peak / 1e9, 1), **chunk_shares(model, length, peak))


def peak_rate(dtype: torch.dtype, size: int) -> float:
    """Operations a second in a product of square matrices."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    times = [seconds(lambda: a @ b) for _ in range(8)]
    return 2 * size**3 / sorted(times)[len(times) // 2]


@torch.inference_mode()
def chunk_shares(model: Any, length: int, peak: float) -> dict[str, Any]:
    """Seconds of the last chunk by part; attention's and the linear layers' rates as shares of the peak."""
    config, before = model.config, length - CHUNK
    cache: Any = DynamicCache(config=config)
    with lampe.patch(model, TIMED) as patched:
        patched.plan(length)
        ids = random_ids(model, length)
        model(ids[:, :64], past_key_values=cache, logits_to_keep=1)  # gives the cache its plan
        for layer in cache.layers:
            shape = (1, config.num_key_value_heads, before, config.head_dim)
            layer.keys, layer.values = (torch.randn(shape).to(model.dtype) for _ in range(2))

        def chunk() -> None:
            model(ids[:, before:], past_key_values=cache, logits_to_keep=1)
            cache.crop(-CHUNK)

        chunk()
        whole = seconds(chunk)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            chunk()
    spent = dict.fromkeys((*_PARTS, "the rest"), 0.0)
    for event in profiled.key_averages():
        part = next((part for part, names in _PARTS.items() if any(name in event.key for name in names)), "the rest")
        spent[part] += event.self_cpu_time_total / 1e6
    total = sum(spent.values())
    pairs = CHUNK * before + CHUNK * (CHUNK + 1) // 2
    work = {
        "attention": 4 * pairs * config.num_attention_heads * config.head_dim * config.num_hidden_layers,
        "linear layers": 2 * CHUNK * sum(m.in_features * m.out_features for m in _linear(model)),
    }
    return {
        "chunk_s": round(whole, 3),
        "shares": {part: round(time / total, 3) for part, time in spent.items()},
        "of_peak": {part: round(done / spent[part] / peak, 2) for part, done in work.items()},
    }


def _linear(model: Any) -> list[torch.nn.Linear]:
    head = model.get_output_embeddings()  # asked for one token's logits alone
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]


if __name__ == "__main__":
    main()
