"""A chat template is a program of whoever published the model: it is filled in apart, and never for long."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

import app.serving.models
from app.serving.models import Models
from app.serving.templates import fill_in_apart, filled_in
from app.settings import ModelChoice, Settings
from lampe.errors import InputError
from lampe.inference.prompt import around
from lampe.models.load import load_tokenizer

CONVERSATIONS = [("Why?", []), ("And then?", [("Why?", "Because.")])]


@pytest.fixture
def tokenizer(default_folder):
    return load_tokenizer()


def test_what_comes_of_it_is_the_same_as_here_and_asked_for_once(tokenizer):
    here = [around(tokenizer, question, earlier=earlier) for question, earlier in CONVERSATIONS]
    fill_in_apart(tokenizer)
    filled_in.cache_clear()
    assert [around(tokenizer, question, earlier=earlier) for question, earlier in CONVERSATIONS] == here
    around(tokenizer, "Another one?")
    assert filled_in.cache_info().misses == 2, "one for each number of turns"


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{{ messages.__class__.__mro__ }}",
        "{{ raise_exception('no') }}",
        "{% for",
        "x" * 2_000_000,
    ],
)
def test_one_that_never_ends_or_fails_is_refused_at_once_the_next_time(tokenizer, template):
    fill_in_apart(tokenizer)
    tokenizer.chat_template = template
    with pytest.raises(InputError, match="chat template is damaged, or takes more than 5 seconds"):
        around(tokenizer, "Why?")
    started = time.process_time()
    with pytest.raises(InputError, match="Choose another model"):
        around(tokenizer, "Why?")
    assert time.process_time() - started < 1


@pytest.mark.parametrize("template", ["", "{{ messages[0].content }}" * 2, "{{ messages[0].content | upper }}"])
def test_one_that_changes_the_text_is_refused(tokenizer, template):
    tokenizer.chat_template = template or "no messages"
    with pytest.raises(InputError, match="doesn't pass on a document and a question"):
        around(tokenizer, "Why?")


def test_one_that_refuses_is_told_in_its_words(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('Only one turn.') }}"
    with pytest.raises(InputError, match=r"fails \(Only one turn\.\)"):
        around(tokenizer, "Why?")


@pytest.mark.parametrize("offered", [True, False])
def test_only_those_of_models_that_visitors_name_are(monkeypatch, offered):
    made = SimpleNamespace(chat_template="x", get_chat_template=None)
    monkeypatch.setattr(app.serving.models, "load_tokenizer", lambda *_, **__: made)
    settings = Settings(None, 4, 64, more_models=("a/b",) if offered else (), allow_any_model=True)
    Models(settings, lambda: None, lambda: 0).tokenizer(ModelChoice("a/b", 4))
    assert hasattr(made, "apply_chat_template") != offered
