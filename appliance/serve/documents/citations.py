"""What an answer owes to its passages: citations, quotes and sentences, each checked.

- A citation is [n], or [n, m], with the number of a passage that was retrieved; others do not count.
- A quote stands between quotation marks. It is verified if it stands, word for word, in the passage cited
  next after it in the same paragraph; without one, in any passage. Case, spaces and the form of marks
  make no difference.
- A sentence is supported by a passage that has at least SHARE of its content words and all of its numbers.
  If it cites, only what it cites counts. This compares words: it does not see a "not", nor an
  inference, so that it says what to look at and not what is true.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from appliance.serve.documents.passages import Passage
from appliance.serve.documents.sentences import sentences
from appliance.serve.documents.words import content_words, folded, numbers

SHARE = 0.6
_MARK = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
_QUOTES = re.compile(
    '"([^"\n]{1,2000})"|\u201c([^\u201d\n]{1,2000})\u201d|\u201e([^\u201c\u201d\n]{1,2000})[\u201c\u201d]|\u00ab([^\u00bb\n]{1,2000})\u00bb|\u00bb([^\u00ab\n]{1,2000})\u00ab'
)


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A quoted stretch of the answer; `number`: the passage it stands in, None if in none it may."""

    start: int
    end: int
    number: int | None

    @property
    def verified(self) -> bool:
        """Whether it stands in a passage word for word."""
        return self.number is not None


@dataclass(frozen=True, kw_only=True)
class Citation:
    """One mark in the answer, from `start` to `end`: passage `number` (from 1), and the quotes it bears."""

    number: int
    start: int
    end: int
    passage: Passage
    quotes: tuple[Quote, ...]

    @property
    def verified(self) -> bool:
        """Whether every quote that this citation bears stands in a passage that is cited with it."""
        return all(quote.verified for quote in self.quotes)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence of the answer. `number`: the passage that fits it best, None without any.

    `share`: how many of its content words stand there. `supported` is None if it says nothing to check.
    """

    start: int
    end: int
    cited: tuple[int, ...]
    number: int | None
    share: float
    supported: bool | None


def check_citations(answer: str, passages: Sequence[Passage]) -> list[Citation]:
    """The citations of `answer`, in order; numbers that were not retrieved are not among them."""
    marks = list(_marks(answer, len(passages)))
    quotes = check_quotes(answer, passages)
    found: list[Citation] = []
    for start, end, cited in marks:
        borne = tuple(quote for quote in quotes if _bearer(answer, quote.end, marks) == (start, end, cited))
        found += [
            Citation(number=number, start=start, end=end, passage=passages[number - 1], quotes=borne)
            for number in cited
        ]
    return found


def unknown_citations(answer: str, passages: Sequence[Passage]) -> list[int]:
    """Numbers that the answer cites though no such passage was retrieved."""
    cited = {int(part) for mark in _MARK.finditer(answer) for part in re.findall(r"\d+", mark[1])}
    return sorted(number for number in cited if not 0 < number <= len(passages))


def check_quotes(answer: str, passages: Sequence[Passage]) -> list[Quote]:
    """The quotes of `answer`, in order, each looked up in what it cites."""
    marks = list(_marks(answer, len(passages)))
    texts = [folded(passage.text) for passage in passages]
    found: list[Quote] = []
    for match in _QUOTES.finditer(answer):
        words = folded(next(group for group in match.groups() if group is not None)).rstrip(".,;")
        if not any(char.isalnum() for char in words):
            continue
        mark = _bearer(answer, match.end(), marks)
        allowed = mark[2] if mark else range(1, len(passages) + 1)
        number = next((number for number in allowed if _stands(words, texts[number - 1])), None)
        found.append(Quote(start=match.start(), end=match.end(), number=number))
    return found


def attribute(answer: str, passages: Sequence[Passage]) -> list[Claim]:
    """Each sentence of `answer` with the passage that supports it best, by content words.

    For models that do not cite by themselves, and to mark what nothing supports.
    """
    known = [(content_words(passage.text), numbers(passage.text)) for passage in passages]
    found: list[Claim] = []
    for start, end in _claims(answer):
        text = answer[start:end]
        bare = _MARK.sub(" ", text)
        words, figures = content_words(bare), numbers(bare)
        cited = tuple(dict.fromkeys(number for *_, group in _marks(text, len(passages)) for number in group))
        if not words:
            found.append(Claim(start=start, end=end, cited=cited, number=None, share=0.0, supported=None))
            continue
        scored = [
            (figures <= theirs and len(words & have) >= SHARE * len(words), len(words & have), -number)
            for number, (have, theirs) in enumerate(known, start=1)
            if not cited or number in cited
        ]
        supported, shared, place = max(scored, default=(False, 0, 0))
        found.append(
            Claim(
                start=start,
                end=end,
                cited=cited,
                number=-place if shared else None,
                share=shared / len(words),
                supported=supported,
            )
        )
    return found


def _claims(answer: str) -> Iterator[tuple[int, int]]:
    """Sentences; a citation that stands behind the full stop belongs to the sentence before it."""
    held: tuple[int, int] | None = None
    for start, end in sentences(answer):
        lead = start
        while mark := _MARK.match(answer, lead):
            lead = mark.end()
            while lead < end and answer[lead] in " .":
                lead += 1
        if held is not None:
            between = answer[held[1] : start]
            if lead > start and "\n" not in between:
                held = (held[0], len(answer[:lead].rstrip()))
                start = lead
            yield held
        held = (start, end) if start < end else None
    if held is not None:
        yield held


def _marks(answer: str, count: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Where the answer cites, and which of the passages 1 to `count`."""
    for match in _MARK.finditer(answer):
        wanted = dict.fromkeys(int(part) for part in re.findall(r"\d+", match[1]))
        if cited := tuple(number for number in wanted if 0 < number <= count):
            yield match.start(), match.end(), cited


def _bearer(
    answer: str, at: int, marks: Sequence[tuple[int, int, tuple[int, ...]]]
) -> tuple[int, int, tuple[int, ...]] | None:
    """The next citation after a quote, in the same paragraph."""
    for mark in marks:
        if mark[0] >= at:
            return None if "\n\n" in answer[at : mark[0]] else mark
    return None


def _stands(words: str, text: str) -> bool:
    """Whether `words` stand in `text` and are not cut out of longer ones."""
    at = text.find(words)
    while at >= 0:
        behind = at + len(words)
        starts = at == 0 or not (text[at - 1].isalnum() and words[0].isalnum())
        ends = behind == len(text) or not (text[behind].isalnum() and words[-1].isalnum())
        if starts and ends:
            return True
        at = text.find(words, at + 1)
    return False
