"""A record as tokens: the prompt, and the answer that training pays for and evaluation scores.

An answer to a question is one space, the text, the end. In a chat the model's own template says how a
turn begins and ends, and what is learnt is what the model has to write after the prompt that serving
makes from the same template: the turn's words and the end token, not the white space that some
templates put behind it. A template that ends turns without the end token gets one after the last turn.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from appliance.core.errors import DataRejected, ModelRejected
from appliance.models.prompt import messages_from, render, segments
from appliance.models.task import Task
from appliance.models.trie import LabelTrie

Tokenize = Callable[[str], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Token ids of one record; `answer` begins with the first token that is learnt.

    `learnt` says which tokens of `answer` are (a chat's later questions are not); None: all of them.
    `cut` is how many tokens of the record did not fit and were left out.
    """

    prompt: tuple[int, ...] = field(repr=False)
    answer: tuple[int, ...] = field(repr=False)
    learnt: tuple[bool, ...] | None = None
    cut: int = 0

    @property
    def tokens(self) -> tuple[int, ...]:
        """Prompt and answer."""
        return self.prompt + self.answer

    @property
    def sequences(self) -> tuple[Encoded, ...]:
        """What goes through the model for this record."""
        return (self,)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A preference: one prompt, the answer that was chosen and the one that was rejected.

    `margin` is log p(chosen) - log p(rejected) under the base, in nats (DPO's reference).
    """

    chosen: Encoded
    rejected: Encoded
    margin: float = 0.0

    @property
    def sequences(self) -> tuple[Encoded, ...]:
        """What goes through the model for this record."""
        return (self.chosen, self.rejected)


Example = Encoded | Pair


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Everything that turns a text into tokens for one model and one task.

    `tokenize` takes a rendered prompt or an answer and adds no tokens of its own; `limit` is the most
    tokens a record may have. A text that is too long loses its end, never the question behind it; a
    conversation first loses its oldest exchanges.
    """

    tokenize: Tokenize
    template: str
    bos_token: str
    eos_token: str
    eos: int
    task: Task
    limit: int
    pad_token: str = ""

    def prompt(self, text: str) -> tuple[int, ...]:
        """The prompt for `text`, up to and including the opening of the model's turn.

        Of a chat, `text` is the messages as JSON; running text has its first token for a prompt.
        """
        if self.task.kind == "text":
            return self._running(text).prompt
        messages = [{"role": "user", "content": self.task.question(text)}]
        if self.task.kind == "chat":
            messages = messages_from(text)
        rendered = render(
            self.template,
            messages,
            bos_token=self.bos_token,
            eos_token=self.eos_token,
            pad_token=self.pad_token,
        )
        return tuple(self.tokenize(rendered))

    def answer(self, answer: str) -> tuple[int, ...]:
        """The answer's tokens: one space, the answer, the end."""
        return (*self.tokenize(" " + answer.strip()), self.eos)

    def example(self, text: str, answer: str, rejected: str = "") -> Example:
        """One record as training learns from it: every assistant turn of a chat, both of a preference.

        Raises:
            DataRejected: an answer is empty or does not fit.
            ModelRejected: the model's template cannot write the conversation.
        """
        if self.task.kind == "chat":
            return self._conversation(text, answer, last_only=False)
        if self.task.kind == "preference":
            return self.encode_pair(text, answer, rejected)
        return self.encode(text, answer)

    def encode(self, text: str, answer: str) -> Encoded:
        """One record as evaluation scores it: of a chat the last answer, of a preference the chosen one.

        Running text is all in `text`; its tokens after the first, and the end, are the answer.

        Raises:
            DataRejected: the answer is empty, or alone does not fit.
            ModelRejected: the model's template cannot write the conversation.
        """
        if self.task.kind == "chat":
            return self._conversation(text, answer, last_only=True)
        if self.task.kind == "text":
            return self._running(text)
        wanted = self._wanted(answer)
        return self._fit(text, lambda some: Encoded(prompt=self.prompt(some), answer=wanted))

    def encode_pair(self, text: str, chosen: str, rejected: str) -> Pair:
        """A preference; both answers follow one prompt, which leaves room for the longer of them.

        What is cut from that prompt is counted once, at `chosen`.

        Raises:
            DataRejected: an answer is empty, or alone does not fit.
        """
        better, worse = self._wanted(chosen), self._wanted(rejected)
        longer = max(better, worse, key=len)
        fitted = self._fit(text, lambda some: Encoded(prompt=self.prompt(some), answer=longer))
        return Pair(
            chosen=replace(fitted, answer=better), rejected=Encoded(prompt=fitted.prompt, answer=worse)
        )

    def trie(self) -> LabelTrie:
        """The trie of the task's labels."""
        return LabelTrie({label: self.answer(label)[:-1] for label in self.task.labels}, self.eos)

    def _wanted(self, answer: str) -> tuple[int, ...]:
        wanted = self.answer(answer)
        if not answer.strip() or len(wanted) < 2:
            raise _empty()
        return wanted

    def _fit(self, text: str, encode: Callable[[str], Encoded]) -> Encoded:
        """`encode` of `text`, or of as much of its beginning as fits."""
        whole = found = encode(text)
        while len(found.tokens) > self.limit:
            keep = int(len(text) * (self.limit - len(found.answer)) / len(found.prompt) * 0.95)
            if keep <= 0:
                raise DataRejected(
                    f"An answer of {len(found.answer)} tokens does not fit into {self.limit}.",
                    "Use a base with a longer context, or shorter answers.",
                )
            text = text[:keep]
            found = encode(text)
        return replace(found, cut=len(whole.tokens) - len(found.tokens))

    def _running(self, text: str) -> Encoded:
        """A text cut to the limit; it is not packed into several windows, which would weigh more."""
        first = tuple(self.tokenize(self.bos_token)) if self.bos_token else ()
        words = tuple(self.tokenize(text))
        if not text.strip() or len(first) + len(words) < 2:
            raise _empty()
        tokens = (*first, *words, self.eos)
        start, kept = len(first) or 1, tokens[: self.limit]
        return Encoded(prompt=kept[:start], answer=kept[start:], cut=len(tokens) - len(kept))

    def _conversation(self, text: str, answer: str, *, last_only: bool) -> Encoded:
        if not answer.strip():
            raise _empty()
        messages = [*messages_from(text), {"role": "assistant", "content": answer}]
        whole = self._turns(messages, last_only=last_only)
        if len(whole.tokens) <= self.limit:
            return whole
        start = int(messages[0]["role"] == "system")
        exchanges = (len(messages) - start) // 2

        def without(oldest: int) -> Encoded:
            kept = [*messages[:start], *messages[start + 2 * oldest :]]
            return self._turns(kept, last_only=last_only)

        drop = bisect_left(
            range(exchanges - 1), True, key=lambda oldest: len(without(oldest).tokens) <= self.limit
        )
        found = without(drop)
        if len(found.tokens) > self.limit:  # the last exchange alone: its question loses its end
            *before, question, last = messages[:start] + messages[-2:]
            found = self._fit(
                question["content"],
                lambda some: self._turns([*before, {**question, "content": some}, last], last_only=True),
            )
        return replace(found, cut=len(whole.tokens) - len(found.tokens))

    def _turns(self, messages: Sequence[dict[str, str]], *, last_only: bool) -> Encoded:
        """The whole conversation; only its last turn is learnt where the template allows no more."""

        def parted(last_only: bool) -> list[str]:
            return segments(
                self.template,
                messages,
                bos_token=self.bos_token,
                eos_token=self.eos_token,
                pad_token=self.pad_token,
                last_only=last_only,
            )

        try:
            parts = parted(last_only)
        except ModelRejected:
            parts = parted(True)
        prompt, *pieces = self._pieces(parts)
        answer: list[int] = []
        learnt: list[bool] = []
        for place, piece in enumerate(pieces):
            ours = place % 2 == 0
            ended = len(piece) - piece[::-1].index(self.eos) if ours and self.eos in piece else len(piece)
            answer += piece
            learnt += [ours] * ended + [False] * (len(piece) - ended)
        last = len(answer) - learnt[::-1].index(True)
        answer, learnt = answer[:last], learnt[:last]
        if answer[-1] != self.eos:
            answer, learnt = [*answer, self.eos], [*learnt, True]
        return Encoded(prompt=prompt, answer=tuple(answer), learnt=None if all(learnt) else tuple(learnt))

    def _pieces(self, parts: Sequence[str]) -> list[tuple[int, ...]]:
        """The tokens of each part, such that no token spans two of them.

        Some tokenizers put a space before whatever text they are given; then a part's tokens are those
        that the text up to its end has more than the text before it.
        """
        alone = [tuple(self.tokenize(part)) for part in parts]
        if tuple(chain.from_iterable(alone)) == tuple(self.tokenize("".join(parts))):
            return alone
        found: list[tuple[int, ...]] = []
        before: tuple[int, ...] = ()
        for place, piece in enumerate(alone):
            upto = tuple(self.tokenize("".join(parts[: place + 1])))
            found.append(upto[len(before) :] if upto[: len(before)] == before else piece)
            before += found[-1]
        return found


def _empty() -> DataRejected:
    return DataRejected("An answer has no tokens.", "Leave records without an answer out.")
