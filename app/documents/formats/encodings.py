"""Bytes as text: UTF-8 where they are, and never another encoding without saying so."""

from __future__ import annotations

import codecs
import re
from contextlib import suppress

from charset_normalizer import CharsetMatch, from_bytes

from lampe.errors import InputError

ENCODINGS = {
    "cp1252": "Windows-1252 (Western European)",
    "cp932": "Shift-JIS (Japanese)",
    "euc_jp": "EUC-JP (Japanese)",
    "gb18030": "GB 18030 (Chinese)",
    "big5": "Big5 (Chinese)",
    "cp949": "EUC-KR (Korean)",
    "cp1251": "Windows-1251 (Cyrillic)",
    "koi8-r": "KOI8-R (Cyrillic)",
    "cp1253": "Windows-1253 (Greek)",
    "cp1255": "Windows-1255 (Hebrew)",
    "cp1256": "Windows-1256 (Arabic)",
    "cp1250": "Windows-1250 (Central European)",
    "iso8859-2": "ISO 8859-2 (Central European)",
    "cp1254": "Windows-1254 (Turkish)",
    "cp1257": "Windows-1257 (Baltic)",
    "cp874": "Windows-874 (Thai)",
    "mac-roman": "Mac Roman (Western European)",
    "cp850": "DOS 850 (Western European)",
}
"""Those that are looked for, by Python's names; of two that fit as well, the first is taken."""

_DECLARED = ENCODINGS | {
    "iso8859-5": "ISO 8859-5 (Cyrillic)",
    "iso8859-7": "ISO 8859-7 (Greek)",
    "iso8859-15": "ISO 8859-15 (Western European)",
    "koi8-u": "KOI8-U (Cyrillic)",
    "cp866": "DOS 866 (Cyrillic)",
    "tis-620": "TIS-620 (Thai)",
}
"""Those that a text may name itself; by its bytes alone the others can't be told from the commoner ones."""

_WIDER = {
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "iso8859-9": "cp1254",
}
"""What pages mean by the names that they declare."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),  # begins with UTF-16's mark
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_SEVERAL_BYTES = {"cp932", "euc_jp", "gb18030", "big5", "cp949"}
_CHAOS, _COHERENCE = 0.03, 0.12  # charset-normalizer's two scores differ by this much by chance
_CONTROL_SHARE = 1 / 200  # more control characters than this, and it is no text
_CONTROLS = bytes({*range(9), *range(14, 32)} - {27})  # an escape colours the text of a terminal
_UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_WESTERN = re.compile(rb"[\xc2\xc3][\x80-\xbf]|\xe2\x80[\x80-\xbf]")  # its letters and quotes in UTF-8
_CHANCE = 1 / 20  # share of other encodings' letters that may look like UTF-8
_NON_ASCII = re.compile(rb"[\x80-\xff]")
_SHIFTED = {"iso2022_jp_2": "ISO-2022-JP (Japanese)", "iso2022_kr": "ISO-2022-KR (Korean)"}
"""Encodings that are ASCII by their bytes: what the letters mean changes at an escape."""

_SHIFT = re.compile(rb"\x1b\$[@AB()]")
_NO_TEXT = "This file isn't plain text"


def decoded(data: bytes, declared: str | None = None) -> tuple[str, list[str]]:
    """The text in some bytes.

    Parameters
    ----------
    data : bytes
    declared : str, optional
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
    for mark, codec, name in _MARKS:
        if data.startswith(mark):
            try:
                text = data.decode(codec)
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{_NO_TEXT}: it begins as {name} and breaks that at byte {error.start:,}. Save it as UTF-8 text "
                    "and upload it again."
                ) from None
            return text, [] if name == "UTF-8" else [_note(name)]
    if 0 in data:
        return _wide(data), [_note("UTF-16")]
    if data.isascii() and _SHIFT.search(data):
        for codec, name in _SHIFTED.items():
            with suppress(UnicodeDecodeError):
                text = data.decode(codec)
                if not text.isascii():
                    return text, [_note(name)]
    if _is_binary(data):
        raise InputError(f"{_NO_TEXT}: it has many control characters. Save its text as UTF-8 and upload that.")
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError:
        pass
    if named := _known(declared, _DECLARED):
        with suppress(UnicodeDecodeError):
            return data.decode(named), [_note(_DECLARED[named])]
    return _guessed(data)


