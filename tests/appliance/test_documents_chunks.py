"""Passages are exact stretches of the text, about 200 tokens long, cut where sentences end."""

from __future__ import annotations

import random
import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from appliance.serve.documents.chunks import TOKENS, chunks, tokens
from appliance.serve.documents.sentences import sentences
from appliance.serve.documents.texts import PAGE_BREAK, Page


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


def test_sentences() -> None:
    assert split(
        'Dr. A. Smith came, e.g. at 3.5 km. He said: "Go." Then he left!\n\nNew one\n- item 1\n- item 2.'
    ) == [
        "Dr. A. Smith came, e.g. at 3.5 km.",
        'He said: "Go."',
        "Then he left!",
        "New one",
        "- item 1",
        "- item 2.",
    ]
    assert split("1. First step. 2. Second") == ["1. First step.", "2.", "Second"]
    assert split("第一句。第二句\uff01") == ["第一句。", "第二句\uff01"]
    assert split(" \n ") == []


def test_passages_are_exact_and_of_the_right_size() -> None:
    chance = random.Random(3)
    words = ["ward", "patient", "medication", "is", "given", "by", "the", "nurse"]

    def prose(count: int) -> str:
        return " ".join(
            " ".join(chance.choices(words, k=chance.randint(5, 25))).capitalize() + "." for _ in range(count)
        )

    one, two = prose(60), "Rules\n\n" + prose(40)
    pages = [Page(number=1, text=one), Page(number=2, text=two, headings=((0, "Rules"),))]
    whole = PAGE_BREAK.join((one, two))
    found = chunks(pages)
    assert all(whole[c.start : c.end] == c.text for c in found)
    assert {(c.page, c.heading) for c in found} == {(1, ""), (2, "Rules")}
    sizes = [tokens(c.text) for c in found]
    assert max(sizes) <= TOKENS * 1.1 and sorted(sizes)[len(sizes) // 2] > 0.7 * TOKENS
    assert all(c.text.endswith(".") and c.text[0].isupper() for c in found)
    assert sum(a.end > b.start for a, b in pairwise(found)) >= len(found) // 2
    covered = {place for c in found for place in range(c.start, c.end)}
    assert all(whole[place].isspace() for place in set(range(len(whole))) - covered)


def test_text_without_end_is_cut_in_time() -> None:
    for text in ("x" * 1_000_000, "\n" + " " * 1_000_000 + "x", "word " * 100_000, "a. " * 60_000):
        began = time.monotonic()
        found = chunks([Page(number=None, text=text)])
        assert found and all(tokens(c.text) <= 2 * TOKENS for c in found)
        assert time.monotonic() - began < 10


@given(
    st.text(alphabet=st.sampled_from("aB .!?\n-1)\u00e9\u3002\t\u2019"), max_size=400), st.integers(0, 400)
)
def test_nothing_is_lost_or_made_up(text: str, place: int) -> None:
    headings = ((place, "here"),) if place < len(text) else ()
    found = chunks([Page(number=None, text=text, headings=headings)])
    assert all(text[c.start : c.end] == c.text and c.text.strip() for c in found)
    covered = {at for c in found for at in range(c.start, c.end)}
    assert all(char.isspace() for at, char in enumerate(text) if at not in covered)
