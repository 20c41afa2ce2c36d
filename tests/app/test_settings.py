from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import app.settings
from app.settings import Settings, default_token_limit
from lampe.models.device import Place


def test_variables_are_read_and_have_defaults():
    settings = Settings.from_environment({})
    assert (settings.model_id, settings.bits) == (None, 4)
    assert 4096 <= settings.max_input_tokens <= 65_536
    chosen = Settings.from_environment({"MODEL_ID": "a/b", "BITS": "16", "MAX_INPUT_TOKENS": "9000"})
    assert replace(chosen, kept_bytes=0) == Settings("a/b", 16, 9000, 0)
    models = Settings.from_environment({"MODEL_IDS": " a/b, SmolLM2-135M-Instruct,,a/b", "ALLOW_ANY_MODEL": "1"})
    assert models.offered == (None, "a/b")
    assert models.allow_any_model
    assert Settings.from_environment({"KEPT_MB": "3"}).kept_bytes == 3 * 2**20


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BITS", "8"),
        ("MAX_INPUT_TOKENS", "many"),
        ("MAX_INPUT_TOKENS", "-5"),
        ("MAX_INPUT_TOKENS", "3"),
        ("KEPT_MB", "-1"),
        ("ALLOW_ANY_MODEL", "yes"),
    ],
)
def test_a_value_that_cant_be_used_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        Settings.from_environment({name: value})


def test_on_a_gpu_the_model_that_suits_it_is_taken_unless_one_is_named(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(app.settings, "default_place", lambda: Place(gpu))
    monkeypatch.setattr(app.settings, "free_bytes", lambda *_: 20 * 10**9)
    monkeypatch.setattr(app.settings, "refusal", lambda name: "It is gated." if "Llama" in name else "")
    found = Settings.from_environment({"MODEL_IDS": "a/b"})
    assert found.offered == ("allenai/OLMo-2-1124-7B-Instruct", "a/b", None)
    assert found.why.endswith("It is gated.")
    named = Settings.from_environment({"MODEL_ID": "SmolLM2-135M-Instruct"})
    assert (named.offered, named.why) == ((None,), "")


def test_the_default_limit_fits_the_memory():
    assert default_token_limit(1 << 30) == 8192
    assert default_token_limit(1 << 20) == 4096
    assert default_token_limit(1 << 40) == 65_536
