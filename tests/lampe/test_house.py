"""What the library promises about itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lampe

LIBRARY = Path(lampe.__file__).parent


@pytest.mark.parametrize("file", sorted(LIBRARY.rglob("*.py")), ids=lambda f: f.name)
def test_the_library_doesnt_know_the_page(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in names} & {"gradio", "plotly", "app"}


def test_importing_the_library_loads_nothing_heavy():
    """Of transformers only what is imported with it; gradio and bitsandbytes not at all."""
    program = (
        "import sys, torch, transformers; before = set(sys.modules); import lampe; "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before}, "
        "'heavy' if 'transformers.modeling_utils' in sys.modules else '')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=LIBRARY.parent
    )
    assert not {"heavy", "gradio", "plotly", "bitsandbytes", "app"} & set(done.stdout.split()), done.stdout
    assert "lampe" in done.stdout
