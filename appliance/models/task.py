"""What a tuned model is asked to do, in one place, so that training, evaluation and serving agree.

The prompt of a label, answer or preference task is `prompt` filled in and put through the model's own
chat template; the answer is one space, then the label or the text. A chat is what that template makes
of its turns, and running text stands alone: both have an empty `prompt`. The task travels in the
adapter's facts and in the GGUF (key `cloister.task`), byte for byte.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("label", "answer", "chat", "text", "preference")
PROMPT = "Message: {text}\nLabel?"


@dataclass(frozen=True, kw_only=True)
class Task:
    """`kind` is one of KINDS: "label" (answer is one of `labels`), "answer" (free text), "chat"
    (conversations), "text" (running text) or "preference" (the better of two answers).
    """

    kind: str
    prompt: str
    labels: tuple[str, ...] = ()

    def question(self, text: str) -> str:
        """The user message for one record's text."""
        return self.prompt.replace("{text}", text.strip())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"labels": list(self.labels)}


def task_from(value: dict[str, Any]) -> Task:
    """The inverse of `Task.as_dict`."""
    return Task(kind=value["kind"], prompt=value["prompt"], labels=tuple(value["labels"]))
