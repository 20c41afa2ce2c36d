"""The examples of README.md and docs/ run as they stand, on a small model and on the beginnings of their texts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from transformers import AutoModelForCausalLM, AutoTokenizer

import lampe
from app.page import build
from app.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_TOKENS = 400


def examples(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def address(small):
    lab = build(Settings(small["llama"], 16, 6_000))
    yield lab.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    lab.demo.close()


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=lambda page: page.name)
def test_a_pages_examples_run_one_after_the_other(page, small, monkeypatch, request):
    def load():
        return AutoModelForCausalLM.from_pretrained(small["llama"]), AutoTokenizer.from_pretrained(small["llama"])

    monkeypatch.setattr(lampe, "load", load)
    monkeypatch.chdir(ROOT)
    names = {}
    for code in examples(page):
        if "http://127.0.0.1:7860" in code:
            code = code.replace("http://127.0.0.1:7860", request.getfixturevalue("address"))
        exec(compile(code.replace(".read()", f".read()[:{4 * _TOKENS}]"), page.name, "exec"), names)


def test_every_public_name_is_in_the_reference(tmp_path):
    """The pages are built as by `mkdocs build`; what can't be resolved fails."""
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT, check=True, timeout=300,
    )  # fmt: skip
    reference = (tmp_path / "reference" / "index.html").read_text(encoding="utf-8")
    for name in lampe.__all__:
        assert f'id="lampe.{name}"' in reference or f'id="lampe.{name}-' in reference, name
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html"))
    assert not re.findall(r'(?:src|href)="(https?:)?//(?!arxiv)[^"]+\.(?:js|css|woff2?)', written), (
        "nothing from elsewhere"
    )


@pytest.mark.long
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_runs_from_its_first_cell_to_its_last(path, monkeypatch):
    """With the default model, on short texts; what is kept in the repository has no output."""
    monkeypatch.setenv("LAMPE_SMALL", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    said = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", ()))
    assert ("8203571" in said) == (path.name == "colab.ipynb"), "the number is found in a short text"
