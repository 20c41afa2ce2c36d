"""Starts the process that reads one file, with what is after it in the command line: a kind's reader."""

import sys
from importlib.util import find_spec
from types import ModuleType

# The errors need a module of lampe's; lampe itself would bring torch, which takes seconds.
found = find_spec("lampe")
lampe = ModuleType("lampe")
lampe.__path__ = list((found and found.submodule_search_locations) or ())
sys.modules["lampe"] = lampe

from app.documents.sandbox.worker import main  # noqa: E402

main(sys.argv[1])
