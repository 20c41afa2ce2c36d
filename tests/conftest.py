"""Fixtures that every test may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def default_folder() -> Path:
    """The embedded default as a transformers folder in the ordinary cache folder: made once, kept between runs."""
    from lampe.embedded import prepare_default

    return prepare_default()


@pytest.fixture(scope="session")
def server(default_folder: Path) -> Iterator[str]:
    """The app on a free port, as `app.py` starts it, with a limit of 20,000 tokens."""
    from app.page import LAUNCH, build
    from app.settings import Settings

    demo = build(Settings(None, 4, 20_000))
    _, url, _ = demo.launch(**LAUNCH, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield url
    demo.close()
