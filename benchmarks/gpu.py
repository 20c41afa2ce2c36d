"""Reading and writing on a GPU: models of two shapes with random weights, plain and under LaMPE.

    python -m benchmarks.gpu [--lengths 4096 16384 65536 131072] [--bits 16 4] [--repeats 3] [--no-cudnn] [--profile]
                             [--quick] [--fresh]

What weights hold doesn't change what they cost, so nothing is fetched: Llama-3-8B's shape, and the default model's. For
each length the text is read in chunks, and then tokens are made, in turn plain and under LaMPE; beside the seconds
stands the memory that a reading takes beyond weights and cache, at its peak. A last table has the size of the chunks.
On Hopper chips PyTorch gives the unpatched model's attention to cuDNN, whose calls take the processor long where the
text grows by a token; --no-cudnn has it take another way. --profile only prints where the time of a token goes. Rows go
to gpu.jsonl beside this file; the first ones there, of chunks of 512 tokens, were taken from what it printed. LaMPE's
memory is left out of those without cuDNN: it was counted with what passes keep for their last report.
"""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.measure import TIMED, Rows, arguments, paired, prefill, random_ids, reading_and_tokens, seconds
from lampe.inference.prefill import chunk_for
from lampe.methods import PRESETS, Method, Rope
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
    parser.add_argument(
        "--no-cudnn", dest="cudnn", action="store_false", help="not for the unpatched model's attention"
    )
    parser.add_argument("--profile", action="store_true", help="of a token, on the processor and on the GPU")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("This measures a GPU, and PyTorch sees none here.")
    torch.backends.cuda.enable_cudnn_sdp(given.cudnn)
    rows = Rows(None if given.quick else "gpu", given.fresh)
    for shape in given.shapes:
        config, settings = SHAPES[shape]
        ways = {"plain": Rope(settings.window), "LaMPE": settings}
        model = random_model(config)
        if given.profile:
            for name, method in ways.items():
                print(shape, name, profiled(model, method), sep="\n", flush=True)
            continue
        for bits in sorted(given.bits, reverse=True):  # what was packed isn't unpacked again
            if bits == 4:
                in_four_bits(model)
            for length in [4096] if given.quick else given.lengths:
                asked = {"shape": shape, "bits": bits, "tokens": length}
                asked |= {"chunk": chunk_for(model), "cudnn": given.cudnn}
                repeats = given.repeats if length < 65_536 else 1
                if not rows.has(**asked, what="reading"):
                    for what, row in reading_and_tokens(model, ways, length, repeats, 5 * repeats).items():
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


@torch.inference_mode()
def profiled(model: Any, method: Method) -> str:
    """What a token after 4,096 others takes, by operator: most on the processor first."""
    with applied(model, method) as patched:
        if patched:
            patched.plan(4096)
        ids = random_ids(model, 4096)
        step = partial(model, ids[:, :1], past_key_values=prefill(model, ids, chunk_for(model)), logits_to_keep=1)
        for _ in range(3):
            step()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as made:
            step()
            torch.cuda.synchronize()
    return made.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=50)


def chunks(model: Any, settings: Any, length: int) -> dict[str, Any]:
    """Seconds of a reading under LaMPE by the size of its chunks."""
    with patch(model, settings) as patched:
        patched.plan(length)
        ids = random_ids(model, length)
        return paired({str(chunk): partial(seconds, partial(prefill, model, ids, chunk)) for chunk in CHUNKS}, 2)


if __name__ == "__main__":
    main()
