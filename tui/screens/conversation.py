"""Questions to models from a screen: a thread of their own holds the line, and hangs up when it is left."""

from __future__ import annotations

import queue
from collections.abc import Callable
from contextlib import AbstractContextManager

from textual.message import Message

from appliance.serve.client import Reply
from tui.endpoint import Line

Question = Callable[[Line], None]
_LOOK, _PATIENCE = 0.2, 3600.0  # seconds between two looks whether it is over; of silence until it hangs up


class Saying(Message):
    """What a model has said so far. A newer one of the same `place` makes this one needless."""

    def __init__(self, place: int, text: str) -> None:
        self.place, self.text = place, text
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        """Only the newest counts."""
        return isinstance(message, Saying) and message.place == self.place


class Answered(Message):
    """A whole answer. Never replaced."""

    def __init__(self, place: int, reply: Reply) -> None:
        self.place, self.reply = place, reply
        super().__init__()


class Conversation:
    """Questions wait here for the thread that asks them."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Question] = queue.Queue()

    def ask(self, question: Question) -> None:
        """Have it asked as soon as the line is there."""
        self._waiting.put(question)

    def run(
        self, line: AbstractContextManager[Line], over: Callable[[], bool], ready: Callable[[Line], object]
    ) -> None:
        """Hold the line and ask what is waiting until it is `over`, or nothing was asked for an hour."""
        with line as held:
            ready(held)
            silent = 0.0
            while not over() and silent < _PATIENCE:
                try:
                    question = self._waiting.get(timeout=_LOOK)
                except queue.Empty:
                    silent += _LOOK
                else:
                    question(held)
                    silent = 0.0
