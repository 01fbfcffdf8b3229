"""Questions to models from a screen: a thread of their own holds the line, and hangs up when it is left."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from textual.message import Message
from textual.message_pump import MessagePump
from textual.worker import get_current_worker

from appliance.serve.client import Reply
from tui.endpoint import Line

Question = Callable[[Line], None]
_DRAW = 0.2  # seconds between two drawings of an answer that comes
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


def put(screen: MessagePump, place: int, question: str, line: Line, **how: Any) -> None:
    """Ask in a worker; `screen` is told in drawings, not in tokens. `how` is what Line.talk takes."""
    worker, text, drawn = get_current_worker(), "", 0.0
    for part in line.talk(question, **how):
        if worker.is_cancelled:
            return
        if isinstance(part, Reply):
            screen.post_message(Answered(place, part))
            return
        text += part
        if time.monotonic() - drawn >= _DRAW:
            drawn = time.monotonic()
            screen.post_message(Saying(place, text))
