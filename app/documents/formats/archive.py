"""Zip archives and the XML in them, read in memory and only as far as the caps allow."""

from __future__ import annotations

import io
import zipfile
import zlib
from xml.etree.ElementTree import Element

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from app.limits import MAX_MEMBERS, UNPACKED_BYTES, UNPACKED_RATIO, XML_DEPTH
from lampe.errors import InputError

_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
_SMALL = 1_000_000  # bytes that may come of anything


class Archive:
    """The members of a DOCX or an EPUB, which is given as bytes.

    Raises
    ------
    InputError
        If it is no archive, has too many members, or one that needs a password. So do the methods.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except _DAMAGED:
            raise InputError(
                "This file is damaged: the archive that it is can't be opened. Save or download it anew."
            ) from None
        members = self._zip.infolist()
        if len(members) > MAX_MEMBERS:
            raise InputError(f"This file is an archive of {len(members):,} files; at most {MAX_MEMBERS:,} are read.")
        if any(member.flag_bits & 1 for member in members):
            raise InputError("This file needs a password. Save it without one and upload that.")
        self._unpacked = 0

    def __contains__(self, name: str) -> bool:
        return name in self._zip.NameToInfo

    def read(self, name: str) -> bytes:
        """A member's bytes, never more than is left of the cap, whatever size it declares."""
        member = self._zip.NameToInfo.get(name)
        if member is None:
            raise InputError(f"This file is damaged: {name:.100} is missing in it. Save or download it anew.")
        self._check(member.file_size, member.compress_size)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError("This file is packed in a way that such files aren't. Save it anew.")
        try:
            with self._zip.open(member) as file:
                data = file.read(UNPACKED_BYTES - self._unpacked + 1)
        except _DAMAGED:
            raise InputError(f"This file is damaged: {name:.100} in it can't be unpacked. Save it anew.") from None
        self._check(len(data), member.compress_size)
        self._unpacked += len(data)
        return data

    def xml(self, name: str) -> Element:
        """A member's root element.

        Names of elements and attributes come without their namespaces. It is refused where it is no XML, is nested
        too deeply, or declares entities, which documents have no use for and attacks have.
        """
        data = self.read(name)
        try:
            root = fromstring(data)
        except DefusedXmlException:
            raise InputError(
                "This file declares XML entities, as attacks do and documents don't; it isn't read."
            ) from None
        except (ParseError, ValueError, LookupError):
            raise InputError("This file is damaged: the XML in it is broken. Save or download it anew.") from None
        return _plain(root)

    def _check(self, size: int, packed: int) -> None:
        if self._unpacked + size > UNPACKED_BYTES:
            raise InputError(
                f"This file unpacks to more than {UNPACKED_BYTES / 1e6:.0f} MB, the limit here. Upload a part of it."
            )
        if size > _SMALL and size > UNPACKED_RATIO * packed:
            raise InputError(
                f"This file unpacks to more than {UNPACKED_RATIO} times its size, as zip bombs do; it isn't read."
            )


def _plain(root: Element) -> Element:
    """A tree with its names' namespaces dropped, and not nested too deeply to be walked by recursion."""
    level, depth = [root], 0
    while level:
        depth += 1
        if depth > XML_DEPTH:
            raise InputError(f"This file's XML is nested more than {XML_DEPTH} levels deep; it isn't read.")
        for element in level:
            element.tag = _local(element.tag)
            if element.attrib:
                element.attrib = {_local(name): value for name, value in element.attrib.items()}
        level = [child for element in level for child in element]
    return root


def _local(name: str) -> str:
    return name.rpartition("}")[2]
