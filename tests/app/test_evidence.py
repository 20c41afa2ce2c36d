"""Where an answer looked: passages cover the text, shares are those of the attention, and nothing is invented."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lampe
from app.ask import views as ask_views
from app.ask.examples import EXAMPLES
from app.serving.evidence import Evidence, by_token, passages, spans
from app.serving.requests import Chosen, Request
from app.serving.start import start
from app.serving.visitors import Visitor
from app.settings import Settings
from lampe.inference.prefill import PromptReader
from lampe.methods import LampeConfig
from tests.app.test_service import returned

CONFIG = LampeConfig(8192, 512, 200, 2048)
PIECES = [f" {word}" for word in ("The", "lamp", "on", "the", "pier", "is", "green", ".", "Why", "?")] + [
    f" {word}" for word in ("No", "one", "knows", "it", ".")
]


@given(st.lists(st.sampled_from([" word", ".", "?", "\n", " “Yes.”", ""]), max_size=300))
def test_passages_cover_the_text_once_and_in_order(pieces):
    found = spans(pieces)
    assert [token for start, stop in found for token in range(start, stop)] == list(range(len(pieces)))
    assert all(0 < stop - start <= 64 for start, stop in found)


def test_passages_end_with_sentences():
    assert spans(PIECES) == [(0, 8), (8, 15)], "a very short sentence goes with the next one"


def evidence(weights, length=12_000, first=40):
    tokens = weights.shape[1]
    text = tuple((start, min(start + 10, tokens), f"passage {start}") for start in range(0, tokens, 10))
    return Evidence(CONFIG.position_map(length), length - 1, (0, 3, 7), weights, first, text)


def test_the_most_looked_at_comes_first_with_its_place():
    weights = torch.full((3, 11_900), 1e-6)
    weights[:, 5_003] = 0.3
    weights[1, 20] = 0.6
    found = passages(evidence(weights), most=3)
    assert [passage.text for passage in found[:2]] == ["passage 5000", "passage 20"]
    total = weights.mean(0).double().sum().item()
    assert found[0].share == pytest.approx((0.3 + 9e-6) / total, rel=1e-3)
    assert (found[0].start, found[0].stop) == (5_040, 5_050)
    assert found[0].distance == 11_999 - 5_044
    assert found[0].position == CONFIG.position_map(12_000).relative(11_999, 5_044)
    assert [passage.region for passage in found[:2]] == ["Middle", "Tail"]
    assert passages(evidence(weights), layers=(3,), most=1)[0].text == "passage 20", "one layer looked elsewhere"
    assert by_token(evidence(weights), (0, 7))[20] == pytest.approx(1e-6)


def test_the_view_escapes_the_text_and_says_what_it_is():
    weights = torch.rand(3, 500)
    hostile = Evidence(CONFIG.position_map(12_000), 11_999, (0, 3, 7), weights, 40, ((0, 500, "<img src=x>"),))
    shown = ask_views.evidence(hostile, hostile.layers, passages(hostile))
    assert "<img" not in shown
    assert "&lt;img src=x&gt;" in shown
    assert "a hint, not a proof" in shown
    assert "layers 0 to 7" in shown
    assert "100.0% of the attention" in shown


@pytest.fixture(scope="module")
def service(small):
    return start(Settings(small["llama"], 16, 20_000))


def test_the_weights_are_those_of_the_answers_own_tokens(service):
    """Oracle: the prompt read whole, then each token of the answer, keeping its attention."""
    config = LampeConfig(4096, 64, 32, 300)
    request = Request(EXAMPLES[0].text[:2500], "What is this about?", "lampe", 6)
    request = replace(request, chosen=Chosen(service.settings.own, config))
    *_, update = service.ask(request, visitor=Visitor("gus"))
    *progress, found = service.evidence(update.attention, visitor=Visitor("gus"))
    assert {one.stage for one in progress} == {"Reading", "Looking back"}
    prompt = returned(service.texts.prompt(request))
    first, stop = prompt.document
    model, total = service.model(), 0
    with lampe.patch(model, config) as patched, torch.inference_mode():
        position_map = patched.plan(update.report.planned_length, len(prompt.ids))
        assert position_map == update.attention.position_map
        reader = PromptReader(model)
        list(reader.read(prompt.ids, position_map))
        patched.keep_weights = True
        for token in update.attention.ids:
            model(torch.tensor([[token]]), past_key_values=reader.cache)
            total = total + patched.key_weights()[..., first:stop].mean(1)
    torch.testing.assert_close(found.weights, total / len(update.attention.ids), atol=1e-5, rtol=1e-3)
    assert "".join(text for _, _, text in found.spans).strip() == request.text.strip()
    service.presence.left("gus")
    *_, again = service.evidence(update.attention)
    torch.testing.assert_close(again.weights, found.weights, atol=1e-5, rtol=1e-3)
