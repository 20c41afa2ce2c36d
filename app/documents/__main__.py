"""Starts the process that reads one file, with what is after it in the command line: a kind's reader."""

import sys
from types import ModuleType

# The errors need a module of lampe's; lampe as a whole would bring torch, which takes seconds.
lampe = ModuleType("lampe")
lampe.__path__ = ["lampe"]  # in the folder that the process starts in
sys.modules["lampe"] = lampe

from app.documents.worker import main  # noqa: E402

main(sys.argv[1])
