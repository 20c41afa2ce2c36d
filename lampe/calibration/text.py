"""The text that a model is calibrated on, unless it is given another."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from lampe.needle import Haystack

_MODULES = (
    *("_collections_abc", "_pydecimal", "_pyio", "_strptime", "argparse", "ast", "asyncio", "base64", "bdb", "bz2"),
    *("calendar", "cmd", "code", "codecs", "collections", "concurrent", "configparser", "contextlib", "ctypes"),
    *("dataclasses", "datetime", "difflib", "dis", "doctest", "email", "enum", "fileinput", "fractions", "ftplib"),
    *("functools", "gzip", "http", "imaplib", "importlib", "inspect", "ipaddress", "json", "locale", "logging", "lzma"),
    *("mailbox", "mimetypes", "multiprocessing", "numbers", "optparse", "os", "pathlib", "pdb", "pickle"),
    *("pickletools", "pkgutil", "platform", "pydoc", "queue", "random", "re", "selectors", "shelve", "shutil"),
    *("smtplib", "socket", "socketserver", "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile"),
    *("textwrap", "threading", "timeit", "tokenize", "traceback", "turtle", "typing", "unittest", "urllib", "uuid"),
    *("wave", "wsgiref", "xml", "xmlrpc", "zipfile"),
)

_LEAST = 200  # characters: shorter docstrings are labels, not prose


def library_docstrings() -> Haystack:
    """The docstrings of Python's standard library: long technical English that comes with every Python.

    Each version of Python has its own, which the hash in the name tells apart. They are read from the modules' source,
    so that nothing is imported. Neither the tests nor the examples nor the README's figures use them.
    """
    library = Path(sysconfig.get_path("stdlib"))
    texts = [text for name in _MODULES for file in _files(library, name) for text in _docstrings(file)]
    return Haystack.named("library docstrings", "\n\n".join(dict.fromkeys(texts)))  # each once


def _files(library: Path, module: str) -> list[Path]:
    """A module's source, and that of all its parts but their tests."""
    parts = [file for file in sorted((library / module).rglob("*.py")) if "test" not in file.stem]
    return [file for file in (library / f"{module}.py", *parts) if file.is_file()]


def _docstrings(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and len(text) >= _LEAST:
                yield text
