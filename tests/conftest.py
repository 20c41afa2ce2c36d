"""Fixtures that every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two tests at once with a thread each do more than one with two, which mostly wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from app.page import Page

_LONGEST = ("test_real_model.py", "test_real.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: where two run at once, neither is left over at the end."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


@pytest.fixture(scope="session")
def default_folder() -> Path:
    """The embedded default as a transformers folder in the ordinary cache folder: made once, kept between runs."""
    from lampe.models.embedded import prepare_default

    return prepare_default()


@pytest.fixture(scope="session")
def small(default_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of models with random weights and the default's tokenizer: two that can be patched, one that can't."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig, set_seed

    folder = tmp_path_factory.mktemp("models")
    shape = {"vocab_size": 49152, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    configs = {
        "llama": LlamaConfig(**shape, num_attention_heads=4, max_position_embeddings=4096),
        "like the default": LlamaConfig(**shape, num_attention_heads=4, max_position_embeddings=8192),
        "other": LlamaConfig(**shape, num_attention_heads=2, max_position_embeddings=2048),
        "gpt2": GPT2Config(vocab_size=49152, n_embd=64, n_layer=2, n_head=4, n_positions=512),
    }
    set_seed(0)
    for name, config in configs.items():
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(default_folder).save_pretrained(folder / name)
    return {name: str(folder / name) for name in configs}


@pytest.fixture(scope="session")
def served(default_folder: Path) -> Page:
    """The app, with a limit of 20,000 tokens."""
    from app.page import build
    from app.settings import Settings

    return build(Settings(None, 4, 20_000))


@pytest.fixture(scope="session")
def server(served: Page) -> Iterator[str]:
    """Its address: a free port, started as `app.py` does."""
    yield served.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    served.demo.close()
