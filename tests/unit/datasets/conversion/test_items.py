"""Files as chunks, each kind of them, and every way in which one may be broken or made to break its reader."""

import asyncio
import io
import resource
import struct
import sys
import tempfile
import zipfile
from contextlib import aclosing
from typing import IO, Any

import pytest
from openpyxl import Workbook
from pptx import Presentation
from pptx.util import Inches

from datasets.conversion import documents, items, process, tables
from datasets.conversion.formats import Format, Unreadable, format_of
from datasets.conversion.items import Conversion, Frame, Item
from tests.support import source_files

MIB = 1024 * 1024


def items_of(content: bytes, format: Format, size: int = 512) -> list[Item]:
    return list(Conversion(io.BytesIO(content), format, size).items())


def texts_of(content: bytes, format: Format, size: int = 512) -> list[str]:
    return [item.q for item in items_of(content, format, size)]


def failure_of(content: bytes, format: Format) -> str:
    """Return the failure that the last frame reports."""
    *_, last = items.frames(Conversion(io.BytesIO(content), format, 512), 0)
    return last.failure


def told_by_process(content: bytes, format: Format, skip: int = 0) -> list[Frame]:
    """Read by the real process, with its limits."""

    async def told() -> list[Frame]:
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            return [frame async for frame in process.frames(file, format, 64, skip)]

    return asyncio.run(told())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_text(encoding: str) -> None:
    assert texts_of("导演是李安。\r\nHe is from 台湾 😀".encode(encoding), Format.TEXT) == [
        "导演是李安。\r\nHe is from 台湾 😀"
    ]


def test_text_across_blocks() -> None:
    """No character is cut in two where a block ends."""
    text = "导演是谁？" * 100_000
    for encoding in ("utf-8", "gb18030", "utf-16"):
        assert "".join(texts_of(text.encode(encoding), Format.TEXT)) == text


def test_markdown() -> None:
    assert texts_of(b"# One\n\na\n\n# Two\n\nb", Format.MARKDOWN, 32) == ["# One\n\na\n\n# Two\n\nb"]


HTML = """<html><head><title>The film</title><style>p {color: red}</style></head><body>
<nav>Home</nav><script>alert(1)</script><h1>导演</h1><p>导演是<b>李安</b>。</p>
<ul><li>one</li><li>two</li></ul><table><tr><th>Year</th></tr><tr><td>2000</td></tr></table>
<img src="data:image/png;base64,AAAA" alt="x"><noscript>none</noscript></body></html>"""


def test_html() -> None:
    conversion = Conversion(io.BytesIO(HTML.encode()), Format.HTML, 512)
    (item,) = conversion.items()
    assert conversion.title == "The film"
    assert item.q == "# 导演\n\n导演是**李安**。\n\n* one\n* two\n\n| Year |\n| --- |\n| 2000 |"


def test_html_in_what_it_declares() -> None:
    page = '<html><head><meta charset="shift_jis"></head><body>監督は誰ですか</body></html>'
    assert texts_of(page.encode("shift_jis"), Format.HTML) == ["監督は誰ですか"]
    for wrong in ("hex", "rot13", "no-such", "undefined", "utf-16"):
        assert texts_of(page.replace("shift_jis", wrong).encode(), Format.HTML) == ["監督は誰ですか"]


@pytest.mark.parametrize("charset", ["punycode", "raw_unicode_escape", "unicode-escape", "mbcs"])
def test_html_in_what_no_page_is_in(charset: str) -> None:
    """Python would decode such a charset, some in hours."""
    page = rf'<meta charset="{charset}"><body>\u0041 导演</body>'
    assert texts_of(page.encode("gb18030"), Format.HTML) == [r"\u0041 导演"]


@pytest.mark.parametrize("header", ["", "q,a\n", "Question,Answer,more\n", "index,content\n", "问题,答案\n"])
def test_csv(header: str) -> None:
    content = f'{header}导演是谁,"李安, of course"\nWho?,Me,who is it,"谁\n是"\n\n,\n'
    assert items_of(content.encode(), Format.CSV) == [
        Item("导演是谁", "李安, of course", []),
        Item("Who?", "Me", ["who is it", "谁\n是"]),
    ]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_csv_with_other_delimiters(mark: str) -> None:
    assert items_of(f"q{mark}a\none{mark}1,5\n".encode(), Format.CSV) == [Item("one", "1,5", [])]


def test_csv_rows_that_are_left_out() -> None:
    content = "q,a\n,an answer alone\nlong," + "word " * 9_000 + "\nfine,yes\nx,y,z," + "word " * 9_000 + "\n"
    *_, last = items.frames(Conversion(io.BytesIO(content.encode()), Format.CSV, 512), 0)
    assert last == Frame(left_out=3, is_last=True)


def test_csv_with_10000_columns() -> None:
    content = b"q,a\none,1\n" + b",".join([b"x"] * 10_000)
    assert failure_of(content, Format.CSV) == "Row 3 has 10,000 columns; there may be 22: q, a, and more texts."


