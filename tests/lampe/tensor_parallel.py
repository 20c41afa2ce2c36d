"""One of several processes that share a model out by transformers' own plan: see `test_with_others`.

python -m torch.distributed.run --standalone --nproc-per-node 2 tests/lampe/tensor_parallel.py MODEL EXPECTED
"""

from __future__ import annotations

import sys

import torch
import torch.distributed
from transformers import AutoModelForCausalLM

import lampe

CONFIG = lampe.LampeConfig(128, 16, 8, lampe.Constant(64))
IDS = torch.arange(200)[None] * 7 % 512


def mapped(model):
    """The logits of a prompt beyond the window, and what is written after it."""
    with lampe.patch(model, CONFIG) as patched, torch.inference_mode():
        patched.plan(210, 200)
        return model(IDS).logits, model.generate(IDS, max_new_tokens=6, do_sample=False)


if __name__ == "__main__":
    folder, expected = sys.argv[1:]
    logits, written = mapped(AutoModelForCausalLM.from_pretrained(folder, tp_plan="auto"))
    alone, its = torch.load(expected)
    assert torch.allclose(logits, alone, atol=1e-5), (logits - alone).abs().max()
    assert torch.equal(written, its)
    torch.distributed.destroy_process_group()
