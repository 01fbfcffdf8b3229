"""What workers tell screens. Workers never touch widgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.message import Message

from appliance.ops.meters import Load
from tui.screens.machine import Gpu, Machine
from tui.screens.site import SiteView
from tui.screens.story import Line, Picture
from tui.steps import NextStep


class Progress(Message):
    """The newest picture of a job. A newer one makes this one needless: it holds all of it."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        """A waiting Progress of the same kind stands in for this one."""
        return isinstance(message, Progress)


class Metered(Message):
    """Fresh readings of this machine, and of what the job on screen uses of it."""

    def __init__(self, machine: Machine, gpu: Gpu | None, load: Load | None) -> None:
        self.machine, self.gpu, self.load = machine, gpu, load
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        """Only the newest readings count."""
        return isinstance(message, Metered)


class LogLines(Message):
    """New lines of a job's log. Never replaced, never dropped."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines
        super().__init__()


class Ended(Message):
    """The job has ended, and what to do now that it is done; drawn at once. Never replaced, never dropped."""

    def __init__(self, picture: Picture, step: NextStep | None = None) -> None:
        self.picture, self.step = picture, step
        super().__init__()


class Looked(Message):
    """A fresh look at the site, what its screen read besides, and what this person may not do there."""

    def __init__(self, view: SiteView, more: Any, refused: dict[str, str]) -> None:
        self.view, self.more, self.refused = view, more, refused
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        """Only the newest look counts."""
        return isinstance(message, Looked)


class Allowed(Message):
    """What this person may not do on a screen, by the action of the key, and why."""

    def __init__(self, refused: dict[str, str]) -> None:
        self.refused = refused
        super().__init__()


class Did(Message):
    """What a worker did is done; `then` takes its result."""

    def __init__(self, result: Any, then: Callable[[Any], object] | None) -> None:
        self.result, self.then = result, then
        super().__init__()


class BudgetsRead(Message):
    """What is left of each dataset's privacy budget, as lines."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        super().__init__()


class Read(Message):
    """Words to be shown, read by a worker."""

    def __init__(self, title: str, text: str) -> None:
        self.title, self.text = title, text
        super().__init__()
