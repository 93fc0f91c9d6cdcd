"""From bytes to documents: encodings, titles, office files made on the spot, bombs and damaged files."""

from __future__ import annotations

import io
import zipfile

import pytest

from sourcebus.connectors.documents import decode, document
from sourcebus.errors import ObjectUnreadable

GERMAN = "Die Größe der Übung übersteigt alle Maße. " * 20
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 20
JAPANESE = "いろはにほへとちりぬるを。我が輩は猫である。名前はまだ無い。" * 20


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "utf-8"), (GERMAN, "utf-8-sig"), (GERMAN, "utf-16"), (GERMAN, "utf-16-le"), (GERMAN, "utf-16-be"),
        (GERMAN, "utf-32"), (GERMAN, "latin-1"), (RUSSIAN, "utf-8"), (RUSSIAN, "utf-16"), (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"), (JAPANESE, "utf-8"), (JAPANESE, "shift_jis"), (JAPANESE, "euc_jp"), ("", "utf-8"),
    ],
)  # fmt: skip
def test_text_in_any_encoding(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding))[0] == text


def test_a_few_broken_bytes_do_not_spoil_the_rest() -> None:
    data = (GERMAN * 3).encode()
    text, encoding = decode(data[:100] + b"\xff\xfe\xff" + data[100:])
    assert text.count("Größe") >= 58
    assert encoding == "utf-8 (damaged)"


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 40,
        b"\x7fELF\x02\x01\x01" + bytes(9) + b"text" * 100,
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        bytes([1, 2, 3, 4, 5]) * 100,
        "text".encode("utf-16-le")[:-1] + b"\x01\x02\x03\x04" * 40,
        b"text " * 5_000 + b"\0" * 10,
    ],
    ids=["all bytes", "ELF", "PNG", "control", "odd UTF-16", "NUL at the end"],
)
def test_binary(data: bytes) -> None:
    with pytest.raises(ObjectUnreadable) as refused:
        document("file", data)
    assert refused.value.reason == "binary"


@pytest.mark.parametrize(
    ("name", "text", "title"),
    [
        ("a.md", "intro\n\n# The *Title* #\n## Sub\n", "The *Title*"),
        ("a.rst", "\nThe Title\n=========\n\ntext", "The Title"),
        ("a.md", "---\nkey: value\n---\n# After the front matter\n", "After the front matter"),
        ("a.md", "---\ndate: now\ntitle: 'From the front'\n---\n# Other\n", "From the front"),
        ("a.md", "no heading at all", "a.md"),
        ("a.py", "# a comment, no title\n", "a.py"),
        ("README", "# not known to be Markdown\n", "README"),
        ("empty.txt", "", "empty.txt"),
    ],
)
def test_titles(name: str, text: str, title: str) -> None:
    assert document(name, text.encode()).title == title


def test_html() -> None:
    html = "<html><head><title>A &amp; B</title><style>no {}</style></head><body><h1>Größe</h1><p>text</p><script>no()</script>"
    found = document("page.html", html.encode("latin-1"))
    assert found.title == "A & B"
    assert "Größe" in found.text
    assert "no" not in found.text


@pytest.mark.filterwarnings("ignore:HTML document is too deeply nested")
def test_deep_html_is_read_or_refused_but_never_a_crash() -> None:
    assert "core" in document("deep.html", b"<div>" * 20_000 + b"core").text


def docx(text: str) -> bytes:
    body = (
        '<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        f"<w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>"
    )
    return archive({
        "[Content_Types].xml": '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/word/document.xml" ContentType='
        '"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>',
        "_rels/.rels": '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Id="r" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
        'Target="word/document.xml"/></Relationships>',
        "word/document.xml": body,
    })  # fmt: skip


def archive(parts: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return out.getvalue()


def xlsx(text: str) -> bytes:
    from openpyxl import Workbook

    book, out = Workbook(), io.BytesIO()
    sheet = book.active
    assert sheet is not None
    sheet["A1"] = text
    book.save(out)
    return out.getvalue()


def pptx(text: str) -> bytes:
    from pptx import Presentation

    deck, out = Presentation(), io.BytesIO()
    slide = deck.slides.add_slide(deck.slide_layouts[0])
    assert slide.shapes.title is not None
    slide.shapes.title.text = text
    deck.save(out)
    return out.getvalue()


def pdf(text: str) -> bytes:
    stream = f"BT /F1 24 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, offsets = b"%PDF-1.4\n", list[int]()
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return (
        out + b"xref\n0 6\n0000000000 65535 f \n" + table + b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(out)
    )


def epub(text: str) -> bytes:
    return archive({
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="book.opf"/></rootfiles></container>',
        "book.opf": '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        '<dc:title>The Book</dc:title></metadata><manifest><item id="c" href="c.xhtml" media-type="application/xhtml+xml"/>'
        '</manifest><spine><itemref idref="c"/></spine></package>',
        "c.xhtml": f"<html><body><p>{text}</p></body></html>",
    })  # fmt: skip


@pytest.mark.parametrize("make", [docx, xlsx, pptx, pdf, epub])
def test_office_files_whatever_they_are_called(make: type) -> None:
    kind = getattr(make, "__name__", "")
    for name in (f"a.{kind}", "without-suffix", "wrong.txt"):
        assert "Quarterly" in document(name, make("Quarterly figures")).text


@pytest.mark.parametrize("make", [docx, xlsx, pptx, epub])
def test_damaged_office_files(make: type) -> None:
    whole: bytes = make("text")
    for data in (whole[: len(whole) // 2], whole[:40], whole[:30] + b"\xff" * 200 + whole[230:]):
        try:
            document("a.docx", data)
        except ObjectUnreadable as refused:
            assert refused.reason in ("broken", "binary")


def test_a_damaged_pdf() -> None:
    for data in (b"%PDF-1.4\n", b"%PDF-1.4\n" + bytes(range(256)) * 20):
        try:
            document("a.pdf", data)
        except ObjectUnreadable as refused:
            assert refused.reason == "broken"


def test_a_text_that_calls_itself_an_office_file_is_a_text() -> None:
    assert document("a.docx", b"only text").text == "only text"


def test_an_archive_is_no_document() -> None:
    with pytest.raises(ObjectUnreadable) as refused:
        document("a.zip", archive({"a.txt": "text"}))
    assert refused.value.reason == "binary"


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (
        archive({"word/document.xml": bytes(30_000_000)}),  # by its ratio
        archive({f"word/{number}.xml": b"" for number in range(20_001)}),  # by its parts
    ):
        with pytest.raises(ObjectUnreadable) as refused:
            document("a.docx", data)
        assert refused.value.reason == "too_large"
    monkeypatch.setattr("sourcebus.connectors.documents.MAX_UNPACKED_BYTES", 100)
    with pytest.raises(ObjectUnreadable, match="unpacks to"):
        document("a.docx", docx("text"))
