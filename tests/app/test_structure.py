"""The page's modules rest on each other in one direction, on few floors, and so do the library's."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {"app": 7}
"""As many as there are; a change that needs one more is worth a second look."""


def modules(package: str) -> dict[str, Path]:
    files = (file for file in (ROOT / package).rglob("*.py") if file.stat().st_size)
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(package: str) -> dict[str, set[str]]:
    """For each module, those of its package that it imports anywhere in it."""
    known = modules(package)
    found: dict[str, set[str]] = {}
    for name, file in known.items():
        named: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            if isinstance(node, ast.ImportFrom) and node.module:
                named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        found[name] = {one for one in named if one in known and one != name}
    return found


@pytest.mark.parametrize("package", sorted(FLOORS))
def test_no_circle_and_few_floors(package):
    below = imports(package)
    under_way: list[str] = []

    @cache
    def floor(name: str) -> int:
        assert name not in under_way, f"a circle: {' → '.join([*under_way, name])}"
        under_way.append(name)
        deepest = 1 + max((floor(other) for other in below[name]), default=0)
        under_way.pop()
        return deepest

    floors = {name: floor(name) for name in below}
    highest = max(floors.values())
    assert highest <= FLOORS[package], [name for name, number in floors.items() if number == highest]


def test_what_serves_the_model_knows_no_page():
    for name, others in imports("app").items():
        if name.startswith("app.serving"):
            assert not {other for other in others if other.startswith(("app.ui", "app.ask", "app.map", "app.needle"))}
            assert "import gradio" not in modules("app")[name].read_text(encoding="utf-8"), name
