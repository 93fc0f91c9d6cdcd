"""Messages as strangers send them: attachments, charsets, forwarded mail, invitations, and MIME that is broken."""

from __future__ import annotations

import random
from email.message import EmailMessage
from email.policy import SMTP

import pytest

from sourcebus.connectors.imap.message import MAX_PARTS, documents_of
from sourcebus.errors import ObjectUnreadable
from sourcebus.model import Document

INVITATION = b"""BEGIN:VCALENDAR\r
METHOD:REQUEST\r
BEGIN:VEVENT\r
UID:1\r
SUMMARY:Counting herons\\, again\r
DTSTART;TZID=Europe/Berlin:20261201T090000\r
LOCATION:At the we\r
 ir\r
DESCRIPTION:Bring boots.\\nAnd tea.\r
END:VEVENT\r
END:VCALENDAR\r
"""


def letter(text: str = "The body.", **headers: str) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["Subject"], message["From"], message["To"] = "A letter", "Ada Müller <ada@example.org>", "bus@example.org"
    message["Date"], message["Message-ID"] = "Wed, 25 Nov 2026 10:00:00 +0100", "<1@example.org>"
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(text)
    return message


def parts(message: EmailMessage | bytes) -> dict[str, Document]:
    documents = documents_of(message if isinstance(message, bytes) else bytes(message))
    named = {document.part: document for document in documents}
    assert len(named) == len(documents)
    for document in documents:
        (document.text + document.title + document.part).encode()
        assert "\0" not in document.text + document.title + document.part
    return named


def test_headers_are_metadata_title_and_text() -> None:
    first = parts(letter(Cc="Bea <bea@example.org>", References="<0@example.org>", List_Id="<herons.example.org>"))[""]
    assert first.title == "A letter"
    assert first.metadata == {
        "from": "Ada Müller <ada@example.org>",
        "to": "bus@example.org",
        "cc": "Bea <bea@example.org>",
        "message_id": "<1@example.org>",
        "references": "<0@example.org>",
        "list_id": "<herons.example.org>",
        "date": "2026-11-25T10:00:00+01:00",
    }
    assert first.text.startswith("From: Ada Müller <ada@example.org>\nTo: bus@example.org\nCc: Bea")
    assert first.text.rstrip().endswith("\n\nThe body.")


def test_plain_text_is_preferred_to_html() -> None:
    message = letter("As text.")
    message.add_alternative("<p>As <b>HTML</b>.</p>", subtype="html")
    named = parts(message)
    assert "As text." in named[""].text and "HTML" not in named[""].text
    assert set(named) == {""}


def test_html_alone_becomes_text() -> None:
    message = EmailMessage()
    message.set_content("<style>p {}</style><h1>News</h1><p>Grüße &amp; more</p><script>evil()</script>", subtype="html")
    text = parts(message)[""].text
    assert "Grüße & more" in text
    assert "evil" not in text and "<p>" not in text


def test_attachments_are_documents_and_what_has_no_text_is_named() -> None:
    message = letter()
    message.add_attachment(b"name,count\r\nheron,3\r\n", maintype="text", subtype="csv", filename="birds.csv")
    message.add_attachment(b"# Notes\n\nSecond.", maintype="application", subtype="octet-stream", filename="notes.md")
    message.add_attachment(b"\x89PNG\r\n\x1a\n\0\0\0", maintype="image", subtype="png", filename="heron.png")
    message.add_attachment(b"again", maintype="text", subtype="plain", filename="notes.md")
    named = parts(message)
    assert set(named) == {"", "birds.csv", "notes.md", "notes.md (2)"}
    assert "heron,3" in named["birds.csv"].text
    assert named["notes.md"].title == "Notes"
    assert named["notes.md (2)"].text == "again"
    told = named[""].metadata["attachments"]
    assert [one["name"] for one in told] == ["birds.csv", "notes.md", "heron.png", "notes.md (2)"]
    assert [one.get("unreadable") for one in told] == [None, None, "binary", None]


def test_an_invitation_says_what_when_and_where() -> None:
    message = letter()
    message.add_alternative(INVITATION.decode(), subtype="calendar", params={"method": "REQUEST"})
    (invitation,) = [document for part, document in parts(message).items() if part]
    assert invitation.title == "Counting herons, again"
    assert "Location: At the weir" in invitation.text
    assert "Description: Bring boots.\nAnd tea." in invitation.text
    assert "UID" not in invitation.text.upper()


