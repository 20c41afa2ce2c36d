"""The process that reads one file with the reader that is named after it in the command line, "module:function".

Bytes in at the standard input, JSON out, and kept from changing files, starting programs and using the network.
Started by `app.documents.reading`. It imports neither gradio nor torch, so that it starts at once.
"""

import sys
from pkgutil import resolve_name
from types import ModuleType

import msgspec

# The errors need a module of lampe's; lampe as a whole would bring torch, which takes seconds.
lampe = ModuleType("lampe")
lampe.__path__ = ["lampe"]  # in the folder that the process starts in
sys.modules["lampe"] = lampe

from app.documents.document import Found, parsed  # noqa: E402
from app.limits import MEMORY, SECONDS  # noqa: E402
from app.sandbox.confine import confine  # noqa: E402
from lampe.errors import InputError  # noqa: E402

read = resolve_name(sys.argv[1])  # before anything is barred: the import may need it
data = sys.stdin.buffer.read()
confine(MEMORY, SECONDS)
answer: Found | str
try:
    answer = parsed(read, data)
except InputError as error:
    answer = str(error)
sys.stdout.buffer.write(msgspec.json.encode(answer))
sys.stdout.buffer.flush()
