"""Text as a vocabulary must see it."""

from __future__ import annotations

import pytest

from appliance.models.wording import pattern_of, reword

SPECIALS = pattern_of(["<s>", "<s>x", "</s>"])


@pytest.mark.parametrize(
    ("text", "first", "each"),
    [
        ("", "", ""),
        ("a", " a", " a"),
        (" a", " a", " a"),
        ("▁a", "▁a", "▁a"),
        ("\na", " \na", " \na"),
        ("<s>", "<s>", "<s>"),
        ("<s>a</s> b", "<s>a</s> b", "<s> a</s> b"),
        ("a<s>b", " a<s>b", " a<s> b"),
        ("<s>xy", "<s>xy", "<s>x y"),
    ],
)
def test_a_space_is_put_before_text_that_has_none(text: str, first: str, each: str) -> None:
    assert reword(text, normalizer=None, space="first", specials=SPECIALS) == first
    assert reword(text, normalizer=None, space="each", specials=SPECIALS) == each
    assert reword(text, normalizer="none", space=None, specials=SPECIALS) == text


def test_what_continues_a_text_gets_no_space() -> None:
    assert reword("a", normalizer=None, space="first", begins=False) == "a"
    assert reword("a</s>b", normalizer=None, space="each", specials=SPECIALS, begins=False) == "a</s> b"


def test_nfc_comes_first() -> None:
    assert reword("e\u0301", normalizer="NFC", space="first") == " \u00e9"


def test_no_texts_make_no_pattern() -> None:
    assert pattern_of([]) is None
    assert pattern_of([""]) is None
