"""A record as tokens: the prompt, and the answer that training pays for and evaluation scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance.core.errors import DataRejected
from appliance.models.prompt import render
from appliance.models.task import Task
from appliance.models.trie import LabelTrie

Tokenize = Callable[[str], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Token ids of one record; `answer` ends with the end-of-sequence token."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        """Prompt and answer."""
        return self.prompt + self.answer


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Everything that turns a text into tokens for one model and one task.

    `tokenize` takes a rendered prompt or an answer and adds no tokens of its own; `limit` is the most
    tokens a record may have. A text that is too long loses its end, never the question behind it.
    """

    tokenize: Tokenize
    template: str
    bos_token: str
    eos_token: str
    eos: int
    task: Task
    limit: int

    def prompt(self, text: str) -> tuple[int, ...]:
        """The prompt for `text`, up to and including the opening of the model's turn."""
        rendered = render(
            self.template,
            [{"role": "user", "content": self.task.question(text)}],
            bos_token=self.bos_token,
            eos_token=self.eos_token,
        )
        return tuple(self.tokenize(rendered))

    def answer(self, answer: str) -> tuple[int, ...]:
        """The answer's tokens: one space, the answer, the end."""
        return (*self.tokenize(" " + answer.strip()), self.eos)

    def encode(self, text: str, answer: str) -> Encoded:
        """One record.

        Raises:
            DataRejected: the answer alone does not fit.
        """
        wanted = self.answer(answer)
        room = self.limit - len(wanted)
        prompt = self.prompt(text)
        while len(prompt) > room:
            keep = int(len(text) * room / len(prompt) * 0.95)
            if keep <= 0:
                raise DataRejected(
                    f"An answer of {len(wanted)} tokens does not fit into {self.limit}.",
                    "Use a base with a longer context, or shorter answers.",
                )
            text = text[:keep]
            prompt = self.prompt(text)
        return Encoded(prompt=prompt, answer=wanted)

    def trie(self) -> LabelTrie:
        """The trie of the task's labels."""
        return LabelTrie({label: self.answer(label)[:-1] for label in self.task.labels}, self.eos)
