"""Models to choose: what is offered, what is loaded when, and what happens when one can't be had."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig

import app.serving.models
import lampe
import lampe.models.load
from app.serving.models import Models
from app.serving.requests import Chosen, Request
from app.serving.start import start
from app.serving.visitors import Visitor
from app.settings import ModelChoice, Settings
from lampe.errors import InputError
from lampe.models.load import Progress

SETTINGS = Settings(None, 4, 20_000)
QUESTION = "What is the boat called?"
TEXT = "The lamp on the pier is green. The boat is called Heron."


@pytest.fixture
def service(small):
    return start(Settings(small["llama"], 16, 20_000, more_models=(small["other"], small["gpt2"])))


def ask(service, model):
    *_, update = service.ask(Request(TEXT, QUESTION, "lampe", 12, chosen=Chosen(model)), visitor=Visitor("ann"))
    return update


def test_what_is_offered_may_be_chosen_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    some = Models(replace(SETTINGS, more_models=("a/b", "folder")), None, None)
    for name in (None, "a/b", "folder"):
        some.check(ModelChoice(name, 16))
    with pytest.raises(InputError, match="c/d' isn't offered here; choose one of SmolLM2-135M-Instruct, a/b, folder"):
        some.check(ModelChoice("c/d", 4))
    with pytest.raises(InputError, match="in 4 or in 16 bits, not 8"):
        some.check(ModelChoice("a/b", 8))
    anything = Models(replace(SETTINGS, allow_any_model=True), None, None)
    anything.check(ModelChoice("c/d-1.5_e", 4))
    for name in (
        "folder",
        "owner/name",
        "/etc/passwd",
        "../a/b",
        "a/../b",
        "a/b/c",
        "a/",
        "x" * 200 + "/y",
        "a/b\n",
        "ä/b",
    ):
        with pytest.raises(InputError, match="isn't a model id"):
            anything.check(ModelChoice(name, 4))


def test_each_visitors_model_is_loaded_when_it_is_asked(service, small):
    own, other = service.settings.own, ModelChoice(small["other"], 16)
    first = ask(service, own)
    *_, update = service.prepare(Chosen(other), threading.Event())
    assert "MB free memory" in update.stage
    another = ask(service, other)
    assert (another.report.model, another.report.bits, another.report.window) == (small["other"], 16, 2048)
    assert another.report.kept == 0
    again = ask(service, own)
    assert again.answer == first.answer
    assert again.report.kept == 0, "what another model has read is of no use"
    assert service.config(Chosen(other)).window == 2048
    assert service.config().window == 4096


def test_a_model_that_cant_be_patched_is_refused_in_the_patchs_words_and_the_old_one_stays(service, small):
    model = service.model()
    with pytest.raises(lampe.UnsupportedModelError, match="RoPE"):
        list(service.prepare(Chosen(ModelChoice(small["gpt2"], 16)), threading.Event()))
    assert service.model() is model


def test_where_both_dont_fit_the_old_model_goes_first(service, small, monkeypatch):
    service.model()
    freed = []
    monkeypatch.setattr(app.serving.models, "free_bytes", lambda: 1 if service.models.loaded else 10**12)
    release = Models._release
    monkeypatch.setattr(Models, "_release", lambda self: (freed.append(self.loaded is not None), release(self)))
    with pytest.raises(lampe.UnsupportedModelError, match=r"llama was let go of first"):
        list(service.prepare(Chosen(ModelChoice(small["gpt2"], 16)), threading.Event()))
    assert freed == [True]
    assert ask(service, service.settings.own).report.new_tokens, "it is loaded again"


def test_running_out_of_memory_on_the_way_is_a_sentence(service, small, monkeypatch):
    model = service.model()

    def fail(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(app.serving.models, "load", fail)
    with pytest.raises(lampe.LoadError, match=r"isn't enough memory here to load .* in 16 bits: choose a smaller"):
        list(service.prepare(Chosen(ModelChoice(small["other"], 16)), threading.Event()))
    assert service.model() is model


def test_what_fits_in_no_way_isnt_loaded(service, small, monkeypatch):
    service.model()
    monkeypatch.setattr(app.serving.models, "free_bytes", lambda: 1_000_000)
    with pytest.raises(lampe.LoadError, match=r"in 16 bits takes about \d+ MB, and \d+ MB are free here"):
        list(service.prepare(Chosen(ModelChoice(small["other"], 16)), threading.Event()))


def test_what_wouldnt_fit_alone_takes_nobodys_model_away(service, small, monkeypatch):
    ask(service, service.settings.own)
    model = service.model()
    monkeypatch.setattr(app.serving.models, "needed_bytes", lambda config, bits: 10**15)
    with pytest.raises(lampe.LoadError, match="takes about 1,000,000,000 MB") as refused:
        list(service.prepare(Chosen(ModelChoice(small["other"], 16)), threading.Event()))
    assert "let go" not in str(refused.value)
    assert service.model() is model
    assert service.runner.documents.bytes, "nor what was read"
    gone = sum(weight.nbytes for weight in model.parameters()) + service.runner.documents.bytes
    monkeypatch.setattr(app.serving.models, "free_bytes", lambda: 0)
    for needed, message in ((gone + 1, "are free here: [^.]*\\.$"), (gone, "was let go of first")):
        monkeypatch.setattr(app.serving.models, "needed_bytes", lambda config, bits, needed=needed: needed)
        with pytest.raises(lampe.LoadError, match=message):
            list(service.prepare(Chosen(ModelChoice(small["other"], 16)), threading.Event()))


def test_a_stopped_load_ends_and_nobodys_model_is_changed(service, small, monkeypatch):
    model = service.model()
    service.texts.tokenizer()
    slow, going = threading.Event(), threading.Event()

    def load_slowly(*args, progress, **options):
        going.set()
        slow.wait(60)
        progress(Progress("Reading", 1, 2, "bytes"))
        raise AssertionError("it went on after the Stop")

    monkeypatch.setattr(app.serving.models, "load", load_slowly)
    stop = threading.Event()
    for _ in service.prepare(Chosen(ModelChoice(small["other"], 16)), stop):
        if going.wait(1):
            stop.set()
    waiting = service.ask(Request(TEXT, QUESTION, "lampe", 12), visitor=Visitor("bob"))
    assert next(waiting).stage == "Getting the model ready", "who comes next is told, and can stop"
    slow.set()
    *_, update = waiting
    assert update.report.new_tokens
    assert service.model() is model


def test_weights_that_are_long_in_coming_hold_up_nobody(service, small, monkeypatch):
    """They are fetched before a turn is used for them, only if they would fit, and no longer than somebody waits."""
    service.model()
    came, ended = threading.Event(), threading.Event()

    def fetch_slowly(name, progress, anonymous, leave):
        came.set()
        try:
            while True:
                progress(Progress(f"Fetching {name}", 1, 2, "bytes"))
                threading.Event().wait(0.02)
        finally:
            ended.set()

    monkeypatch.setattr(app.serving.models, "fetch", fetch_slowly)
    stop, other = threading.Event(), Chosen(ModelChoice(small["other"], 16))
    fetching = service.prepare(other, stop, Visitor("bob"))
    while (update := next(fetching)).unit != "bytes":
        pass
    assert came.is_set()
    *_, update = service.ask(Request(TEXT, QUESTION, "lampe", 4), visitor=Visitor("ann"))
    assert update.report.new_tokens
    stop.set()
    list(fetching)
    assert ended.wait(10)
    assert service.models.loaded.choice == service.settings.own
    came.clear()
    monkeypatch.setattr(app.serving.models, "free_bytes", lambda *_: -(10**12))
    with pytest.raises(lampe.LoadError, match="choose a smaller model"):
        list(service.prepare(other, threading.Event()))
    assert not came.is_set()


@pytest.mark.parametrize("field", ["num_hidden_layers", "vocab_size", "hidden_size"])
def test_a_config_beyond_all_models_is_refused_before_anything_is_built(monkeypatch, field):
    """20,000 layers took 28 s and 0.8 GB to be built without weights."""
    asked = []

    def config(name, anonymous, leave):
        asked.append(anonymous)
        return LlamaConfig(**{field: 20_000_000})

    monkeypatch.setattr(app.serving.models, "load_config", config)
    models = Models(replace(SETTINGS, allow_any_model=True), lambda: None, lambda: 0)
    for work in (models.config, models.load, lambda choice: models.method("yarn", choice)):
        with pytest.raises(lampe.LoadError, match=r"says [a-z ]+ 20000000; at most [0-9,]+ are loaded here"):
            work(ModelChoice("somebody/model", 4))
    assert asked == [True] * 3, "and without this machine's token"


def test_what_a_visitor_names_is_asked_for_without_the_token_and_as_safetensors(monkeypatch):
    """And of it nothing but what was fetched, at the commit whose sizes were looked at."""
    asked = []

    class Hub:
        def __init__(self, token=None):
            asked.append(token)

        def model_info(self, name, timeout, files_metadata=False):
            return SimpleNamespace(siblings=[], sha="c0ffee")

    def found(kind):
        def from_pretrained(*, token=None, use_safetensors=None, local_files_only, revision=None, **_):
            assert (local_files_only, revision) == ((True, "c0ffee") if token is False else (False, None))
            asked.append((kind, token, use_safetensors))
            if kind == "model":
                raise OSError("enough")
            if kind == "tokenizer":
                return SimpleNamespace(backend_tokenizer=SimpleNamespace(to_str=lambda: '{"model": {"vocab": {}}}'))
            return LlamaConfig()

        return SimpleNamespace(from_pretrained=from_pretrained)

    monkeypatch.setattr(lampe.models.load, "HfApi", Hub)
    for name, kind in (("AutoConfig", "config"), ("AutoTokenizer", "tokenizer"), ("AutoModelForCausalLM", "model")):
        monkeypatch.setattr(lampe.models.load.transformers, name, found(kind))  # in some orders a module of its own
    for anonymous, token, safe in ((True, False, True), (False, None, None)):
        asked.clear()
        with pytest.raises(lampe.LoadError, match="enough"):
            lampe.load("somebody/model", 16, anonymous=anonymous)
        looks = [token] * (3 if anonymous else 1)
        assert asked == [*looks, ("config", token, None), ("tokenizer", token, None), ("model", token, safe)]