def test_a_forwarded_message_has_its_own_documents() -> None:
    inner = letter("Inside.")
    inner.add_attachment(b"deep", maintype="text", subtype="plain", filename="deep.txt")
    outer = letter("Outside.")
    outer.add_attachment(inner)
    named = parts(outer)
    assert set(named) == {"", "A letter.eml", "A letter.eml/deep.txt"}
    assert "Inside." in named["A letter.eml"].text and "Inside." not in named[""].text
    assert named["A letter.eml/deep.txt"].text == "deep"


@pytest.mark.parametrize(
    ("charset", "body", "text"),
    [
        ("iso-8859-1", "Grüße".encode("latin-1"), "Grüße"),
        ("windows-1251", "Привет".encode("cp1251"), "Привет"),
        ("iso-2022-jp", "こんにちは".encode("iso-2022-jp"), "こんにちは"),
        ("utf-8", "Grüße".encode("latin-1"), "Gr"),  # it lies
        ("no-such-charset", "Grüße".encode(), "Grüße"),
        ('"', "Grüße".encode(), "Grüße"),
        ("", "Grüße".encode(), "Grüße"),
    ],
)
def test_charsets(charset: str, body: bytes, text: str) -> None:
    head = f"Subject: x\r\nContent-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    assert text in parts(head.encode() + body)[""].text


def test_encoded_headers_in_any_state() -> None:
    raw = (
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?iso-8859-1?q?_und_K=FC=DFe?=\r\n"
        b"From: =?no-such?q?x?= <a@b>\r\nTo: \xff\xfe raw bytes <c@d>\r\nDate: not a date\r\n\r\ntext"
    )
    first = parts(raw)[""]
    assert first.title == "Grüße und Küße"
    assert "date" not in first.metadata
    assert "c@d" in first.metadata["to"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n",
        b"\0\0\0",
        b"Subject\r\n\r\nx",
        b"Content-Type: multipart/mixed\r\n\r\nno boundary",
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: text/plain\r\n\r\nnever closed",
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n--a\r\n--a--",
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\nabc$$$=",
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: no-such\r\n\r\nabc",
        b"Content-Type: message/rfc822\r\n\r\n",
        b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nYWJj",
        b"Content-Type: ;;;\r\nContent-Disposition: ;;;; filename*=x'y\r\n\r\nabc",
        b"To: " + b"<" * 5_000 + b"\r\n\r\nabc",
        b"From: a@[\r\nReply-To: @@@,,,;:<>\r\nMessage-ID: <<[>>\r\n\r\nabc",
    ],
)
def test_broken_messages_are_read_as_far_as_they_go(raw: bytes) -> None:
    assert "" in parts(raw)


def test_deep_nesting_is_unreadable_and_not_a_crash() -> None:
    raw = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n) for n in range(1_200))
    try:
        parts(raw)
    except ObjectUnreadable as unreadable:
        assert unreadable.reason == "broken"


def test_forwards_of_forwards_end() -> None:
    raw = b"Content-Type: message/rfc822\r\n\r\n" * 60 + b"Subject: deep\r\n\r\nx"
    assert 1 < len(parts(raw)) < 60


def test_many_parts_are_read_up_to_a_bound() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    raw += b"--b\r\nContent-Disposition: attachment; filename=a.txt\r\n\r\nx\r\n" * (MAX_PARTS + 200) + b"--b--\r\n"
    assert len(parts(raw)) == MAX_PARTS + 1


def test_a_name_is_no_path() -> None:
    message = letter()
    message.add_attachment(b"x", maintype="text", subtype="plain", filename="../../etc/pass\twd")
    message.add_attachment(b"y", maintype="text", subtype="plain", filename="C:\\temp\\plan.txt")
    assert set(parts(message)) == {"", "passwd", "plan.txt"}


def test_what_was_cut_off_is_said() -> None:
    message = letter("The body.")
    message.add_attachment(b"x" * 100_000, maintype="application", subtype="octet-stream", filename="big.txt")
    documents = documents_of(bytes(message)[:5_000], truncated=True)
    assert "The body." in documents[0].text
    assert documents[0].metadata["truncated"] is True


def test_noise_never_raises_anything_else() -> None:
    """Messages with bytes changed at random; the seed is fixed."""
    rng = random.Random(4)
    message = letter()
    message.add_alternative("<p>x</p>", subtype="html")
    message.add_attachment(INVITATION, maintype="text", subtype="calendar", filename="invite.ics")
    message.add_attachment(letter())
    raw = bytes(message)
    for _ in range(150):
        broken = bytearray(raw)
        for _ in range(rng.randrange(1, 30)):
            at = rng.randrange(len(broken))
            broken[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        try:
            parts(bytes(broken))
        except ObjectUnreadable as unreadable:
            assert unreadable.reason == "broken"
