"""A patched model in the hands of other libraries: every decoding mode of transformers, pipelines, accelerate, peft."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import accelerate
import peft
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, TextIteratorStreamer, set_seed

import lampe
from tests.lampe import tensor_parallel
from tests.lampe.tiny import CONFIG, FAMILIES, LENGTH, build, close, logits, tokens

MODES = {
    "greedy": {},
    "sampling": {"do_sample": True, "temperature": 1.5, "top_k": 20},
    "nucleus": {"do_sample": True, "top_p": 0.7, "min_p": 0.01},
    "beams": {"num_beams": 3, "length_penalty": 0.7},
    "sampled beams": {"num_beams": 3, "do_sample": True},
    "several answers": {"num_return_sequences": 3, "do_sample": True},
    "penalties": {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "bad_words_ids": [[5], [8, 9]]},
}


@pytest.fixture(scope="module")
def llama():
    return build(FAMILIES["llama"])


@pytest.mark.parametrize("mode", MODES)
def test_each_decoding_mode_gives_with_its_cache_what_it_gives_without(llama, mode):
    """Without a cache each token comes from a pass over the whole text."""
    kwargs = {"max_new_tokens": 8, "eos_token_id": None, **MODES[mode]}

    def made(**more):
        transformers.set_seed(1)
        return llama.generate(tokens(LENGTH), **kwargs, **more)

    plain = made()
    with lampe.patch(llama, CONFIG) as patched:
        cached = made()
        patched.plan(LENGTH)
        assert torch.equal(cached, made(use_cache=False))
    assert not torch.equal(cached, plain)


@pytest.mark.parametrize("cache", [None, "static"])
def test_generate_reads_a_planned_prompt_in_chunks(llama, cache):
    """transformers' own chunked prefill, which needs little memory for a long prompt."""
    kwargs = {"max_new_tokens": 8, "eos_token_id": None, "do_sample": False, "cache_implementation": cache}
    with lampe.patch(llama, CONFIG) as patched:
        whole = llama.generate(tokens(LENGTH), **kwargs)
        patched.plan(LENGTH)
        assert torch.equal(llama.generate(tokens(LENGTH), prefill_chunk_size=37, **kwargs), whole)


@pytest.mark.long
def test_a_compiled_model_is_mapped_alike(llama):
    """PyTorch's compiler leaves the patch as it is, and takes what lies between; transformers compiles by itself for a
    static cache on a GPU."""
    ids = tokens(LENGTH)
    with lampe.patch(llama, CONFIG) as patched:
        expected = logits(llama, ids)
        compiled = torch.compile(llama, backend="eager")
        try:
            close(logits(compiled, ids), expected)
            patched.plan(LENGTH)
            cache = transformers.DynamicCache(config=llama.config)
            parts = [logits(compiled, part, past_key_values=cache) for part in ids.split([70, 48, 1, 1], 1)]
        finally:
            torch.compiler.reset()
        close(torch.cat(parts, 1), expected)
        kwargs = {"max_new_tokens": 8, "eos_token_id": None, "do_sample": False}
        made = llama.generate(ids, **kwargs)
        assert torch.equal(llama.generate(ids, cache_implementation="static", **kwargs), made)


@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
def test_an_assistant_drafts_for_a_patched_model(llama, sampled):
    """Greedily the tokens are the model's own, whatever the assistant drafts; and as many are sampled."""
    ids, assistant = tokens(LENGTH), build(FAMILIES["llama-linear"])
    kwargs = {"max_new_tokens": 12, "eos_token_id": None, "do_sample": sampled}
    with lampe.patch(llama, CONFIG) as patched:
        expected = llama.generate(ids, **kwargs)
        patched.plan(LENGTH)
        made = llama.generate(ids, assistant_model=assistant, **kwargs)
    assert made.shape == expected.shape
    assert sampled or torch.equal(made, expected)


