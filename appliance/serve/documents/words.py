"""Words that carry the meaning of a text, and texts made alike, for comparing answers with passages."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"\d+(?:[.,:/]\d+)*|\w+")
# "not" and "no" are not among them: they carry meaning.
_COMMON = """
a about above after again all also am an and any are as at be because been before being below between
both but by can could did do does doing down during each either every few for from further had has have
having he her here hers him his how i if in into is it its itself just may me might more most must my of
off on once only or other our out over own per same shall she should so some such than that the their
them then there these they this those through to too under until up upon us very was we were what when
where which while who whom whose why will with within would you your yes aber als auch auf aus bei bin
bis das dass dem den der des die durch ein eine einem einen einer eines er es fuer für hat haben ich ihr
im ist kann mit nach noch nur oder sein sich sie sind ueber über um und von vor war wenn wer wie wird wir
zu zum zur fur uber
"""
_STOP = frozenset(_COMMON.split())
_ENDINGS = ("ingly", "edly", "ing", "ies", "ied", "ed", "es", "ly", "s", "e", "y")
_LIKE = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
        "\u00ad": "",
        "[": "(",
        "]": ")",
    }
)


def content_words(text: str) -> set[str]:
    """The words of `text` without those that any text has, cut to about their stem; numbers whole.

    Stop words are English and German; the endings that are cut are English.
    """
    return {stem(word) for word in _words(text) if word not in _STOP}


def numbers(text: str) -> set[str]:
    """The numbers in `text`, as they are written."""
    return {word for word in _words(text) if word[0].isdigit()}


def search_words(text: str, most: int = 64) -> list[str]:
    """The words to search for, in order, each once; stop words only if there are no others."""
    found = list(dict.fromkeys(re.findall(r"\w+", unicodedata.normalize("NFC", text).casefold())))
    return ([word for word in found if word not in _STOP] or found)[:most]


def stem(word: str) -> str:
    """A word without its commonest ending; short words stay."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


def folded(text: str) -> str:
    """`text` so that case, spaces, the form of quotes, dashes and brackets make no difference."""
    text = unicodedata.normalize("NFKC", text).translate(_LIKE).casefold()
    return " ".join("".join(char for char in text if unicodedata.category(char) != "Cf").split())


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", text).casefold()
    return _WORD.findall("".join(char for char in plain if not unicodedata.combining(char)))
