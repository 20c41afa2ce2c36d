"""The embedded default is really loaded and run; what the Hub says, which can't be had here, is made up."""

from __future__ import annotations

import copy
import importlib
import json
import logging
import os
import pydoc_data.topics
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaModel, T5Config

from lampe.models.load import LoadError, load, load_config, load_tokenizer
from tests.lampe.progress import assert_monotone

# The package's name `lampe.load` is the function.
module = importlib.import_module("lampe.models.load")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Beside another busy program, two threads that wait for each other take twenty times as long as one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(tmp_path, default_folder):
    """Save a random model of some kind with the default's tokenizer; the folder."""

    def save(config, kind=AutoModelForCausalLM.from_config):
        kind(config).save_pretrained(tmp_path / "tiny")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(default_folder / name, tmp_path / "tiny")
        return tmp_path / "tiny"

    return save


def config_only(folder, **values):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def small_llama(**changes):
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaConfig(vocab_size=49152, **shape, **changes)


# The default, as it is loaded


@pytest.mark.parametrize("bits", [4, 16])
def test_the_default_answers(default_folder, bits):
    reports = []
    model, tokenizer = load(bits=bits, device="cpu", progress=reports.append)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_tensors="pt"
    )
    answer = model.generate(**chat, max_new_tokens=8, do_sample=False)[0, chat["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)

    config = model.config
    assert config.rope_parameters == {"rope_theta": 100000.0, "rope_type": "default"}
    assert (config.max_position_embeddings, config.num_hidden_layers) == (8192, 30)
    assert config._attn_implementation == "sdpa"
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not model.training
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (2, 2)
    assert model.dtype in (torch.bfloat16, torch.float32)
    stages = assert_monotone(reports)
    assert list(stages) == ["Checking", "Loading"]
    assert stages["Loading"][0].unit == "tensors"


def test_four_bits_are_nf4_twice_quantised_and_not_repacked(default_folder):
    import bitsandbytes

    model, _ = load(bits=4, device="cpu")
    linear = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(linear) == 30 * 7
    assert type(model.lm_head) is torch.nn.Linear
    assert not any(m.support_avx512bf16_for_cpu for m in linear)
    state = linear[0].weight.quant_state
    assert (state.quant_type, state.nested) == ("nf4", True)
    assert linear[0].compute_dtype == model.dtype
    in_full = model.lm_head.weight  # the embedding too: they are one
    assert model.get_memory_footprint() - in_full.numel() * in_full.element_size() < 60e6
    model(torch.arange(40)[None])
    assert not getattr(linear[0].weight.quant_state, "packing_format_for_cpu", False)


def test_a_few_tokens_take_packed_weights_of_the_same_value(default_folder):
    from bitsandbytes.functional import has_avx512bf16

    from lampe.models.linear4bit import UnpackedLinear4bit

    model, _ = load(bits=4, device="cpu")
    linear = model.model.layers[0].mlp.down_proj
    names = set(model.state_dict())
    x = torch.randn(1, 3, linear.in_features, dtype=model.dtype)
    with torch.inference_mode():
        few, many = linear(x), linear(x.repeat(1, 20, 1))[:, :3]
        assert (few - many).norm() < 0.01 * many.norm()
        if not (has_avx512bf16() and model.dtype == torch.bfloat16):  # this machine has no kernel for packed weights
            assert type(linear) is UnpackedLinear4bit
            torch.testing.assert_close(few, many, rtol=1e-4, atol=1e-4)  # by whichever kernel fits the shape
            return
        assert torch.equal(copy.deepcopy(linear)(x), few)
        calls = []
        handle = linear.register_forward_hook(lambda *_: calls.append(1))
        linear(x)
        handle.remove()
        assert len(calls) == 1
        linear.weight = copy.deepcopy(model.model.layers[1].mlp.down_proj.weight)
        assert not torch.equal(linear(x), few), "other weights, another result"
    assert linear._twin.weight.quant_state.packing_format_for_cpu
    assert not getattr(linear.weight.quant_state, "packing_format_for_cpu", False)
    assert set(model.state_dict()) == names
    trained = torch.randn(1, 3, linear.in_features, dtype=model.dtype, requires_grad=True)
    linear(trained).sum().backward()
    assert trained.grad is not None


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_kept_unpacked_are_the_same_numbers(dtype, bias):
    """Whatever kernels this machine has."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    from lampe.models.linear4bit import PackedLinear4bit, UnpackedLinear4bit, speed_up

    def four_bits(seed):
        torch.manual_seed(seed)
        layer = Linear4bit(128, 96, bias=bias, compute_dtype=dtype, quant_type="nf4")
        layer.weight = Params4bit(torch.randn(96, 128).to(dtype), requires_grad=False, quant_type="nf4")
        return layer.to("cpu").eval()

    plain, quick, tight = four_bits(0), four_bits(0), four_bits(0)
    for layer in (plain, quick, tight):
        layer.support_avx512bf16_for_cpu = False
    names, taken = set(quick.state_dict()), 8 * 128 * 96 * dtype.itemsize
    speed_up([quick], taken)
    speed_up([tight], taken - 1)
    assert (type(quick), type(tight)) == (UnpackedLinear4bit, Linear4bit), "an eighth of what is free, and no more"
    packing = four_bits(0)
    packing.support_avx512bf16_for_cpu, packing.compute_dtype = True, torch.bfloat16
    speed_up([packing], 10**9)
    assert type(packing) is PackedLinear4bit, "where there is a kernel for packed weights it is used"
    assert packing._make().weight.quant_state.shape == packing.weight.quant_state.shape
    for tokens in (1, 50):
        x = torch.randn(2, tokens, 128)
        with torch.inference_mode():
            given = quick(x)
            assert given.dtype == x.dtype
            assert torch.equal(given, plain(x))
            assert torch.equal(given, copy.deepcopy(quick)(x))
    assert set(quick.state_dict()) == names
    quick.weight = four_bits(1).weight
    with torch.inference_mode():
        assert not torch.equal(quick(x), plain(x)), "other weights, another result"
    trained = torch.randn(1, 3, 128, requires_grad=True)
    quick(trained).sum().backward()
    assert trained.grad is not None


def test_loading_leaves_nothing_behind_and_says_nothing(default_folder):
    """In a process of its own, since bitsandbytes speaks when it is first imported."""
    program = (
        "import logging, os, torch\n"
        "from lampe.models.load import load\n"
        "from transformers import modeling_gguf_pytorch_utils as gguf\n"
        "from transformers.utils import logging as its\n"
        "def state():\n"
        "    level = logging.getLogger('bitsandbytes').level\n"
        "    return dict(os.environ), level, its._tqdm_hook, gguf.tqdm, torch.get_num_threads()\n"
        "before = state()\n"
        "load(device='cpu')\n"
        "assert before == state()\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


# The tokenizer


def test_tokenizer_round_trips_and_adds_nothing(default_folder):
    tokenizer = load_tokenizer()
    text = pydoc_data.topics.topics["assignment"] + "\n\n12 apples,  345 pears\t🙂 日本語"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer("Hello")["input_ids"] == tokenizer.convert_tokens_to_ids(["Hello"])


def test_tokenizer_cuts_before_numbers_as_in_training(default_folder):
    tokenizer = load_tokenizer()
    assert tokenizer.tokenize("\n\n12") == ["ĊĊ", "1", "2"]
    assert tokenizer.tokenize("a   7") == ["a", "ĠĠĠ", "7"]


def test_special_tokens_in_a_document_can_be_read_as_text(default_folder):
    tokenizer = load_tokenizer()
    document = "before<|im_end|>\n<|im_start|>system"
    assert {1, 2} <= set(tokenizer(document)["input_ids"])
    plain = tokenizer(document, split_special_tokens=True)["input_ids"]
    assert not {1, 2} & set(plain)
    assert tokenizer.decode(plain, skip_special_tokens=True) == document


def test_chat_template_is_there(default_folder):
    chat = load_tokenizer().apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert chat.startswith("<|im_start|>system\n")
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


# Other models


def test_a_folder_of_your_own(tiny):
    folder = tiny(small_llama())
    model, tokenizer = load(folder, bits=16, device="cpu")
    assert model.config.hidden_size == 64
    assert len(tokenizer) == 49152
    model, _ = load(str(folder), bits=4, device="cpu")
    assert model.is_loaded_in_4bit
    assert len(load_tokenizer(folder)) == 49152


def test_a_folder_already_in_four_bits(tiny, tmp_path):
    model, _ = load(tiny(small_llama()), bits=4, device="cpu")
    again = tmp_path / "again"
    model.save_pretrained(again)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "tiny" / name, again)
    model, _ = load(again, bits=4, device="cpu")
    assert model.is_loaded_in_4bit
    with pytest.raises(LoadError, match=r"already quantised \(bitsandbytes\) and can't be loaded in 16 bits"):
        load(again, bits=16)


def test_a_model_without_an_output_head(tiny):
    folder = tiny(small_llama(tie_word_embeddings=False), LlamaModel)
    with pytest.raises(LoadError, match=r"no weights for lm_head\.weight"):
        load(folder, bits=16, device="cpu")


@pytest.mark.parametrize("bits", [3, 8, 0, "4", None])
def test_bits(bits):
    with pytest.raises(ValueError, match="4 or in 16 bits"):
        load(bits=bits)


def test_devices():
    with pytest.raises(ValueError, match="'cpu' or 'cuda', not on 'mps'"):
        load(device="mps")
    with pytest.raises(ValueError, match="not 'gpu'"):
        load(device="gpu")
    with pytest.raises(LoadError, match="no GPU 'cuda:99'"):
        load(device="cuda:99")


@pytest.mark.parametrize(
    "model_id",
    ["", " ", "https://huggingface.co/a/b", "a/b/c", "a--b", "é/b", "a b", "x" * 5000, "a\0b", "~nobody/x", "/no/such"],
)
@pytest.mark.parametrize("function", [load, load_tokenizer])
def test_bad_ids_are_refused_before_anything_is_tried(model_id, function):
    started = time.monotonic()
    with pytest.raises(LoadError, match=r"neither a folder .* looks like owner/name") as caught:
        function(model_id)
    assert time.monotonic() - started < 1
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (T5Config(num_layers=1).to_dict(), r"\(t5\) isn't a causal language model"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "x.Y"}}, "program code of its own, which is never run"),
        ({"model_type": "own"}, "doesn't know the kind of model"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, r"already quantised \(gptq\)"),
        ({"model_type": "llama"}, "no tokenizer that transformers can read"),
    ],
)
def test_folders_that_hold_something_else(tmp_path, values, message):
    with pytest.raises(LoadError, match=message):
        load(config_only(tmp_path / "model", **values))


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(LoadError, match=r"no config\.json"):
        load(tmp_path)


def test_too_little_memory_is_said():
    with (
        pytest.raises(LoadError, match=r"own/big doesn't fit in the memory of cpu in 16 bits.*or 4 bits") as caught,
        module._explained("own/big", 16, torch.device("cpu")),
    ):
        torch.empty(1 << 60, dtype=torch.uint8)
    assert isinstance(caught.value.__cause__, RuntimeError)


class FakeHub(BaseHTTPRequestHandler):
    """What the Hub answers for a model that isn't there, one behind a gate, and one without transformers weights."""

    def do_GET(self):
        listed = {"/api/models/some/gated": "config.json", "/api/models/some/gguf": "model.gguf"}
        if self.path in listed:
            body = {"id": self.path[12:], "sha": "0" * 40, "siblings": [{"rfilename": listed[self.path]}]}
            self.answer(200, json.dumps(body).encode())
        elif "gated" in self.path:
            self.answer(403, error="GatedRepo")
        else:
            self.answer(401, error="RepoNotFound")

    do_HEAD = do_GET

    def answer(self, status, body=b"", error=None):
        self.send_response(status)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def messages(endpoint, *model_ids):
    """LoadErrors of a process that takes `endpoint` for the Hub."""
    program = (
        "import sys\n"
        "from lampe.models.load import LoadError, load\n"
        "for model_id in sys.argv[1:]:\n"
        "    try: load(model_id)\n"
        "    except LoadError as error: print(error, error.__cause__ is not None)\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", program, *model_ids],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ran.stdout.splitlines()


def test_what_the_hub_answers_is_explained():
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        unknown, gated, gguf = messages(
            f"http://127.0.0.1:{server.server_port}", "some/unknown", "some/gated", "some/gguf"
        )
    finally:
        server.shutdown()
        server.server_close()
    assert unknown.startswith("The Hugging Face Hub has no model some/unknown that you may see.")
    assert gated.startswith("some/gated is gated. Accept its terms")
    assert gguf.startswith("some/gguf has no config.json")
    assert unknown.endswith("True")
    assert gated.endswith("True")


def test_no_hub_is_said_quickly():
    started = time.monotonic()
    (message,) = messages("http://127.0.0.1:9", "some/model")
    assert message.startswith("some/model isn't on this computer and the Hugging Face Hub can't be reached.")
    assert time.monotonic() - started < 20


def test_bitsandbytes_trouble_is_named():
    error = ImportError("Using `bitsandbytes` 4-bit quantization requires bitsandbytes")
    words = module._explanation(error, "some/model", 4, torch.device("cpu"))
    assert 'pip install "lampe-lab[4bit]". Try 16 bits' in words
    assert logging.getLogger("bitsandbytes").level != logging.ERROR


def test_what_was_being_handled_before_is_no_reason(monkeypatch, tmp_path):
    def fails(*_, **__):
        raise OSError("the file is torn")

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", fails)
    try:
        raise ConnectionError("another one's")
    except ConnectionError:
        with pytest.raises(LoadError, match="can't be loaded: the file is torn"):
            load_config(tmp_path)
