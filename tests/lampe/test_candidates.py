"""Which model suits a machine."""

from __future__ import annotations

import pytest
from transformers import LlamaConfig

from lampe.families import family_of
from lampe.methods import LampeConfig
from lampe.models.candidates import CANDIDATES, suited
from lampe.models.load import refusal

LLAMA, OLMO, SMOL = (candidate.model_id for candidate in CANDIDATES)


def asked(refusals):
    """A Hub that refuses some, and a list of what it was asked for."""
    names = []

    def refuses(name):
        names.append(name)
        return refusals.get(name, "")

    return refuses, names


@pytest.mark.parametrize(
    ("free", "refusals", "model_id", "words"),
    [
        (24e9, {}, LLAMA, "runs because this GPU has 24 GB free."),
        (24e9, {LLAMA: "Llama is gated."}, OLMO, "24 GB free. Llama is gated."),
        (
            7.9e9,
            {},
            OLMO,
            f"{LLAMA} (Llama 3 Community License, a window of 8,192 tokens, its mapping published) would",
        ),
        (6e9, {}, SMOL, "would need 8 GB."),
        (3e9, {}, None, "would need 4 GB."),
        (24e9, dict.fromkeys((LLAMA, OLMO, SMOL), "The Hub can't be reached."), None, "The Hub can't be reached."),
        (None, {}, None, f"With a GPU of 4 GB it would be {SMOL}"),
    ],
)
def test_the_best_that_fits_and_may_be_loaded_is_taken_and_the_next_better_told(free, refusals, model_id, words):
    refuses, names = asked(refusals)
    found = suited(free and int(free), refuses)
    assert found.model_id == model_id
    assert words in found.why
    assert (names == []) == (free in (None, 3e9)), "the Hub is asked only for what would fit"


def test_the_table_is_in_order_and_says_what_the_mappings_rest_on():
    assert sorted(CANDIDATES, key=lambda one: -one.parameters) == list(CANDIDATES)
    config = LlamaConfig(vocab_size=128256, max_position_embeddings=8192)
    config._name_or_path = LLAMA
    assert (family_of(config), config.max_position_embeddings) == ("llama3", CANDIDATES[0].window)
    assert LampeConfig.for_model(config).basis == "measured"
    assert [candidate.preset for candidate in CANDIDATES] == ["published", "estimated", "estimated"]


def test_without_a_hub_the_reason_is_a_sentence():
    assert "can't be reached" in refusal(SMOL)