def test_csv_with_too_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAXIMUM_ROWS", 10)
    assert "more than 10 rows" in failure_of(b"q,a\n" + b"".join(b"%d,a\n" % n for n in range(11)), Format.CSV)
    assert failure_of(b"q,a\n" + b"".join(b"%d,a\n" % n for n in range(10)), Format.CSV) == ""


def test_csv_with_a_huge_field() -> None:
    assert "malformed" in failure_of(b'q,"' + b"x" * 2 * MIB, Format.CSV)


def test_pdf() -> None:
    assert texts_of(source_files.pdf(["Directed by Ang Lee.", "Music by Tan Dun."]), Format.PDF) == [
        "Directed by Ang Lee.\n\nMusic by Tan Dun."
    ]


def test_pdf_that_anybody_may_open() -> None:
    """It is encrypted against changes, as many are."""
    assert texts_of(source_files.pdf(["Directed by Ang Lee."], owner="x"), Format.PDF) == ["Directed by Ang Lee."]


def test_pdf_with_a_password() -> None:
    assert "encrypted" in failure_of(source_files.pdf(["secret"], password="x"), Format.PDF)


def test_pdf_without_text() -> None:
    assert "no text" in failure_of(source_files.pdf([""] * 3), Format.PDF)


def test_pdf_cut_in_half() -> None:
    content = source_files.pdf(["Directed by Ang Lee."] * 50)
    assert "cut off" in failure_of(content[: len(content) // 2], Format.PDF)


def test_pdf_that_is_damaged() -> None:
    assert "damaged" in failure_of(b"%PDF-1.7\n" + b"\xff" * 1000 + b"%%EOF", Format.PDF)


def test_pdf_with_too_many_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAXIMUM_PAGES", 3)
    assert "more than 3 pages" in failure_of(source_files.pdf(["x"] * 4), Format.PDF)


def test_docx() -> None:
    body = source_files.paragraph("导演", "Heading1") + source_files.paragraph("导演是李安。")
    body += "<w:tbl><w:tr><w:tc>" + source_files.paragraph("2000") + "</w:tc></w:tr></w:tbl>"
    (text,) = texts_of(source_files.docx(body), Format.DOCX)
    assert text.startswith("# 导演\n\n导演是李安。")
    assert "2000" in text


def test_pptx() -> None:
    presentation = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = "导演"
    slide.placeholders[1].text = "导演是李安。"
    table = slide.shapes.add_table(1, 2, 0, 0, Inches(1), Inches(1)).table
    table.cell(0, 0).text, table.cell(0, 1).text = "Year", "2000"
    slide.shapes.add_group_shape().shapes.add_textbox(0, 0, 1, 1).text_frame.text = "in a group"
    slide.notes_slide.notes_text_frame.text = "A note."
    presentation.slides.add_slide(presentation.slide_layouts[6])
    target = io.BytesIO()
    presentation.save(target)
    assert texts_of(target.getvalue(), Format.PPTX) == [
        "## 导演\n\n导演是李安。\n\nYear | 2000\n\nin a group\n\nA note."
    ]


def workbook(rows: list[list[Any]]) -> bytes:
    book = Workbook()
    book.active.title = "Films"
    for row in rows:
        book.active.append(row)
    target = io.BytesIO()
    book.save(target)
    return target.getvalue()


def test_xlsx() -> None:
    content = workbook([["Title", "Year", None], ["卧虎藏龙", 2000, "extra"], [None, None], ["Life of\nPi", None]])
    (text,) = texts_of(content, Format.XLSX)
    assert text == "## Films\n\nTitle; Year\nTitle: 卧虎藏龙; Year: 2000; extra\nTitle: Life of Pi"


def test_xlsx_with_too_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAXIMUM_ROWS", 3)
    assert "more than 3 rows" in failure_of(workbook([["x"]] * 4), Format.XLSX)


@pytest.mark.parametrize("format", [Format.DOCX, Format.PPTX, Format.XLSX])
def test_archives_that_are_something_else(format: Format) -> None:
    assert (
        failure_of(source_files.archive({"a.txt": "x"}), format) == f"The file is no {format}, whatever its name says."
    )
    assert "damaged or cut off" in failure_of(b"PK\x03\x04" + b"x" * 100, format)
    whole = source_files.docx(source_files.paragraph("x" * 5000))
    assert "damaged or cut off" in failure_of(whole[: len(whole) // 2], format)


def bomb(member: str) -> bytes:
    """Return a gigabyte of zeros in a megabyte, where a document's text should be."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(member, "w") as opened:
        for _ in range(1024):
            opened.write(bytes(MIB))
    return target.getvalue()


def test_a_zip_bomb() -> None:
    content = bomb("word/document.xml")
    assert len(content) < 2 * MIB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert failure_of(content, Format.DOCX) == "The docx unpacks to more than 256 MiB."
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_a_zip_bomb_that_lies_about_its_size() -> None:
    """No more is unpacked than its directory says."""
    content = bytearray(bomb("word/document.xml"))
    directory = content.rindex(b"PK\x01\x02")
    struct.pack_into("<L", content, directory + 24, 1000)
    with pytest.raises(Unreadable, match="damaged"):
        told_by_process(bytes(content), Format.DOCX)


def test_many_members() -> None:
    content = source_files.archive({f"{number}": b"" for number in range(10_001)} | {"word/document.xml": b""})
    assert "unpacks to more" in failure_of(content, Format.DOCX)


LAUGHS = "<!DOCTYPE x [<!ENTITY a0 'ha'>" + "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))


def test_entities_that_multiply() -> None:
    content = source_files.docx(source_files.paragraph("&a9;"), f"{LAUGHS}]>")
    with pytest.raises(Unreadable):
        told_by_process(content, Format.DOCX)


def test_entities_that_name_files() -> None:
    declaration = '<!DOCTYPE x [<!ENTITY file SYSTEM "file:///etc/passwd">]>'
    content = source_files.docx(source_files.paragraph("before &file; after"), declaration)
    told = str([item.q for item in items_of(content, Format.DOCX)]) if failure_of(content, Format.DOCX) == "" else ""
    assert "root:" not in told


def test_a_document_that_takes_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It unpacks to what it may, and takes far more as a tree. On a busy machine its time is over first."""
    monkeypatch.setattr(process, "SILENCE_SECONDS", 20)
    content = source_files.docx("<w:p/>" * (200 * MIB // 6))
    with pytest.raises(Unreadable, match=r"memory|seconds"):
        told_by_process(content, Format.DOCX)


@pytest.mark.parametrize("format", [Format.HTML, Format.DOCX])
def test_deep_nesting(format: Format) -> None:
    depth = 20_000
    inner = "<div>" * depth + "x" + "</div>" * depth
    content = inner.encode() if format is Format.HTML else source_files.docx("<w:sdt>" * depth + "</w:sdt>" * depth)
    with pytest.raises(Unreadable):
        told_by_process(content, format)


def test_a_part_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SILENCE_SECONDS", 0.01)
    with pytest.raises(Unreadable, match="takes more than"):
        told_by_process(b"x", Format.TEXT)


def test_a_process_that_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Unreadable, match="crashes its reader"):
        told_by_process(b"x", Format.TEXT)


def test_the_process_tells_frames_behind_what_is_skipped() -> None:
    content = b"q,a\n" + b"".join(b"question %d,a\n" % number for number in range(1_000))
    frames = told_by_process(content, Format.CSV, skip=700)
    assert [item.q for frame in frames for item in frame.items] == [
        f"question {number}" for number in range(700, 1_000)
    ]
    assert [frame.is_last for frame in frames] == [False, False, True]


def test_the_process_has_no_secrets() -> None:
    assert not {name for name in process.ENVIRONMENT if "KEY" in name or "DATABASE" in name}


def test_text_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "MAXIMUM_TEXT", 1000)
    assert "more than 1,000 characters" in failure_of(b"word " * 201, Format.TEXT)


@pytest.mark.parametrize(
    ("content", "format", "told"),
    [
        (b" \n ", Format.TEXT, "no text"),
        (b"", Format.TEXT, "no text"),
        (b"q,a\n", Format.CSV, "no text"),
        (b"<p> </p>", Format.HTML, "no text"),
        (b"x" * 5000 + b"\0", Format.TEXT, "NUL"),
        (b"\xff\xff\xff", Format.TEXT, "neither UTF-8"),
        (b"\xff\xfe\x00\xd8a\x00", Format.TEXT, ""),
    ],
)
def test_texts_that_are_none(content: bytes, format: Format, told: str) -> None:
    assert told in failure_of(content, format)


@pytest.mark.parametrize(
    ("name", "format"), [("A.PDF", "pdf"), ("a.b.htm", "html"), ("导演.markdown", "md"), ("../../a.txt", "txt")]
)
def test_formats_by_name(name: str, format: str) -> None:
    assert format_of(name, b"%PDF-1.4" if format == "pdf" else b"x") == format


def test_one_that_is_not_heard_to_its_end() -> None:
    """Its process has said more than anybody has read, and ends all the same."""
    content = b"q,a\n" + b"".join(b"%d %s,x\n" % (number, b"w " * 500) for number in range(4_000))

    async def hear_little(file: IO[bytes]) -> int:
        async with asyncio.timeout(60), aclosing(process.frames(file, Format.CSV, 64, 0)) as said:
            frame = await anext(said)
            reader = said.ag_frame.f_locals["process"].stdout
            while not reader._paused:  # noqa: ASYNC110 - nobody reports a pause
                await asyncio.sleep(0.01)
        return len(frame.items)

    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        assert asyncio.run(hear_little(file)) > 0


@pytest.mark.parametrize(("size", "seconds"), [(0, 60), (100_000, 60), (2**20, 70), (20 * 2**20, 260), (10**9, 600)])
def test_the_time_of_a_file_fits_its_size(size: int, seconds: int) -> None:
    assert items.cpu_seconds(size) == seconds
