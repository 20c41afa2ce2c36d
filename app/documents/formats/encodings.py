"""Bytes as text: UTF-8 where they are, and never another encoding without saying so."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from charset_normalizer import from_bytes

from lampe.errors import InputError

ENCODINGS = {
    "cp1252": "Windows-1252 (Western European)",
    "cp932": "Shift-JIS (Japanese)",
    "euc_jp": "EUC-JP (Japanese)",
    "gb18030": "GB 18030 (Chinese)",
    "big5": "Big5 (Chinese)",
    "cp949": "EUC-KR (Korean)",
    "cp1251": "Windows-1251 (Cyrillic)",
    "koi8_r": "KOI8-R (Cyrillic)",
    "cp1253": "Windows-1253 (Greek)",
    "cp1255": "Windows-1255 (Hebrew)",
    "cp1256": "Windows-1256 (Arabic)",
    "cp1250": "Windows-1250 (Central European)",
    "cp1254": "Windows-1254 (Turkish)",
    "cp1257": "Windows-1257 (Baltic)",
    "cp874": "Windows-874 (Thai)",
    "utf_16_le": "UTF-16",
    "utf_16_be": "UTF-16",
    "iso2022_jp": "ISO-2022-JP (Japanese)",
    "iso2022_kr": "ISO-2022-KR (Korean)",
}
"""Those that are guessed, by their names in Python; of two that are as likely, the first is taken."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with UTF-16's mark
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MEANT = {"iso8859-1": "cp1252", "ascii": "cp1252", "shift_jis": "cp932", "gb2312": "gb18030", "euc_kr": "cp949"}
_DECLARABLE = re.compile("cp|iso8859|koi8|mac|euc|gb|big5|shift|tis")  # others unpack, or take quadratic time


def decoded(data: bytes, declared: str = "") -> tuple[str, list[str]]:
    """The text in some bytes.

    Parameters
    ----------
    data : bytes
    declared : str
        The encoding that the text itself names; taken if it fits and UTF-8 doesn't.

    Returns
    -------
    tuple of str and list of str
        The text, and a sentence that names the encoding unless it is UTF-8.

    Raises
    ------
    InputError
        If they are no text, or in no encoding that can be told.
    """
    marked = [codec for mark, codec in _MARKS if data.startswith(mark)][:1]
    for codec in marked or _likely(data, declared):
        try:
            text = data.decode(codec)
        except UnicodeDecodeError:
            continue
        name = ENCODINGS.get(codec, codec.upper())
        note = f"This file isn't UTF-8: it was read as {name}. If letters look wrong, save it as UTF-8 text."
        return text, [] if codec.startswith("utf-8") else [note]
    raise InputError(
        "This file isn't plain text in UTF-8, nor in another encoding that can be told for certain. Save its text as "
        "UTF-8 and upload it again."
    )


def _likely(data: bytes, declared: str) -> Iterator[str]:
    """The encodings to try, in their order, by Python's names."""
    if b"\0" not in data:  # else it is UTF-16 or no text
        if b"\x1b$" in data:  # what the letters mean changes at such escapes; the bytes are valid UTF-8
            yield from ("iso2022_jp", "iso2022_kr")
        yield "utf-8"
        try:
            name = codecs.lookup(declared).name
        except (LookupError, ValueError):
            name = ""
        if _DECLARABLE.match(_MEANT.get(name, name)):
            yield _MEANT.get(name, name)
    matches = from_bytes(data, cp_isolation=list(ENCODINGS), enable_fallback=False)
    if best := matches.best():
        equal = [match for match in matches if (match.chaos, match.coherence) == (best.chaos, best.coherence)]
        names = {name for match in equal for name in match.could_be_from_charset}
        yield next(name for name in ENCODINGS if name in names)
