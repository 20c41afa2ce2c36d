"""What reading a file may cost."""

from __future__ import annotations

from app.limits import MAX_CHARACTERS

TEXT_BYTES = MAX_CHARACTERS  # largest file of plain text or HTML
PACKED_BYTES = 30_000_000  # largest PDF, DOCX or EPUB, which may hold pictures
MAX_PAGES = 2_000  # of a PDF, and chapters of an EPUB; other texts have at most as many parts
SECONDS = 30.0  # for one file
MEMORY = 1_000_000_000  # bytes that a parser may take beside the upload and the interpreter

MAX_MEMBERS = 10_000  # files inside a DOCX or EPUB
UNPACKED_BYTES = 60_000_000  # of one, all its files together
UNPACKED_RATIO = 200  # times that a file inside one may grow; only bombs grow faster than text does
XML_DEPTH = 256  # levels of nesting
