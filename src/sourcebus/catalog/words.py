"""Words as the search sees them, where SQLite's tokenizer is not at hand: queries, and PostgreSQL's index and snippets.

A word is a run of letters and digits of any script, without case and diacritics; everything else separates, the
underscore too. That is what FTS5's ``unicode61 remove_diacritics 2`` does, so both databases find the same.
PostgreSQL's own parser is not used: it takes ``os.path`` for a host name and ``a/b`` for a file.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence

WORD = re.compile(r"[^\W_]+")

PARTIAL = "_"
"""A lexeme (never a word) of documents whose positions are incomplete: there, a phrase is looked for as its words."""

_LAST_POSITION = 16_383
_POSITIONS = 255
_WORD_BYTES = 255
_VECTOR_BYTES = 900_000  # PostgreSQL's limit is 1 MB for all words and positions of one document
_COMBINING = re.compile("[\u0300-\u036f]")

_SNIPPET_CHARACTERS = 240
_SNIPPET_LEAD = 60


def fold(text: str) -> str:
    """`text` in lower case, its diacritics removed."""
    if text.isascii():
        return text.lower()
    return _COMBINING.sub("", unicodedata.normalize("NFKD", text)).lower()


def words(text: str) -> list[str]:
    """The words of `text`, in order."""
    return [_cut(word) for word in WORD.findall(fold(text))]


def vector(title: str, text: str) -> str:
    """A literal of type `tsvector`: the title's words with weight A, the text's with D.

    What PostgreSQL could not take is left out: positions beyond its limits (then `PARTIAL` is added), and the words that
    appear first after about a hundred thousand different ones.
    """
    places: dict[str, list[str]] = {}
    room, partial = _VECTOR_BYTES, False
    of_title = words(title)
    # a gap in the positions, so that no phrase spans title and text
    for weight, found, start in (("A", of_title, 1), ("", words(text), len(of_title) + 2)):
        for position, word in enumerate(found, start):
            of_word = places.get(word)
            if of_word is None:
                room -= len(word.encode()) + 8
                if room < 0:
                    partial = True
                    continue
                of_word = places[word] = []
            if position > _LAST_POSITION or len(of_word) >= _POSITIONS:
                partial = True
                if of_word:
                    continue
            room -= 2
            of_word.append(f"{min(position, _LAST_POSITION)}{weight}")
    lexemes = [f"'{word}':{','.join(at)}" for word, at in places.items()]
    return " ".join(lexemes + [f"'{PARTIAL}'"] * partial)


def query(pieces: Sequence[str]) -> str:
    """A literal of type `tsquery` in which every piece must match: as a phrase, the last word of the last as a prefix."""
    split = [found for piece in pieces if (found := words(piece))]
    terms: list[str] = []
    for number, found in enumerate(split, 1):
        lexemes = [f"'{word}'" for word in found]
        if number == len(split):
            lexemes[-1] += ":*"
        phrase = " <-> ".join(lexemes)
        terms.append(phrase if len(lexemes) == 1 else f"({phrase} | '{PARTIAL}' & {' & '.join(lexemes)})")
    return " & ".join(terms)


def snippet(text: str, wanted: Sequence[str]) -> str:
    """About 240 characters around the first match, as HTML: matches of `wanted` words marked, the last one as a prefix."""
    pattern = _pattern(wanted)
    folded = _fold_in_place(text)
    first = pattern.search(folded)
    start = max(0, first.start() - _SNIPPET_LEAD) if first else 0
    end = start + _SNIPPET_CHARACTERS
    parts = ["…"] if start else []
    at = start
    for match in pattern.finditer(folded, start, min(end, len(text))):
        parts += (html.escape(text[at : match.start()]), "<mark>", html.escape(text[match.start() : match.end()]), "</mark>")
        at = match.end()
    parts.append(html.escape(text[at:end]))
    return "".join(parts) + ("…" if end < len(text) else "")


def _pattern(wanted: Sequence[str]) -> re.Pattern[str]:
    whole = [re.escape(word) + r"(?![^\W_])" for word in wanted[:-1]]
    prefix = [re.escape(word) + r"[^\W_]*" for word in wanted[-1:]]
    return re.compile(r"(?<![^\W_])(?:" + "|".join(whole + prefix) + ")")


def _fold_in_place(text: str) -> str:
    """`fold`, but every character stays at its place: one that would become several keeps its first."""
    if text.isascii():
        return text.lower()
    return text.translate({ord(character): fold(character)[:1] or character for character in _not_ascii(text)}).lower()


def _not_ascii(text: str) -> Iterable[str]:
    return {character for character in text if not character.isascii() or character.isupper()}


def _cut(word: str) -> str:
    return word if len(word) <= _WORD_BYTES // 4 else word.encode()[:_WORD_BYTES].decode("utf-8", "ignore")
