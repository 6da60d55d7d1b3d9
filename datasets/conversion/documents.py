"""The text of documents, as Markdown or plain: page by page, slide by slide, or whole where the format is so."""

from collections.abc import Iterator
from typing import IO, Any

from datasets.conversion.formats import Unreadable, text_blocks

MAXIMUM_PAGES = 2_000
# These elements say nothing, or the same on every page of a site. Pictures are not read.
UNTOLD = ["script", "style", "noscript", "template", "svg", "iframe", "img", "picture", "head", "nav", "footer"]
# A PDF's end is marked within so many last bytes.
END_BYTES = 64 * 1024


def title_and_markdown(html: str) -> tuple[str, str]:
    from bs4 import BeautifulSoup
    from markdownify import ATX, MarkdownConverter

    soup = BeautifulSoup(html, "lxml")
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    for element in soup(UNTOLD):
        element.decompose()
    return title, str(MarkdownConverter(heading_style=ATX).convert_soup(soup))


def html_page(file: IO[bytes]) -> tuple[str, str]:
    return title_and_markdown("".join(text_blocks(file, is_html=True)))


def docx_markdown(file: IO[bytes]) -> str:
    import mammoth

    pictures = mammoth.images.img_element(lambda image: {})
    return title_and_markdown(mammoth.convert_to_html(file, convert_image=pictures).value)[1]


def pptx_slides(file: IO[bytes]) -> Iterator[str]:
    from pptx import Presentation

    presentation = Presentation(file)
    if len(presentation.slides) > MAXIMUM_PAGES:
        raise Unreadable(f"The presentation has more than {MAXIMUM_PAGES:,} slides.")
    for slide in presentation.slides:
        title = slide.shapes.title
        lines = [f"## {title.text_frame.text.strip()}"] if title is not None and title.has_text_frame else []
        lines += [text for shape in slide.shapes if shape != title for text in texts_of(shape)]
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            lines.append(slide.notes_slide.notes_text_frame.text)
        yield "\n\n".join(line for line in lines if line.strip()) + "\n\n"


def texts_of(shape: Any) -> Iterator[str]:
    if shape.has_text_frame:
        yield shape.text_frame.text
    elif getattr(shape, "has_table", False):
        yield "\n".join(" | ".join(cell.text for cell in row.cells) for row in shape.table.rows)
    else:
        for inner in getattr(shape, "shapes", ()):
            yield from texts_of(inner)


def pdf_pages(file: IO[bytes]) -> Iterator[str]:
    from pypdf import PdfReader

    file.seek(0, 2)
    file.seek(max(0, file.tell() - END_BYTES))
    if b"%%EOF" not in file.read():
        raise Unreadable("The PDF is cut off: its end is missing.")
    file.seek(0)
    reader = PdfReader(file)
    # Many are encrypted so that they cannot be changed, and open to every reader.
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("The PDF is encrypted with a password.")
    if len(reader.pages) > MAXIMUM_PAGES:
        raise Unreadable(f"The PDF has more than {MAXIMUM_PAGES:,} pages.")
    has_text = False
    for page in reader.pages:
        text = page.extract_text()
        has_text = has_text or bool(text.strip())
        yield text + "\n\n"
    if not has_text:
        raise Unreadable("The PDF has no text: its pages may be pictures.")