def test_tokens_stream_out_of_a_pipeline(small):
    """A pipeline tokenises, generates and streams by itself; it gives what the patched model's `generate` gives."""
    model = AutoModelForCausalLM.from_pretrained(small["llama"])
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data.mul_(200)  # random weights attend to everything alike
    tokenizer = AutoTokenizer.from_pretrained(small["llama"])
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    text, config = "The boat is called Heron. " * 20, lampe.LampeConfig(64, 10, 6, lampe.Constant(32))
    pipeline = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
    kwargs = {"max_new_tokens": 8, "do_sample": False}
    plain = pipeline(text, **kwargs, return_full_text=False)[0]["generated_text"]
    with lampe.patch(model, config):
        answer = pipeline(text, **kwargs, return_full_text=False, streamer=streamer)[0]["generated_text"]
        ids = tokenizer(text, return_tensors="pt").input_ids
        expected = tokenizer.decode(model.generate(ids, **kwargs)[0, ids.shape[1] :], skip_special_tokens=True)
    assert answer == expected == "".join(streamer)
    assert answer != plain


@pytest.mark.parametrize("before", [True, False], ids=["prepared, then patched", "patched, then prepared"])
@pytest.mark.parametrize("how", ["prepared", "bf16", "offloaded"])
def test_accelerate_prepares_a_model(how, before):
    """Its hooks, its autocast and its offloading (weights that are on the CPU only for their layer's turn)."""
    ids, model = tokens(LENGTH), build(FAMILIES["llama"])
    with lampe.patch(model, CONFIG):
        expected = logits(model, ids)

    def prepare(model):
        if how == "offloaded":
            return accelerate.cpu_offload(model, execution_device="cpu")
        return accelerate.Accelerator(cpu=True, mixed_precision="bf16" if how == "bf16" else "no").prepare(model)

    if before:
        model = prepare(model)
    with lampe.patch(model, CONFIG) as patched:
        if not before:
            model = prepare(model)
        got = logits(model, ids)
        position_map, reader = patched.plan(LENGTH), lampe.PromptReader(model)
        assert list(reader.read(ids[0].tolist(), position_map)) == [LENGTH - 1]
    close(got, expected, atol=0.3 if how == "bf16" else 2e-5)
    accelerate.state.AcceleratorState._reset_state(True)


def adapted(model):
    """With low-rank changes to its projections that make a difference."""
    torch.manual_seed(2)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], init_lora_weights=False)
    return peft.get_peft_model(model, config).eval()


@pytest.mark.parametrize("order", ["adapter first", "patch first"])
def test_an_adapter_is_mapped_like_the_model_it_merges_into(order):
    """LoRA changes the projections, the patch what comes after them: either may be put on first."""
    ids = tokens(LENGTH)
    with lampe.patch(build(FAMILIES["llama"]), CONFIG) as patched:
        without = logits(patched.model, ids)
    merged = adapted(build(FAMILIES["llama"])).merge_and_unload()
    plain = logits(merged, ids)
    with lampe.patch(merged, CONFIG):
        expected, answer = logits(merged, ids), merged.generate(ids, max_new_tokens=6, do_sample=False)
    base = build(FAMILIES["llama"])
    if order == "adapter first":
        model = adapted(base)
        patched = lampe.patch(model, CONFIG)
    else:
        patched = lampe.patch(base, CONFIG)
        model = adapted(base)
    close(logits(model, ids), expected)
    assert torch.equal(model.generate(input_ids=ids, max_new_tokens=6, do_sample=False), answer)
    with model.disable_adapter():
        close(logits(model, ids), without)
    patched.remove()
    close(logits(model, ids), plain)
    assert (expected - without).abs().max() > 0.1


@pytest.mark.long
def test_a_model_that_processes_share_is_mapped_alike(tmp_path):
    """Tensor parallel, by transformers' own plan: each process has some of the heads, and all give the same."""
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    set_seed(0)
    config = LlamaConfig(vocab_size=512, hidden_size=64, intermediate_size=96, **shape)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path / "model")
    torch.save(tensor_parallel.mapped(model), tmp_path / "expected.pt")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*command, tensor_parallel.__file__, str(tmp_path / "model"), str(tmp_path / "expected.pt")],
        cwd=Path(__file__).parents[2], env=os.environ | {"PYTHONPATH": "."}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
