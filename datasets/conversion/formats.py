"""The kinds of files that can be imported, distinguished by name and content, and the text of those that are text."""

import codecs
import re
import zipfile
from collections.abc import Iterator
from encodings import aliases, normalize_encoding
from enum import StrEnum
from pathlib import PurePath
from typing import IO

# An office document may unpack to so much by its own directory, and no more than that says is unpacked of it.
MAXIMUM_UNPACKED_BYTES = 256 * 1024 * 1024
MAXIMUM_MEMBERS = 10_000
# So many first bytes of a file tell what it is.
HEAD_BYTES = 1024
BLOCK_BYTES = 256 * 1024
META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
# A page may say that its text is in one of these. Python knows more, some of which take hours for a few MiB.
CHARSETS = frozenset(
    {
        *("ascii", "utf_8", "utf_16", "utf_16_le", "utf_16_be"),
        *("latin_1", *(f"iso8859_{part}" for part in (*range(2, 12), *range(13, 17))), "koi8_r", "koi8_u"),
        *(f"cp{page}" for page in (866, 874, 932, 949, 950, *range(1250, 1259))),
        *("gb2312", "gbk", "gb18030", "big5", "big5hkscs", "shift_jis", "euc_jp", "euc_kr"),
    }
)


class Unreadable(Exception):
    """A file cannot be imported. The message says why, to whoever gave it."""


class Format(StrEnum):
    TEXT = "txt"
    MARKDOWN = "md"
    HTML = "html"
    CSV = "csv"
    PDF = "pdf"
    DOCX = "docx"
    PPTX = "pptx"
    XLSX = "xlsx"


EXTENSIONS = {f".{format}": format for format in Format} | {".markdown": Format.MARKDOWN, ".htm": Format.HTML}
# This member makes an archive such a document.
DOCUMENTS = {
    Format.DOCX: "word/document.xml",
    Format.PPTX: "ppt/presentation.xml",
    Format.XLSX: "xl/workbook.xml",
}


def format_of(name: str, head: bytes) -> Format:
    """Tell a file's format by its name and its first `HEAD_BYTES`. Raise Unreadable when they disagree."""
    format = EXTENSIONS.get(PurePath(name).suffix.lower())
    if format is None:
        kinds = ", ".join(Format)
        raise Unreadable(f"The file's name must end in one of: {kinds}.")
    if not head:
        raise Unreadable("The file is empty.")
    if not may_have_format(format, head):
        raise Unreadable(f"The file is no {format}, whatever its name says.")
    return format


def may_have_format(format: Format, head: bytes) -> bool:
    is_pdf, is_archive = b"%PDF-" in head[:HEAD_BYTES], head.startswith(b"PK\x03\x04")
    if format is Format.PDF:
        return is_pdf
    if format in DOCUMENTS:
        # The old formats and encrypted documents begin otherwise.
        return is_archive
    return not is_pdf and not is_archive and (has_utf16_mark(head) or b"\0" not in head)


def has_utf16_mark(head: bytes) -> bool:
    return head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def check_archive(file: IO[bytes], format: Format) -> None:
    """Check a document's directory before anything of it is unpacked. Raise Unreadable."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise Unreadable(f"The {format} is damaged or cut off.") from None
    if len(members) > MAXIMUM_MEMBERS or sum(member.file_size for member in members) > MAXIMUM_UNPACKED_BYTES:
        raise Unreadable(f"The {format} unpacks to more than {MAXIMUM_UNPACKED_BYTES // 2**20} MiB.")
    if DOCUMENTS[format] not in {member.filename for member in members}:
        raise Unreadable(f"The file is no {format}, whatever its name says.")
    file.seek(0)


def text_blocks(file: IO[bytes], *, is_html: bool = False) -> Iterator[str]:
    """Yield a text in UTF-8, UTF-16 with its mark, what a page declares, or GB18030. Raise Unreadable for others."""
    encoding = encoding_of(file, is_html=is_html)
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    file.seek(0)
    while block := file.read(BLOCK_BYTES):
        yield refuse_nul(decoder.decode(block))
    yield refuse_nul(decoder.decode(b"", final=True))


def refuse_nul(text: str) -> str:
    if "\0" in text:
        raise Unreadable("The file contains NUL characters, so it is not text.")
    return text


def encoding_of(file: IO[bytes], *, is_html: bool = False) -> str:
    head = file.read(HEAD_BYTES)
    if has_utf16_mark(head):
        return "utf-16"
    declared = META_CHARSET.search(head) if is_html else None
    charset = charset_of(declared[1].decode()) if declared else None
    # Each attempt reads the whole file, a block at a time.
    for encoding in ("utf-8-sig", charset, "gb18030"):
        if encoding is not None and can_decode(file, encoding):
            return encoding
    raise Unreadable("The file's text is neither UTF-8, UTF-16 with a byte order mark, nor GB18030.")


def charset_of(declared: str) -> str | None:
    name = normalize_encoding(declared).lower()
    charset = aliases.aliases.get(name, name)
    return charset if charset in CHARSETS else None


def can_decode(file: IO[bytes], encoding: str) -> bool:
    try:
        decoder = codecs.getincrementaldecoder(encoding)("strict")
        file.seek(0)
        while block := file.read(BLOCK_BYTES):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except ValueError:
        return False
    return True