def _wide(data: bytes) -> str:
    """UTF-16 without a mark: every other byte of its ASCII is zero."""
    low, high = data[::2].count(0), data[1::2].count(0)
    codec = "utf-16-le" if high > low else "utf-16-be"
    if 20 * min(low, high) < max(low, high) and 20 * max(low, high) > len(data):
        try:
            text = data.decode(codec)
        except UnicodeDecodeError:
            text = "\0"
        if not _is_binary(text.encode()):
            return text
    raise InputError(f"{_NO_TEXT}: it has bytes that are zero. Save its text as UTF-8 and upload that.")


def _guessed(data: bytes) -> tuple[str, list[str]]:
    """Text that isn't UTF-8, or not all of it."""
    lines = data.split(b"\n")
    strange = [number for number, line in enumerate(lines) if not _is_utf8(line)]
    rest = b"\n".join(lines[number] for number in strange)
    likely = _detected(rest)
    encoding = likely[0] if likely else None
    foreign = len(_NON_ASCII.findall(rest))
    familiar = len(_UTF8.findall(data)) - len(_UTF8.findall(rest))
    if encoding not in _SEVERAL_BYTES:
        inside = len((_WESTERN if encoding in ("cp1252", None) else _UTF8).findall(rest))
        if inside > _CHANCE * foreign:
            raise InputError(
                f"This file mixes encodings: line {strange[0] + 1:,} has UTF-8 and other bytes in it. Save it as "
                "UTF-8 text, see that it reads right, and upload it again."
            )
    elif familiar <= _CHANCE * foreign:  # a few short lines look like UTF-8
        strange, familiar = list(range(len(lines))), 0
    if encoding is None:
        raise InputError(
            f"{_NO_TEXT} in UTF-8, nor in another encoding that can be told for certain. Save it as UTF-8 text and "
            "upload it again."
        )
    others = set(strange)
    try:
        text = "\n".join(
            line.decode(encoding if number in others else "utf-8") for number, line in enumerate(lines)
        )  # none of these encodings has a line end inside a character
    except UnicodeDecodeError:
        raise InputError(
            f"{_NO_TEXT} in one encoding: much of it is {ENCODINGS[encoding]}, but not all. Save it as UTF-8 text "
            "and upload it again."
        ) from None
    read_as = (
        f"{ENCODINGS[encoding]}, though {ENCODINGS[likely[1]]} fits as well" if likely[1:] else ENCODINGS[encoding]
    )
    if not familiar:
        return text, [_note(read_as)]
    first = f"line {strange[0] + 1:,}"
    where = f"{first} isn't" if len(strange) == 1 else f"{len(strange):,} lines, first {first}, aren't"
    return text, [
        f"This file mixes encodings: {where} in UTF-8 like the rest. What isn't was read as {read_as}; look whether "
        "the letters there are right."
    ]


def _detected(data: bytes) -> list[str]:
    """The likeliest encodings of some bytes, the commonest first; one for each text that they may be."""
    matches = from_bytes(data, cp_isolation=[name.replace("-", "_") for name in ENCODINGS], enable_fallback=False)
    best = matches.best()
    if best is None:
        return []
    likely = [m for m in matches if m.chaos <= best.chaos + _CHAOS and m.coherence >= best.coherence - _COHERENCE]
    order = list(ENCODINGS)
    return sorted((_commonest(match, order) for match in likely), key=order.index)


def _commonest(match: CharsetMatch, order: list[str]) -> str:
    """Of the encodings in which the bytes are one and the same text."""
    names = {_known(name) for name in match.could_be_from_charset}
    return next(name for name in order if name in names)


def _known(name: str | None, among: dict[str, str] = ENCODINGS) -> str | None:
    try:
        found = codecs.lookup((name or "").strip()).name
    except (LookupError, ValueError):
        return None
    found = _WIDER.get(found, found)
    return found if found in among else None


def _is_binary(data: bytes) -> bool:
    return len(data) - len(data.translate(None, _CONTROLS)) > _CONTROL_SHARE * len(data)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _note(encoding: str) -> str:
    return f"This file isn't UTF-8: it was read as {encoding}. If letters look wrong, save it as UTF-8 text."
