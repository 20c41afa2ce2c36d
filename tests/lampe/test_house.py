"""What the library promises about itself."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lampe
from lampe.calibration.fit import Best, fit_curve

LIBRARY = Path(lampe.__file__).parent


def test_what_installing_brings_is_what_the_requirements_say():
    project = tomllib.loads((LIBRARY.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = (LIBRARY.parent / "requirements.txt").read_text(encoding="utf-8").splitlines()
    stated = sorted(line for line in lines if line and not line.startswith("#"))
    assert sorted([*project["dependencies"], *extras["4bit"], *extras["calibrate"], *extras["app"]]) == stated


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    points = [Best(length, length // 2, 1.0, 0.1, False) for length in (1000, 2000, 4000)]
    with pytest.raises(lampe.CalibrationError, match=r"pip install 'lampe-lab\[calibrate\]'"):
        fit_curve(points, 4096, 64)


def imported(file):
    """All that a file imports, also inside its functions: of ``from a import b`` both a and a.b, which may be none."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name their module in full"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("file", sorted(LIBRARY.rglob("*.py")), ids=lambda f: f.name)
def test_the_library_doesnt_know_the_page(file):
    assert not {name.partition(".")[0] for name in imported(file)} & {"gradio", "plotly", "app"}


@pytest.mark.parametrize("file", sorted(Path(__file__).parent.rglob("*.py")), ids=lambda f: f.name)
def test_the_librarys_tests_dont_know_the_page(file):
    assert not {name.partition(".")[0] for name in imported(file)} & {"gradio", "plotly", "app", "benchmarks"}


def test_no_modules_import_each_other_in_a_circle():
    """Nor inside functions, where Python would let them."""
    files = {".".join(file.relative_to(LIBRARY.parent).with_suffix("").parts): file for file in LIBRARY.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): file for name, file in files.items()}
    left = {name: imported(file) & modules.keys() - {name} for name, file in modules.items()}
    for name, needs in left.items():
        for module in set(needs):  # with a module its packages are imported, but those that both are in
            parts = module.split(".")
            packages = {".".join(parts[:end]) for end in range(1, len(parts))}
            needs |= {package for package in packages if not f"{name}.".startswith(f"{package}.")}
    # Take away what imports nothing that is left, again and again: what stays is in a circle, or imports one.
    while done := {name for name, needs in left.items() if not needs & left.keys()}:
        left = {name: needs for name, needs in left.items() if name not in done}
    assert not left


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
